//! What a router refuses.

use super::learned::LearnedError;
use super::peers::PeersError;
use super::snapshot::SnapshotError;
use crate::observe::discovery::DiscoveryError;
use crate::zmtp::ZmtpError;
use llmd_brain::brain::{BrainError, Rejected};
use llmd_brain::prompt::PromptError;
use std::path::PathBuf;

/// Why a router refused something.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// It was closed.
    #[error("the router is closed: make a new one")]
    Closed,
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    /// The prompt cannot be.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The brain refused.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// Nobody can serve the request.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Nobody in the fleet is meant.
    #[error(
        "no endpoint {0:?} in the fleet: give an endpoint, its id or its address as endpoints() lists them"
    )]
    UnknownEndpoint(String),
    /// A request names a prompt twice, or not at all.
    #[error("give the prompt either as tokens or as text")]
    OnePrompt,
    /// Several ranks have the address.
    #[error(
        "{ranks} ranks have the address {address:?}: name one by its id, as endpoints() lists them"
    )]
    AmbiguousAddress {
        /// The address.
        address: String,
        /// How many have it.
        ranks: usize,
    },
    /// The endpoint's events are not followed.
    #[error("endpoint {0:?} has no KV events: add it with kv_events, or by discover()")]
    NoKvEvents(String),
    /// The decision log cannot be begun.
    #[error("the decision log {path:?} cannot be begun: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A snapshot of the index cannot be written or read.
    #[error("the snapshot {path:?}: {source}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SnapshotError,
    },
    /// What the latency models have learned cannot be written or read.
    #[error("the latency models {path:?}: {source}")]
    Learned {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LearnedError,
    },
    /// An address of KV events cannot be.
    #[error(transparent)]
    KvAddress(#[from] ZmtpError),
    /// An engine cannot be asked what it is.
    #[error("engine {0}")]
    Discovery(#[from] DiscoveryError),
    /// Peers cannot be told or heard.
    #[error(transparent)]
    Peers(#[from] PeersError),
    /// No threads can be started.
    #[error("the router's threads cannot be started: {0}")]
    Runtime(std::io::Error),
    /// The admin server cannot listen.
    #[error("the admin server cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}
