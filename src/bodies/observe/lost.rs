//! Why what is believed of an engine is void.

/// Why what is believed of an engine is void.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// It restarted, with an empty cache.
    #[error("the engine restarted: {sign}")]
    Restart {
        /// How that showed.
        sign: RestartSign,
    },
    /// Messages were missed and the engine has no replay socket.
    #[error("events {expected} to {} were missed, and there is no replay socket to ask: configure the engine's replay_endpoint", .got - 1)]
    NoReplay {
        /// First that was missed.
        expected: u64,
        /// What came instead.
        got: u64,
    },
    /// Messages were missed and the engine's replay buffer no longer has them.
    #[error("events {expected} to {} were missed and have left the engine's replay buffer: raise its buffer_steps", .oldest - 1)]
    TooOld {
        /// First that was missed.
        expected: u64,
        /// Oldest that the buffer has.
        oldest: u64,
    },
    /// Messages were missed and replaying did not bring them.
    #[error("events {expected} to {} were missed, and {replays} replays in a row did not bring them", .oldest - 1)]
    Unfilled {
        /// First that was missed.
        expected: u64,
        /// First that is there behind the gap.
        oldest: u64,
        /// How often it was tried.
        replays: u32,
    },
    /// After a reconnection, replaying failed: it may be another incarnation of the engine.
    #[error(
        "{replays} replays in a row failed after a reconnection: it cannot be told whether the engine restarted"
    )]
    Unverifiable {
        /// How often it was tried.
        replays: u32,
    },
    /// A message could not be decoded; it may have removed blocks.
    #[error("event {sequence} could not be decoded: {why}")]
    Undecodable {
        /// Which.
        sequence: u64,
        /// What was wrong with it.
        why: String,
    },
}

/// How a restart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartSign {
    /// A sequence number below the expected one came with another content than before.
    Sequence(u64),
    /// The engine's metrics page shows another process start time.
    ProcessStartTime,
    /// The replay does not have the last message applied.
    ReplayDisagrees,
}

impl std::fmt::Display for RestartSign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sequence(sequence) => {
                write!(f, "event {sequence} came again with another content")
            }
            Self::ProcessStartTime => write!(f, "process_start_time_seconds changed"),
            Self::ReplayDisagrees => write!(f, "its replay does not contain the last event"),
        }
    }
}
