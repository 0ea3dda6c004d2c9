use super::{MoeError, Shape};

/// What a slot of a dead GPU holds.
pub const EMPTY: u32 = u32::MAX;

/// Which expert each slot of a layer holds, and how an expert's traffic divides among its replicas.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerMap {
    /// Slot -> expert; [`EMPTY`] on dead GPUs.
    pub experts: Vec<u32>,
    /// Slot -> share of its expert's tokens that go there; those of an expert add up to 1.
    pub shares: Vec<f64>,
    /// Share of an expert's tokens from each node to each slot (`nodes x slots`, those of a node
    /// and an expert add up to 1), where senders tell replicas apart by where they are; empty where
    /// they all divide alike.
    pub from_node: Vec<f64>,
}

impl LayerMap {
    /// The map of a layer whose replicas share evenly.
    #[must_use]
    pub fn equal(experts: Vec<u32>, shape: &Shape) -> Self {
        let counts = replica_counts(&experts, shape.experts());
        let share = |&expert: &u32| match expert {
            EMPTY => 0.0,
            _ => 1.0 / f64::from(counts[expert as usize]),
        };
        let shares = experts.iter().map(share).collect();
        Self { experts, shares, from_node: Vec::new() }
    }

    /// Tokens of each GPU.
    #[must_use]
    pub fn gpu_tokens(&self, tokens: &[f64], shape: &Shape) -> Vec<f64> {
        let mut sums = vec![0.0; shape.gpus()];
        for (slot, (&expert, share)) in self.experts.iter().zip(&self.shares).enumerate() {
            if expert != EMPTY {
                sums[shape.gpu_of(slot)] += tokens[expert as usize] * share;
            }
        }
        sums
    }

    /// The fullest living GPU's tokens over the mean; 1 without load.
    #[must_use]
    pub fn balance(&self, tokens: &[f64], shape: &Shape) -> f64 {
        max_over_mean(&self.gpu_tokens(tokens, shape), shape)
    }

    /// Share of the tokens that change the node on their way to an expert. Senders are taken to be
    /// spread evenly over the nodes.
    #[must_use]
    pub fn remote_share(&self, tokens: &[f64], shape: &Shape) -> f64 {
        let nodes = shape.living_nodes().len() as f64;
        let (mut local, mut all) = (0.0, 0.0);
        for (slot, &expert) in self.experts.iter().enumerate().filter(|(_, it)| **it != EMPTY) {
            let sent = tokens[expert as usize];
            let node = shape.node_of(shape.gpu_of(slot));
            let own = if self.from_node.is_empty() {
                self.shares[slot]
            } else {
                self.from_node[node * shape.slots() + slot]
            };
            local += sent * own / nodes;
            all += sent * self.shares[slot];
        }
        if all > 0.0 { 1.0 - local / all } else { 0.0 }
    }

    /// Whether it is one of these GPUs' with every expert somewhere.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, layer: usize, shape: &Shape) -> Result<(), MoeError> {
        let bad = |why: String| Err(MoeError::Map { layer, why });
        if self.experts.len() != shape.slots() {
            return bad(format!("{} slots, not {}", self.experts.len(), shape.slots()));
        }
        let outside = |it: &u32| *it != EMPTY && *it as usize >= shape.experts();
        if let Some(expert) = self.experts.iter().find(|it| outside(it)) {
            return bad(format!("expert {expert}, of {}: give logical ids", shape.experts()));
        }
        let counts = replica_counts(&self.experts, shape.experts());
        match counts.iter().position(|count| *count == 0) {
            Some(expert) => bad(format!("expert {expert} is nowhere: give it a slot")),
            None => Ok(()),
        }
    }
}

/// How many replicas each expert has.
#[must_use]
pub fn replica_counts(experts: &[u32], of: usize) -> Vec<u32> {
    let mut counts = vec![0; of];
    for &expert in experts.iter().filter(|it| **it != EMPTY) {
        counts[expert as usize] += 1;
    }
    counts
}

pub(super) fn max_over_mean(gpu_tokens: &[f64], shape: &Shape) -> f64 {
    let living = gpu_tokens.iter().enumerate().filter(|(gpu, _)| !shape.is_dead(*gpu));
    let (most, sum) =
        living.fold((0.0_f64, 0.0), |(most, sum), (_, tokens)| (most.max(*tokens), sum + tokens));
    if sum > 0.0 { most * shape.living_gpus() as f64 / sum } else { 1.0 }
}
