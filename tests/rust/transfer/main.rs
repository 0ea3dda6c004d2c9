//! One suite that every path must pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backing;
mod basics;
mod complaints;
mod fuzz;
mod pair;
mod processes;
mod proxy;
mod random;
mod rdma;
