//! What happens when: events in order of time, of equal times in the order in which they were made.
//!
//! An open loop knows all of its arrivals beforehand. They are sorted once and read off; the heap has
//! only what the run itself brings up, which is a few events an engine: with thousands of arrivals in
//! it too, every step of an engine would be sifted past them.

use crate::Time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// When, and as which that was made.
type Turn = (Time, u64);

/// Events to come.
#[derive(Debug)]
pub(super) struct Agenda<E> {
    made: u64,
    /// The last is the next.
    planned: Vec<(Turn, E)>,
    others: BinaryHeap<Entry<E>>,
}

/// The greatest is the next.
#[derive(Debug)]
struct Entry<E> {
    turn: Turn,
    event: E,
}

impl<E> Agenda<E> {
    pub(super) fn new() -> Self {
        Self { made: 0, planned: Vec::new(), others: BinaryHeap::new() }
    }

    /// An event, later than or at the time of the one that was taken last.
    pub(super) fn add(&mut self, at: Time, event: E) {
        self.made += 1;
        self.others.push(Entry { turn: (at, self.made), event });
    }

    /// Many, in any order of time. Returns how many.
    pub(super) fn plan(&mut self, events: impl IntoIterator<Item = (Time, E)>) -> usize {
        let before = self.planned.len();
        self.planned.extend(events.into_iter().map(|(at, event)| {
            self.made += 1;
            ((at, self.made), event)
        }));
        self.planned.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        self.planned.len() - before
    }

    /// Takes the next.
    pub(super) fn next(&mut self) -> Option<(Time, E)> {
        let planned_first = match (self.planned.last(), self.others.peek()) {
            (Some((planned, _)), Some(other)) => *planned < other.turn,
            (planned, _) => planned.is_some(),
        };
        if planned_first {
            return self.planned.pop().map(|((at, _), event)| (at, event));
        }
        self.others.pop().map(|Entry { turn: (at, _), event }| (at, event))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.turn.cmp(&self.turn)
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.turn == other.turn
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn events_come_by_time_and_then_as_they_were_made() {
        let (mut agenda, mut rng) = (Agenda::new(), Rng::new(7));
        let mut made: Vec<(Time, u64)> = vec![];
        let mut make = |rng: &mut Rng, from: u64| {
            let at = Time::from_nanos(from + rng.below(20));
            made.push((at, made.len() as u64));
            (at, made.len() as u64 - 1)
        };
        for _ in 0..50 {
            let (at, event) = make(&mut rng, 0);
            agenda.add(at, event);
        }
        let planned: Vec<_> = (0..200).map(|_| make(&mut rng, 0)).collect();
        assert_eq!(agenda.plan(planned), 200);
        let mut taken = vec![];
        while let Some((at, event)) = agenda.next() {
            taken.push((at, event));
            if taken.len() % 3 == 0 && taken.len() < 300 {
                let (at, event) = make(&mut rng, at.as_nanos());
                agenda.add(at, event);
            }
        }
        made.sort_unstable();
        assert_eq!(taken, made);
    }
}
