//! Whether it is the same engine: reconnections, bookmarks, signs of a restart.

use super::{following, live, message, replayed, steps, with_replay, without_replay};
use crate::observe::{Digest, EventCursor, Step, Verdict};

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
