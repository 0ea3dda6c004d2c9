//! How an endpoint's health changes: the operator's orders and the health checks' findings are
//! remembered apart, so that a recovery restores what the operator last wanted.

use super::Health;
use serde::{Deserialize, Serialize};

/// A change of an endpoint that is in the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointChange {
    /// No new requests.
    Cordon,
    /// New requests again; takes a drain back too.
    Uncordon,
    /// No new requests; leaves when idle.
    Drain,
    /// A health check failed.
    Unreachable,
    /// A health check passed.
    Reachable,
}

/// What the operator last ordered. The last order wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Order {
    #[default]
    Serve,
    Cordon,
    Drain,
}

/// Both halves of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    order: Order,
    unreachable: bool,
}

impl Standing {
    pub(super) fn apply(&mut self, change: EndpointChange) {
        match change {
            EndpointChange::Cordon => self.order = Order::Cordon,
            EndpointChange::Uncordon => self.order = Order::Serve,
            EndpointChange::Drain => self.order = Order::Drain,
            EndpointChange::Unreachable => self.unreachable = true,
            EndpointChange::Reachable => self.unreachable = false,
        }
    }

    pub(super) fn health(self) -> Health {
        match (self.unreachable, self.order) {
            (true, _) => Health::Unreachable,
            (false, Order::Serve) => Health::Ready,
            (false, Order::Cordon) => Health::Cordoned,
            (false, Order::Drain) => Health::Draining,
        }
    }

    /// Ordered to leave when idle, reachable or not.
    pub(super) fn is_draining(self) -> bool {
        self.order == Order::Drain
    }
}
