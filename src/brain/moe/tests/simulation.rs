use super::loads::lognormal;
use crate::moe::sim::*;
use crate::moe::*;

fn played(strategy: Strategy, died: Vec<Died>) -> StepsOutcome {
    let load = lognormal(8, 256, 0.7, 1);
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let world = StepWorld { strategy, died, ..StepWorld::default() };
    play_steps(&load, &shape, &world).unwrap()
}

#[test]
fn balance_shortens_steps_and_mending_moves_little_for_it() {
    let unbalanced = played(Strategy::Unbalanced, Vec::new());
    let once = played(Strategy::Once, Vec::new());
    let anew = played(Strategy::Anew, Vec::new());
    let mended = played(Strategy::Mended, Vec::new());
    assert!(once.mean_us < 0.75 * unbalanced.mean_us);
    assert!(mended.mean_balance < once.mean_balance);
    assert!((mended.mean_us / anew.mean_us - 1.0).abs() < 0.02);
    let moves = |it: &StepsOutcome| it.rebalanced.iter().map(|it| it.moves).sum::<usize>();
    assert!(moves(&mended) * 10 < moves(&anew));
    assert!(mended.total_ms < anew.total_ms);
}

#[test]
fn equal_seeds_play_equal_steps() {
    let (a, b) = (played(Strategy::Mended, Vec::new()), played(Strategy::Mended, Vec::new()));
    assert_eq!(a, b);
}

#[test]
fn dead_ranks_cost_what_they_held_and_no_more() {
    let outcome =
        played(Strategy::Mended, vec![Died { step: 20, rank: 3 }, Died { step: 20, rank: 9 }]);
    assert_eq!(outcome.rebalanced[0].step, 20);
    assert!(outcome.rebalanced[0].lost > 0);
    let moves = outcome.rebalanced[0].moves;
    assert!(moves <= 2 * 9 * 8, "{moves} for what two ranks held");
    assert!(outcome.step_us.iter().all(|it| it.is_finite()));
}

#[test]
fn advice_is_the_fewest_slots_that_do() {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let advice = advise(&lognormal(8, 256, 0.7, 1), &shape, 3, &StepModel::default()).unwrap();
    assert!(advice.enable && advice.saved > 0.2);
    assert_eq!(advice.rows.len(), 4);
    assert!(advice.rows[advice.best].slots_per_gpu <= 9);
    let even = ExpertLoad::new(2, 256, vec![100.0; 512]).unwrap();
    let advice = advise(&even, &shape, 3, &StepModel::default()).unwrap();
    assert!(!advice.enable && advice.best == 0);
}

#[test]
fn more_slots_make_up_for_one_expert_that_most_tokens_go_to() {
    let load = super::loads::zipf(4, 256, 1);
    let shape = Shape::new(256, 288, 144, 18).unwrap();
    let advice = advise(&load, &shape, 2, &StepModel::of(Phase::Prefill)).unwrap();
    let balance: Vec<f64> = advice.rows.iter().map(|it| it.balance).collect();
    assert!(balance[0] > 1.9 && balance[1] < 1.1 && balance[2] < 1.03, "{balance:?}");
}
