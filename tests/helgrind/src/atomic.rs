//! Atomics whose releases and acquires are told.

use crate::request::{Request, tell};
use std::sync::atomic::{self, Ordering};

fn is_release(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}

fn is_acquire(order: Ordering) -> bool {
    matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst)
}

/// An operation on the atomic at `address`. Its own bytes are no race, however they are used.
fn ordered<T>(address: usize, bytes: usize, order: Ordering, operation: impl FnOnce() -> T) -> T {
    tell(Request::Untracked, address, bytes);
    if is_release(order) {
        tell(Request::HappensBefore, address, 0);
    }
    let value = operation();
    if is_acquire(order) {
        tell(Request::HappensAfter, address, 0);
    }
    value
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[doc = concat!("As [`std::sync::atomic::", stringify!($name), "`].")]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(atomic::$name);

        impl $name {
            /// Holds `value`.
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            fn ordered<T>(&self, order: Ordering, operation: impl FnOnce() -> T) -> T {
                ordered(std::ptr::from_ref(self).addr(), size_of::<$value>(), order, operation)
            }

            /// As the standard library's.
            pub fn load(&self, order: Ordering) -> $value {
                self.ordered(order, || self.0.load(order))
            }

            /// As the standard library's.
            pub fn store(&self, value: $value, order: Ordering) {
                self.ordered(order, || self.0.store(value, order));
            }

            /// As the standard library's.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.ordered(order, || self.0.swap(value, order))
            }

            /// As the standard library's.
            pub fn into_inner(self) -> $value {
                self.0.into_inner()
            }
        }
    };
}

macro_rules! number {
    ($name:ident, $value:ty) => {
        atomic!($name, $value);

        impl $name {
            /// As the standard library's.
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.ordered(order, || self.0.fetch_add(value, order))
            }

            /// As the standard library's.
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.ordered(order, || self.0.fetch_sub(value, order))
            }

            /// As the standard library's.
            pub fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                self.ordered(order, || self.0.fetch_min(value, order))
            }

            /// As the standard library's.
            pub fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                self.ordered(order, || self.0.fetch_max(value, order))
            }
        }
    };
}

atomic!(AtomicBool, bool);
number!(AtomicU32, u32);
number!(AtomicU64, u64);
number!(AtomicUsize, usize);
