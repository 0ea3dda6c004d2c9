//! CUDA IPC on the fake driver of `tests/fakes/fake_cuda`: the suite of all paths within a process,
//! and what two processes do. Nothing here has run on a device.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absent;
mod backing;
#[path = "../transfer/basics.rs"]
mod basics;
#[path = "../../fakes/built.rs"]
mod built;
mod child;
#[path = "../transfer/complaints.rs"]
mod complaints;
mod fake;
mod memory;
#[path = "../transfer/pair.rs"]
mod pair;
mod peers;
#[path = "../transfer/processes.rs"]
mod processes;
#[path = "../transfer/proxy.rs"]
mod proxy;
#[path = "../transfer/random.rs"]
mod random;
