//! The thread that asks streams for copies and waits for them.
#![allow(unsafe_code)]

use super::remote::RemoteMemory;
use super::stream::Copy;
use super::{Device, Event, Stream};
use crate::transfer::shm::link::{Attached, Link};
use crate::transfer::work::Use;
use crate::transfer::{Memory, Op, TransferError};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

/// Between two looks at a peer's event. The driver has no wait for one that ends by itself.
const LOOK: Duration = Duration::from_micros(50);

/// Where the peer's bytes are.
pub(super) enum Remote {
    /// On a device.
    Device(Arc<RemoteMemory>),
    /// In the segment that was attached.
    Host,
}

/// A part to copy.
pub(super) struct Job {
    pub hold: Use,
    pub part: usize,
    pub attached: Arc<Attached>,
    pub remote: Remote,
    /// The device that copies.
    pub device: Arc<Device>,
    /// The owner's hold on the blocks.
    pub grant: u64,
    /// Events of this process that the copies wait for: the local memory's last writes.
    pub local_ready: Option<Arc<super::memory::Allocation>>,
}

/// Where parts are posted to. The thread ends when this goes and all that was posted is done.
pub(super) struct Worker {
    posted: Sender<Job>,
}

impl Worker {
    pub fn start(link: Arc<Link>, stall_timeout: Duration) -> Result<Self, TransferError> {
        let (posted, jobs) = std::sync::mpsc::channel();
        std::thread::Builder::new()
            .name("llmd-cuda".into())
            .spawn(move || Copying { link, stall_timeout, streams: HashMap::new() }.run(&jobs))
            .map_err(|error| TransferError::os("starting a thread", error))?;
        Ok(Self { posted })
    }

    pub fn post(&self, job: Job) {
        if let Err(refused) = self.posted.send(job) {
            let device = "the CUDA path".into();
            let what = "its thread is gone: connect again".into();
            refused.0.hold.work().fail(TransferError::Device { device, what });
        }
    }
}

struct Copying {
    link: Arc<Link>,
    stall_timeout: Duration,
    streams: HashMap<u32, Stream>,
}

impl Copying {
    /// Asks for all that is posted before it waits for the oldest: devices have something to do
    /// while epochs are compared.
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut asked: VecDeque<(Job, Result<Event, TransferError>)> = VecDeque::new();
        loop {
            let next = if asked.is_empty() {
                jobs.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                jobs.try_recv()
            };
            match next {
                Ok(job) => {
                    let event = self.ask(&job);
                    asked.push_back((job, event));
                }
                Err(error) => match asked.pop_front() {
                    Some((job, event)) => self.finish(&job, event),
                    None if error == TryRecvError::Disconnected => return,
                    None => {}
                },
            }
        }
    }

    /// Asks a stream for a part's copies; the event is behind them.
    fn ask(&mut self, job: &Job) -> Result<Event, TransferError> {
        self.await_peer(job)?;
        let stream = match self.streams.entry(job.device.ordinal()) {
            Entry::Occupied(stream) => stream.into_mut(),
            Entry::Vacant(none) => none.insert(Stream::new(&job.device)?),
        };
        if let Some(local) = &job.local_ready {
            stream.wait_for(&local.ready)?;
        }
        if let Remote::Device(remote) = &job.remote
            && let RemoteMemory::Own { .. } = **remote
        {
            stream.wait_for(remote.ready())?;
        }
        let event = Event::new(&job.device)?;
        let work = job.hold.work();
        let local = work.local().memory().start().as_ptr() as u64;
        let remote = match (&job.remote, &job.attached.memory) {
            (Remote::Device(remote), _) => remote.start(),
            (Remote::Host, Some(segment)) => segment.start().as_ptr() as u64,
            (Remote::Host, None) => {
                return Err(TransferError::UnknownRegion { region: work.remote().id });
            }
        };
        let runs = work.part(job.part).runs.iter().map(|run| {
            let (local, remote) = (local + run.local_offset, remote + run.remote_offset);
            let (from, to) = match work.op() {
                Op::Read => (remote, local),
                Op::Write => (local, remote),
            };
            Copy { to, from, bytes: run.bytes as usize }
        });
        let copies: Vec<Copy> = runs.collect();
        // SAFETY: planning checked every run against both regions' lengths, which the local memory
        // has and to which opening and attaching held the remote one. The job keeps both until the
        // event is over. What is written to is held against other content at its end; what is read
        // is compared with its epoch afterwards.
        let copied = unsafe { stream.copy(&copies) };
        // Some may be under way though the call failed: the event is waited for all the same.
        event.record(stream)?;
        if let Err(error) = copied {
            work.fail(error);
        }
        Ok(event)
    }

    /// Waits until the peer's device has written what is to be read. Not by the stream: one that
    /// waits for a peer that died cannot be told to stop.
    fn await_peer(&self, job: &Job) -> Result<(), TransferError> {
        let Remote::Device(remote) = &job.remote else { return Ok(()) };
        let RemoteMemory::Opened { ready, .. } = &**remote else { return Ok(()) };
        let start = Instant::now();
        while !ready.is_done()? {
            if let Some(lost) = self.link.lost() {
                return Err(lost);
            }
            if job.hold.work().stopping() {
                return Err(TransferError::Cancelled);
            }
            if start.elapsed() >= self.stall_timeout {
                return Err(self.link.stalled());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn finish(&self, job: &Job, event: Result<Event, TransferError>) {
        let waited = event.and_then(|event| event.synchronize());
        if let Err(error) = waited {
            job.hold.work().fail(error);
        }
        self.link.conclude(&job.hold, job.part, &job.attached, Some(job.grant));
    }
}
