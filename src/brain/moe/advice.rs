//! How many slots a GPU are worth their memory, and whether to balance experts at all.

use super::error::within;
use super::noise::noise_floor;
use super::{
    ExpertLoad, LayerMap, MoeError, Phase, PlaceConfig, Policy, Shape, Sharing, StepModel, place,
};
use serde::Serialize;

/// What so many slots a GPU make of a load. Averages over layers; times are of all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlotsRow {
    /// Slots of a GPU.
    pub slots_per_gpu: usize,
    /// Slots of a layer beyond one an expert.
    pub redundant: usize,
    /// Memory that they take beyond the fewest slots, GB a GPU.
    pub extra_gb_per_gpu: f64,
    /// Fullest GPU over the mean, replicas sharing evenly.
    pub balance: f64,
    /// The same with weighted shares.
    pub balance_weighted: f64,
    /// Prefill time of the expert layers of a step, milliseconds.
    pub prefill_ms: f64,
    /// Decode time of the same.
    pub decode_ms: f64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Experts in their order, no replicas but what fills the slots, nothing balanced.
    pub unbalanced: SlotsRow,
    /// Balanced, by slots a GPU.
    pub rows: Vec<SlotsRow>,
    /// The row that is advised.
    pub best: usize,
    /// Whether balancing is worth it: the phase that is asked about gets 2 % shorter.
    pub enable: bool,
    /// What of the unbalanced time the advised row saves in that phase, as a share.
    pub saved: f64,
    /// Fullest GPU over the mean in a decode step by chance alone: below it no map helps.
    pub decode_noise_floor: f64,
}

/// What the search for the fewest slots stops at: the best time is within so much of it.
const WITHIN: f64 = 0.01;
/// What balancing must save to be worth its upkeep.
const WORTH: f64 = 0.02;

/// Tries up to `extra_slots` slots a GPU beyond the fewest, for the phase and the sizes of `model`
/// (whose other phase is modelled at its own usual size), and advises the fewest slots whose time is
/// within 1 % of the best.
///
/// # Errors
/// Where load and shape do not fit each other.
pub fn advise(
    load: &ExpertLoad,
    shape: &Shape,
    extra_slots: usize,
    model: &StepModel,
) -> Result<Advice, MoeError> {
    model.validate()?;
    within("extra_slots", extra_slots as f64, 0.0..=64.0, "0 to 64")?;
    let fewest = shape.experts().div_ceil(shape.living_gpus());
    let by_phase = [Phase::Prefill, Phase::Decode].map(|phase| {
        if phase == model.phase {
            model.clone()
        } else {
            let tokens_per_gpu = StepModel::of(phase).tokens_per_gpu;
            StepModel { phase, tokens_per_gpu, ..model.clone() }
        }
    });
    let row = |slots_per_gpu: usize, balanced: bool| {
        let shape = shape.with_slots_per_gpu(slots_per_gpu)?;
        let (equal, weighted) = if balanced {
            let of = |sharing| {
                let config = PlaceConfig {
                    policy: Policy::Balanced,
                    sharing,
                    model: model.clone(),
                    ..PlaceConfig::default()
                };
                place(load, &shape, &config, None)
            };
            (of(Sharing::Equal)?, of(Sharing::Weighted)?)
        } else {
            let maps = vec![in_order(&shape); load.layers()];
            (maps.clone(), maps)
        };
        let layers = load.layers().max(1) as f64;
        let balance = |maps: &[LayerMap]| {
            let each = maps.iter().zip(load.iter()).map(|(map, it)| map.balance(it, &shape));
            each.sum::<f64>() / layers
        };
        let ms = |model: &StepModel| total_us(&equal, load, &shape, model) / 1e3;
        let extra = (slots_per_gpu - fewest) * load.layers();
        Ok(SlotsRow {
            slots_per_gpu,
            redundant: slots_per_gpu * shape.living_gpus() - shape.experts(),
            extra_gb_per_gpu: extra as f64 * model.expert_bytes / 1e9,
            balance: balance(&equal),
            balance_weighted: balance(&weighted),
            prefill_ms: ms(&by_phase[0]),
            decode_ms: ms(&by_phase[1]),
        })
    };
    let unbalanced = row(fewest, false)?;
    let rows = (fewest..=fewest + extra_slots).map(|slots| row(slots, true));
    let rows = rows.collect::<Result<Vec<SlotsRow>, MoeError>>()?;
    let asked = |row: &SlotsRow| match model.phase {
        Phase::Prefill => row.prefill_ms,
        Phase::Decode => row.decode_ms,
    };
    let least = rows.iter().map(asked).fold(f64::INFINITY, f64::min);
    let best = rows.iter().position(|row| asked(row) <= least * (1.0 + WITHIN)).unwrap_or(0);
    let before = asked(&unbalanced);
    let saved = if before > 0.0 { 1.0 - asked(&rows[best]) / before } else { 0.0 };
    let decode_noise_floor = noise_floor(shape, by_phase[1].tokens_per_gpu, model.top_k);
    Ok(Advice { unbalanced, rows, best, enable: saved >= WORTH, saved, decode_noise_floor })
}

/// What engines begin with: physical expert `i` is logical expert `i` modulo their number.
#[must_use]
pub fn in_order(shape: &Shape) -> LayerMap {
    let living = (0..shape.slots()).filter(|slot| !shape.is_dead(shape.gpu_of(*slot)));
    let mut experts = vec![super::EMPTY; shape.slots()];
    for (at, slot) in living.enumerate() {
        experts[slot] = (at % shape.experts()) as u32;
    }
    LayerMap::equal(experts, shape)
}

/// The time of all layers, microseconds.
#[must_use]
pub fn total_us(maps: &[LayerMap], load: &ExpertLoad, shape: &Shape, model: &StepModel) -> f64 {
    let each = maps.iter().zip(load.iter());
    each.map(|(map, tokens)| model.layer_time(map, tokens, shape).total_us()).sum()
}
