//! Where in one engine's event stream we are.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use xxhash_rust::xxh3::xxh3_64;

/// A payload, for telling two apart that claim one sequence number. Payloads carry the engine's
/// clock, so two incarnations of an engine never send equal ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(u64);

impl Digest {
    /// Of a payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(xxh3_64(payload))
    }
}

/// A place in a stream that can be found again: the last message applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// Its number.
    pub sequence: u64,
    /// Its payload's digest.
    pub digest: Digest,
}

/// What a sequence number means at the present position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The next one.
    Contiguous,
    /// At least one in between has not come.
    Gap,
    /// It was applied already: a replay overlaps with what came live.
    Stale,
    /// Its number was applied already with another content: the engine counts anew.
    Restart,
    /// Its number was applied so long ago that the content is forgotten: stale or a restart.
    Doubtful,
}

/// Digests remembered, so that late duplicates are told from restarts.
const REMEMBERED: usize = 1024;

/// Position in the stream of sequence numbers of one engine and rank.
#[derive(Debug, Clone, Default)]
pub struct EventCursor {
    expected: u64,
    applied: Option<u64>,
    /// Of `applied` and those before it, newest last.
    recent: VecDeque<Digest>,
}

impl EventCursor {
    /// Before the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Behind the message of a bookmark.
    #[must_use]
    pub fn behind(Bookmark { sequence, digest }: Bookmark) -> Self {
        let expected = sequence.saturating_add(1);
        Self { expected, applied: Some(sequence), recent: VecDeque::from([digest]) }
    }

    /// Where it is; `None` before the first event.
    #[must_use]
    pub fn bookmark(&self) -> Option<Bookmark> {
        Some(Bookmark { sequence: self.applied?, digest: *self.recent.back()? })
    }

    /// The last sequence applied since the beginning or the last [`jump`](Self::jump).
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.applied
    }

    /// The sequence that comes next.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// What this message means.
    #[must_use]
    pub fn judge(&self, sequence: u64, digest: Digest) -> Verdict {
        if sequence == self.expected {
            return Verdict::Contiguous;
        }
        if sequence > self.expected {
            return Verdict::Gap;
        }
        match self.digest_of(sequence) {
            Some(known) if known == digest => Verdict::Stale,
            Some(_) => Verdict::Restart,
            None => Verdict::Doubtful,
        }
    }

    /// The expected message was applied.
    pub fn advance(&mut self, digest: Digest) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(digest);
        self.applied = Some(self.expected);
        self.expected = self.expected.saturating_add(1);
    }

    /// What came before is void; `sequence` is expected now.
    pub fn jump(&mut self, sequence: u64) {
        *self = Self { expected: sequence, ..Self::default() };
    }

    fn digest_of(&self, sequence: u64) -> Option<Digest> {
        let back = usize::try_from(self.applied?.checked_sub(sequence)?).ok()?;
        let index = self.recent.len().checked_sub(back.checked_add(1)?)?;
        self.recent.get(index).copied()
    }
}
