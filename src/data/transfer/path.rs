//! What a path is: one way for bytes between two agents.

use super::work::Work;
use super::{Op, RemoteRegion, TransferError, region::Registered};
use std::sync::Arc;

/// The ways there are, best first: the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// Between devices of one host, through the CUDA driver.
    CudaIpc,
    /// Through memory that both processes map.
    Shm,
    /// Through a network card that reads and writes memory itself.
    Rdma,
    /// Through TCP connections.
    Tcp,
}

impl std::fmt::Display for PathKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CudaIpc => "cuda_ipc",
            Self::Shm => "shm",
            Self::Rdma => "rdma",
            Self::Tcp => "tcp",
        })
    }
}

/// One way to one peer. `tests/rust/transfer` holds every path to the same suite.
///
/// Of [`Path::post`] is asked, for the part it is given:
/// - It takes a [`super::work::Use`] before it returns, and keeps it until nothing touches the local
///   memory for this part any more.
/// - Remote checks hold before the first byte is copied and after the last one; a write holds the
///   remote blocks in between, so that their owner cannot give them away.
/// - It ends in exactly one of [`Work::part_done`] and [`Work::fail`], however the peer behaves.
/// - It stops early, and keeps to the above, once [`Work::stopping`].
pub trait Path: Send + Sync {
    /// Which way it is.
    fn kind(&self) -> PathKind;

    /// Whether it can carry transfers between these regions; if not, why.
    fn carries(&self, op: Op, local: &Registered, remote: &RemoteRegion) -> Result<(), String>;

    /// Starts a part of a transfer. An error here fails the transfer.
    fn post(&self, work: &Arc<Work>, part: usize) -> Result<(), TransferError>;

    /// Bytes of the peer's regions that this process maps for the path's sake.
    fn attached_bytes(&self) -> u64 {
        0
    }

    /// Lends the calling thread, which waits for the transfer, where that speeds it up.
    fn lend(&self, _work: &Work) {}

    /// Tells the peer that a part is done; it gets a [`super::Notification`].
    fn notify(&self, work: &Work, part: usize) -> Result<(), TransferError>;
}
