//! When a wish becomes an order: the two windows of Kubernetes' horizontal autoscaler.

use crate::Time;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
struct Wish {
    at: Time,
    /// Replicas that are needed now.
    least: u32,
    /// Replicas below which the fleet should not be made smaller.
    keep: u32,
}

/// What was wished over the last while.
#[derive(Debug, Clone, Default)]
pub(super) struct Stabiliser {
    wishes: VecDeque<Wish>,
    since: Option<Time>,
}

impl Stabiliser {
    /// A look wishes for at least `least` replicas, and would not go below `keep`, at least as many. The
    /// order, given that `target` are wanted so far: more once every look over `up` wished for more,
    /// fewer once none over `down` would have kept as many.
    pub(super) fn order(
        &mut self,
        now: Time,
        (least, keep): (u32, u32),
        target: u32,
        (up, down): (Duration, Duration),
    ) -> u32 {
        let since = *self.since.get_or_insert(now);
        self.wishes.push_back(Wish { at: now, least, keep });
        let kept_from = now.before(up.max(down));
        while self.wishes.front().is_some_and(|it| it.at < kept_from) {
            self.wishes.pop_front();
        }
        let over = |span: Duration| {
            let from = now.before(span);
            (since <= from).then(|| self.wishes.iter().filter(move |it| it.at >= from))
        };
        let least = over(up).and_then(|wishes| wishes.map(|it| it.least).min());
        let keep = over(down).and_then(|wishes| wishes.map(|it| it.keep).max());
        match (least, keep) {
            (Some(least), _) if least > target => least,
            (_, Some(keep)) if keep < target => keep,
            _ => target,
        }
    }

    /// Nothing is known for a while: what was wished before says nothing.
    pub(super) fn forget(&mut self) {
        self.wishes.clear();
        self.since = None;
    }
}
