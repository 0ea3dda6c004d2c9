//! Memory that processes share, and copies of it.

mod byte_lock;
pub mod copying;
mod robust_mutex;
mod segment;

pub use byte_lock::ByteLocks;
pub use robust_mutex::{Entry, RobustMutex};
pub use segment::{Segment, SegmentError};
