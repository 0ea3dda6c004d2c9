//! What can be moved, and which move evens out most for each slot that it changes.

use super::super::Sharing;
use super::super::map::EMPTY;
use super::State;

/// A change of one or two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// A replica that others can do without, or an empty slot, becomes a replica of `expert`.
    Replace { slot: u32, expert: u32 },
    /// Two slots of different GPUs exchange what they hold.
    Swap { a: u32, b: u32 },
}

impl Move {
    pub fn slots(&self) -> usize {
        match self {
            Self::Replace { .. } => 1,
            Self::Swap { .. } => 2,
        }
    }
}

/// Moves that are tried in full where shares are weighted: what pouring makes of a move is only
/// guessed before.
const TRIED: usize = 12;

/// The move of at most `left` slots that makes the fullest GPU emptier and takes off most of the
/// unevenness for each slot; `None` where none does.
pub(super) fn best(state: &State<'_>, left: usize) -> Option<Move> {
    let fullest = state.fullest();
    let mut guesses: Vec<(f64, Move)> = Vec::new();
    let mut note = |gain: f64, found: Move| {
        if gain > 0.0 && found.slots() <= left {
            guesses.push((gain / found.slots() as f64, found));
        }
    };
    swaps(state, fullest, &mut note);
    replacements(state, fullest, &mut note);
    let order = |a: &(f64, Move), b: &(f64, Move)| b.0.total_cmp(&a.0);
    if state.sharing == Sharing::Equal {
        // The first of the best: the guess is what happens.
        return guesses.into_iter().min_by(order).map(|(_, found)| found);
    }
    guesses.sort_by(order);
    let before = state.unevenness();
    let tried = guesses.iter().take(TRIED).map(|(_, found)| {
        let mut after = state.clone();
        after.apply(found);
        ((before - after.unevenness()) / found.slots() as f64, *found)
    });
    tried.filter(|(gain, _)| *gain > before * 1e-9).min_by(order).map(|(_, found)| found)
}

/// Exchanges between the fullest GPU and others.
fn swaps(state: &State<'_>, fullest: usize, note: &mut impl FnMut(f64, Move)) {
    let high = state.tokens[fullest];
    for gpu in (0..state.shape.gpus()).filter(|it| *it != fullest) {
        let low = state.tokens[gpu];
        let before = state.weight(high) + state.weight(low);
        for a in state.shape.slots_of(fullest) {
            for b in state.shape.slots_of(gpu) {
                let moved = state.given[a] - state.given[b];
                if moved <= 0.0 || moved >= high - low || state.experts[b] == EMPTY {
                    continue;
                }
                let gain = before - state.weight(high - moved) - state.weight(low + moved);
                let (from, to) = (state.experts[a], state.experts[b]);
                if gain > 0.0 && !state.holds(gpu, from) && !state.holds(fullest, to) {
                    note(gain, Move::Swap { a: a as u32, b: b as u32 });
                }
            }
        }
    }
}

/// Replicas elsewhere of what the fullest GPU holds, and lighter experts in place of its replicas.
fn replacements(state: &State<'_>, fullest: usize, note: &mut impl FnMut(f64, Move)) {
    let heavy: Vec<u32> = state.shape.slots_of(fullest).map(|slot| state.experts[slot]).collect();
    for slot in 0..state.experts.len() as u32 {
        let (gpu, gone) = (state.gpu(slot), state.experts[slot as usize]);
        if state.shape.is_dead(gpu) || (gone != EMPTY && state.held[gone as usize].len() < 2) {
            continue;
        }
        if gpu == fullest {
            for expert in 0..state.held.len() as u32 {
                if !state.holds(gpu, expert) {
                    note(gain(state, slot, expert), Move::Replace { slot, expert });
                }
            }
            continue;
        }
        for &expert in heavy.iter().filter(|it| **it != EMPTY && **it != gone) {
            if !state.holds(gpu, expert) {
                note(gain(state, slot, expert), Move::Replace { slot, expert });
            }
        }
    }
}

/// What a replacement takes off the unevenness: exactly where replicas share evenly, about so where
/// shares are weighted.
fn gain(state: &State<'_>, slot: u32, expert: u32) -> f64 {
    let mut changes: smallvec::SmallVec<[(usize, f64); 16]> = smallvec::SmallVec::new();
    let gone = state.experts[slot as usize];
    let gpu = state.gpu(slot);
    let freed = state.given[slot as usize];
    changes.push((gpu, -freed));
    let others = |expert: u32| state.held[expert as usize].iter().filter(|it| **it != slot);
    let held = &state.held[expert as usize];
    match state.sharing {
        Sharing::Equal => {
            if gone != EMPTY {
                let each = freed / (state.held[gone as usize].len() - 1) as f64;
                changes.extend(others(gone).map(|it| (state.gpu(*it), each)));
            }
            let load = state.load[expert as usize];
            let each = load / (held.len() + 1) as f64;
            let less = each - load / held.len().max(1) as f64;
            changes.extend(held.iter().map(|it| (state.gpu(*it), less)));
            changes.push((gpu, each));
        }
        Sharing::Weighted => {
            let lightest = |of: &[u32]| {
                let kept = of.iter().filter(|it| **it != slot).map(|it| state.gpu(*it));
                kept.min_by(|a, b| state.tokens[*a].total_cmp(&state.tokens[*b]))
            };
            if gone != EMPTY
                && let Some(other) = lightest(&state.held[gone as usize])
            {
                changes.push((other, freed));
            }
            // Levels out with the fullest of those that hold it.
            let fuller = |a: &&u32, b: &&u32| {
                state.tokens[state.gpu(**a)].total_cmp(&state.tokens[state.gpu(**b)])
            };
            if let Some(&from) = held.iter().max_by(fuller) {
                let difference = state.tokens[state.gpu(from)] - (state.tokens[gpu] - freed);
                let moved = (difference / 2.0).clamp(0.0, state.given[from as usize]);
                changes.push((state.gpu(from), -moved));
                changes.push((gpu, moved));
            }
        }
    }
    // Insertion order within a GPU: sums have one order.
    changes.sort_by_key(|(gpu, _)| *gpu);
    let mut sum = 0.0;
    for run in changes.chunk_by(|a, b| a.0 == b.0) {
        let before = state.tokens[run[0].0];
        let after = run.iter().fold(before, |tokens, (_, change)| tokens + change);
        sum += state.weight(before) - state.weight(after);
    }
    sum
}

/// Where an expert that is nowhere goes: into an empty slot or in place of a replica, so that the
/// least unevenness comes of it. `None` where all slots hold an expert's only replica.
pub(super) fn home(state: &State<'_>, expert: u32) -> Option<Move> {
    let can_go = |slot: &u32| {
        let gone = state.experts[*slot as usize];
        !state.shape.is_dead(state.gpu(*slot))
            && (gone == EMPTY || state.held[gone as usize].len() > 1)
    };
    let slots = (0..state.experts.len() as u32).filter(can_go);
    let weighed = slots.map(|slot| (gain_of_home(state, slot, expert), slot));
    let found = weighed.min_by(|a, b| b.0.total_cmp(&a.0))?;
    Some(Move::Replace { slot: found.1, expert })
}

fn gain_of_home(state: &State<'_>, slot: u32, expert: u32) -> f64 {
    let gpu = state.gpu(slot);
    let after = state.tokens[gpu] - state.given[slot as usize] + state.load[expert as usize];
    state.weight(state.tokens[gpu]) - state.weight(after) - state.given[slot as usize] * 1e-9
}
