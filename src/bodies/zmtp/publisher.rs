//! The PUB socket.

use super::ZmtpError;
use super::server::{PeerSide, Queued, ServerConfig, accept, listen};
use super::session::{Event, SocketType};
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Longest topic prefix that a peer may subscribe to; a longer one closes its connection.
const MAX_TOPIC_BYTES: usize = 1024;

/// Bounds of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// Towards its peers.
    pub server: ServerConfig,
    /// Messages queued for one subscriber before more are dropped (vLLM: 100,000).
    pub high_water_messages: usize,
    /// Bytes queued for one subscriber before more are dropped.
    pub high_water_bytes: usize,
    /// Most topic prefixes of one subscriber; one more closes its connection.
    pub max_subscriptions: usize,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        Self {
            server: ServerConfig::default(),
            high_water_messages: 100_000,
            high_water_bytes: 256 << 20,
            max_subscriptions: 256,
        }
    }
}

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Subscribers that will get it.
    pub queued: usize,
    /// Subscribers that wanted it and whose queue was full.
    pub dropped: usize,
}

/// What became of all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublisherStats {
    /// Messages given to [`ZmtpPublisher::publish`].
    pub published: u64,
    /// Deliveries queued: one a message and interested subscriber.
    pub queued: u64,
    /// Deliveries dropped at the high-water mark.
    pub dropped: u64,
    /// Peers with at least one subscription.
    pub subscribers: usize,
}

/// A bound PUB socket. Dropping it closes every connection.
#[derive(Debug)]
pub struct ZmtpPublisher {
    shared: Arc<Shared>,
    address: SocketAddr,
    subscribers: watch::Receiver<usize>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    max_subscriptions: usize,
    high_water_bytes: usize,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    count: watch::Sender<usize>,
    published: AtomicU64,
    queued: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    topics: Mutex<Vec<Bytes>>,
    queue: mpsc::Sender<Queued>,
    queued_bytes: AtomicUsize,
}

impl ZmtpPublisher {
    /// Binds `tcp://host:port` (host `*`: every interface, port 0 or `*`: any free one) with
    /// default bounds. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`], [`ZmtpError::Io`].
    pub async fn bind(endpoint: &str) -> Result<Self, ZmtpError> {
        Self::bind_with(endpoint, PublisherConfig::default()).await
    }

    /// [`bind`](Self::bind) with other bounds.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`], [`ZmtpError::Io`].
    pub async fn bind_with(endpoint: &str, config: PublisherConfig) -> Result<Self, ZmtpError> {
        let (listener, address) = listen(endpoint).await?;
        let (count, subscribers) = watch::channel(0);
        let shared = Arc::new(Shared {
            max_subscriptions: config.max_subscriptions,
            high_water_bytes: config.high_water_bytes,
            subscribers: Mutex::new(Vec::new()),
            count,
            published: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let high_water_messages = config.high_water_messages.max(1);
        let join = {
            let shared = Arc::clone(&shared);
            move |_| {
                let (queue, messages) = mpsc::channel(high_water_messages);
                let subscriber = Arc::new(Subscriber {
                    topics: Mutex::new(Vec::new()),
                    queue,
                    queued_bytes: AtomicUsize::new(0),
                });
                (SubscriberSide { shared: Arc::clone(&shared), subscriber }, messages)
            }
        };
        tokio::spawn(accept(listener, SocketType::Pub, config.server, stop.clone(), join));
        Ok(Self { shared, address, subscribers, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sends `topic` followed by `frames` to every subscriber of a prefix of `topic`, in the same
    /// order to each. Never waits; callable from any thread.
    pub fn publish(&self, topic: &Bytes, frames: &[Bytes]) -> Published {
        let message: Queued = std::iter::once(topic).chain(frames).cloned().collect();
        let bytes = message.iter().map(Bytes::len).sum();
        let mut outcome = Published::default();
        {
            let subscribers = self.shared.subscribers.lock();
            for subscriber in subscribers.iter().filter(|s| s.wants(topic)) {
                match subscriber.offer(&message, bytes, self.shared.high_water_bytes) {
                    true => outcome.queued += 1,
                    false => outcome.dropped += 1,
                }
            }
        }
        self.shared.published.fetch_add(1, Ordering::Relaxed);
        self.shared.queued.fetch_add(outcome.queued as u64, Ordering::Relaxed);
        self.shared.dropped.fetch_add(outcome.dropped as u64, Ordering::Relaxed);
        outcome
    }

    /// Waits until at least `count` peers have subscribed to something.
    pub async fn subscribed(&self, count: usize) {
        // The sender lives as long as `self.shared`.
        let _ = self.subscribers.clone().wait_for(|&now| now >= count).await;
    }

    /// What became of all messages so far.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        PublisherStats {
            published: self.shared.published.load(Ordering::Relaxed),
            queued: self.shared.queued.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            subscribers: *self.subscribers.borrow(),
        }
    }
}

impl Subscriber {
    fn wants(&self, topic: &[u8]) -> bool {
        self.topics.lock().iter().any(|prefix| topic.starts_with(prefix))
    }

    /// A message larger than the mark still goes to an empty queue: else it could never go.
    fn offer(&self, message: &Queued, bytes: usize, high_water_bytes: usize) -> bool {
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= high_water_bytes;
        let queued = fits && self.queue.try_send(Arc::clone(message)).is_ok();
        if !queued {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        queued
    }
}

struct SubscriberSide {
    shared: Arc<Shared>,
    subscriber: Arc<Subscriber>,
}

impl PeerSide for SubscriberSide {
    fn event(&mut self, event: Event) -> Result<(), ZmtpError> {
        match event {
            Event::Subscribe(topic) => {
                if topic.len() > MAX_TOPIC_BYTES {
                    return Err(ZmtpError::Protocol(format!(
                        "a subscription of {} bytes, more than {MAX_TOPIC_BYTES}",
                        topic.len()
                    )));
                }
                {
                    let mut topics = self.subscriber.topics.lock();
                    if topics.len() >= self.shared.max_subscriptions {
                        return Err(ZmtpError::Protocol(format!(
                            "more than {} subscriptions",
                            self.shared.max_subscriptions
                        )));
                    }
                    // A copy: the received bytes share a large read buffer.
                    topics.push(Bytes::copy_from_slice(&topic));
                }
                self.shared.enlist(&self.subscriber);
            }
            Event::Unsubscribe(topic) => {
                let mut topics = self.subscriber.topics.lock();
                if let Some(at) = topics.iter().position(|known| *known == topic) {
                    topics.swap_remove(at);
                }
            }
            Event::Ready(_) | Event::Message(_) | Event::Pong => {}
        }
        Ok(())
    }

    fn dequeued(&mut self, message: &Queued) {
        let bytes: usize = message.iter().map(Bytes::len).sum();
        self.subscriber.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    fn enlist(&self, subscriber: &Arc<Subscriber>) {
        let mut subscribers = self.subscribers.lock();
        if !subscribers.iter().any(|known| Arc::ptr_eq(known, subscriber)) {
            subscribers.push(Arc::clone(subscriber));
        }
        self.count.send_replace(subscribers.len());
    }
}

impl Drop for SubscriberSide {
    fn drop(&mut self) {
        let mut subscribers = self.shared.subscribers.lock();
        subscribers.retain(|known| !Arc::ptr_eq(known, &self.subscriber));
        self.shared.count.send_replace(subscribers.len());
    }
}
