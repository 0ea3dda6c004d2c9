//! A proxy before the routers that lets in so many sessions at a time.
//!
//! What a cap on sessions does without any router: who is let in stays until its session ends, and the
//! first requests of the others wait, first come first served.

use crate::sim::Arrivals;
use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Proxy {
    /// Sessions that may still be let in.
    free: u32,
    /// Rows of the first requests of those that wait.
    waiting: VecDeque<u32>,
}

impl Proxy {
    pub(super) fn of(arrivals: &Arrivals) -> Self {
        let cap = match arrivals {
            Arrivals::Closed { session_cap, .. } => *session_cap,
            Arrivals::Open { .. } => None,
        };
        Self { free: cap.unwrap_or(u32::MAX), waiting: VecDeque::new() }
    }

    /// Whether a session that begins with this row is let in now; it waits where it is not.
    pub(super) fn lets_in(&mut self, row: u32) -> bool {
        let is_let_in = self.free > 0;
        match is_let_in {
            true => self.free -= 1,
            false => self.waiting.push_back(row),
        }
        is_let_in
    }

    /// A session that was let in has ended: the first request of the one that takes its place.
    pub(super) fn session_ended(&mut self) -> Option<u32> {
        let next = self.waiting.pop_front();
        self.free = self.free.saturating_add(u32::from(next.is_none()));
        next
    }
}
