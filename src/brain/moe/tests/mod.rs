mod fabric;
mod loads;
mod migration;
mod placement;
mod ranks;
mod rebalance;
mod simulation;
mod watch;

use crate::moe::{ExpertLoad, LayerMap, Shape};

/// Fullest GPU over the mean, averaged over layers.
fn mean_balance(maps: &[LayerMap], load: &ExpertLoad, shape: &Shape) -> f64 {
    let each = maps.iter().zip(load.iter()).map(|(map, it)| map.balance(it, shape));
    each.sum::<f64>() / maps.len() as f64
}

fn mean_remote(maps: &[LayerMap], load: &ExpertLoad, shape: &Shape) -> f64 {
    let each = maps.iter().zip(load.iter()).map(|(map, it)| map.remote_share(it, shape));
    each.sum::<f64>() / maps.len() as f64
}

fn slots(maps: &[LayerMap]) -> Vec<Vec<u32>> {
    maps.iter().map(|it| it.experts.clone()).collect()
}
