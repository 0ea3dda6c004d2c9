//! The serving side: what an agent does for peers that connect to it.
//!
//! A thread a connection, because a connection does one thing at a time and blocks in the kernel
//! while bytes move. Requests of one connection are answered in their order.

mod connection;
mod listener;

use super::rdma::Device;
use super::registry::Registry;
use super::wire::dial::Identity;
use super::{Notification, TransferError};
use connection::Connection;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub(super) use listener::Listener;

/// Notifications that wait to be collected. A peer that sends more is disconnected, which fails its
/// transfers visibly; dropping one would leave somebody waiting.
const MAX_NOTIFICATIONS: usize = 1 << 16;

/// What all connections of an agent share.
pub(super) struct Owner {
    pub registry: Arc<Registry>,
    pub identity: Arc<Identity>,
    pub card: Option<Arc<Device>>,
    connections: Mutex<Vec<Arc<Connection>>>,
    notifications: Mutex<VecDeque<Notification>>,
    notified: Condvar,
}

impl Owner {
    pub fn new(
        registry: Arc<Registry>,
        identity: Arc<Identity>,
        card: Option<Arc<Device>>,
    ) -> Self {
        Self {
            registry,
            identity,
            card,
            connections: Mutex::default(),
            notifications: Mutex::default(),
            notified: Condvar::new(),
        }
    }

    /// A region's handle was dropped: peers that mapped it are told.
    pub fn detach(&self, region: u64) {
        let connections = self.connections.lock().clone();
        connections.iter().for_each(|connection| connection.detach(region));
    }

    /// The oldest notification that was not collected, waited for until `deadline`.
    pub fn notification(&self, deadline: Instant) -> Option<Notification> {
        let mut notifications = self.notifications.lock();
        while notifications.is_empty() {
            if self.notified.wait_until(&mut notifications, deadline).timed_out() {
                break;
            }
        }
        notifications.pop_front()
    }

    fn note(&self, notification: Notification) -> Result<(), TransferError> {
        let mut notifications = self.notifications.lock();
        if notifications.len() >= MAX_NOTIFICATIONS {
            let why = format!("{MAX_NOTIFICATIONS} notifications wait to be collected");
            return Err(TransferError::Refused { peer: "this agent".into(), why });
        }
        notifications.push_back(notification);
        self.notified.notify_one();
        Ok(())
    }
}
