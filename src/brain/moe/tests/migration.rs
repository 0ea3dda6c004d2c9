use super::loads::{drifted, lognormal};
use super::slots;
use crate::moe::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// Carries the batches out on copies of the slots; each reads before any writes.
fn carry_out(plan: &Migration, old: &[Vec<u32>], shape: &Shape) -> Vec<Vec<u32>> {
    let mut now = old.to_vec();
    for batch in &plan.batches {
        let before = now.clone();
        for it in &batch.transfers {
            let layer = it.layer as usize;
            if let Some(from) = it.from_slot {
                assert_eq!(before[layer][from as usize], it.expert, "it is not there any more");
                assert!(!shape.is_dead(shape.gpu_of(from as usize)));
            } else {
                let living = (0..shape.slots()).filter(|slot| !shape.is_dead(shape.gpu_of(*slot)));
                assert!(living.into_iter().all(|slot| before[layer][slot] != it.expert));
            }
            now[layer][it.to_slot as usize] = it.expert;
        }
    }
    now
}

fn is_apart(batch: &Batch, shape: &Shape) -> bool {
    let mut receiving = HashSet::new();
    let mut sending = HashSet::new();
    batch.transfers.iter().all(|it| {
        let from = it.from_slot.map(|slot| shape.gpu_of(slot as usize));
        receiving.insert(shape.gpu_of(it.to_slot as usize))
            && from.is_none_or(|it| sending.insert(it))
    })
}

#[test]
fn batches_lead_there_without_conflict() {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let load = lognormal(6, 256, 0.7, 1);
    let old = slots(&place(&load, &shape, &PlaceConfig::default(), None).unwrap());
    let new = drifted(&load, 0.1, 2);
    let new = slots(&place(&new, &shape, &PlaceConfig::default(), Some(&old)).unwrap());
    let plan = Migration::plan(&shape, &old, &new, &StepModel::default()).unwrap();
    assert!(carry_out(&plan, &old, &shape) == new);
    let tight = plan.batches.iter().filter(|it| !is_apart(it, &shape)).count();
    assert!(tight * 10 <= plan.batches.len(), "{tight} rings of {}", plan.batches.len());
    // A GPU with nine slots to fill needs nine batches at least, and most slots hold last copies.
    assert!(plan.batches.len() <= 6 * 27, "{}", plan.batches.len());
    assert_eq!(plan.bytes as u64, plan.moves() as u64 * 44_000_000);
}

#[test]
fn a_migration_that_costs_more_than_it_gains_does_not_pay() {
    let shape = Shape::new(4, 4, 4, 1).unwrap();
    let model = StepModel::default();
    let plan = Migration::plan(&shape, &[vec![0, 1, 2, 3]], &[vec![1, 0, 2, 3]], &model).unwrap();
    // Both at once, over NVLink.
    assert_eq!((plan.batches.len(), plan.moves()), (1, 2));
    assert!((plan.ms - 44e6 / 158e9 * 1e3).abs() < 1e-9);
    let verdict = plan.pays(1.0, 1_000.0, 1.0);
    assert!((verdict.break_even_steps - plan.ms * 1e3).abs() < 1e-9 && verdict.pays);
    assert!(!plan.pays(1.0, 100.0, 1.0).pays);
    assert!(!plan.pays(-1.0, 1e9, 1.0).pays);
}

proptest! {
    /// Any two maps, tight ones included, where most slots hold last copies.
    #[test]
    fn any_map_is_reached(
        gpus in 1_usize..6,
        each in 1_usize..5,
        spare in 0_usize..4,
        seed in any::<u64>(),
        kills in any::<bool>(),
    ) {
        let physical = gpus * each;
        let experts = physical.saturating_sub(spare).max(1);
        let shape = Shape::new(experts, physical, gpus, 1).unwrap();
        let is_killed = kills && gpus > 1 && physical - each >= experts;
        let shape = if is_killed { shape.with_dead(&[0]).unwrap() } else { shape };
        let mut rng = crate::rng::Rng::new(seed);
        let mut map = |living: &dyn Fn(usize) -> bool| {
            let places: Vec<usize> = (0..physical).filter(|slot| living(shape.gpu_of(*slot))).collect();
            let mut held: Vec<u32> = (0..places.len()).map(|at| (at % experts) as u32).collect();
            for last in (1..held.len()).rev() {
                held.swap(last, rng.below(last as u64 + 1) as usize);
            }
            let mut slots = vec![EMPTY; physical];
            places.iter().zip(held).for_each(|(slot, expert)| slots[*slot] = expert);
            slots
        };
        let old = vec![map(&|_| true)];
        let new = vec![map(&|gpu| !shape.is_dead(gpu))];
        let plan = Migration::plan(&shape, &old, &new, &StepModel::default()).unwrap();
        let mut reached = carry_out(&plan, &old, &shape);
        for gpu in (0..gpus).filter(|gpu| shape.is_dead(*gpu)) {
            reached[0][shape.slots_of(gpu)].fill(EMPTY);
        }
        prop_assert_eq!(reached, new);
    }
}
