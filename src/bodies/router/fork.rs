//! What `fork` does to routers.
//!
//! In the child no thread of the parent runs, and a lock that one of them held stays locked for
//! ever. So the child touches nothing of its parent's routers: before the fork the endpoints of
//! each are written down, and in the child the old routers are leaked and new ones made from that.
//!
//! The three functions are the hooks of Python's `os.register_at_fork`. A `fork` that Python does
//! not know of leaves its interpreter broken too.

use super::LiveRouter;
use super::config::RouterConfig;
use super::error::RouterError;
use super::observers::Observed;
use llmd_brain::fleet::EndpointSpec;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

static EPOCH: AtomicU64 = AtomicU64::new(0);
static ROUTERS: Mutex<Vec<Weak<LiveRouter>>> = Mutex::new(Vec::new());
/// Of this process, while it forks.
static WRITTEN_DOWN: Mutex<Vec<Will>> = Mutex::new(Vec::new());
/// Of the processes before this one.
static INHERITED: Mutex<Vec<Will>> = Mutex::new(Vec::new());

/// What a router leaves to its successor in the child.
struct Will {
    router: Arc<LiveRouter>,
    members: Vec<(EndpointSpec, Observed)>,
}

/// Number of forks between this process and the first.
#[must_use]
pub fn epoch() -> u64 {
    EPOCH.load(Relaxed)
}

/// From now on a fork knows of the router.
pub(super) fn register(router: &Arc<LiveRouter>) {
    let mut routers = ROUTERS.lock();
    routers.retain(|router| router.strong_count() > 0);
    routers.push(Arc::downgrade(router));
}

/// To be called before a fork.
pub fn before() {
    // Upgraded outside the lock: dropping the last reference closes a router.
    let routers = ROUTERS.lock().clone();
    let wills = routers
        .iter()
        .filter_map(Weak::upgrade)
        .map(|router| Will { members: router.members.descriptions(), router })
        .collect();
    *WRITTEN_DOWN.lock() = wills;
}

/// To be called after a fork, in the parent.
pub fn after_in_parent() {
    let wills = std::mem::take(&mut *WRITTEN_DOWN.lock());
    drop(wills);
}

/// To be called after a fork, in the child, before anything else.
pub fn after_in_child() {
    EPOCH.fetch_add(1, Relaxed);
    ROUTERS.lock().clear();
    let wills = std::mem::take(&mut *WRITTEN_DOWN.lock());
    for will in &wills {
        // Never dropped: that would wait for threads that are not here.
        std::mem::forget(Arc::clone(&will.router));
    }
    INHERITED.lock().extend(wills);
}

impl LiveRouter {
    /// In the child, the successor of a router of the parent: the same settings and endpoints,
    /// fresh subscriptions, nothing in flight. A decision log goes to a file of its own, whose
    /// name ends in the process id.
    ///
    /// # Errors
    /// As [`LiveRouter::new`] and [`LiveRouter::add_endpoint`]; [`RouterError::Closed`] for a
    /// router that was closed.
    pub fn successor(self: &Arc<Self>) -> Result<Arc<Self>, RouterError> {
        let members = {
            let wills = INHERITED.lock();
            let will = wills.iter().find(|will| Arc::ptr_eq(&will.router, self));
            will.map(|will| will.members.clone()).unwrap_or_default()
        };
        self.check_open()?;
        let successor = Self::new(own_record(self.config().clone()))?;
        for (spec, observed) in members {
            successor.add_endpoint(spec, observed)?;
        }
        Ok(successor)
    }
}

fn own_record(mut config: RouterConfig) -> RouterConfig {
    if let Some(record) = &mut config.record {
        record.as_mut_os_string().push(format!(".{}", std::process::id()));
    }
    config
}
