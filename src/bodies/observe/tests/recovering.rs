use crate::observe::{
    Digest, EventCursor, LostReason, Recovery, RecoveryConfig, RestartSign, Step, Verdict,
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::VecDeque;

/// What the engine's `incarnation` sends as number `sequence`.
fn message(incarnation: u32, sequence: u64) -> Bytes {
    format!("{incarnation}:{sequence}").into()
}

fn with_replay() -> Recovery {
    Recovery::new(RecoveryConfig::default())
}

fn without_replay() -> Recovery {
    Recovery::new(RecoveryConfig { has_replay: false, ..RecoveryConfig::default() })
}

/// All steps, one word each: `3` applies, `<3` replays from 3, `!` and a name is a loss.
fn steps(recovery: &mut Recovery) -> String {
    let mut words = Vec::new();
    while let Some(step) = recovery.next_step() {
        words.push(match step {
            Step::Apply { sequence, .. } => sequence.to_string(),
            Step::Replay { from, .. } => format!("<{from}"),
            Step::Lost(LostReason::Restart { sign: RestartSign::Sequence(_) }) => "!seq".into(),
            Step::Lost(LostReason::Restart { sign: RestartSign::ProcessStartTime }) => {
                "!start".into()
            }
            Step::Lost(LostReason::Restart { sign: RestartSign::ReplayDisagrees }) => {
                "!replay".into()
            }
            Step::Lost(LostReason::NoReplay { expected, got }) => format!("!none{expected}-{got}"),
            Step::Lost(LostReason::TooOld { expected, oldest }) => {
                format!("!old{expected}-{oldest}")
            }
            Step::Lost(LostReason::Unfilled { expected, oldest, .. }) => {
                format!("!unfilled{expected}-{oldest}")
            }
            Step::Lost(LostReason::Unverifiable { .. }) => "!unverifiable".into(),
            Step::Lost(other) => panic!("{other}"),
        });
    }
    words.join(" ")
}

fn live(recovery: &mut Recovery, incarnation: u32, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        recovery.on_live(sequence, message(incarnation, sequence));
    }
}

fn replayed(recovery: &mut Recovery, incarnation: u32, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        recovery.on_replayed(sequence, message(incarnation, sequence));
    }
    recovery.on_replay_end();
}

/// Connected to incarnation 0, with 0 to 9 applied.
fn following() -> Recovery {
    let mut recovery = with_replay();
    recovery.on_connected();
    replayed(&mut recovery, 0, 0..10);
    assert_eq!(steps(&mut recovery), "<0 0 1 2 3 4 5 6 7 8 9");
    recovery
}

#[test]
fn a_bookmark_is_gone_on_from_while_the_engine_is_the_same() {
    let bookmark = following().bookmark();
    let mut recovery = with_replay();
    recovery.resume(bookmark);
    assert_eq!((recovery.position(), recovery.bookmark()), (Some(9), bookmark));
    recovery.on_connected();
    live(&mut recovery, 0, [12]);
    assert_eq!(steps(&mut recovery), "<9");
    replayed(&mut recovery, 0, 9..13);
    assert_eq!(steps(&mut recovery), "10 11 12");

    // In the midst of following, too.
    recovery.resume(bookmark);
    assert_eq!(steps(&mut recovery), "<9");
    replayed(&mut recovery, 0, 9..14);
    assert_eq!(steps(&mut recovery), "10 11 12 13");
    assert!(recovery.is_settled());
}

#[test]
fn a_bookmark_in_another_engine_is_void() {
    let bookmark = following().bookmark();
    let resumed = || {
        let mut recovery = with_replay();
        recovery.resume(bookmark);
        recovery.on_connected();
        assert_eq!(steps(&mut recovery), "<9");
        recovery
    };
    let mut longer = resumed();
    longer.on_replayed(9, message(1, 9));
    assert_eq!(steps(&mut longer), "!replay <0");
    let mut shorter = resumed();
    replayed(&mut shorter, 1, []);
    assert_eq!(steps(&mut shorter), "!replay <0");
    let mut forgetful = resumed();
    replayed(&mut forgetful, 0, 11..13);
    assert_eq!(steps(&mut forgetful), "!old10-11 11 12");
}

#[test]
fn a_late_subscriber_learns_what_came_before() {
    let mut recovery = with_replay();
    recovery.on_connected();
    live(&mut recovery, 0, [3, 4]);
    assert_eq!(steps(&mut recovery), "<0");
    assert!(!recovery.is_settled());

    replayed(&mut recovery, 0, 0..4);

    assert_eq!(steps(&mut recovery), "0 1 2 3 4");
    assert!(recovery.is_settled());
    assert_eq!(recovery.counts().lost, 0);
}

#[test]
fn an_engine_that_has_published_nothing_is_followed_from_its_first_message() {
    let mut recovery = with_replay();
    recovery.on_connected();
    replayed(&mut recovery, 0, []);
    live(&mut recovery, 0, 0..3);
    assert_eq!(steps(&mut recovery), "<0 0 1 2");
    assert_eq!(recovery.position(), Some(2));
}

#[test]
fn a_first_replay_that_begins_late_is_no_loss() {
    let mut recovery = with_replay();
    recovery.on_connected();
    replayed(&mut recovery, 0, 100..103);
    assert_eq!(steps(&mut recovery), "<0 100 101 102");
    assert_eq!((recovery.counts().lost, recovery.counts().truncated_histories), (0, 1));
}

#[test]
fn a_gap_is_filled_by_replay() {
    let mut recovery = following();
    live(&mut recovery, 0, [10, 13, 14]);
    assert_eq!(steps(&mut recovery), "10 <10");
    replayed(&mut recovery, 0, 10..14);
    assert_eq!(steps(&mut recovery), "11 12 13 14");
    assert_eq!((recovery.counts().gaps, recovery.counts().lost), (1, 0));
}

#[test]
fn what_comes_by_both_ways_is_applied_once() {
    let mut recovery = following();
    assert!(recovery.probe());
    live(&mut recovery, 0, [10]);
    recovery.on_replayed(9, message(0, 9));
    recovery.on_replayed(10, message(0, 10));
    recovery.on_replayed(11, message(0, 11));
    live(&mut recovery, 0, [11, 12]);
    recovery.on_replay_end();
    assert_eq!(steps(&mut recovery), "<9 10 11 12");
    assert_eq!((recovery.counts().duplicates, recovery.counts().restarts), (2, 0));
}

#[test]
fn a_probe_finds_what_was_missed_at_the_end() {
    let mut recovery = following();
    recovery.probe();
    replayed(&mut recovery, 0, 9..12);
    assert_eq!(steps(&mut recovery), "<9 10 11");
}

#[test]
fn a_gap_that_has_left_the_buffer_is_a_loss() {
    let mut recovery = following();
    live(&mut recovery, 0, [30]);
    replayed(&mut recovery, 0, 27..31);
    assert_eq!(steps(&mut recovery), "<9 !old10-27 27 28 29 30");
    assert!(recovery.is_settled());
}

#[test]
fn a_buffer_that_rolled_during_a_probe_is_no_loss_when_the_rest_comes_live() {
    let mut recovery = following();
    recovery.probe();
    replayed(&mut recovery, 0, 12..14);
    live(&mut recovery, 0, 10..14);
    assert_eq!(steps(&mut recovery), "<9 <9 10 11 12 13");
    assert_eq!(recovery.counts().lost, 0);
}

#[test]
fn holes_in_a_replay_are_asked_for_again() {
    let mut recovery = following();
    live(&mut recovery, 0, [15]);
    replayed(&mut recovery, 0, [9, 10, 11, 14, 15]);
    assert_eq!(steps(&mut recovery), "<9 10 11 <11");
    replayed(&mut recovery, 0, [11, 12, 13, 14, 15]);
    assert_eq!(steps(&mut recovery), "12 13 14 15");
}

#[test]
fn a_gap_that_replays_do_not_fill_is_given_up_after_three() {
    let mut recovery = following();
    live(&mut recovery, 0, [12]);
    for _ in 0..3 {
        replayed(&mut recovery, 0, [9, 12]);
    }
    assert_eq!(steps(&mut recovery), "<9 <9 <9 !unfilled10-12 12");
    assert!(recovery.is_settled());
}

#[test]
fn failing_replays_are_given_up_after_three() {
    let mut recovery = following();
    live(&mut recovery, 0, [12]);
    for _ in 0..3 {
        recovery.on_replay_failed();
    }
    live(&mut recovery, 0, [13]);
    assert_eq!(steps(&mut recovery), "<9 <9 <9 !unfilled10-12 12 13");
}

#[test]
fn a_replay_socket_that_never_answers_at_the_start_is_no_loss() {
    let mut recovery = with_replay();
    recovery.on_connected();
    live(&mut recovery, 0, [7]);
    for _ in 0..3 {
        recovery.on_replay_failed();
    }
    assert_eq!(steps(&mut recovery), "<0 <0 <0 7");
}

#[test]
fn a_reconnection_to_the_same_engine_goes_on() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    live(&mut recovery, 0, [12]);
    assert_eq!(steps(&mut recovery), "<9");
    replayed(&mut recovery, 0, 9..13);
    assert_eq!(steps(&mut recovery), "10 11 12");
    assert_eq!(recovery.counts().lost, 0);
}

#[test]
fn a_reconnection_whose_replay_disagrees_is_a_restart() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    live(&mut recovery, 1, [12]);
    recovery.on_replayed(9, message(1, 9));
    assert_eq!(steps(&mut recovery), "<9 !replay <0");
    replayed(&mut recovery, 1, 0..13);
    assert_eq!(steps(&mut recovery), "0 1 2 3 4 5 6 7 8 9 10 11 12");
    assert_eq!(recovery.counts().restarts, 1);
}

#[test]
fn a_reconnection_whose_replay_is_empty_is_a_restart() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    replayed(&mut recovery, 1, []);
    replayed(&mut recovery, 1, 0..2);
    assert_eq!(steps(&mut recovery), "<9 !replay <0 0 1");
}

#[test]
fn nothing_of_a_new_connection_is_applied_before_it_is_verified() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    // The restarted engine happens to have come just as far.
    live(&mut recovery, 1, [10]);
    assert_eq!(steps(&mut recovery), "<9");
    recovery.on_replayed(9, message(1, 9));
    assert_eq!(steps(&mut recovery), "!replay <0");
}

#[test]
fn a_reconnection_beyond_the_buffer_is_a_loss() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    replayed(&mut recovery, 0, 20..22);
    assert_eq!(steps(&mut recovery), "<9 !old10-20 20 21");
}

#[test]
fn a_reconnection_that_cannot_be_verified_is_a_loss() {
    let mut recovery = following();
    recovery.on_disconnected();
    recovery.on_connected();
    live(&mut recovery, 0, [10]);
    for _ in 0..3 {
        recovery.on_replay_failed();
    }
    assert_eq!(steps(&mut recovery), "<9 <9 <9 !unverifiable 10");
}

#[test]
fn a_sequence_that_comes_again_with_another_content_is_a_restart() {
    let mut recovery = following();
    live(&mut recovery, 1, [0, 1]);
    assert_eq!(steps(&mut recovery), "!seq <0 0 1");
    replayed(&mut recovery, 1, 0..3);
    assert_eq!(steps(&mut recovery), "2");
}

#[test]
fn a_sequence_too_old_to_remember_is_settled_by_replay() {
    let mut recovery = with_replay();
    recovery.on_connected();
    replayed(&mut recovery, 0, 0..2_000);
    steps(&mut recovery);
    live(&mut recovery, 0, [0, 1, 2]);
    assert_eq!(steps(&mut recovery), "<1999", "asked once, not for each");
    replayed(&mut recovery, 0, [1_999]);
    assert!(recovery.is_settled());

    live(&mut recovery, 1, [0]);
    replayed(&mut recovery, 1, []);
    replayed(&mut recovery, 1, [0]);
    assert_eq!(steps(&mut recovery), "<1999 !replay <0 0");
}

#[test]
fn a_changed_process_start_time_is_checked_by_replay() {
    let mut recovery = following();
    recovery.on_process_start(100.0);
    recovery.on_process_start(100.0);
    assert_eq!(steps(&mut recovery), "");
    recovery.on_process_start(200.0);
    replayed(&mut recovery, 1, []);
    assert_eq!(steps(&mut recovery), "<9 !replay <0");
}

#[test]
fn a_changed_process_start_time_of_a_restart_already_found_is_no_other() {
    let mut recovery = without_replay();
    recovery.on_connected();
    recovery.on_process_start(100.0);
    live(&mut recovery, 0, 0..3);
    recovery.on_disconnected();
    recovery.on_connected();
    live(&mut recovery, 1, 0..2);
    recovery.on_process_start(200.0);
    live(&mut recovery, 1, [2]);
    assert_eq!(steps(&mut recovery), "0 1 2 !seq 0 1 2");
    recovery.on_process_start(300.0);
    assert_eq!(steps(&mut recovery), "!start");
}

#[test]
fn without_replay_a_gap_is_a_loss_and_the_stream_goes_on() {
    let mut recovery = without_replay();
    recovery.on_connected();
    live(&mut recovery, 0, [5, 6, 9, 10]);
    assert_eq!(steps(&mut recovery), "5 6 !none7-9 9 10");
}

#[test]
fn two_engines_that_publish_as_one_do_not_make_a_storm() {
    let mut recovery = following();
    let mut waits = Vec::new();
    for round in 1..6 {
        live(&mut recovery, round, [0]);
        replayed(&mut recovery, round, [0]);
        while let Some(step) = recovery.next_step() {
            if let Step::Replay { fruitless, .. } = step {
                waits.push(fruitless);
            }
        }
    }
    assert_eq!(waits, [0, 1, 2, 3, 4]);
}

#[test]
fn messages_held_back_are_bounded_and_come_again() {
    let config = RecoveryConfig { max_held_messages: 2, ..RecoveryConfig::default() };
    let mut recovery = Recovery::new(config);
    recovery.on_connected();
    live(&mut recovery, 0, 5..10);
    replayed(&mut recovery, 0, 0..6);
    assert_eq!(steps(&mut recovery), "<0 0 1 2 3 4 5 6");
    assert_eq!(recovery.counts().overflowed, 3);
    live(&mut recovery, 0, [10]);
    replayed(&mut recovery, 0, 6..11);
    assert_eq!(steps(&mut recovery), "<6 7 8 9 10");

    let config = RecoveryConfig { max_held_bytes: 7, ..RecoveryConfig::default() };
    let mut recovery = Recovery::new(config);
    recovery.on_connected();
    live(&mut recovery, 0, 5..8);
    assert_eq!(recovery.counts().overflowed, 1);
}

#[test]
fn a_cursor_tells_a_duplicate_from_a_restart() {
    let mut cursor = EventCursor::new();
    let digest = |text: &str| Digest::of(text.as_bytes());
    for text in ["a", "b", "c"] {
        cursor.advance(digest(text));
    }
    assert_eq!((cursor.position(), cursor.expected()), (Some(2), 3));
    assert_eq!(cursor.judge(3, digest("d")), Verdict::Contiguous);
    assert_eq!(cursor.judge(4, digest("d")), Verdict::Gap);
    assert_eq!(cursor.judge(1, digest("b")), Verdict::Stale);
    assert_eq!(cursor.judge(1, digest("x")), Verdict::Restart);
    cursor.jump(7);
    assert_eq!((cursor.position(), cursor.expected()), (None, 7));
    assert_eq!(cursor.judge(1, digest("b")), Verdict::Doubtful);
}

// ---- against a model of an engine --------------------------------------------------------

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
