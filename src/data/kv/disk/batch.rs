//! Many reads or writes of a file at once: through io_uring where the kernel allows it, one after
//! another otherwise (containers often forbid io_uring).

#![allow(unsafe_code)]

use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests that the kernel has at a time.
const DEPTH: usize = 64;

/// Where in the file, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// First byte in the file.
    pub offset: u64,
    /// How many.
    pub bytes: usize,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the file.
    Read,
    /// To the file.
    Write,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is about to be made with this memory. False: let it be.
    Next,
    /// It has ended, all of it done or not.
    Ended(bool),
}

/// Queues of requests to the kernel, each used by one thread at a time.
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

    fn held(&self) -> MutexGuard<'_, Option<(u32, IoUring)>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring that was used last, or a new one where another thread has it. It is never held
    /// locked: a process may be forked at any time.
    fn take(&self) -> Option<IoUring> {
        match self.held().take() {
            Some((owner, ring)) if owner == std::process::id() => Some(ring),
            // A forked child has its parent's ring, and must not use it.
            Some((_, inherited)) => {
                std::mem::forget(inherited);
                IoUring::new(DEPTH as u32).ok()
            }
            None => IoUring::new(DEPTH as u32).ok(),
        }
    }

    /// Reads or writes all of `requests` through `memory`, a buffer of `buffer_bytes` after another
    /// (no request is longer). `step` is called with each request's place before it is made and
    /// when it has ended: while others are under way, so that what it does costs no time of the
    /// disk, and the queue never runs empty between one batch and the next.
    pub fn run(
        &self,
        file: &File,
        way: Way,
        memory: &mut [u8],
        buffer_bytes: usize,
        requests: &[Request],
        mut step: impl FnMut(usize, Stage, &mut [u8]) -> bool,
    ) {
        assert!(requests.iter().all(|it| it.bytes <= buffer_bytes && buffer_bytes <= memory.len()));
        // A single request gains nothing from a queue.
        if requests.len() > 1
            && let Some(mut ring) = self.take()
        {
            queued(&mut ring, file, way, memory, buffer_bytes, requests, &mut step);
            *self.held() = Some((std::process::id(), ring));
            return;
        }
        for (at, &Request { offset, bytes }) in requests.iter().enumerate() {
            let buffer = &mut memory[..bytes];
            if step(at, Stage::Next, buffer) {
                let done = match way {
                    Way::Read => file.read_exact_at(buffer, offset).is_ok(),
                    Way::Write => file.write_all_at(buffer, offset).is_ok(),
                };
                step(at, Stage::Ended(done), buffer);
            }
        }
    }
}

fn queued(
    ring: &mut IoUring,
    file: &File,
    way: Way,
    memory: &mut [u8],
    buffer_bytes: usize,
    requests: &[Request],
    step: &mut impl FnMut(usize, Stage, &mut [u8]) -> bool,
) {
    let file = types::Fd(file.as_raw_fd());
    let buffers = (memory.len() / buffer_bytes).min(2 * DEPTH);
    let memory = memory.as_mut_ptr();
    // SAFETY (of its uses): buffer `nth` is inside the memory, which is borrowed mutably for the
    // whole function and used through this pointer alone; a buffer is either free, under way or
    // ended, and only one that is not under way is made a slice of.
    let start = |nth: usize| memory.wrapping_add(nth * buffer_bytes);
    let mut free: Vec<usize> = (0..buffers).collect();
    let mut ended: Vec<(u64, i32)> = Vec::with_capacity(DEPTH);
    let mut queue = Queue { ring, under_way: 0 };
    let mut next = 0;
    while next < requests.len() || queue.under_way > 0 || !ended.is_empty() {
        while next < requests.len() && queue.under_way < DEPTH {
            let Some(nth) = free.pop() else { break };
            let Request { offset, bytes } = requests[next];
            // SAFETY: a free buffer, see `start`.
            let buffer = unsafe { slice::from_raw_parts_mut(start(nth), bytes) };
            let at = next;
            next += 1;
            if !step(at, Stage::Next, buffer) {
                free.push(nth);
                continue;
            }
            let (place, length) = (start(nth), bytes as u32);
            let entry = match way {
                Way::Read => opcode::Read::new(file, place, length).offset(offset).build(),
                Way::Write => opcode::Write::new(file, place, length).offset(offset).build(),
            };
            let entry = entry.user_data((at as u64) << 32 | nth as u64);
            // SAFETY: the file and the memory outlive the request: this function ends when `queue`
            // has seen the end of each, also if `step` panics. The buffer is not touched before.
            if unsafe { queue.ring.submission().push(&entry) }.is_err() {
                // No room, which there is for as many as may be under way.
                ended.push((entry.get_user_data(), -libc::EBUSY));
                continue;
            }
            queue.under_way += 1;
        }
        // What the last round brought is looked at while these are on their way. Interrupted or
        // short of memory for the moment: what was not taken stays in the queue.
        let wait = usize::from(ended.is_empty() && queue.under_way > 0);
        let _ = queue.ring.submit_and_wait(wait);
        for (which, result) in ended.drain(..) {
            let (at, nth) = ((which >> 32) as usize, which as u32 as usize);
            let bytes = requests[at].bytes;
            // SAFETY: a buffer whose request has ended, see `start`.
            let buffer = unsafe { slice::from_raw_parts_mut(start(nth), bytes) };
            step(at, Stage::Ended(usize::try_from(result) == Ok(bytes)), buffer);
            free.push(nth);
        }
        for it in queue.ring.completion() {
            ended.push((it.user_data(), it.result()));
            queue.under_way -= 1;
        }
    }
}

/// Requests under way. It does not end before they do: the kernel ends each.
struct Queue<'a> {
    ring: &'a mut IoUring,
    under_way: usize,
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        while self.under_way > 0 {
            let _ = self.ring.submit_and_wait(1);
            self.under_way -= self.ring.completion().count();
        }
    }
}
