//! What moving tokens between GPUs costs: DeepEP's published times, as two links and a start.

use serde::{Deserialize, Serialize};

/// A network of NVLink inside nodes and InfiniBand between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fabric {
    /// What a dispatch or a combine of few tokens takes on one node, microseconds.
    pub nvlink_start_us: f64,
    /// NVLink between the GPUs of a node, GB/s each way, where all tokens stay on it.
    pub nvlink_gb_s: f64,
    /// NVLink where tokens that came from other nodes are handed on over it, GB/s.
    pub forward_gb_s: f64,
    /// What a low-latency dispatch over the network takes at least, microseconds.
    pub dispatch_start_us: f64,
    /// What it moves beyond that, GB/s a GPU.
    pub dispatch_gb_s: f64,
    /// The same of a combine, microseconds.
    pub combine_start_us: f64,
    /// GB/s a GPU.
    pub combine_gb_s: f64,
    /// Network of a GPU where tokens are sent once a node, GB/s.
    pub network_gb_s: f64,
}

impl Default for Fabric {
    /// H800 and ConnectX-7, fitted to DeepEP's README (V1). Low latency (128 tokens a rank, hidden
    /// 7168, top 8): EP 8 to 256 within 4.7 %. Normal (4096 tokens, 4 groups): EP 8 to 64 within 3 %.
    /// At EP 16 the forwarding over NVLink is what takes longest, beyond that the network.
    fn default() -> Self {
        Self {
            nvlink_start_us: 35.0,
            nvlink_gb_s: 158.0,
            forward_gb_s: 122.0,
            dispatch_start_us: 33.5,
            dispatch_gb_s: 46.1,
            combine_start_us: 0.0,
            combine_gb_s: 39.1,
            network_gb_s: 44.0,
        }
    }
}

/// Which way tokens go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the experts, as FP8 with a scale for each 128 values.
    Dispatch,
    /// Back, as BF16.
    Combine,
}

impl Direction {
    /// Bytes of a token of so many values.
    #[must_use]
    pub fn token_bytes(self, hidden: u32) -> f64 {
        match self {
            Self::Dispatch => f64::from(hidden) * (1.0 + 4.0 / 128.0),
            Self::Combine => f64::from(hidden) * 2.0,
        }
    }
}

/// Tokens that the GPU with most of them gets, by the way that they come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Incoming {
    /// From GPUs of its own node.
    pub near: f64,
    /// From other nodes.
    pub far: f64,
}

const BYTES_PER_US_OF_GB_S: f64 = 1e3;

impl Fabric {
    /// A low-latency dispatch or combine, microseconds: every token goes to each of its experts.
    #[must_use]
    pub fn low_latency_us(&self, way: Direction, hidden: u32, tokens: Incoming) -> f64 {
        let us = |tokens: f64, gb_s: f64| {
            tokens * way.token_bytes(hidden) / (gb_s * BYTES_PER_US_OF_GB_S)
        };
        let inside = self.nvlink_start_us + us(tokens.near, self.nvlink_gb_s);
        if tokens.far <= 0.0 {
            return inside;
        }
        let (start, gb_s) = match way {
            Direction::Dispatch => (self.dispatch_start_us, self.dispatch_gb_s),
            Direction::Combine => (self.combine_start_us, self.combine_gb_s),
        };
        // Both links at once.
        inside.max(start + us(tokens.far, gb_s))
    }

    /// A normal dispatch or combine, microseconds: every token goes to each node once over the
    /// network and to each GPU once over NVLink. `near` counts GPUs' tokens, `far` nodes'.
    #[must_use]
    pub fn normal_us(&self, way: Direction, hidden: u32, tokens: Incoming) -> f64 {
        let us = |tokens: f64, gb_s: f64| {
            tokens * way.token_bytes(hidden) / (gb_s * BYTES_PER_US_OF_GB_S)
        };
        if tokens.far <= 0.0 {
            return us(tokens.near, self.nvlink_gb_s);
        }
        us(tokens.near, self.forward_gb_s).max(us(tokens.far, self.network_gb_s))
    }
}
