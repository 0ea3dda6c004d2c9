//! Whether tenants or priorities contend: whether two were seen lately.

use super::TenantId;
use crate::Time;
use std::time::Duration;

/// The two classes (priority and tenant) that were seen last, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct Contention {
    latest: Option<((i32, TenantId), Time)>,
    before: Option<Time>,
}

impl Contention {
    /// A request of a class arrives.
    pub(super) fn saw(&mut self, now: Time, class: (i32, TenantId)) {
        if let Some((other, seen)) = self.latest
            && other != class
        {
            self.before = Some(seen);
        }
        self.latest = Some((class, now));
    }

    /// Whether two classes were seen within `window`.
    pub(super) fn is_there(&self, now: Time, window: Duration) -> bool {
        self.before.is_some_and(|seen| now.since(seen) <= window)
    }
}
