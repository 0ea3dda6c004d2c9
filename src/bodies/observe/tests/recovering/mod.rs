//! Following a stream of numbered messages by two sockets.

mod gaps;
mod model;
mod restarts;

use crate::observe::{LostReason, Recovery, RecoveryConfig, RestartSign, Step};
use bytes::Bytes;

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
