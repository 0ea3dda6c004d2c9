//! The regions of one agent.

use super::region::{Deregister, Registered};
use super::{Layout, Memory, Region, TransferError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Regions by number, and how many bytes they have.
pub(super) struct Registry {
    /// A number that no other agent has, nor this one after a restart.
    pub(super) incarnation: u64,
    next_id: AtomicU64,
    regions: Mutex<HashMap<u64, Weak<Registered>>>,
    registered_bytes: Arc<AtomicU64>,
}

impl Registry {
    pub(super) fn new() -> Result<Self, TransferError> {
        let incarnation = u64::from_le_bytes(super::wire::auth::random()?);
        let regions = Mutex::default();
        Ok(Self { incarnation, next_id: 1.into(), regions, registered_bytes: Arc::default() })
    }

    /// `on_drop` runs when the region's handle is dropped.
    pub(super) fn register(
        self: &Arc<Self>,
        memory: Box<dyn Memory>,
        layout: Layout,
        on_drop: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Region, TransferError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let bytes = self.registered_bytes.clone();
        let inner = Arc::new(Registered::new(self.incarnation, id, memory, layout, bytes)?);
        self.regions.lock().insert(id, Arc::downgrade(&inner));
        let registry = self.clone();
        let on_drop = Deregister(Box::new(move || {
            registry.regions.lock().remove(&id);
            on_drop(id);
        }));
        Ok(Region { inner, on_drop })
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Registered>> {
        self.regions.lock().get(&id).and_then(Weak::upgrade)
    }

    pub(super) fn registered_bytes(&self) -> u64 {
        self.registered_bytes.load(Ordering::Acquire)
    }
}
