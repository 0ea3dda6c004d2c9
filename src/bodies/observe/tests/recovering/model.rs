//! Against a model of an engine: whatever happens, what is believed is a run of one engine's messages,
//! and in the end the last of them.

use super::message;
use crate::observe::{Recovery, RecoveryConfig, Step};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Move {
    Publish { count: u8, dropped: bool },
    HearLive(u8),
    ServeReplay { hole: Option<u8> },
    HearReplay(u8),
    FailReplay,
    Connect,
    Disconnect,
    Restart,
    Probe,
    Scrape,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => (1u8..6, prop::bool::weighted(0.2))
            .prop_map(|(count, dropped)| Move::Publish { count, dropped }),
        6 => (1u8..8).prop_map(Move::HearLive),
        4 => prop::option::weighted(0.2, 0u8..6).prop_map(|hole| Move::ServeReplay { hole }),
        6 => (1u8..20).prop_map(Move::HearReplay),
        1 => Just(Move::FailReplay),
        3 => Just(Move::Connect),
        1 => Just(Move::Disconnect),
        1 => Just(Move::Restart),
        1 => Just(Move::Probe),
        1 => Just(Move::Scrape),
    ]
}

/// An engine, its two sockets, and what a sink would believe.
struct World {
    recovery: Recovery,
    has_replay: bool,
    buffer_steps: u64,
    incarnation: u32,
    published: u64,
    connected: bool,
    live: VecDeque<(u64, Bytes)>,
    asked: Option<u64>,
    answer: Option<VecDeque<(u64, Bytes)>>,
    /// Incarnation, first and last sequence of the run of messages that the sink goes by.
    believed: Option<(u32, u64, u64)>,
}

impl World {
    fn new(has_replay: bool, buffer_steps: u64) -> Self {
        let config =
            RecoveryConfig { has_replay, max_held_messages: 12, ..RecoveryConfig::default() };
        Self {
            recovery: Recovery::new(config),
            has_replay,
            buffer_steps,
            incarnation: 0,
            published: 0,
            connected: false,
            live: VecDeque::new(),
            asked: None,
            answer: None,
            believed: None,
        }
    }

    fn play(&mut self, step: &Move) {
        match *step {
            Move::Publish { count, dropped } => {
                for _ in 0..count {
                    if self.connected && !dropped {
                        let message = message(self.incarnation, self.published);
                        self.live.push_back((self.published, message));
                    }
                    self.published += 1;
                }
            }
            Move::HearLive(count) => {
                for (sequence, payload) in self.take_live(count) {
                    self.recovery.on_live(sequence, payload);
                }
            }
            Move::ServeReplay { hole } => {
                if let Some(from) = self.asked.take() {
                    let oldest = self.published.saturating_sub(self.buffer_steps);
                    let all = (from.max(oldest)..self.published)
                        .map(|sequence| (sequence, message(self.incarnation, sequence)));
                    let hole = hole.map(usize::from);
                    let kept = all.enumerate().filter(|(i, _)| Some(*i) != hole).map(|(_, m)| m);
                    self.answer = Some(kept.collect());
                }
            }
            Move::HearReplay(count) => {
                for _ in 0..count {
                    match self.answer.as_mut().map(VecDeque::pop_front) {
                        Some(Some((sequence, payload))) => {
                            self.recovery.on_replayed(sequence, payload);
                        }
                        Some(None) => {
                            self.answer = None;
                            self.recovery.on_replay_end();
                        }
                        None => {}
                    }
                    self.settle();
                }
            }
            Move::FailReplay => {
                if self.asked.take().is_some() || self.answer.take().is_some() {
                    self.recovery.on_replay_failed();
                }
            }
            Move::Connect if !self.connected => {
                self.connected = true;
                self.recovery.on_connected();
                if !self.has_replay {
                    // Else a restart that comes just as far as we are cannot be seen.
                    self.recovery.on_process_start(f64::from(self.incarnation) * 100.0);
                }
            }
            Move::Connect => {}
            Move::Disconnect => self.hang_up(),
            Move::Restart => {
                self.hang_up();
                self.incarnation += 1;
                self.published = 0;
            }
            Move::Probe => {
                self.recovery.probe();
            }
            Move::Scrape => self.recovery.on_process_start(f64::from(self.incarnation) * 100.0),
        }
        self.settle();
    }

    fn take_live(&mut self, count: u8) -> Vec<(u64, Bytes)> {
        let count = usize::from(count).min(self.live.len());
        self.live.drain(..count).collect()
    }

    fn hang_up(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.live.clear();
            self.asked = None;
            self.answer = None;
            self.recovery.on_disconnected();
        }
    }

    /// Carries the steps out. What is believed must stay a run of one incarnation's messages.
    fn settle(&mut self) {
        while let Some(step) = self.recovery.next_step() {
            match step {
                Step::Apply { payload, .. } => self.believe(&payload),
                Step::Lost(_) => self.believed = None,
                Step::Replay { from, .. } => {
                    self.asked = Some(from);
                    self.answer = None;
                }
            }
        }
    }

    fn believe(&mut self, payload: &[u8]) {
        let (incarnation, sequence) =
            std::str::from_utf8(payload).unwrap().split_once(':').unwrap();
        let (incarnation, sequence): (u32, u64) =
            (incarnation.parse().unwrap(), sequence.parse().unwrap());
        let (first, previous) = match self.believed {
            Some((same, first, last)) => {
                assert_eq!(same, incarnation, "two incarnations in one run");
                (first, last)
            }
            None => (sequence, sequence.wrapping_sub(1)),
        };
        assert_eq!(sequence, previous.wrapping_add(1), "not a run");
        self.believed = Some((incarnation, first, sequence));
    }

    /// Everything works from now on: the sink must come to believe the end of the stream.
    fn calm_down(&mut self) {
        self.play(&Move::Connect);
        for _ in 0..8 {
            self.play(&Move::HearLive(u8::MAX));
            self.play(&Move::ServeReplay { hole: None });
            self.play(&Move::HearReplay(u8::MAX));
        }
        self.play(&Move::Publish { count: 1, dropped: false });
        for _ in 0..8 {
            self.play(&Move::HearLive(u8::MAX));
            self.play(&Move::ServeReplay { hole: None });
            self.play(&Move::HearReplay(u8::MAX));
            self.play(&Move::Scrape);
        }
    }
}

proptest! {
    #[test]
    fn what_is_believed_is_always_a_run_of_one_engine_and_ends_where_it_ends(
        has_replay in prop::bool::weighted(0.8),
        buffer_steps in prop_oneof![Just(1u64), 1u64..20, Just(10_000)],
        moves in prop::collection::vec(any_move(), 0..120),
    ) {
        let mut world = World::new(has_replay, buffer_steps);
        for step in &moves {
            world.play(step);
        }
        world.calm_down();
        prop_assert!(world.recovery.is_settled());
        let (incarnation, _, last) = world.believed.unwrap();
        prop_assert_eq!((incarnation, last + 1), (world.incarnation, world.published));
    }
}
