//! How a subscriber stays exact over a lossy stream: messages in, decisions out, no sockets.
//!
//! A PUB socket drops what a slow subscriber does not take and all that comes before the
//! subscription; an engine may restart at any time. Against that an engine may offer a replay
//! socket with its last messages. What must hold: every message is applied once and in order, or
//! the sink is told that what it believes is void.
//!
//! - At the first connection all is replayed from 0, for the engine may hold blocks already.
//! - A gap is replayed from the last message applied, which overlaps by one. Messages that come
//!   meanwhile are held back, within bounds.
//! - A restart shows by one of three signs: a sequence number comes again with another content; the
//!   process start time changes; a replay does not contain the last message applied as it was. On
//!   a new connection nothing is applied before a replay has shown that it is the same engine.
//! - A gap that the replay buffer has outlived, or that replays do not fill, is a loss: the sink is
//!   told, and the stream goes on behind it. Replays in a row that bring nothing are bounded, so
//!   recovery always ends.
//!
//! Without a replay socket a gap is a loss at once, and a restart is seen by the first two signs.

use super::cursor::{Bookmark, Digest, EventCursor, Verdict};
use super::lost::{LostReason, RestartSign};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Bounds of recovery.
#[derive(Debug, Clone)]
pub struct RecoveryConfig {
    /// Whether the engine has a replay socket.
    pub has_replay: bool,
    /// Replays in a row that may fail or bring nothing before a gap is given up.
    pub max_fruitless_replays: u32,
    /// Messages held back at most while a gap is being filled.
    pub max_held_messages: usize,
    /// Bytes of them at most.
    pub max_held_bytes: usize,
}

impl Default for RecoveryConfig {
    fn default() -> Self {
        Self {
            has_replay: true,
            max_fruitless_replays: 3,
            max_held_messages: 16_384,
            max_held_bytes: 64 << 20,
        }
    }
}

/// Something for the subscriber to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Apply this.
    Apply {
        /// Number of the message.
        sequence: u64,
        /// Its payload.
        payload: Bytes,
    },
    /// All that was applied is void.
    Lost(LostReason),
    /// Replay from here, in place of a replay that still runs.
    Replay {
        /// First sequence wanted.
        from: u64,
        /// How many replays in a row brought nothing: wait longer the more.
        fruitless: u32,
    },
}

/// Counters, since the subscriber began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// Messages that came live.
    pub live: u64,
    /// Messages that came by replay.
    pub replayed: u64,
    /// Messages that were applied already.
    pub duplicates: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Replays asked for.
    pub replays: u64,
    /// Replays that failed.
    pub failed_replays: u64,
    /// Restarts found.
    pub restarts: u64,
    /// Times that what was believed became void, restarts included.
    pub lost: u64,
    /// Messages dropped because too many were held back; they are replayed.
    pub overflowed: u64,
    /// First replays that did not go back to the engine's start: its oldest blocks are unknown.
    pub truncated_histories: u64,
}

#[derive(Debug)]
struct Held {
    payload: Bytes,
    digest: Digest,
}

#[derive(Debug)]
struct Replaying {
    first: Option<u64>,
    last: Option<u64>,
    expected_before: u64,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayEnd {
    /// Last sequence that the engine has; `None` where it has none from the asked one on.
    pub last: Option<u64>,
}

/// The state of one stream. Call an `on_` method for what happened, then carry out
/// [`next_step`](Self::next_step) until there is none.
#[derive(Debug)]
pub struct Recovery {
    config: RecoveryConfig,
    cursor: EventCursor,
    steps: VecDeque<Step>,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    replaying: Option<Replaying>,
    is_connected: bool,
    /// Whether what was applied is known to be of the engine that is connected now.
    is_verified: bool,
    fruitless: u32,
    /// The last sequence that came live on this connection.
    live_sequence: Option<u64>,
    /// Restarts found on this connection. A sane engine has none after the first.
    restarts_here: u32,
    process_start_s: Option<f64>,
    /// A restart was found whose process start time has not been seen yet.
    awaits_process_start: bool,
    counts: RecoveryCounts,
}

impl Recovery {
    /// Before the first connection.
    #[must_use]
    pub fn new(config: RecoveryConfig) -> Self {
        Self {
            config,
            cursor: EventCursor::new(),
            steps: VecDeque::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            replaying: None,
            is_connected: false,
            is_verified: true,
            fruitless: 0,
            live_sequence: None,
            restarts_here: 0,
            process_start_s: None,
            awaits_process_start: false,
            counts: RecoveryCounts::default(),
        }
    }

    /// The next thing to do.
    pub fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// The last sequence applied.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.cursor.position()
    }

    /// The last message applied; `None` where none is.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        self.cursor.bookmark()
    }

    /// What was applied was replaced by all up to `bookmark`, of this engine or of one before it:
    /// the next replay tells. `None`: by nothing.
    pub fn resume(&mut self, bookmark: Option<Bookmark>) {
        self.steps.clear();
        self.drop_held();
        self.replaying = None;
        self.cursor = bookmark.map_or_else(EventCursor::new, EventCursor::behind);
        self.is_verified = true;
        if self.is_connected {
            self.on_connected();
        }
    }

    /// Whether all that came has been applied, and it is of the engine that is connected.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_connected && self.is_verified && self.held.is_empty() && self.replaying.is_none()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> RecoveryCounts {
        self.counts
    }

    /// A subscription is established.
    pub fn on_connected(&mut self) {
        self.is_connected = true;
        self.fruitless = 0;
        self.live_sequence = None;
        self.restarts_here = 0;
        if self.config.has_replay {
            self.is_verified = self.cursor.position().is_none();
            self.replay();
        }
    }

    /// The subscription has ended.
    pub fn on_disconnected(&mut self) {
        self.is_connected = false;
        self.replaying = None;
        self.drop_held();
    }

    /// A message came on the subscription.
    pub fn on_live(&mut self, sequence: u64, payload: Bytes) {
        self.counts.live += 1;
        self.live_sequence = Some(sequence);
        let digest = Digest::of(&payload);
        match self.cursor.judge(sequence, digest) {
            Verdict::Contiguous if self.is_verified => self.apply(payload, digest),
            Verdict::Contiguous => self.hold(sequence, &payload, digest),
            Verdict::Gap if self.config.has_replay => {
                self.hold(sequence, &payload, digest);
                if self.replaying.is_none() {
                    self.counts.gaps += 1;
                    self.replay();
                }
            }
            Verdict::Gap => {
                if self.cursor.position().is_some() {
                    self.counts.gaps += 1;
                    let expected = self.cursor.expected();
                    self.lose(LostReason::NoReplay { expected, got: sequence });
                }
                self.cursor.jump(sequence);
                self.apply(payload, digest);
            }
            Verdict::Stale => self.counts.duplicates += 1,
            Verdict::Doubtful if self.config.has_replay => {
                // The replay is the arbiter: a restarted engine sends this message again with it.
                self.counts.duplicates += 1;
                if self.is_verified {
                    self.verify();
                }
            }
            Verdict::Restart | Verdict::Doubtful => {
                self.restart(RestartSign::Sequence(sequence));
                if self.config.has_replay {
                    self.hold(sequence, &payload, digest);
                } else {
                    self.cursor.jump(sequence);
                    self.apply(payload, digest);
                }
            }
        }
        self.apply_held();
    }

    /// A message came by replay.
    pub fn on_replayed(&mut self, sequence: u64, payload: Bytes) {
        let Some(replaying) = &mut self.replaying else { return };
        self.counts.replayed += 1;
        let is_first = replaying.first.is_none();
        replaying.first.get_or_insert(sequence);
        replaying.last = Some(sequence);
        let digest = Digest::of(&payload);
        let verdict = self.cursor.judge(sequence, digest);
        if is_first {
            match self.cursor.position() {
                None if sequence > self.cursor.expected() => {
                    self.counts.truncated_histories += 1;
                    self.cursor.jump(sequence);
                    self.apply(payload, digest);
                    self.apply_held();
                    return;
                }
                // The overlap that every replay after the first begins with.
                Some(_) if verdict == Verdict::Stale => {
                    self.is_verified = true;
                    self.apply_held();
                    return;
                }
                Some(_) if !self.is_verified && sequence >= self.cursor.expected() => {
                    let expected = self.cursor.expected();
                    // One past the last applied still leaves open whose the last was.
                    let oldest = sequence.max(expected.saturating_add(1));
                    self.lose(LostReason::TooOld { expected, oldest });
                    self.is_verified = true;
                    self.cursor.jump(sequence);
                    self.apply(payload, digest);
                    self.apply_held();
                    return;
                }
                _ => {}
            }
        }
        match verdict {
            Verdict::Contiguous => self.apply(payload, digest),
            Verdict::Gap => self.hold(sequence, &payload, digest),
            Verdict::Stale | Verdict::Doubtful => self.counts.duplicates += 1,
            Verdict::Restart => self.restart(RestartSign::ReplayDisagrees),
        }
        self.apply_held();
    }

    /// The replay is complete. `None` where it had been called off.
    pub fn on_replay_end(&mut self) -> Option<ReplayEnd> {
        let replaying = self.replaying.take()?;
        if !self.is_verified {
            self.restart(RestartSign::ReplayDisagrees);
            return None;
        }
        self.apply_held();
        if self.cursor.expected() > replaying.expected_before {
            self.fruitless = 0;
        }
        let end = ReplayEnd { last: replaying.last };
        let Some((&oldest, _)) = self.held.first_key_value() else {
            self.fruitless = 0;
            return Some(end);
        };
        let expected = self.cursor.expected();
        if let (Some(first), Some(_)) = (replaying.first, self.cursor.position())
            && first > replaying.expected_before
            && expected == replaying.expected_before
            && self.live_sequence > Some(expected)
        {
            // The subscription has passed the gap, and the buffer begins behind it.
            self.skip_gap(LostReason::TooOld { expected, oldest });
        } else {
            // A ROUTER drops what its peer does not take fast enough: a replay may have holes.
            self.fruitless += 1;
            self.replay_or_give_up();
        }
        Some(end)
    }

    /// The replay broke off.
    pub fn on_replay_failed(&mut self) {
        if self.replaying.take().is_none() {
            return;
        }
        self.counts.failed_replays += 1;
        self.fruitless += 1;
        if !self.is_verified || !self.held.is_empty() || self.cursor.position().is_none() {
            self.replay_or_give_up();
        }
    }

    /// The engine's metrics page was read.
    pub fn on_process_start(&mut self, process_start_s: f64) {
        let previous = self.process_start_s.replace(process_start_s);
        let has_changed = previous.is_some_and(|previous| (previous - process_start_s).abs() > 1.0);
        let is_known = std::mem::take(&mut self.awaits_process_start);
        if !has_changed || is_known || self.cursor.position().is_none() {
            return;
        }
        if self.config.has_replay {
            self.verify();
        } else {
            self.restart(RestartSign::ProcessStartTime);
            self.awaits_process_start = false;
        }
    }

    /// Asks the replay socket whether anything was missed at the end, where nothing that follows
    /// would show it. Returns whether a replay runs now.
    pub fn probe(&mut self) -> bool {
        if self.config.has_replay && self.is_connected && self.replaying.is_none() {
            self.replay();
        }
        self.replaying.is_some()
    }

    fn verify(&mut self) {
        self.is_verified = false;
        // Not connected: the next connection verifies.
        if self.is_connected {
            self.replay();
        }
    }

    fn replay(&mut self) {
        let from = self.cursor.position().unwrap_or(self.cursor.expected());
        self.replaying =
            Some(Replaying { first: None, last: None, expected_before: self.cursor.expected() });
        self.counts.replays += 1;
        // Two engines that publish as one look like restarts without end: wait longer each time.
        let fruitless = self.fruitless + self.restarts_here.saturating_sub(1);
        self.steps.push_back(Step::Replay { from, fruitless });
    }

    fn replay_or_give_up(&mut self) {
        if self.fruitless < self.config.max_fruitless_replays {
            return self.replay();
        }
        let replays = std::mem::take(&mut self.fruitless);
        if !self.is_verified {
            self.lose(LostReason::Unverifiable { replays });
            self.is_verified = true;
            self.cursor.jump(0);
        }
        if let Some((&oldest, _)) = self.held.first_key_value() {
            let expected = self.cursor.expected();
            self.skip_gap(LostReason::Unfilled { expected, oldest, replays });
        }
    }

    /// Goes on behind a gap that stays.
    fn skip_gap(&mut self, reason: LostReason) {
        if self.cursor.position().is_some() {
            self.lose(reason);
        }
        if let Some((&oldest, _)) = self.held.first_key_value() {
            self.cursor.jump(oldest);
            self.apply_held();
        }
        if !self.held.is_empty() {
            // Another gap behind it.
            self.replay();
        }
    }

    fn restart(&mut self, sign: RestartSign) {
        self.counts.restarts += 1;
        self.restarts_here = self.restarts_here.saturating_add(1);
        self.awaits_process_start = true;
        self.lose(LostReason::Restart { sign });
        self.cursor.jump(0);
        self.is_verified = true;
        self.drop_held();
        if self.config.has_replay {
            self.replay();
        }
    }

    fn lose(&mut self, reason: LostReason) {
        self.counts.lost += 1;
        self.steps.push_back(Step::Lost(reason));
    }

    fn apply(&mut self, payload: Bytes, digest: Digest) {
        let sequence = self.cursor.expected();
        self.cursor.advance(digest);
        self.steps.push_back(Step::Apply { sequence, payload });
    }

    fn apply_held(&mut self) {
        if !self.is_verified {
            return;
        }
        while let Some(entry) = self.held.first_entry() {
            let expected = self.cursor.expected();
            if *entry.key() > expected {
                return;
            }
            let sequence = *entry.key();
            let held = entry.remove();
            self.held_bytes -= held.payload.len();
            if sequence == expected {
                self.apply(held.payload, held.digest);
            } else {
                self.counts.duplicates += 1;
            }
        }
    }

    fn hold(&mut self, sequence: u64, payload: &Bytes, digest: Digest) {
        let bytes = self.held_bytes + payload.len();
        if self.held.len() >= self.config.max_held_messages || bytes > self.config.max_held_bytes {
            self.counts.overflowed += 1;
            return;
        }
        // A copy: what was received shares a read buffer that is larger.
        let held = Held { payload: Bytes::copy_from_slice(payload), digest };
        self.held_bytes = bytes;
        if let Some(replaced) = self.held.insert(sequence, held) {
            self.held_bytes -= replaced.payload.len();
        }
    }

    fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }
}
