//! The primitives under the concurrent parts, by one name each, so that a model checker can stand
//! in for them (`--cfg shuttle`).

#[cfg(not(shuttle))]
pub(super) use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(shuttle)]
pub(super) use shuttle::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// A mutex whose lock cannot fail.
#[cfg(not(shuttle))]
pub(super) type Mutex<T> = parking_lot::Mutex<T>;

/// What readers find without waiting: the newest version of something that is replaced whole.
#[cfg(not(shuttle))]
#[derive(Debug)]
pub(super) struct Published<T>(arc_swap::ArcSwap<T>);

#[cfg(not(shuttle))]
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
pub(super) use model::{Mutex, Published};

#[cfg(shuttle)]
mod model {
    use super::Arc;

    #[derive(Debug)]
    pub(in super::super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        pub(in super::super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
