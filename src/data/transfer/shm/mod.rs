//! Shared memory: processes of one host map each other's segments, and copy.
//!
//! The owner hands its segment over a Unix socket when a transfer first names the region. A read
//! then needs nobody else: epochs, bytes, epochs again, all in mapped memory. A write first asks the
//! owner to hold the blocks, which costs a message each way and part.

pub mod copiers;
pub(in crate::transfer) mod link;
pub mod path;
pub mod segment;

pub use segment::Segment;
