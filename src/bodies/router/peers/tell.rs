//! The telling side: a PUB socket, and the task that decides when there is something to say.

use super::{LiveRouter, MAX_MESSAGE_BYTES, PeersError, RouterError, encode};
use crate::zmtp::{LinkConfig, PublisherConfig, ZmtpPublisher};
use bytes::Bytes;
use llmd_brain::fleet::PeerLoad;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What precedes each message: a publisher of something else that got the port is not heard.
pub(super) const TOPIC: Bytes = Bytes::from_static(b"llmd-peers");
/// Messages queued for a follower before more are lost to it. State that waits is old.
const QUEUED_MESSAGES: usize = 4;

/// Patience with a peer. Nothing need come for long: who is silent is silent for the brain after
/// `fleet.peer_ttl_ms`, whatever his connection says.
pub(super) fn link() -> LinkConfig {
    let mut link = LinkConfig {
        heartbeat_interval: Duration::from_secs(30),
        silence_timeout: Duration::from_secs(90),
        ..LinkConfig::default()
    };
    // And the topic.
    link.limits.max_message_bytes = MAX_MESSAGE_BYTES + 1024;
    link
}

/// What wakes the task.
#[derive(Default)]
pub(super) struct Stir {
    /// The task waits for a request.
    is_asleep: AtomicBool,
    /// A peer is at work.
    is_asked: AtomicBool,
    notify: Notify,
}

impl Stir {
    /// Something was booked.
    pub(super) fn booked(&self) {
        // The brain's mutex orders this after the booking, and the task's look after it slept.
        if self.is_asleep.load(SeqCst) {
            self.notify.notify_one();
        }
    }

    /// A peer has something in flight.
    pub(super) fn peer_at_work(&self) {
        if self.is_asleep.load(SeqCst) {
            self.is_asked.store(true, SeqCst);
            self.notify.notify_one();
        }
    }
}

/// A router that tells. Dropping it closes the socket.
pub(super) struct Teller {
    publisher: Arc<ZmtpPublisher>,
    _stop: DropGuard,
}

impl Teller {
    pub(super) fn start(
        router: &Arc<LiveRouter>,
        listen: &str,
        interval: Duration,
    ) -> Result<Self, RouterError> {
        let task = Task::bound(router, listen, interval)?;
        let publisher = Arc::clone(&task.publisher);
        let stop = CancellationToken::new();
        router.runtime()?.spawn(stop.clone().run_until_cancelled_owned(task.run()));
        Ok(Self { publisher, _stop: stop.drop_guard() })
    }

    pub(super) fn address(&self) -> String {
        format!("tcp://{}", self.publisher.local_addr())
    }

    pub(super) fn told(&self) -> u64 {
        self.publisher.stats().published
    }

    pub(super) fn followers(&self) -> usize {
        self.publisher.stats().subscribers
    }
}

/// Looks from time to time whether there is something to say.
pub(super) struct Task {
    router: Weak<LiveRouter>,
    stir: Arc<Stir>,
    publisher: Arc<ZmtpPublisher>,
    interval: Duration,
    keep_alive: Duration,
    /// What followers believe.
    told: Vec<PeerLoad>,
    told_at: Option<Instant>,
    /// How many followers there were.
    told_to: usize,
}

impl Task {
    fn bound(
        router: &Arc<LiveRouter>,
        listen: &str,
        interval: Duration,
    ) -> Result<Self, RouterError> {
        let mut config =
            PublisherConfig { high_water_messages: QUEUED_MESSAGES, ..PublisherConfig::default() };
        // Followers send subscriptions and no more: the limits stay a server's.
        config.server.link = LinkConfig { limits: config.server.link.limits, ..link() };
        let listen = listen.to_owned();
        let bound =
            router.wait_on(async move { ZmtpPublisher::bind_with(&listen, config).await })?;
        Ok(Self {
            router: Arc::downgrade(router),
            stir: Arc::clone(&router.peers.stir),
            publisher: Arc::new(bound.map_err(PeersError::Listen)?),
            interval,
            keep_alive: router.keep_alive(),
            told: Vec::new(),
            told_at: None,
            told_to: 0,
        })
    }

    async fn run(mut self) {
        loop {
            let Some(mut is_idle) = self.look() else { return };
            if is_idle {
                self.stir.is_asleep.store(true, SeqCst);
                // What was booked before that woke nobody.
                let Some(still) = self.look() else { return };
                is_idle = still;
            }
            if is_idle {
                self.stir.notify.notified().await;
            }
            self.stir.is_asleep.store(false, SeqCst);
            if !is_idle {
                sleep(self.interval).await;
            }
        }
    }

    /// Tells what there is to tell. Whether nothing is in flight; `None` where the router is gone.
    pub(super) fn look(&mut self) -> Option<bool> {
        let router = self.router.upgrade()?;
        let totals = router.brain.own_totals(router.now());
        let is_idle = totals.iter().all(|it| it.load.is_idle());
        let followers = self.publisher.stats().subscribers;
        let is_asked = self.stir.is_asked.swap(false, SeqCst);
        let is_due = self.told_at.is_none_or(|at| at.elapsed() >= self.keep_alive);
        let is_news = !same(&self.told, &totals) || followers > self.told_to;
        if is_news || is_due && (is_asked || !is_idle) {
            let message = router.message(totals.clone());
            let outcome = self.publisher.publish(&TOPIC, &[encode(&message).into()]);
            if outcome.dropped == 0 {
                self.told = totals;
                self.told_at = Some(Instant::now());
                self.told_to = followers;
            }
        }
        self.told_to = self.told_to.min(followers);
        Some(is_idle)
    }
}

/// Whether a peer that believes one need not be told the other: ages go on by themselves.
fn same(told: &[PeerLoad], now: &[PeerLoad]) -> bool {
    let head = |it: &PeerLoad| it.head.map(|head| (head.uncached_tokens, head.pairs));
    told.len() == now.len()
        && told.iter().zip(now).all(|(a, b)| {
            (a.load, a.prefills, a.dp_rank) == (b.load, b.prefills, b.dp_rank)
                && (head(a), a.head_done_us_ago.is_some())
                    == (head(b), b.head_done_us_ago.is_some())
                && a.address == b.address
        })
}

#[cfg(test)]
impl Task {
    /// One that nobody runs, and that is not due in the time of a test.
    pub(super) fn unhurried(router: &Arc<LiveRouter>) -> Self {
        let mut task = Self::bound(router, "tcp://127.0.0.1:0", Duration::ZERO).unwrap();
        task.keep_alive = Duration::from_secs(3_600);
        task
    }

    pub(super) fn sleep(&self) {
        self.stir.is_asleep.store(true, SeqCst);
    }

    pub(super) fn be_due(&mut self) {
        self.told_at = None;
    }

    pub(super) fn published(&self) -> u64 {
        self.publisher.stats().published
    }
}
