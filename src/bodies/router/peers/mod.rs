//! What routers in front of the same engines tell each other, from process to process.
//!
//! Each publishes what it has in flight ([`LiveRouter::tell_peers`], a ZeroMQ PUB socket) and follows
//! those whose addresses it is given ([`LiveRouter::hear_peers`]). Nothing here finds addresses: a
//! rendezvous or a list of hosts does. Whoever has a carrier of his own takes the messages
//! themselves ([`LiveRouter::own_totals`], [`LiveRouter::peer_totals`]).
//!
//! - A message is state: one that is lost is healed by the next. A subscriber that is slow loses
//!   messages and delays nobody.
//! - A router speaks at most once an interval while it has anything in flight, and only where that
//!   changed; every third of `fleet.peer_ttl_ms` where it did not. With nothing in flight it says
//!   so once and sleeps until its next request. Beside a peer that is at work it tells every third
//!   of that time that it is there: of a fleet where nobody tells, loads are estimated.
//! - A router hears only those it was told to follow: nobody can send it anything.
//! - A request pays for one atomic load.

mod follow;
mod message;
mod tell;

pub use message::{MAX_MESSAGE_BYTES, MessageError, decode, encode};

use super::LiveRouter;
use super::error::RouterError;
use crate::zmtp::{Endpoint, ZmtpError};
use follow::Followed;
use llmd_brain::brain::{Input, PeerTotals};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tell::{Stir, Teller};

/// Keep-alives in the time after which a silent peer counts for nothing.
const TELLS_PER_TTL: u32 = 3;

/// What cannot be told or heard.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// Peers know each other by name.
    #[error(
        "fleet.router is empty: give this router a name that none of its peers has, and that no earlier run of it had"
    )]
    Unnamed,
    /// Too often to be worth it, or so rarely that peers take it for silence.
    #[error(
        "an interval of {interval_ms} ms: give it 1 to {most_ms} ms, a third of fleet.peer_ttl_ms"
    )]
    Interval {
        /// What was asked for.
        interval_ms: f64,
        /// The longest.
        most_ms: f64,
    },
    /// An address that cannot be.
    #[error("a peer's address: {0}")]
    Address(ZmtpError),
    /// Where this router cannot listen.
    #[error("this router cannot tell its peers: {0}")]
    Listen(ZmtpError),
    /// Bytes that are no message.
    #[error("a peer's message {0}")]
    Message(#[from] MessageError),
}

/// How telling and hearing goes.
#[derive(Debug, Clone, Serialize)]
pub struct PeersTotals {
    /// Messages published.
    pub told: u64,
    /// Routers that follow this one now.
    pub followers: usize,
    /// Messages of peers that were taken in, late ones among them.
    pub heard: u64,
    /// Messages of peers that could not be.
    pub refused: u64,
    /// Peers that are followed.
    pub followed: usize,
    /// Those of them that there is a connection to now.
    pub connected: usize,
    /// Why the last message was refused, or the last connection failed.
    pub last_error: Option<String>,
}

/// A router's part in it.
pub(super) struct Peers {
    epoch: u64,
    sequence: AtomicU64,
    stir: Arc<Stir>,
    teller: Mutex<Option<Teller>>,
    followed: Mutex<BTreeMap<String, Followed>>,
    heard: AtomicU64,
    refused: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            epoch: epoch_now(),
            sequence: AtomicU64::new(0),
            stir: Arc::default(),
            teller: Mutex::default(),
            followed: Mutex::default(),
            heard: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_error: Mutex::default(),
        }
    }

    /// Something was booked.
    pub(super) fn stir(&self) {
        self.stir.booked();
    }

    pub(super) fn close(&self) {
        // Dropped outside the lock.
        let teller = self.teller.lock().take();
        let followed = std::mem::take(&mut *self.followed.lock());
        drop((teller, followed));
    }

    pub(super) fn totals(&self) -> PeersTotals {
        let (told, followers) =
            self.teller.lock().as_ref().map_or((0, 0), |it| (it.told(), it.followers()));
        let followed = self.followed.lock();
        PeersTotals {
            told,
            followers,
            heard: self.heard.load(Relaxed),
            refused: self.refused.load(Relaxed),
            followed: followed.len(),
            connected: followed.values().filter(|it| it.is_connected()).count(),
            last_error: self.last_error.lock().clone(),
        }
    }

    fn note(&self, error: &impl ToString) {
        *self.last_error.lock() = Some(error.to_string());
    }
}

impl LiveRouter {
    /// Publishes from now on what this router has in flight, at `listen` (`tcp://host:port`, port 0:
    /// any free one), and returns the address. The host has to be one at which peers reach this
    /// process. Told anew, it listens anew.
    ///
    /// # Errors
    /// [`RouterError::Peers`], [`RouterError::Runtime`], [`RouterError::Closed`].
    pub fn tell_peers(
        self: &Arc<Self>,
        listen: &str,
        interval_ms: f64,
    ) -> Result<String, RouterError> {
        self.check_open()?;
        let (name, keep_alive) = (&self.config.fleet.router, self.keep_alive());
        if name.is_empty() {
            return Err(PeersError::Unnamed.into());
        }
        let most_ms = keep_alive.as_secs_f64() * 1e3;
        if !(1.0..=most_ms).contains(&interval_ms) {
            return Err(PeersError::Interval { interval_ms, most_ms }.into());
        }
        let interval = Duration::from_secs_f64(interval_ms / 1e3);
        let teller = Teller::start(self, listen, interval)?;
        let address = teller.address();
        let before = self.peers.teller.lock().replace(teller);
        drop(before);
        Ok(address)
    }

    /// Follows these peers, and from now on nobody else. Its own address may be among them.
    ///
    /// # Errors
    /// [`RouterError::Peers`] for an address that cannot be, where nothing changes;
    /// [`RouterError::Runtime`], [`RouterError::Closed`].
    pub fn hear_peers(self: &Arc<Self>, addresses: &[String]) -> Result<(), RouterError> {
        self.check_open()?;
        let own = self.peers.teller.lock().as_ref().map(Teller::address);
        let mut wanted = BTreeMap::new();
        for address in addresses.iter().filter(|it| Some(*it) != own.as_ref()) {
            let endpoint: Endpoint = address.parse().map_err(PeersError::Address)?;
            wanted.insert(address.clone(), endpoint);
        }
        let runtime = self.runtime()?;
        let mut followed = self.peers.followed.lock();
        followed.retain(|address, _| wanted.contains_key(address));
        for (address, endpoint) in wanted {
            followed.entry(address).or_insert_with(|| Followed::start(self, &runtime, endpoint));
        }
        Ok(())
    }

    /// What this router has in flight, as bytes for [`peer_totals`](Self::peer_totals) of its peers.
    ///
    /// # Errors
    /// [`RouterError::Peers`] for a router without a name.
    pub fn own_totals(&self) -> Result<Vec<u8>, RouterError> {
        if self.config.fleet.router.is_empty() {
            return Err(PeersError::Unnamed.into());
        }
        Ok(encode(&self.message(self.brain.own_totals(self.now()))))
    }

    /// Takes in what [`own_totals`](Self::own_totals) of a peer returned.
    ///
    /// # Errors
    /// [`RouterError::Peers`] for what is no message, [`RouterError::Brain`] for a peer that is one
    /// too many.
    pub fn peer_totals(&self, message: &[u8]) -> Result<(), RouterError> {
        let heard = decode(message).map_err(|why| RouterError::from(PeersError::from(why)));
        let is_at_work = |it: &PeerTotals| it.endpoints.iter().any(|at| !at.load.is_idle());
        let heard = heard.and_then(|totals| {
            let at_work = is_at_work(&totals);
            self.step(Input::PeerTotals(totals)).map(|_| at_work)
        });
        match &heard {
            Ok(at_work) => {
                self.peers.heard.fetch_add(1, Relaxed);
                if *at_work {
                    self.peers.stir.peer_at_work();
                }
            }
            Err(why) => {
                self.peers.refused.fetch_add(1, Relaxed);
                self.peers.note(why);
            }
        }
        heard.map(drop)
    }

    /// How long this router is silent at most while it, or one that it hears, is at work.
    fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.config.fleet.peer_ttl_ms) / TELLS_PER_TTL
    }

    fn message(&self, endpoints: Vec<llmd_brain::fleet::PeerLoad>) -> PeerTotals {
        PeerTotals {
            router: self.config.fleet.router.clone(),
            epoch: self.peers.epoch,
            sequence: 1 + self.peers.sequence.fetch_add(1, Relaxed),
            endpoints,
        }
    }
}

/// The epoch of a router that is made now: higher than that of an earlier one of its name, unless
/// the clock was set back. Microseconds since 1970.
fn epoch_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
