//! Sessions against an oracle that counts anew, and what becomes of those that may not wait.

use super::*;
use crate::Slot;
use proptest::prelude::*;
use std::collections::HashSet;

const BLOCK: u32 = 16;
/// Blocks that the KV of a home holds.
const CAPACITY_BLOCKS: u64 = 100;

fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn homes(count: u32) -> Vec<Home> {
    let id = |slot| EndpointId { slot: Slot(slot), generation: 0 };
    (0..count).map(|slot| (id(slot), (CAPACITY_BLOCKS * u64::from(BLOCK)) as f64)).collect()
}

fn keys(session: u64, blocks: u64) -> Vec<BlockKey> {
    (0..blocks).map(|at| BlockKey(session << 20 | at)).collect()
}

fn config() -> SessionConfig {
    SessionConfig {
        demand_window_s: 1.0,
        growth_tokens: 0,
        // Longer than the tests, but for the one about it.
        age_s: 40_000.0,
        patience_s: 50_000.0,
        ..SessionConfig::default()
    }
}

/// A router's sessions, asked as the brain asks.
struct Asked {
    sessions: Sessions,
    homes: Vec<Home>,
    now_ms: u64,
    tickets: u64,
}

impl Asked {
    /// Traffic that is known to be of sessions, all of which are over.
    fn new(count: u32, config: SessionConfig) -> Self {
        let mut it = Self {
            sessions: Sessions::new(config, BLOCK),
            homes: homes(count),
            now_ms: 0,
            tickets: 0,
        };
        for _ in 0..3 {
            for session in 1_000..1_030 {
                assert_eq!(it.turn(session, 2, false), Admission::Anywhere);
            }
            it.now_ms += 1_000;
        }
        it.now_ms += 700_000;
        it.sessions.forget_past(at_ms(it.now_ms));
        it.now_ms += 2_000;
        it.sessions.forget_past(at_ms(it.now_ms));
        it
    }

    fn waiter<'a>(&mut self, session: u64, keys: &'a [BlockKey], may_wait: bool) -> Waiter<'a> {
        self.tickets += 1;
        Waiter {
            ticket: Ticket(self.tickets),
            session: Some(SessionId(session)),
            keys,
            prompt_tokens: keys.len() as u32 * BLOCK,
            since: at_ms(self.now_ms),
            may_wait,
        }
    }

    /// A whole turn of a session, at the first endpoint that it may go to.
    fn turn(&mut self, session: u64, blocks: u64, may_wait: bool) -> Admission {
        let (now, keys) = (at_ms(self.now_ms), keys(session, blocks));
        let id = SessionId(session);
        self.sessions.arrived(now, id, &keys, may_wait);
        let waiter = self.waiter(session, &keys, may_wait);
        self.sessions.update(now, &self.homes, &[waiter]);
        let admission = self.sessions.admit(now, &waiter, &self.homes);
        let place = match &admission {
            Admission::Anywhere => Some(self.homes[session as usize % self.homes.len()].0),
            Admission::Among(some) => some.first().copied(),
            Admission::Wait => None,
        };
        match place {
            Some(place) => {
                self.sessions.placed(now, id, place, &keys);
                self.sessions.ended(now, id);
            }
            None => self.sessions.given_up(now, id),
        }
        admission
    }

    fn shared(&self) -> Vec<EndpointId> {
        self.homes.iter().map(|it| it.0).filter(|it| self.sessions.guests.are_at(*it)).collect()
    }

    /// What the footprints say, counted anew.
    fn check(&self) {
        let counted = |place: Place| {
            let of = self.sessions.known.values().filter(|it| it.place == place);
            let all: Vec<&Session> = of.collect();
            let distinct: HashSet<BlockKey> =
                all.iter().flat_map(|it| it.keys.iter().copied()).collect();
            (all.len(), distinct.len())
        };
        let said = |it: &Footprint| (it.residents().len(), it.blocks());
        assert_eq!(said(self.sessions.guests.footprint()), counted(Place::Guest));
        for (home, _) in &self.homes {
            let footprint = self.sessions.footprints.get(home.slot.index());
            let said = footprint.map_or((0, 0), said);
            assert_eq!(said, counted(Place::Home(*home)));
        }
        assert!(self.shared().len() < self.homes.len());
        for home in self.shared() {
            assert!(self.sessions.residents(home).is_empty(), "it is nobody's home");
        }
    }
}

#[test]
fn who_may_not_wait_shares_one_endpoint_and_leaves_the_homes_of_others_alone() {
    let mut asked = Asked::new(4, config());
    // Twelve of half a home each: six homes' worth for four.
    let mut last = Vec::new();
    for round in 0..20 {
        last.clear();
        for session in 0..12 {
            last.push(asked.turn(session, 50, false));
            asked.now_ms += 200;
            asked.check();
        }
        assert!(round < 5 || asked.sessions.is_tight());
    }
    let shared = asked.shared();
    assert_eq!(shared.len(), 1);
    let guests = last.iter().filter(|it| **it == Admission::Among(shared.clone())).count();
    assert_eq!(guests, 6, "two in each of three homes: {last:?}");
    for home in asked.homes.iter().map(|it| it.0).filter(|home| *home != shared[0]) {
        assert_eq!(last.iter().filter(|it| **it == Admission::Among(vec![home])).count(), 2);
    }
    // Who may wait does, and nobody is a guest who has a home again.
    assert_eq!(asked.turn(100, 50, true), Admission::Wait);
    asked.now_ms += 700_000;
    for session in 0..3 {
        asked.turn(session, 50, false);
        asked.check();
    }
    assert_eq!(asked.shared(), []);
}

#[test]
fn more_is_shared_where_guests_are_many_and_a_single_endpoint_never_is() {
    let play = |homes, sessions| {
        let mut asked = Asked::new(homes, config());
        for _ in 0..20 {
            for session in 0..sessions {
                assert_ne!(asked.turn(session, 50, false), Admission::Wait);
                asked.now_ms += 20;
            }
            asked.check();
        }
        assert!(asked.sessions.is_tight());
        asked.shared().len()
    };
    assert_eq!(play(4, 12), 1);
    // 30 homes' worth: one shared would have 27, two 26, ..., all but one.
    assert_eq!(play(4, 60), 3);
    assert_eq!(play(10, 60), 7, "30 for 10: 7 have 27 at up to 4 each");
    assert_eq!(play(1, 12), 0);
}

#[test]
fn a_guest_takes_the_place_of_who_was_served_for_a_quantum() {
    let config = SessionConfig { age_s: 5.0, patience_s: 10.0, quantum_s: 30.0, ..config() };
    let mut asked = Asked::new(2, config);
    let mut at_home = HashSet::new();
    for round in 0..100 {
        for session in 0..6 {
            let admission = asked.turn(session, 50, false);
            asked.now_ms += 200;
            asked.check();
            if round > 10 && admission != Admission::Among(asked.shared()) {
                assert_ne!(admission, Admission::Anywhere);
                at_home.insert(session);
            }
        }
    }
    assert_eq!(at_home.len(), 6, "everybody has had a home: {at_home:?}");
}

proptest! {
    #[test]
    fn footprints_are_what_is_counted_anew_and_who_may_not_wait_never_does(
        turns in prop::collection::vec((0_u64..24, 1_u64..120, any::<bool>(), 0_u64..3_000), 1..200),
        count in 1_u32..5,
        gone in prop::option::of(0_usize..200),
    ) {
        let config = SessionConfig { age_s: 5.0, patience_s: 10.0, quantum_s: 20.0, ..config() };
        let mut asked = Asked::new(count, config);
        for (at, (session, blocks, may_wait, pause_ms)) in turns.into_iter().enumerate() {
            asked.now_ms += pause_ms;
            if Some(at) == gone && asked.homes.len() > 1 {
                let (home, _) = asked.homes.remove(0);
                asked.sessions.left(home);
            }
            match asked.turn(session, blocks, may_wait) {
                Admission::Wait => prop_assert!(may_wait),
                Admission::Among(some) => {
                    prop_assert!(!some.is_empty());
                    let is_home = |it: &EndpointId| asked.homes.iter().any(|home| home.0 == *it);
                    prop_assert!(some.iter().all(is_home));
                }
                Admission::Anywhere => {}
            }
            asked.check();
        }
    }
}
