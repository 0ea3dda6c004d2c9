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

    /// Reads or writes all of `pieces`, and tells `each` of every one, by its place, whether all of
    /// it was: while the others are under way, so that what `each` does costs no time of the disk.
    pub fn run(
        &self,
        file: &File,
        way: Way,
        pieces: &mut [Piece<'_>],
        mut each: impl FnMut(usize, bool, &mut [u8]),
    ) {
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
                return queued(ring, file, way, pieces, &mut each);
            }
        }
        for (at, piece) in pieces.iter_mut().enumerate() {
            let done = match way {
                Way::Read => file.read_exact_at(piece.bytes, piece.offset).is_ok(),
                Way::Write => file.write_all_at(piece.bytes, piece.offset).is_ok(),
            };
            each(at, done, piece.bytes);
        }
    }
}

fn queued(
    ring: &mut IoUring,
    file: &File,
    way: Way,
    pieces: &mut [Piece<'_>],
    each: &mut impl FnMut(usize, bool, &mut [u8]),
) {
    let file = types::Fd(file.as_raw_fd());
    let mut ended: Vec<(usize, i32)> = Vec::with_capacity(DEPTH as usize);
    let mut queue = Queue { ring, under_way: 0 };
    let mut next = 0;
    while next < pieces.len() || queue.under_way > 0 {
        while next < pieces.len() && queue.under_way < DEPTH {
            let Piece { offset, bytes } = &mut pieces[next];
            let (start, length) = (bytes.as_mut_ptr(), bytes.len() as u32);
            let entry = match way {
                Way::Read => opcode::Read::new(file, start, length).offset(*offset).build(),
                Way::Write => opcode::Write::new(file, start, length).offset(*offset).build(),
            };
            // SAFETY: the file and the memory outlive the request: `pieces` is borrowed mutably
            // until this function ends, which is when `queue` has seen the end of each request,
            // also if `each` panics. Nothing else touches the memory before its request has
            // ended. `start` and `length` are those of one slice.
            let pushed = unsafe { queue.ring.submission().push(&entry.user_data(next as u64)) };
            if pushed.is_err() {
                break;
            }
            next += 1;
            queue.under_way += 1;
        }
        // What the last round brought is looked at while these are on their way.
        let wait = usize::from(ended.is_empty());
        // Interrupted or short of memory for the moment: what was not taken stays in the queue.
        let _ = queue.ring.submit_and_wait(wait);
        for (at, result) in ended.drain(..) {
            let bytes = &mut *pieces[at].bytes;
            let whole = usize::try_from(result) == Ok(bytes.len());
            each(at, whole, bytes);
        }
        for it in queue.ring.completion() {
            ended.push((it.user_data() as usize, it.result()));
            queue.under_way -= 1;
        }
    }
    for (at, result) in ended {
        let bytes = &mut *pieces[at].bytes;
        let whole = usize::try_from(result) == Ok(bytes.len());
        each(at, whole, bytes);
    }
}

/// Requests under way. It does not end before they do: the kernel ends each.
struct Queue<'a> {
    ring: &'a mut IoUring,
    under_way: u32,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        while self.under_way > 0 {
            let _ = self.ring.submit_and_wait(1);
            self.under_way -= self.ring.completion().count() as u32;
        }
    }
}
