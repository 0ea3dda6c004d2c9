//! A mutex that is told as a lock, so that the order in which locks are taken is checked too.

use crate::request::{Request, tell};
use std::ops::{Deref, DerefMut};

/// As `parking_lot`'s. In a box, because helgrind knows a lock by its place.
#[derive(Debug)]
pub struct Mutex<T>(Box<parking_lot::Mutex<T>>);

impl<T> Mutex<T> {
    /// Protects `value`.
    pub fn new(value: T) -> Self {
        let lock = Box::new(parking_lot::Mutex::new(value));
        tell(Request::LockMade, place(&lock), 0);
        tell(Request::Untracked, place(&lock), size_of::<parking_lot::RawMutex>());
        Self(lock)
    }

    /// As `parking_lot`'s.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard::taken(self.0.lock(), place(&self.0))
    }

    /// As `parking_lot`'s.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard::taken(self.0.try_lock()?, place(&self.0)))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        tell(Request::LockGoes, place(&self.0), 0);
    }
}

fn place<T>(lock: &parking_lot::Mutex<T>) -> usize {
    // SAFETY: the raw lock is only looked for.
    unsafe { std::ptr::from_ref(lock.raw()).addr() }
}

/// As `parking_lot`'s.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    guard: parking_lot::MutexGuard<'a, T>,
    place: usize,
}

impl<'a, T> MutexGuard<'a, T> {
    fn taken(guard: parking_lot::MutexGuard<'a, T>, place: usize) -> Self {
        tell(Request::LockTaken, place, 1);
        Self { guard, place }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        tell(Request::LockReleased, self.place, 1);
    }
}
