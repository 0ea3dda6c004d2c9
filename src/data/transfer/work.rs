//! A transfer under way, as paths see it.

use super::descriptor::{Op, Part};
use super::path::{Path, PathKind};
use super::region::Registered;
use super::{End, RemoteRegion, TransferError};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A transfer that was started: what is to be done, and how far it is.
pub struct Work {
    pub(super) op: Op,
    pub(super) local: Arc<Registered>,
    pub(super) remote: RemoteRegion,
    pub(super) parts: Arc<[Part]>,
    pub(super) tag: Option<u64>,
    pub(super) path: Arc<dyn Path>,
    stopping: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    posted: Vec<bool>,
    done: Vec<bool>,
    parts_done: usize,
    bytes: u64,
    uses: usize,
    failure: Option<TransferError>,
    settled: bool,
}

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub parts_done: usize,
    pub bytes: u64,
    /// Set once nothing touches the local memory any more.
    pub end: Option<Result<(), TransferError>>,
}

impl Work {
    pub(super) fn start(
        op: Op,
        local: Arc<Registered>,
        remote: RemoteRegion,
        parts: Arc<[Part]>,
        tag: Option<u64>,
        path: Arc<dyn Path>,
    ) -> Result<Arc<Self>, TransferError> {
        for (i, part) in parts.iter().enumerate() {
            if let Err(check) = local.epochs.hold(&part.local) {
                let error = local.stale(End::Local, check.slot, check.epoch);
                parts[..i].iter().for_each(|part| local.epochs.release(&part.local));
                return Err(error);
            }
        }
        let count = parts.len();
        let state =
            State { posted: vec![false; count], done: vec![false; count], ..State::default() };
        let (stopping, state, changed) =
            (AtomicBool::new(false), Mutex::new(state), Condvar::new());
        let work = Self { op, local, remote, parts, tag, path, stopping, state, changed };
        work.settle(&mut work.state.lock());
        Ok(Arc::new(work))
    }

    /// Which way bytes go.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The local region.
    pub fn local(&self) -> &Arc<Registered> {
        &self.local
    }

    /// The peer's region.
    pub fn remote(&self) -> &RemoteRegion {
        &self.remote
    }

    /// What part `part` asks for.
    pub fn part(&self, part: usize) -> &Part {
        &self.parts[part]
    }

    /// What the peer is told when a part is done, if anything.
    pub fn tag(&self) -> Option<u64> {
        self.tag
    }

    /// Whether it failed or was cancelled: whoever works on it stops.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Takes a use of the local memory, which keeps the transfer from ending.
    pub fn hold(self: &Arc<Self>) -> Use {
        self.state.lock().uses += 1;
        Use { work: self.clone() }
    }

    /// A part arrived whole, and its remote checks held after it had.
    pub fn part_done(&self, part: usize) {
        {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.done[part], true) {
                return;
            }
        }
        let told = match self.tag {
            Some(_) if !self.stopping() => self.path.notify(self, part),
            _ => Ok(()),
        };
        let mut state = self.state.lock();
        match told {
            Ok(()) => {
                state.parts_done += 1;
                state.bytes += self.parts[part].bytes;
            }
            Err(error) => self.stop(&mut state, error),
        }
        self.changed.notify_all();
    }

    /// The transfer cannot succeed. The first error stays.
    pub fn fail(&self, error: TransferError) {
        self.stop(&mut self.state.lock(), error);
    }

    fn stop(&self, state: &mut State, error: TransferError) {
        if state.parts_done < self.parts.len() && !state.settled {
            state.failure.get_or_insert(error);
            self.stopping.store(true, Ordering::Release);
        }
        self.settle(state);
        self.changed.notify_all();
    }

    /// Lets go the local blocks, once, when nothing can touch them any more.
    fn settle(&self, state: &mut State) {
        let over = state.failure.is_some() || state.parts_done == self.parts.len();
        if over && state.uses == 0 && !std::mem::replace(&mut state.settled, true) {
            self.parts.iter().for_each(|part| self.local.epochs.release(&part.local));
            self.changed.notify_all();
        }
    }

    pub(super) fn post(self: &Arc<Self>, part: usize) -> Result<(), TransferError> {
        let parts = self.parts.len();
        {
            let mut state = self.state.lock();
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            match state.posted.get_mut(part) {
                Some(posted) if !*posted => *posted = true,
                _ => return Err(TransferError::NoSuchPart { part, parts }),
            }
        }
        let posted = self.path.post(self, part);
        if let Err(error) = &posted {
            self.fail(error.clone());
        }
        posted
    }

    pub(super) fn standing(&self) -> Standing {
        let state = self.state.lock();
        let end = state.settled.then(|| state.failure.clone().map_or(Ok(()), Err));
        Standing { parts_done: state.parts_done, bytes: state.bytes, end }
    }

    /// Waits until more than `parts` parts are done or the transfer ended.
    pub(super) fn wait(&self, parts: usize, deadline: Option<Instant>) -> Standing {
        self.path.lend(self);
        let mut state = self.state.lock();
        while !state.settled && state.parts_done <= parts {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    break;
                }
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
        drop(state);
        self.standing()
    }

    pub(super) fn path_kind(&self) -> PathKind {
        self.path.kind()
    }
}

/// A use of a transfer's local memory. While one lives the transfer has not ended.
pub struct Use {
    work: Arc<Work>,
}

impl Use {
    /// The transfer.
    pub fn work(&self) -> &Arc<Work> {
        &self.work
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.work.state.lock();
        state.uses -= 1;
        self.work.settle(&mut state);
    }
}
