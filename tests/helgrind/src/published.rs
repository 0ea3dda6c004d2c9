//! What is replaced whole, behind a lock here: `arc-swap` is not what is checked.

use crate::Mutex;
use std::ops::Deref;
use std::sync::Arc;

/// As the index's `Published`.
#[derive(Debug)]
pub struct Published<T>(Mutex<Arc<T>>);

impl<T> Published<T> {
    /// Publishes `value`.
    pub fn new(value: Arc<T>) -> Self {
        Self(Mutex::new(value))
    }

    /// The newest.
    pub fn load(&self) -> impl Deref<Target = Arc<T>> {
        Box::new(Arc::clone(&self.0.lock()))
    }

    /// Replaces it.
    pub fn store(&self, value: Arc<T>) {
        *self.0.lock() = value;
    }
}
