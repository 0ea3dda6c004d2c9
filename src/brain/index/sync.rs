//! The primitives under the concurrent parts, by one name each, so that a model checker can stand
//! in for them (`--cfg shuttle`), or ones that tell a race detector what they order
//! (`--cfg helgrind`).

#[cfg(not(shuttle))]
pub(super) use std::sync::{Arc, atomic::Ordering};

#[cfg(not(any(shuttle, helgrind)))]
pub(super) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

#[cfg(helgrind)]
pub(super) use llmd_helgrind::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Published,
};

#[cfg(shuttle)]
pub(super) use shuttle::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(any(shuttle, helgrind)))]
pub(super) use parking_lot::{Mutex, MutexGuard};

/// What readers find without waiting: the newest version of something that is replaced whole.
#[cfg(not(any(shuttle, helgrind)))]
#[derive(Debug)]
pub(super) struct Published<T>(arc_swap::ArcSwap<T>);

#[cfg(not(any(shuttle, helgrind)))]
impl<T> Published<T> {
    pub(super) fn new(value: Arc<T>) -> Self {
        Self(arc_swap::ArcSwap::new(value))
    }

    pub(super) fn load(&self) -> impl std::ops::Deref<Target = Arc<T>> {
        self.0.load()
    }

    pub(super) fn store(&self, value: Arc<T>) {
        self.0.store(value);
    }
}

#[cfg(shuttle)]
pub(super) use model::{Mutex, MutexGuard, Published};

#[cfg(shuttle)]
mod model {
    use super::Arc;
    pub(in super::super) use shuttle::sync::MutexGuard;

    #[derive(Debug, Default)]
    pub(in super::super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }

        pub(in super::super) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }

    #[derive(Debug)]
    pub(in super::super) struct Published<T>(Mutex<Arc<T>>);

    impl<T> Published<T> {
        pub(in super::super) fn new(value: Arc<T>) -> Self {
            Self(Mutex::new(value))
        }

        pub(in super::super) fn load(&self) -> impl std::ops::Deref<Target = Arc<T>> {
            Box::new(Arc::clone(&self.0.lock()))
        }

        pub(in super::super) fn store(&self, value: Arc<T>) {
            *self.0.lock() = value;
        }
    }
}
