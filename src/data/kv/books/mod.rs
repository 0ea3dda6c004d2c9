//! A catalogue in a segment, for all processes of a node at once, without a daemon.
//!
//! Whoever holds the mutex has the view; whoever finds that its last holder died builds the books
//! anew first. A process is a *participant*: it keeps a lock on a byte of the segment's file for as
//! long as it lives, by which others tell whether a slot's writer is still there.

mod counters;
mod layout;
mod participants;
mod turns;

use super::StoreError;
use super::catalogue::{Catalogue, Generation, Ticks};
use super::eviction::{Algorithm, Policy};
use crate::memory::{Entry, Segment};
use layout::{Layout, Mapped};
use participants::Participant;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use counters::{Counters, Counts};
pub use layout::Settings;
pub use turns::{BLOCKS_A_HOLD, Chain, Found, pieces_a_block};

/// Longest wait for the mutex. It is held for microseconds; a process that was stopped while
/// holding it costs the others this much a call, and misses.
const PATIENCE: Duration = Duration::from_millis(100);

/// Books that processes share, and the memory behind them.
pub struct SharedBooks {
    mapped: Mapped,
    participant: Participant,
}

/// Milliseconds of the node's clock.
pub fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// The node's clock as policies count it.
pub fn now_ticks() -> Ticks {
    (now_ms() / 10) as Ticks
}

impl SharedBooks {
    /// Attaches to the books at `path`, or makes them.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if they were made with other settings, [`StoreError::Crowded`],
    /// [`StoreError::Config`], or the operating system's.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let layout = Layout::of(settings)?;
        let file = Segment::file(path)?;
        participants::enter_opening(&file, path)?;
        let made = layout::made_with(&file, path)?;
        match made {
            Some(theirs) => theirs.must_be(&settings, path)?,
            None => Segment::clear(&file, path, layout.bytes)?,
        }
        let mut mapped = Mapped::new(Segment::map(file, path, layout.bytes)?, layout);
        if made.is_none() {
            mapped.start(&settings)?;
        }
        let participant = Participant::join(&mapped)?;
        participants::leave_opening(mapped.file(), path)?;
        let books = Self { mapped, participant };
        if let Some(mut guard) = books.enter() {
            guard.catalogue().reap(|owner| books.alive(owner));
        }
        Ok(books)
    }

    /// Takes the mutex. `None`: nobody gave it back in time, which is counted, and whoever asked
    /// does without.
    pub fn enter(&self) -> Option<Guard<'_>> {
        let entry = self.mapped.mutex().enter(PATIENCE);
        if entry == Entry::Refused {
            self.counters().busy.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut guard = Guard(self, PhantomData);
        if entry == Entry::Bereft || self.mapped.broken() {
            guard.rebuild();
            self.mapped.set_broken(false);
            self.mapped.mutex().mended();
        }
        Some(guard)
    }

    /// Whether the participant that calls itself `owner` still lives.
    pub fn alive(&self, owner: u64) -> bool {
        self.participant.knows_alive(&self.mapped, owner)
    }

    /// How this participant signs slots.
    pub fn owner(&self) -> u64 {
        self.participant.owner()
    }

    /// The generation of `slot`, mutex or not.
    pub fn generation(&self, slot: u32) -> Generation {
        Generation(self.mapped.generations()[slot as usize].load(Ordering::Acquire))
    }

    /// Numbers that all participants add to.
    pub fn counters(&self) -> &Counters {
        self.mapped.counters()
    }

    /// First byte of slot `slot`'s own memory, [`Settings::slot_bytes`] of it.
    pub fn slot_memory(&self, slot: u32) -> *mut u8 {
        self.mapped.slot_memory(slot)
    }

    /// A number drawn when the books were made: what was written under others is not theirs.
    pub fn epoch(&self) -> u64 {
        self.mapped.epoch()
    }

    /// What they were made with.
    pub fn settings(&self) -> Settings {
        self.mapped.settings()
    }

    /// 1 once whoever made the books has entered what it found of an earlier life.
    pub fn filled(&self) -> &AtomicU64 {
        &self.mapped.control().filled
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        self.mapped.path()
    }
}

/// The mutex, taken. It stays with the thread that took it, as the mutex demands.
pub struct Guard<'a>(&'a SharedBooks, PhantomData<*const ()>);

impl Guard<'_> {
    /// The books.
    pub fn catalogue(&mut self) -> Catalogue<'_, Policy> {
        self.0.mapped.catalogue(self)
    }

    /// Builds the books anew from their entries.
    pub fn rebuild(&mut self) {
        let books = self.0;
        let algorithm = Algorithm::ALL[books.settings().algorithm as usize];
        let mut catalogue = self.catalogue();
        catalogue.rebuild(|policy| policy.start(algorithm), |owner| books.alive(owner));
        catalogue.head.rebuilds += 1;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.mapped.set_broken(true);
        }
        self.0.mapped.mutex().leave();
    }
}
