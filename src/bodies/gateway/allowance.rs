//! How many tokens a key may have a minute: the generic cell rate algorithm (ITU-T I.371), which
//! needs one number for all that went before.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A rate, with a minute's worth at once.
#[derive(Debug)]
pub(super) struct Allowance {
    per_minute: u64,
    /// When everything that was taken is paid for, in nanoseconds.
    paid_at: AtomicU64,
}

const MINUTE_NS: u64 = 60_000_000_000;

impl Allowance {
    pub(super) fn new(per_minute: u64) -> Self {
        Self { per_minute: per_minute.max(1), paid_at: AtomicU64::new(0) }
    }

    pub(super) fn per_minute(&self) -> u64 {
        self.per_minute
    }

    fn price_ns(&self, amount: u64) -> u64 {
        let price = u128::from(amount) * u128::from(MINUTE_NS) / u128::from(self.per_minute);
        u64::try_from(price).unwrap_or(u64::MAX)
    }

    /// Takes `amount` at `now_ns` where so much is there; more than a minute's worth where nothing is
    /// owed, or it could never be had. Otherwise says after how many milliseconds it may be.
    pub(super) fn take(&self, now_ns: u64, amount: u64) -> Result<(), u64> {
        let price = self.price_ns(amount);
        let owed =
            |paid_at: u64| (paid_at.max(now_ns) - now_ns).saturating_add(price.min(MINUTE_NS));
        let taken = self.paid_at.fetch_update(Relaxed, Relaxed, |paid_at| {
            (owed(paid_at) <= MINUTE_NS).then(|| paid_at.max(now_ns).saturating_add(price))
        });
        match taken {
            Ok(_) => Ok(()),
            Err(paid_at) => Err((owed(paid_at) - MINUTE_NS).div_ceil(1_000_000).max(1)),
        }
    }

    /// Takes what turned out to be needed besides.
    pub(super) fn charge(&self, now_ns: u64, amount: u64) {
        let price = self.price_ns(amount);
        let more = |paid_at: u64| Some(paid_at.max(now_ns).saturating_add(price));
        let _ = self.paid_at.fetch_update(Relaxed, Relaxed, more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn a_minutes_worth_is_there_at_once_and_then_comes_back_at_the_rate() {
        let allowance = Allowance::new(600);
        for _ in 0..60 {
            allowance.take(0, 10).unwrap();
        }
        // Ten tokens a second.
        let wait_ms = allowance.take(0, 10).unwrap_err();
        assert_eq!(wait_ms, 1_000);
        allowance.take(SECOND_NS, 10).unwrap();
        assert!(allowance.take(SECOND_NS, 10).is_err());
    }

    #[test]
    fn a_large_request_is_let_through_and_paid_for_afterwards() {
        let allowance = Allowance::new(600);
        allowance.take(0, 6_000).unwrap();
        let wait_ms = allowance.take(0, 1).unwrap_err();
        assert_eq!(wait_ms, 9 * 60_000 + 100);
        allowance.take(wait_ms * 1_000_000, 1).unwrap();
    }

    proptest! {
        /// Over any stretch no more is had than a minute's worth, the rate, and one request.
        #[test]
        fn the_rate_holds(
            per_minute in 1..100_000_u64,
            asked in proptest::collection::vec((0..5_000_000_000_u64, 1..1_000_u64, 0..1_000_u64), 1..200),
        ) {
            let allowance = Allowance::new(per_minute);
            let (mut now, mut had, mut largest) = (0, 0_u64, 0);
            for (pause, amount, more) in asked {
                now += pause;
                if allowance.take(now, amount).is_ok() {
                    allowance.charge(now, more);
                    had += amount + more;
                    largest = largest.max(amount + more);
                }
                let rate = u128::from(now) * u128::from(per_minute) / u128::from(MINUTE_NS);
                prop_assert!(u128::from(had) <= rate + u128::from(per_minute + largest) + 1);
            }
        }
    }
}
