//! What a caller holds of a transfer: prepared, then under way.

use super::descriptor::Part;
use super::path::{Path, PathKind};
use super::region::Registered;
use super::work::Work;
use super::{Op, RemoteRegion, TransferError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transfer that can be posted, again and again: planning is done.
pub struct Prepared {
    pub(super) op: Op,
    pub(super) local: Arc<Registered>,
    pub(super) remote: RemoteRegion,
    pub(super) parts: Arc<[Part]>,
    pub(super) path: Arc<dyn Path>,
}

impl Prepared {
    /// The path that it will take.
    pub fn path(&self) -> PathKind {
        self.path.kind()
    }

    /// How many contiguous runs the descriptors made.
    pub fn runs(&self) -> usize {
        self.parts.iter().map(|part| part.runs.len()).sum()
    }

    /// Posts all parts.
    pub fn post(&self) -> Result<Transfer, TransferError> {
        let transfer = self.start(None)?;
        for part in 0..self.parts.len() {
            transfer.post_part(part)?;
        }
        Ok(transfer)
    }

    /// Takes the local blocks, and posts nothing yet: parts are posted one by one as they are ready
    /// (a layer that was computed). With a `tag`, the peer is notified of each part that is done.
    pub fn start(&self, tag: Option<u64>) -> Result<Transfer, TransferError> {
        let (local, remote) = (self.local.clone(), self.remote.clone());
        let work = Work::start(self.op, local, remote, self.parts.clone(), tag, self.path.clone())?;
        Ok(Transfer { work })
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Under way; so many parts are done.
    Pending {
        /// Parts that arrived whole.
        parts_done: usize,
    },
    /// All of it arrived.
    Done(Completion),
}

/// What a transfer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Bytes moved.
    pub bytes: u64,
    /// The way they went.
    pub path: PathKind,
}

/// A transfer under way. Dropped before its end, it is cancelled.
pub struct Transfer {
    work: Arc<Work>,
}

impl Transfer {
    /// Posts a part; each once.
    pub fn post_part(&self, part: usize) -> Result<(), TransferError> {
        self.work.post(part)
    }

    /// How far it is. An error is its end: nothing touches the local memory any more.
    pub fn poll(&self) -> Result<Progress, TransferError> {
        self.progress(self.work.standing())
    }

    /// Waits for its end, or for `timeout`. Where that speeds it up, the caller's thread copies.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Progress, TransferError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.progress(self.work.wait(usize::MAX, deadline))
    }

    /// Waits until more than `parts` parts are done, for its end, or for `timeout`.
    pub fn wait_parts(
        &self,
        parts: usize,
        timeout: Option<Duration>,
    ) -> Result<Progress, TransferError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.progress(self.work.wait(parts, deadline))
    }

    /// Asks it to stop. It has ended when [`Transfer::poll`] says so.
    pub fn cancel(&self) {
        self.work.fail(TransferError::Cancelled);
    }

    fn progress(&self, standing: super::work::Standing) -> Result<Progress, TransferError> {
        let super::work::Standing { parts_done, bytes, end } = standing;
        match end {
            None => Ok(Progress::Pending { parts_done }),
            Some(Ok(())) => Ok(Progress::Done(Completion { bytes, path: self.work.path_kind() })),
            Some(Err(error)) => Err(error),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.cancel();
    }
}
