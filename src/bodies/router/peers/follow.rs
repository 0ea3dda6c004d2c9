//! The hearing side: one connection to one peer, made again for as long as the peer is wanted.

use super::tell::{TOPIC, link};
use super::{Endpoint, LiveRouter};
use crate::observe::{Backoff, BackoffConfig};
use crate::zmtp::{Subscription, ZmtpError};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A router that is not there costs a connection every two seconds; one that comes back is heard
/// as soon.
const WAITS: BackoffConfig =
    BackoffConfig { initial: Duration::from_millis(50), max: Duration::from_secs(2) };

/// A peer that is followed. Dropping it ends that.
pub(super) struct Followed {
    is_connected: Arc<AtomicBool>,
    _stop: DropGuard,
}

impl Followed {
    pub(super) fn start(router: &Arc<LiveRouter>, runtime: &Handle, peer: Endpoint) -> Self {
        let is_connected = Arc::new(AtomicBool::new(false));
        let stop = CancellationToken::new();
        let task =
            follow(Arc::downgrade(router), peer, Arc::clone(&is_connected), router.peers.epoch);
        runtime.spawn(stop.clone().run_until_cancelled_owned(task));
        Self { is_connected, _stop: stop.drop_guard() }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }
}

async fn follow(
    router: Weak<LiveRouter>,
    peer: Endpoint,
    is_connected: Arc<AtomicBool>,
    seed: u64,
) {
    let mut backoff = Backoff::new(WAITS, seed);
    loop {
        let ended = match Subscription::connect(&peer, &[TOPIC], link()).await {
            Ok(subscription) => {
                is_connected.store(true, Relaxed);
                backoff.reset();
                hear(&router, subscription).await
            }
            Err(error) => Some(error),
        };
        is_connected.store(false, Relaxed);
        let (Some(error), Some(router)) = (ended, router.upgrade()) else { return };
        router.peers.note(&format!("peer {peer}: {error}"));
        drop(router);
        sleep(backoff.next_wait()).await;
    }
}

/// Hears until the connection ends, and says why; `None` where the router is gone.
async fn hear(router: &Weak<LiveRouter>, mut subscription: Subscription) -> Option<ZmtpError> {
    loop {
        let message = match subscription.recv().await {
            Ok(message) => message,
            Err(error) => return Some(error),
        };
        // Counted and noted there, where it is refused.
        let _ = router.upgrade()?.peer_totals(message.last().map_or(&[], |body| body));
    }
}
