//! What packing leaves uneven: exchanges between the fullest GPU and others.

use super::packing::Packing;

/// Rounds after which a layer is left as it is; each takes tokens off the fullest GPU.
const ROUNDS: usize = 400;

/// Exchanges replicas of the fullest GPU for lighter ones of others until it has no more than
/// `tolerance` above the mean, or no exchange helps.
///
/// A round asks the emptiest GPUs first and takes the first exchange after which the larger of the
/// two has lost most of its excess: where it does not matter which, asking all the others costs ten
/// times as much. The best that was seen is taken where none is as good as that.
///
/// Tried and lost: moving single replicas (all slots are taken), exchanges of two for two (no row of
/// the table in `docs/moe.md` gains more than 0.001), annealing.
pub(super) fn even_out(packing: &mut Packing<'_>, tolerance: f64) {
    /// Share of the excess that may remain for an exchange to be taken at once.
    const ENOUGH: f64 = 0.3;
    if packing.shape.slots_per_gpu() < 2 || packing.gpus.len() < 2 {
        return;
    }
    let mean = packing.mean();
    let mut others = packing.gpus.clone();
    for _ in 0..ROUNDS {
        let fullest = packing.fullest();
        let excess = packing.tokens[fullest] - mean;
        if excess <= tolerance * mean {
            return;
        }
        let enough = mean + (excess * ENOUGH).max(tolerance * mean * 0.5);
        others.sort_unstable_by(|a, b| {
            packing.tokens[*a].total_cmp(&packing.tokens[*b]).then(a.cmp(b))
        });
        let mut best = (packing.tokens[fullest] * (1.0 - 1e-12), None);
        for &other in others.iter().filter(|it| **it != fullest) {
            best = best_exchange(packing, fullest, other, best);
            if best.0 <= enough {
                break;
            }
        }
        match best.1 {
            Some((a, b)) => packing.swap(a, b),
            None => return,
        }
    }
}

/// The exchange between two GPUs after which the fuller has least, if that is less than `best`.
fn best_exchange(
    packing: &Packing<'_>,
    fullest: usize,
    other: usize,
    mut best: (f64, Option<(usize, usize)>),
) -> (f64, Option<(usize, usize)>) {
    let (high, low) = (packing.tokens[fullest], packing.tokens[other]);
    for a in packing.shape.slots_of(fullest) {
        for b in packing.shape.slots_of(other) {
            let moved = packing.pieces[a] - packing.pieces[b];
            let larger = (high - moved).max(low + moved);
            if larger < best.0 && packing.may_swap(a, b) {
                best = (larger, Some((a, b)));
            }
        }
    }
    best
}
