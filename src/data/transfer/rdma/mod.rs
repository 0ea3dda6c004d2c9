//! RDMA: cards that read and write the peer's memory themselves, by libibverbs.
//!
//! A TCP connection beside the queue pair carries what is not bytes of blocks: keys, grants, and the
//! question after a read whether the epochs still hold. A write is granted first, and its last
//! request carries an immediate, behind which the owner finds everything that was written; only then
//! does it let go of the blocks.
//!
//! This ran on soft-RoCE, the kernel's RDMA over Ethernet, in a virtual machine. It never ran on a
//! card: what cards do differently is not known here.

mod address;
mod chain;
mod completions;
mod device;
mod lane;
mod path;
mod queue_pair;
mod responder;
mod sys;

pub(super) use device::Device;
pub use path::RdmaPath;
pub(super) use responder::{Responder, remote_key};

/// What keeps this host from RDMA, if anything does.
pub fn absent() -> Option<String> {
    Device::open().err()
}
