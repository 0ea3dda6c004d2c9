//! The two clients: SUB and DEALER, one connection each.

use super::link::{Link, LinkConfig};
use super::session::{Event, PeerInfo, SessionConfig, SocketType};
use super::{Endpoint, Message, ZmtpError};
use bytes::Bytes;
use std::collections::VecDeque;

/// Messages kept while the confirmation of a subscription is awaited.
const EARLY_MESSAGES: usize = 64;

/// A SUB socket with one connection to one PUB.
#[derive(Debug)]
pub struct Subscription {
    link: Link,
    peer: PeerInfo,
    early: VecDeque<Message>,
}

impl Subscription {
    /// Connects, subscribes to every topic that starts with one of `topics` (an empty one: all),
    /// and waits until the peer confirms by a heartbeat that it has read that. Peers older than
    /// ZMTP 3.1 cannot confirm.
    ///
    /// # Errors
    /// [`ZmtpError`]; there is no connection then.
    pub async fn connect(
        endpoint: &Endpoint,
        topics: &[Bytes],
        config: LinkConfig,
    ) -> Result<Self, ZmtpError> {
        let mut session = SessionConfig::new(SocketType::Sub);
        session.limits = config.limits;
        let (mut link, peer) = Link::connect(endpoint, session, config).await?;
        for topic in topics {
            link.session().subscribe(topic);
        }
        let mut early = VecDeque::new();
        let mut confirmed = !link.session().ping();
        link.flush().await?;
        while !confirmed && early.len() < EARLY_MESSAGES {
            match link.next().await? {
                Event::Message(message) => early.push_back(message),
                event => confirmed = event == Event::Pong,
            }
        }
        Ok(Self { link, peer, early })
    }

    /// Who publishes.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// [`ZmtpError`]: the connection has ended, and with it this subscription.
    pub async fn recv(&mut self) -> Result<Message, ZmtpError> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        loop {
            if let Event::Message(message) = self.link.next().await? {
                return Ok(message);
            }
        }
    }
}

/// A DEALER socket with one connection to one ROUTER.
#[derive(Debug)]
pub struct Dealer {
    link: Link,
}

impl Dealer {
    /// Connects.
    ///
    /// # Errors
    /// [`ZmtpError`]; there is no connection then.
    pub async fn connect(endpoint: &Endpoint, config: LinkConfig) -> Result<Self, ZmtpError> {
        let mut session = SessionConfig::new(SocketType::Dealer);
        session.limits = config.limits;
        let (link, _) = Link::connect(endpoint, session, config).await?;
        Ok(Self { link })
    }

    /// Queues a message; it goes out while [`recv`](Self::recv) waits.
    pub fn send(&mut self, frames: &[Bytes]) {
        self.link.send(frames);
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// [`ZmtpError`]: the connection has ended.
    pub async fn recv(&mut self) -> Result<Message, ZmtpError> {
        loop {
            if let Event::Message(message) = self.link.next().await? {
                return Ok(message);
            }
        }
    }
}
