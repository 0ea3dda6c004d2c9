//! Steps of the expert layers, token by token drawn, under a load that drifts and maps that age.

use super::super::advice::in_order;
use super::super::error::within;
use super::super::map::max_over_mean;
use super::super::{
    ExpertLoad, LayerMap, Migration, MoeError, PlaceConfig, RebalanceConfig, Shape, place,
    rebalance, total_us,
};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};

/// What is done about the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Experts in their order.
    Unbalanced,
    /// Placed once, for the load at the beginning.
    Once,
    /// Placed anew each time, for what was seen since the last.
    Anew,
    /// Mended each time, in few moves.
    Mended,
}

/// The ranks that die, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Died {
    /// Before this step.
    pub step: usize,
    /// This rank.
    pub rank: usize,
}

/// What is played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepWorld {
    /// Steps.
    pub steps: usize,
    /// What is done about the load.
    pub strategy: Strategy,
    /// Steps from one look at the load to the next.
    pub interval_steps: usize,
    /// Sigma of the lognormal factor by which an expert's load drifts in as many steps.
    pub drift: f64,
    /// Share of a migration that steps wait for.
    pub stall: f64,
    /// Steps that a new map must pay for itself in; 0 takes it whatever it costs.
    pub pays_within_steps: f64,
    /// How experts are placed, and what a step takes.
    pub place: PlaceConfig,
    /// How maps are mended.
    pub mend: RebalanceConfig,
    /// Ranks that die.
    pub died: Vec<Died>,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for StepWorld {
    fn default() -> Self {
        Self {
            steps: 200,
            strategy: Strategy::Mended,
            interval_steps: 50,
            drift: 0.1,
            stall: 1.0,
            pays_within_steps: 0.0,
            place: PlaceConfig::default(),
            mend: RebalanceConfig::default(),
            died: Vec::new(),
            seed: 0,
        }
    }
}

/// A change of maps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rebalanced {
    /// Before which step.
    pub step: usize,
    /// Slots that got another expert, of all layers.
    pub moves: usize,
    /// What the migration takes, milliseconds.
    pub ms: f64,
    /// Experts that no living GPU had.
    pub lost: usize,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepsOutcome {
    /// What the expert layers of each step take, microseconds.
    pub step_us: Vec<f64>,
    /// Fullest GPU over the mean in each step, averaged over layers.
    pub balance: Vec<f64>,
    /// Changes of maps.
    pub rebalanced: Vec<Rebalanced>,
    /// Average of `step_us`.
    pub mean_us: f64,
    /// Average of `balance`.
    pub mean_balance: f64,
    /// All of it with what steps waited for migrations, milliseconds.
    pub total_ms: f64,
}

/// Plays steps from this load on.
///
/// # Errors
/// Where load, shape and settings do not fit each other.
pub fn play_steps(
    load: &ExpertLoad,
    shape: &Shape,
    world: &StepWorld,
) -> Result<StepsOutcome, MoeError> {
    within("steps", world.steps as f64, 1.0..=1e6, "1 to 1000000")?;
    within("interval_steps", world.interval_steps as f64, 1.0..=1e6, "1 to 1000000")?;
    within("drift", world.drift, 0.0..=10.0, "0 to 10")?;
    within("stall", world.stall, 0.0..=1.0, "0 to 1")?;
    let mut shape = shape.clone();
    let mut maps = match world.strategy {
        Strategy::Unbalanced => vec![in_order(&shape); load.layers()],
        _ => place(load, &shape, &world.place, None)?,
    };
    let mut rng = Rng::new(world.seed);
    let mut true_load: Vec<f64> = load.iter().flatten().copied().collect();
    let mut seen = vec![0.0; true_load.len()];
    let mut outcome = StepsOutcome {
        step_us: Vec::with_capacity(world.steps),
        balance: Vec::with_capacity(world.steps),
        rebalanced: Vec::new(),
        mean_us: 0.0,
        mean_balance: 0.0,
        total_ms: 0.0,
    };
    let drift = world.drift / libm::sqrt(world.interval_steps as f64);
    for step in 0..world.steps {
        let dead: Vec<usize> =
            world.died.iter().filter(|it| it.step == step).map(|it| it.rank).collect();
        if !dead.is_empty() {
            shape = shape.with_dead(&dead)?;
        }
        let is_due = step > 0 && step % world.interval_steps == 0;
        let has_seen = ExpertLoad::new(load.layers(), load.experts(), seen.clone())?;
        let new = match world.strategy {
            // Ranks that die are no matter of balance: the experts must be somewhere.
            _ if !dead.is_empty() => {
                let mend = RebalanceConfig { max_moves_per_layer: 0, ..world.mend.clone() };
                Some(rebalance(&has_seen, &shape, &slots_of(&maps), &mend)?)
            }
            Strategy::Anew if is_due => {
                Some(place(&has_seen, &shape, &world.place, Some(&slots_of(&maps)))?)
            }
            Strategy::Mended if is_due => {
                Some(rebalance(&has_seen, &shape, &slots_of(&maps), &world.mend)?)
            }
            _ => None,
        };
        if let Some(new) = new {
            let model = &world.place.model;
            let plan = Migration::plan(&shape, &slots_of(&maps), &slots_of(&new), model)?;
            let us = |maps: &[LayerMap]| total_us(maps, &has_seen, &shape, model);
            let is_free = world.pays_within_steps <= 0.0 || !dead.is_empty();
            if is_free || plan.pays(us(&maps) - us(&new), world.pays_within_steps, world.stall).pays
            {
                outcome.total_ms += plan.ms * world.stall;
                let (moves, lost) = (plan.moves(), plan.lost);
                outcome.rebalanced.push(Rebalanced { step, moves, ms: plan.ms, lost });
                maps = new;
            }
            if is_due {
                seen.fill(0.0);
            }
        }
        let (us, balance) = one_step(&true_load, &mut seen, &maps, &shape, world, &mut rng);
        outcome.step_us.push(us);
        outcome.balance.push(balance);
        true_load.iter_mut().for_each(|it| *it *= libm::exp(drift * rng.next_normal()));
    }
    let steps = world.steps as f64;
    outcome.mean_us = outcome.step_us.iter().sum::<f64>() / steps;
    outcome.mean_balance = outcome.balance.iter().sum::<f64>() / steps;
    outcome.total_ms += outcome.mean_us * steps / 1e3;
    Ok(outcome)
}

/// Draws every layer's tokens (normal with a Poisson's deviation, which a multinomial's is nearly
/// where experts are many), adds them to what was seen, and gives the step's time and balance.
fn one_step(
    true_load: &[f64],
    seen: &mut [f64],
    maps: &[LayerMap],
    shape: &Shape,
    world: &StepWorld,
    rng: &mut Rng,
) -> (f64, f64) {
    let model = &world.place.model;
    let sent = model.tokens_per_gpu * shape.living_gpus() as f64 * f64::from(model.top_k);
    let experts = shape.experts();
    let (mut us, mut balance) = (0.0, 0.0);
    let mut drawn = vec![0.0; experts];
    for (layer, map) in maps.iter().enumerate() {
        let tokens = &true_load[layer * experts..(layer + 1) * experts];
        let sum: f64 = tokens.iter().sum();
        for (drawn, tokens) in drawn.iter_mut().zip(tokens) {
            let mean = if sum > 0.0 { sent * tokens / sum } else { 0.0 };
            *drawn = libm::round(mean + libm::sqrt(mean) * rng.next_normal()).max(0.0);
        }
        for (seen, drawn) in seen[layer * experts..].iter_mut().zip(&drawn) {
            *seen += drawn;
        }
        us += model.layer_time(map, &drawn, shape).total_us();
        balance += max_over_mean(&map.gpu_tokens(&drawn, shape), shape);
    }
    (us, balance / maps.len().max(1) as f64)
}

fn slots_of(maps: &[LayerMap]) -> Vec<Vec<u32>> {
    maps.iter().map(|it| it.experts.clone()).collect()
}
