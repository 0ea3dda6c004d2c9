//! The primitives under the index's concurrent parts, for a run under valgrind's helgrind
//! (`make helgrind`).
//!
//! Helgrind knows pthreads' primitives alone. Rust's locks are built on futexes and its atomics are
//! plain instructions, so it would report each of them as a race, and whatever they protect as well.
//! These do the same and tell it what they order: which locks are held, and that what went before a
//! release happens before what follows the acquire that reads it. Relaxed operations order nothing.

mod atomic;
mod lock;
mod published;
mod request;

pub use atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
pub use lock::{Mutex, MutexGuard};
pub use published::Published;
