//! What has happened in a tier, counted by all its participants together.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the counters in shared memory, and their values at one time, from one list.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters that processes share.
        #[derive(Debug, Default)]
        #[repr(C)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// Values of [`Counters`] at one time.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// What they are now.
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Names and values.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Blocks asked for and served.
    hits,
    /// Blocks asked for and not there.
    misses,
    /// Blocks stored.
    stored,
    /// Blocks not stored because they were there, or on their way, already.
    present,
    /// Blocks not stored for lack of a slot that might go.
    refused,
    /// Blocks whose slot was given to another while they were read: misses.
    overtaken,
    /// Blocks whose bytes were not those of their checksum: misses, and forgotten.
    corrupt,
    /// Times that the mutex was not to be had: misses.
    busy,
    /// Reads and writes that the disk failed: misses.
    failed_io,
}

impl Counters {
    /// Adds to one.
    pub fn add(counter: &AtomicU64, more: usize) {
        if more > 0 {
            counter.fetch_add(more as u64, Ordering::Relaxed);
        }
    }
}
