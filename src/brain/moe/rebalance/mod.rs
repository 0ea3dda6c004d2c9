//! Mends a map in few moves: what a rebalance from nothing would move for the same balance is nearly
//! everything, since packing has no memory.

mod moves;
mod state;

use super::error::within;
use super::map::{EMPTY, LayerMap, replica_counts};
use super::{ExpertLoad, MoeError, Shape, Sharing};
use moves::Move;
use serde::{Deserialize, Serialize};
use state::State;

/// Settings of [`rebalance`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebalanceConfig {
    /// Slots of a layer that may get another expert. What only brings back experts that were lost
    /// with their ranks is not counted.
    pub max_moves_per_layer: usize,
    /// Fullest GPU over the mean at which a layer is left alone.
    pub target: f64,
    /// How tokens divide among replicas. Where shares can be weighted, most of a drift needs no move.
    pub sharing: Sharing,
    /// A layer that mending leaves further above what placing it anew would give, as a share of the
    /// mean, is placed anew, whatever moves that takes: an engine's first map is in no order worth
    /// keeping. `None` never does.
    pub anew_gap: Option<f64>,
}

impl Default for RebalanceConfig {
    fn default() -> Self {
        Self { max_moves_per_layer: 16, target: 1.01, sharing: Sharing::Equal, anew_gap: None }
    }
}

/// Maps for this load that differ from `old` in no more slots of a layer than allowed.
///
/// Slots of ranks that died since become empty, and experts that were only there get a slot
/// somewhere, at the price of a replica of another; slots of ranks that came back are filled as far
/// as moves go.
///
/// # Errors
/// Where load, map and shape do not fit each other, or settings are out of range.
pub fn rebalance(
    load: &ExpertLoad,
    shape: &Shape,
    old: &[Vec<u32>],
    config: &RebalanceConfig,
) -> Result<Vec<LayerMap>, MoeError> {
    within("target", config.target, 1.0..=1e3, "1 to 1000")?;
    super::placement::fits(load, shape)?;
    fits(old, load, shape)?;
    within("anew_gap", config.anew_gap.unwrap_or(0.0), 0.0..=1e3, "0 to 1000")?;
    let maps = load.iter().zip(old).map(|(tokens, old)| {
        let mended = mend(tokens, shape, old, config);
        let Some(gap) = config.anew_gap else { return mended };
        let balance = mended.balance(tokens, shape);
        if balance <= config.target {
            return mended;
        }
        let anew = super::placement::anew(tokens, shape, config.sharing, old);
        if balance > anew.balance(tokens, shape) + gap { anew } else { mended }
    });
    Ok(maps.collect())
}

/// Whether there is an old map of each layer, of as many slots and of experts that there are. Experts
/// may be missing: their ranks died.
pub(super) fn fits(old: &[Vec<u32>], load: &ExpertLoad, shape: &Shape) -> Result<(), MoeError> {
    let expected = load.layers();
    if old.len() != expected {
        let found = old.len();
        return Err(MoeError::Length { what: "the old map", found, expected, per_layer: "slots" });
    }
    for (layer, slots) in old.iter().enumerate() {
        let (found, expected) = (slots.len(), shape.slots());
        if found != expected {
            let what = "a layer of the old map";
            return Err(MoeError::Length { what, found, expected, per_layer: "slots" });
        }
        let is_there = |it: &&u32| **it == EMPTY || (**it as usize) < shape.experts();
        if let Some(expert) = slots.iter().find(|it| !is_there(it)) {
            let why = format!("expert {expert}, of {}: give logical ids", shape.experts());
            return Err(MoeError::Map { layer, why });
        }
    }
    Ok(())
}

fn mend(tokens: &[f64], shape: &Shape, old: &[u32], config: &RebalanceConfig) -> LayerMap {
    let mut experts = old.to_vec();
    for gpu in (0..shape.gpus()).filter(|gpu| shape.is_dead(*gpu)) {
        experts[shape.slots_of(gpu)].fill(EMPTY);
    }
    let mut state = State::new(experts, tokens, shape, config.sharing);
    let counts = replica_counts(&state.experts, shape.experts());
    let mut lost: Vec<usize> = (0..counts.len()).filter(|expert| counts[*expert] == 0).collect();
    lost.sort_by(|a, b| tokens[*b].total_cmp(&tokens[*a]).then(a.cmp(b)));
    for expert in lost {
        if let Some(found) = moves::home(&state, expert as u32) {
            state.apply(&found);
        }
    }
    let mut left = config.max_moves_per_layer;
    while left > 0 && state.balance() > config.target {
        let Some(found) = moves::best(&state, left) else { break };
        left -= found.slots();
        state.apply(&found);
    }
    state.into_map()
}
