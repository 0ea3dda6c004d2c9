//! What a layer's map costs a step: the objective of placement.

use super::error::within;
use super::fabric::{Direction, Fabric, Incoming};
use super::map::{EMPTY, LayerMap};
use super::{MoeError, Shape};
use serde::{Deserialize, Serialize};

/// What a step does: other things are slow in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Many tokens a GPU: the experts' arithmetic and bytes between nodes, once a node.
    Prefill,
    /// Few tokens a GPU: reading the experts that are hit, and bytes to every expert.
    Decode,
}

/// The model's and the GPUs' sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepModel {
    /// Which phase is placed for.
    pub phase: Phase,
    /// Tokens that a GPU sends into each layer a step.
    pub tokens_per_gpu: f64,
    /// Experts of a token.
    pub top_k: u32,
    /// Expert groups that a token's experts come from, where the router has groups.
    pub top_groups: u32,
    /// Values of a token.
    pub hidden: u32,
    /// Bytes of an expert's weights.
    pub expert_bytes: f64,
    /// What a GPU reads weights at, GB/s.
    pub weights_gb_s: f64,
    /// Arithmetic of one token in one expert, microseconds.
    pub token_us: f64,
    /// What moving tokens costs.
    pub fabric: Fabric,
}

impl Default for StepModel {
    /// DeepSeek V3's experts (44 MB in FP8, 88 MFLOP a token) on an H800 that reaches 80 % of its
    /// memory's bandwidth and 1,100 TFLOP/s, decoding 128 tokens a GPU.
    fn default() -> Self {
        Self {
            phase: Phase::Decode,
            tokens_per_gpu: 128.0,
            top_k: 8,
            top_groups: 4,
            hidden: 7168,
            expert_bytes: 44e6,
            weights_gb_s: 2_680.0,
            token_us: 0.08,
            fabric: Fabric::default(),
        }
    }
}

/// Where a layer's time goes, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerTime {
    /// Tokens to the experts.
    pub dispatch_us: f64,
    /// The slowest GPU's experts.
    pub experts_us: f64,
    /// Back.
    pub combine_us: f64,
}

impl LayerTime {
    /// All of it.
    #[must_use]
    pub fn total_us(&self) -> f64 {
        self.dispatch_us + self.experts_us + self.combine_us
    }
}

impl StepModel {
    /// The defaults of a phase: 4,096 tokens a GPU for prefill, 128 for decode.
    #[must_use]
    pub fn of(phase: Phase) -> Self {
        let tokens_per_gpu = if phase == Phase::Prefill { 4_096.0 } else { 128.0 };
        Self { phase, tokens_per_gpu, ..Self::default() }
    }

    pub(super) fn validate(&self) -> Result<(), MoeError> {
        let positive = f64::MIN_POSITIVE..=1e15;
        for (name, value) in [
            ("tokens_per_gpu", self.tokens_per_gpu),
            ("top_k", f64::from(self.top_k)),
            ("top_groups", f64::from(self.top_groups)),
            ("hidden", f64::from(self.hidden)),
            ("expert_bytes", self.expert_bytes),
            ("weights_gb_s", self.weights_gb_s),
            ("token_us", self.token_us),
            ("fabric.nvlink_gb_s", self.fabric.nvlink_gb_s),
            ("fabric.forward_gb_s", self.fabric.forward_gb_s),
            ("fabric.dispatch_gb_s", self.fabric.dispatch_gb_s),
            ("fabric.combine_gb_s", self.fabric.combine_gb_s),
            ("fabric.network_gb_s", self.fabric.network_gb_s),
        ] {
            within(name, value, positive.clone(), "more than 0")?;
        }
        Ok(())
    }

    /// The time of a layer under its expected load.
    #[must_use]
    pub fn layer_time(&self, map: &LayerMap, tokens: &[f64], shape: &Shape) -> LayerTime {
        let sum: f64 = tokens.iter().sum();
        let sent = self.tokens_per_gpu * shape.living_gpus() as f64 * f64::from(self.top_k);
        let scale = if sum > 0.0 { sent / sum } else { 0.0 };
        let experts_us = self.experts_us(map, |expert| tokens[expert] * scale, shape);
        let (dispatch_us, combine_us) = match self.phase {
            Phase::Decode => self.to_every_expert(map, tokens, scale, shape),
            Phase::Prefill => self.once_a_node(map, tokens, sum, shape),
        };
        LayerTime { dispatch_us, experts_us, combine_us }
    }

    /// The slowest GPU's time, of `tokens` of each expert: an expert takes what reading it or its
    /// arithmetic takes, whichever is more, and nothing unless a token comes.
    pub(super) fn experts_us(
        &self,
        map: &LayerMap,
        tokens: impl Fn(usize) -> f64,
        shape: &Shape,
    ) -> f64 {
        let read_us = self.expert_bytes / (self.weights_gb_s * 1e3);
        let mut slowest = 0.0_f64;
        for gpu in 0..shape.gpus() {
            let mut us = 0.0;
            for slot in shape.slots_of(gpu) {
                if map.experts[slot] != EMPTY {
                    let came = tokens(map.experts[slot] as usize) * map.shares[slot];
                    // At least one token of so many on average (Poisson).
                    let is_hit = 1.0 - libm::exp(-came);
                    us += (is_hit * read_us).max(came * self.token_us);
                }
            }
            slowest = slowest.max(us);
        }
        slowest
    }

    /// Low latency: the GPU that gets most decides.
    fn to_every_expert(
        &self,
        map: &LayerMap,
        tokens: &[f64],
        scale: f64,
        shape: &Shape,
    ) -> (f64, f64) {
        let (nodes, each) = (shape.living_nodes().len() as f64, shape.gpus_per_node() as f64);
        let mut most = Incoming { near: 0.0, far: 0.0 };
        for gpu in 0..shape.gpus() {
            let mut came = Incoming { near: 0.0, far: 0.0 };
            for slot in shape.slots_of(gpu).filter(|slot| map.experts[*slot] != EMPTY) {
                let all = tokens[map.experts[slot] as usize] * scale;
                let own = match map.from_node.is_empty() {
                    true => map.shares[slot],
                    false => map.from_node[shape.node_of(gpu) * shape.slots() + slot],
                };
                let near = all * own / nodes;
                // What comes from itself crosses no link.
                came.near += near * (each - 1.0) / each;
                came.far += all * map.shares[slot] - near;
            }
            most.near = most.near.max(came.near);
            most.far = most.far.max(if nodes > 1.0 { came.far } else { 0.0 });
        }
        let us = |way| self.fabric.low_latency_us(way, self.hidden, most);
        (us(Direction::Dispatch), us(Direction::Combine))
    }

    /// Normal: every token once a node; the node that gets most decides.
    fn once_a_node(&self, map: &LayerMap, tokens: &[f64], sum: f64, shape: &Shape) -> (f64, f64) {
        let nodes = shape.living_nodes();
        let kept = groups_on_nodes(map, shape);
        let mut far = 0.0_f64;
        for &node in &nodes {
            let mut came = 0.0;
            for &from in nodes.iter().filter(|it| **it != node) {
                came += match &kept {
                    Some(groups) => self.hits_groups(groups[node], shape.groups()),
                    None => self.hits(sent_share(map, tokens, sum, (from, node), shape)),
                };
            }
            far = far.max(came * self.tokens_per_gpu);
        }
        let gpus = shape.living_gpus() as f64;
        let apart = gpus * self.hits(1.0 / gpus);
        let skew = map.balance(tokens, shape);
        // On one node DeepEP's kernel copies what stays on a GPU like the rest.
        let each = shape.gpus_per_node() as f64;
        let copied = if nodes.len() > 1 { (each - 1.0) / each } else { 1.0 };
        let near = self.tokens_per_gpu * apart * skew * copied;
        let us = |way| self.fabric.normal_us(way, self.hidden, Incoming { near, far });
        (us(Direction::Dispatch), us(Direction::Combine))
    }

    /// The chance that one of a token's experts is among those with such a share of all tokens.
    fn hits(&self, share: f64) -> f64 {
        1.0 - libm::pow((1.0 - share).max(0.0), f64::from(self.top_k))
    }

    /// The same for a node with `held` of the router's groups, all as likely: so many of them are among a
    /// token's (hypergeometric), and one of its experts is in those.
    fn hits_groups(&self, held: usize, groups: usize) -> f64 {
        let drawn = (self.top_groups as usize).min(groups);
        let mut hit = 0.0;
        for chosen in 1..=held.min(drawn) {
            let chance = choose(held, chosen) * choose(groups - held, drawn - chosen)
                / choose(groups, drawn);
            hit += chance * self.hits(chosen as f64 / drawn as f64);
        }
        hit
    }
}

/// The binomial coefficient.
fn choose(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    (0..k).fold(1.0, |product, at| product * (n - at) as f64 / (at + 1) as f64)
}

/// Share of a node's tokens' experts that are on another.
fn sent_share(
    map: &LayerMap,
    tokens: &[f64],
    sum: f64,
    (from, to): (usize, usize),
    shape: &Shape,
) -> f64 {
    let each = shape.gpus_per_node();
    let slots = to * each * shape.slots_per_gpu()..(to + 1) * each * shape.slots_per_gpu();
    let mut sent = 0.0;
    for slot in slots.filter(|slot| map.experts[*slot] != EMPTY) {
        let share = match map.from_node.is_empty() {
            true => map.shares[slot],
            false => map.from_node[from * shape.slots() + slot],
        };
        sent += tokens[map.experts[slot] as usize] * share;
    }
    if sum > 0.0 { sent / sum } else { 0.0 }
}

/// Node -> router's groups there, if each group is on one node.
fn groups_on_nodes(map: &LayerMap, shape: &Shape) -> Option<Vec<usize>> {
    if shape.groups() < 2 {
        return None;
    }
    let size = shape.experts() / shape.groups();
    let mut home = vec![None; shape.groups()];
    for (slot, &expert) in map.experts.iter().enumerate().filter(|(_, it)| **it != EMPTY) {
        let node = shape.node_of(shape.gpu_of(slot));
        if *home[expert as usize / size].get_or_insert(node) != node {
            return None;
        }
    }
    let mut held = vec![0; shape.nodes()];
    home.into_iter().flatten().for_each(|node| held[node] += 1);
    Some(held)
}
