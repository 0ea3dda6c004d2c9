//! Many reads or writes of a file at once: through io_uring where the kernel allows it, one after
//! another otherwise (containers often forbid io_uring).

#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

/// Requests that the kernel has at a time. Doubling it gained nothing with blocks of 64 KiB and up.
const DEPTH: u32 = 32;

/// Where in the file, and the memory to read into or to write from.
pub struct Piece<'a> {
    /// First byte in the file.
    pub offset: u64,
    /// The memory.
    pub bytes: &'a mut [u8],
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// A queue of requests to the kernel; used by one thread at a time.
pub struct Batches {
    ring: Mutex<Option<(u32, IoUring)>>,
}

impl Batches {
    /// A queue; without io_uring where there is none.
    pub fn new() -> Self {
        Self { ring: Mutex::new(None) }
    }

    /// Whether the kernel allows io_uring.
    pub fn uring() -> bool {
        IoUring::new(2).is_ok()
    }

    /// Reads or writes all of `pieces`, and says of each whether all of it was.
    pub fn run(&self, file: &File, way: Way, pieces: &mut [Piece<'_>]) -> Vec<bool> {
        // A single request gains nothing from a queue.
        if pieces.len() > 1 {
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            // A forked child shares its parent's ring, and must not use it.
            let pid = std::process::id();
            if ring.as_ref().is_none_or(|(owner, _)| *owner != pid) {
                if let Some(inherited) = ring.take() {
                    std::mem::forget(inherited);
                }
                *ring = IoUring::new(DEPTH).ok().map(|ring| (pid, ring));
            }
            if let Some((_, ring)) = ring.as_mut() {
                return queued(ring, file, way, pieces);
            }
        }
        let one = |piece: &mut Piece<'_>| match way {
            Way::Read => file.read_exact_at(piece.bytes, piece.offset).is_ok(),
            Way::Write => file.write_all_at(piece.bytes, piece.offset).is_ok(),
        };
        pieces.iter_mut().map(one).collect()
    }
}

fn queued(ring: &mut IoUring, file: &File, way: Way, pieces: &mut [Piece<'_>]) -> Vec<bool> {
    let file = types::Fd(file.as_raw_fd());
    let mut done = vec![false; pieces.len()];
    let (mut next, mut under_way) = (0, 0);
    while next < pieces.len() || under_way > 0 {
        while next < pieces.len() && under_way < DEPTH {
            let Piece { offset, bytes } = &mut pieces[next];
            let (start, length) = (bytes.as_mut_ptr(), bytes.len() as u32);
            let entry = match way {
                Way::Read => opcode::Read::new(file, start, length).offset(*offset).build(),
                Way::Write => opcode::Write::new(file, start, length).offset(*offset).build(),
            };
            // SAFETY: the file and the memory outlive the request: this function returns only when
            // none is under way, and `pieces` is borrowed mutably until then. `start` and `length`
            // are those of one slice.
            let pushed = unsafe { ring.submission().push(&entry.user_data(next as u64)) };
            if pushed.is_err() {
                break;
            }
            next += 1;
            under_way += 1;
        }
        // Interrupted or short of memory for the moment: what was not taken stays in the queue.
        // There is no way out with requests under way, and none is needed: the kernel ends each.
        let _ = ring.submit_and_wait(1);
        for ended in ring.completion() {
            let at = ended.user_data() as usize;
            done[at] = usize::try_from(ended.result()) == Ok(pieces[at].bytes.len());
            under_way -= 1;
        }
    }
    done
}
