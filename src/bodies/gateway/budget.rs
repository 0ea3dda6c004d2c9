//! How many second tries there may be: a share of the requests, so that a fleet which fails is not
//! asked twice as much as one that does not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Second tries left, in hundredths.
#[derive(Debug)]
pub(super) struct Budget {
    hundredths: AtomicU64,
    per_request: u64,
    most: u64,
}

impl Budget {
    pub(super) fn new(percent: u32, burst: u32) -> Self {
        let most = u64::from(burst) * 100;
        Self { hundredths: AtomicU64::new(most), per_request: u64::from(percent), most }
    }

    /// A request came.
    pub(super) fn earn(&self) {
        // Full is the usual state: a read that others share.
        if self.hundredths.load(Relaxed) < self.most {
            let more = |left: u64| Some((left + self.per_request).min(self.most));
            let _ = self.hundredths.fetch_update(Relaxed, Relaxed, more);
        }
    }

    /// Whether there may be one more second try.
    pub(super) fn spend(&self) -> bool {
        self.hundredths.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(100)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_after_the_burst() {
        let budget = Budget::new(20, 3);
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 3);
        for _ in 0..10 {
            budget.earn();
        }
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 2);
        for _ in 0..1_000 {
            budget.earn();
        }
        assert_eq!((0..10).filter(|_| budget.spend()).count(), 3);
    }
}
