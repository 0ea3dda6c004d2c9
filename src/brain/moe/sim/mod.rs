//! Many GPUs at virtual time: lockstep steps under placements that age, and data-parallel ranks under
//! rules that choose among them. Placement and choice are the rooms' own, called as engines call them.

mod ranks;
mod steps;

pub use ranks::{RankRule, RankWorld, RanksOutcome, play_ranks};
pub use steps::{Died, Rebalanced, StepWorld, StepsOutcome, Strategy, play_steps};
