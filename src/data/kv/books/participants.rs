//! Who is attached, and whether they still live.

use super::layout::{Mapped, PARTICIPANTS};
use crate::kv::StoreError;
use crate::memory::ByteLocks;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The byte that is locked while books are opened. Participants' bytes come after it.
const OPENING: u64 = 0;
/// Longest wait for another process that opens the same books. Reserving memory takes a second for
/// some 4 GB.
const OPENING_PATIENCE: Duration = Duration::from_secs(60);
const OPENING_LOOK: Duration = Duration::from_millis(1);

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { action: "lock bytes of", path: path.into(), source }
}

/// Waits until nobody else opens the books in `file`.
pub fn enter_opening(file: &File, path: &Path) -> Result<(), StoreError> {
    let since = Instant::now();
    while !ByteLocks(file).try_lock(OPENING).map_err(failed(path))? {
        if since.elapsed() > OPENING_PATIENCE {
            return Err(StoreError::Opening { path: path.into() });
        }
        std::thread::sleep(OPENING_LOOK);
    }
    Ok(())
}

/// Lets the next open them. So does closing `file`, and death.
pub fn leave_opening(file: &File, path: &Path) -> Result<(), StoreError> {
    ByteLocks(file).unlock(OPENING).map_err(failed(path))
}

/// One attachment to books. Its place is free again when the file that it was opened with closes.
#[derive(Debug, Clone, Copy)]
pub struct Participant {
    place: usize,
    turn: u32,
}

impl Participant {
    /// Takes a place that nobody has.
    pub fn join(books: &Mapped) -> Result<Self, StoreError> {
        let locks = ByteLocks(books.file());
        for (place, turns) in books.control().participants.iter().enumerate() {
            if locks.try_lock(1 + place as u64).map_err(failed(books.path()))? {
                let turn = turns.fetch_add(1, Ordering::Relaxed).wrapping_add(1) as u32;
                return Ok(Self { place, turn });
            }
        }
        Err(StoreError::Crowded { path: books.path().into(), limit: PARTICIPANTS })
    }

    /// The number with which it signs slots; another's, or an earlier one's in its place, differs.
    pub const fn owner(&self) -> u64 {
        (self.place as u64) << 32 | self.turn as u64
    }

    /// Whether the participant that signs as `owner` lives. When in doubt, it does.
    pub fn knows_alive(&self, books: &Mapped, owner: u64) -> bool {
        let (place, turn) = ((owner >> 32) as usize, owner as u32);
        let Some(turns) = books.control().participants.get(place) else { return false };
        if turns.load(Ordering::Relaxed) as u32 != turn {
            return false;
        }
        owner == self.owner()
            || ByteLocks(books.file()).held_elsewhere(1 + place as u64).unwrap_or(true)
    }
}
