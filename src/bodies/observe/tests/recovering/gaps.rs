//! Messages that went missing: what is asked for again, what is given up.

use super::{following, live, message, replayed, steps, with_replay, without_replay};
use crate::observe::{Recovery, RecoveryConfig};

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
fn without_replay_a_gap_is_a_loss_and_the_stream_goes_on() {
    let mut recovery = without_replay();
    recovery.on_connected();
    live(&mut recovery, 0, [5, 6, 9, 10]);
    assert_eq!(steps(&mut recovery), "5 6 !none7-9 9 10");
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
