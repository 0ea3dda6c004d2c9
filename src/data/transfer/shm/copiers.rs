//! Copying between segments, by as many threads as there are.
//!
//! A job is one part of a transfer. Threads claim its runs by one atomic addition, some hundred
//! kilobytes at a time; the one that finishes the last claim ends the job. Whoever waits for the
//! transfer claims too, so that a transfer that is waited for costs no change of threads.

use super::link::{Attached, Link};
use crate::memory::copying;
use crate::transfer::work::{Use, Work};
use crate::transfer::{Memory, Op, TransferError};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What a thread claims at a time: long enough that claims cost nothing, short enough to share.
const CLAIM_BYTES: u64 = 256 << 10;
/// Up to here, the thread that posts copies: waking another takes longer.
const INLINE_BYTES: u64 = 256 << 10;

/// A part that is being copied.
pub(super) struct Job {
    hold: Use,
    part: usize,
    attached: Arc<Attached>,
    link: Arc<Link>,
    /// The owner's hold on blocks that are written to.
    grant: Option<u64>,
    /// Runs a claim.
    batch: usize,
    next: AtomicUsize,
    left: AtomicUsize,
}

impl Job {
    pub fn new(
        hold: Use,
        part: usize,
        attached: Arc<Attached>,
        link: Arc<Link>,
        grant: Option<u64>,
    ) -> Self {
        let planned = hold.work().part(part);
        let runs = planned.runs.len();
        let run_bytes = (planned.bytes / runs.max(1) as u64).max(1);
        let batch = (CLAIM_BYTES / run_bytes).max(1) as usize;
        // One claim more than runs need, so that a part without any ends too.
        let left = AtomicUsize::new(runs.div_ceil(batch).max(1));
        Self { hold, part, attached, link, grant, batch, next: AtomicUsize::new(0), left }
    }

    fn claims(&self) -> usize {
        self.hold.work().part(self.part).runs.len().div_ceil(self.batch).max(1)
    }

    fn exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) >= self.claims()
    }

    /// Copies until nothing is left to claim.
    fn run(&self) {
        loop {
            let claim = self.next.fetch_add(1, Ordering::Relaxed);
            if claim >= self.claims() {
                return;
            }
            if !self.hold.work().stopping() {
                self.copy(claim);
            }
            // Orders this thread's bytes before the end, which the last thread sees.
            if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.finish();
            }
        }
    }

    #[allow(unsafe_code)]
    fn copy(&self, claim: usize) {
        let work = self.hold.work();
        let part = work.part(self.part);
        let local = work.local().memory().start().as_ptr();
        let Some(remote) = &self.attached.memory else {
            return work.fail(TransferError::UnknownRegion { region: work.remote().id });
        };
        let remote = remote.start().as_ptr();
        let streamed = part.bytes >= copying::streamed_from_bytes();
        let first = claim * self.batch;
        for run in part.runs.iter().skip(first).take(self.batch) {
            // SAFETY: planning checked the run against both regions' lengths, and the attached
            // segment is as long as the remote region's descriptor said (`Link::attach`). The use
            // keeps the local memory, the job the attached one. Two mappings do not overlap; where
            // an agent is its own peer they are two mappings of one file, and a run whose two ends
            // overlap there copies bytes that this same transfer changes, which only makes them
            // undefined.
            unsafe {
                let local = local.add(run.local_offset as usize);
                let remote = remote.add(run.remote_offset as usize);
                let (from, to) = match work.op() {
                    Op::Read => (remote.cast_const(), local),
                    Op::Write => (local.cast_const(), remote),
                };
                copying::copy(from, to, run.bytes as usize, streamed);
            }
        }
        if streamed {
            copying::order_streamed();
        }
    }

    fn finish(&self) {
        self.link.conclude(&self.hold, self.part, &self.attached, self.grant);
    }
}

/// Jobs and the threads that do them.
pub struct Copiers {
    queue: Mutex<Queue>,
    posted: Condvar,
    threads: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    closing: bool,
}

/// Keeps the threads; dropping it ends them, when the jobs they have are done.
pub struct CopyThreads {
    copiers: Arc<Copiers>,
    threads: Vec<JoinHandle<()>>,
}

impl Copiers {
    /// Starts `threads` threads.
    pub fn start(threads: usize) -> Result<CopyThreads, TransferError> {
        let copiers = Arc::new(Self { queue: Mutex::default(), posted: Condvar::new(), threads });
        let mut started = CopyThreads { copiers: copiers.clone(), threads: Vec::new() };
        for _ in 0..threads {
            let ours = copiers.clone();
            let thread = std::thread::Builder::new().name("llmd-copy".into());
            let thread = thread.spawn(move || ours.work());
            started.threads.push(thread.map_err(|e| TransferError::os("starting a thread", e))?);
        }
        Ok(started)
    }

    pub(super) fn post(&self, job: Job) {
        let small = job.hold.work().part(job.part).bytes <= INLINE_BYTES;
        if self.threads == 0 || small {
            return job.run();
        }
        let mut queue = self.queue.lock();
        if queue.closing {
            // The agent is gone, and its threads with it; its peers may stay.
            drop(queue);
            return job.run();
        }
        queue.jobs.push_back(Arc::new(job));
        drop(queue);
        self.posted.notify_one();
    }

    /// Does what is posted of `work`, until there is nothing to claim.
    pub(super) fn lend(&self, work: &Work) {
        loop {
            let job = {
                let mut queue = self.queue.lock();
                queue.jobs.retain(|job| !job.exhausted());
                let mut jobs = queue.jobs.iter();
                jobs.find(|job| std::ptr::eq(&raw const **job.hold.work(), work)).cloned()
            };
            match job {
                Some(job) => job.run(),
                None => return,
            }
        }
    }

    fn work(&self) {
        loop {
            let job = {
                let mut queue = self.queue.lock();
                loop {
                    queue.jobs.retain(|job| !job.exhausted());
                    if let Some(job) = queue.jobs.front() {
                        break job.clone();
                    }
                    if queue.closing {
                        return;
                    }
                    self.posted.wait(&mut queue);
                }
            };
            job.run();
        }
    }
}

impl CopyThreads {
    /// What transfers post to.
    pub fn copiers(&self) -> &Arc<Copiers> {
        &self.copiers
    }
}

impl Drop for CopyThreads {
    fn drop(&mut self) {
        self.copiers.queue.lock().closing = true;
        self.copiers.posted.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}
