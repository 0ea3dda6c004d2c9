//! What is posted to the card at once: some runs of a part.

use super::queue_pair::Request;
use super::responder::RemoteKey;
use crate::transfer::work::{Use, Work};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests of a chain: its last one is waited for, the others only cost the card.
pub(super) const CHAIN_REQUESTS: usize = 128;

/// A part under way.
pub(super) struct Posted {
    pub hold: Use,
    pub part: usize,
    /// The owner's hold on blocks that are written to.
    pub grant: Option<u64>,
    pub local_address: u64,
    pub local_key: u32,
    pub remote: RemoteKey,
    left: AtomicUsize,
}

/// Some runs of a part.
pub(super) struct Chain {
    pub posted: Arc<Posted>,
    runs: Range<usize>,
    pub last: bool,
}

impl Chain {
    pub fn cut(
        hold: Use,
        part: usize,
        grant: Option<u64>,
        (local_address, local_key): (u64, u32),
        remote: RemoteKey,
    ) -> Vec<Self> {
        let runs = hold.work().part(part).runs.len();
        let left = AtomicUsize::new(runs.div_ceil(CHAIN_REQUESTS));
        let posted = Arc::new(Posted { hold, part, grant, local_address, local_key, remote, left });
        let chain = |start: usize| {
            let until = (start + CHAIN_REQUESTS).min(runs);
            Self { posted: posted.clone(), runs: start..until, last: until == runs }
        };
        (0..runs).step_by(CHAIN_REQUESTS).map(chain).collect()
    }

    pub fn work(&self) -> &Arc<Work> {
        self.posted.hold.work()
    }

    pub fn requests(&self) -> Vec<Request> {
        let Posted { local_address, local_key, remote, part, .. } = &*self.posted;
        let runs = &self.work().part(*part).runs[self.runs.clone()];
        let request = |run: &crate::transfer::descriptor::Run| Request {
            local_address: local_address + run.local_offset,
            local_key: *local_key,
            remote_address: remote.address.wrapping_add(run.remote_offset),
            remote_key: remote.key,
            bytes: run.bytes as u32,
        };
        runs.iter().map(request).collect()
    }

    /// The card is done with it; true if it was the part's last.
    pub fn completed(&self) -> bool {
        self.posted.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
