//! Logical experts -> physical slots, layer by layer.

mod grouped;
mod keep;
mod packing;
mod replicate;
mod search;

use super::cost::StepModel;
use super::error::within;
use super::map::LayerMap;
use super::shares;
use super::{ExpertLoad, MoeError, Shape};
use packing::{Packing, Spread};
use serde::{Deserialize, Serialize};

/// Where experts may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Anywhere: the fullest GPU decides.
    Balanced,
    /// The experts of a router's group stay on one node, so that a token's groups name few nodes.
    Grouped,
    /// The experts with most tokens have a replica on each node, and senders use their own.
    Near,
    /// Of these, layer by layer, the one whose step is modelled to be shortest. `Near` is only asked
    /// where shares may be weighted.
    Fastest,
}

/// How an expert's tokens divide among its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Evenly, as the engines' own dispatchers do.
    Equal,
    /// As the map says.
    Weighted,
}

/// Settings of [`place`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlaceConfig {
    /// Where experts may go.
    pub policy: Policy,
    /// How their tokens divide.
    pub sharing: Sharing,
    /// How far above the mean the fullest GPU may be for the search to stop, as a share of it.
    pub tolerance: f64,
    /// What `fastest` goes by.
    pub model: StepModel,
}

impl Default for PlaceConfig {
    fn default() -> Self {
        Self {
            policy: Policy::Balanced,
            sharing: Sharing::Equal,
            tolerance: 0.003,
            model: StepModel::default(),
        }
    }
}

impl PlaceConfig {
    pub(super) fn validate(&self) -> Result<(), MoeError> {
        within("tolerance", self.tolerance, 0.0..=1.0, "0 to 1")?;
        self.model.validate()
    }
}

/// Places every layer's experts for this load. With `old`, what stays on a GPU stays in its slot.
///
/// The same load gives the same maps on every machine, so that ranks which each ask agree.
///
/// # Errors
/// Where the load is not of these experts, settings are out of range, or groups do not fit nodes.
pub fn place(
    load: &ExpertLoad,
    shape: &Shape,
    config: &PlaceConfig,
    old: Option<&[Vec<u32>]>,
) -> Result<Vec<LayerMap>, MoeError> {
    config.validate()?;
    fits(load, shape)?;
    if config.policy == Policy::Grouped {
        grouped::fits(shape)?;
    }
    if let Some(old) = old {
        super::rebalance::fits(old, load, shape)?;
    }
    let place = |(layer, tokens): (usize, &[f64])| {
        let mut map = place_layer(tokens, shape, config);
        if let Some(old) = old {
            keep::in_place(&mut map, &old[layer], shape);
        }
        map
    };
    Ok(load.iter().enumerate().map(place).collect())
}

/// A layer placed for balance alone, what stays on a GPU in its slot.
pub(super) fn anew(tokens: &[f64], shape: &Shape, sharing: Sharing, old: &[u32]) -> LayerMap {
    let config = PlaceConfig { sharing, ..PlaceConfig::default() };
    let mut map = balanced(tokens, shape, &config);
    keep::in_place(&mut map, old, shape);
    map
}

pub(super) fn fits(load: &ExpertLoad, shape: &Shape) -> Result<(), MoeError> {
    let (found, expected) = (load.experts(), shape.experts());
    if found == expected {
        Ok(())
    } else {
        let what = "a layer of the load";
        Err(MoeError::Length { what, found, expected, per_layer: "experts" })
    }
}

fn place_layer(tokens: &[f64], shape: &Shape, config: &PlaceConfig) -> LayerMap {
    match config.policy {
        Policy::Balanced => balanced(tokens, shape, config),
        Policy::Grouped => grouped::place(tokens, shape, config),
        Policy::Near => near(tokens, shape, config),
        Policy::Fastest => {
            let mut maps = vec![balanced(tokens, shape, config)];
            if grouped::fits(shape).is_ok() && shape.groups() > 1 && shape.nodes() > 1 {
                maps.push(grouped::place(tokens, shape, config));
            }
            if config.sharing == Sharing::Weighted && shape.nodes() > 1 {
                maps.push(near(tokens, shape, config));
            }
            let time = |map: &LayerMap| config.model.layer_time(map, tokens, shape).total_us();
            let mut maps = maps.into_iter().map(|map| (time(&map), map));
            let first = maps.next();
            let fastest = |best: (f64, LayerMap), it: (f64, LayerMap)| {
                if it.0 < best.0 { it } else { best }
            };
            match first {
                Some(first) => maps.fold(first, fastest).1,
                None => balanced(tokens, shape, config),
            }
        }
    }
}

fn balanced(tokens: &[f64], shape: &Shape, config: &PlaceConfig) -> LayerMap {
    let slots = shape.living_gpus() * shape.slots_per_gpu();
    let most = shape.living_gpus();
    let packed = |counts: &[u32]| {
        let mut packing = Packing::new(shape, Spread::Gpus, 0..shape.gpus());
        packing.pack(replicas(counts, tokens));
        search::even_out(&mut packing, config.tolerance);
        packing
    };
    let mut counts = replicate::by_load(tokens, slots, most);
    let mut best = packed(&counts);
    let enough = best.mean() * (1.0 + config.tolerance) * (1.0 + 1e-9);
    for _ in 0..SHIFTS {
        let fullest = best.fullest();
        let most_tokens = best.tokens[fullest];
        if most_tokens <= enough || shape.slots_per_gpu() < 2 {
            break;
        }
        let Some(shifted) = replicate::shifted(&counts, tokens, best.largest_on(fullest), most)
        else {
            break;
        };
        let other = packed(&shifted);
        if other.tokens[other.fullest()] >= most_tokens {
            break;
        }
        (counts, best) = (shifted, other);
    }
    shared(best.experts, tokens, shape, config.sharing)
}

/// Replicas that may change the expert after packing: few GPUs with two slots each gain by it, where
/// the sum of a large and a small piece decides.
const SHIFTS: usize = 8;

fn near(tokens: &[f64], shape: &Shape, config: &PlaceConfig) -> LayerMap {
    let gpus = shape.living_gpus();
    let nodes = shape.living_nodes().len();
    let counts = replicate::by_nodes(tokens, gpus * shape.slots_per_gpu(), gpus, nodes);
    let mut packing = Packing::new(shape, Spread::Nodes, 0..shape.gpus());
    packing.pack(replicas(&counts, tokens));
    search::even_out(&mut packing, config.tolerance);
    shares::near(packing.experts, tokens, shape)
}

fn replicas(counts: &[u32], tokens: &[f64]) -> impl Iterator<Item = (u32, u32, f64)> {
    (0..).zip(counts).zip(tokens).map(|((expert, &count), &tokens)| (expert, count, tokens))
}

fn shared(experts: Vec<u32>, tokens: &[f64], shape: &Shape, sharing: Sharing) -> LayerMap {
    match sharing {
        Sharing::Equal => LayerMap::equal(experts, shape),
        Sharing::Weighted => shares::weighted(experts, tokens, shape),
    }
}
