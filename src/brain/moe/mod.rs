//! Wide expert parallelism, the deciding half: which GPU holds which experts, whether moving them
//! pays, how many replicas are worth their memory, and which data-parallel rank gets a request.
//!
//! [`place`] makes a map from nothing, [`rebalance`] mends one in few moves, [`Migration`] says how
//! weights get there and what that costs, [`advise`] how many slots a GPU to have, [`Watch`] whether
//! balancing still does what it should, [`RankScorer`] who gets a request. [`sim`] plays steps.
//!
//! Guaranteed: equal input gives equal bits on every machine, for ranks that each decide must agree;
//! every expert has a slot; two replicas share a GPU only where nothing else fits; what would not
//! shorten steps by more than it costs is not done.
//!
//! Not here: moving weights and tokens (engines and the data plane do), reading engines' files.

mod advice;
mod cost;
mod error;
mod fabric;
mod load;
mod map;
mod migration;
mod noise;
mod placement;
mod ranks;
mod rebalance;
mod shape;
mod shares;
pub mod sim;
#[cfg(test)]
mod tests;
mod watch;

pub use advice::{Advice, SlotsRow, advise, in_order, total_us};
pub use cost::{LayerTime, Phase, StepModel};
pub use error::MoeError;
pub use fabric::{Direction, Fabric, Incoming};
pub use load::ExpertLoad;
pub use map::{EMPTY, LayerMap, replica_counts};
pub use migration::{Batch, Migration, Transfer, Verdict};
pub use noise::noise_floor;
pub use placement::{PlaceConfig, Policy, Sharing, place};
pub use ranks::{RankCosts, RankLoad, RankRequest, RankScorer};
pub use rebalance::{RebalanceConfig, rebalance};
pub use shape::Shape;
pub use watch::{Health, Watch, WatchConfig};
