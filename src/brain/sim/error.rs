use crate::brain::BrainError;
use crate::engine::EngineConfigError;
use crate::scale::ScaleError;

/// Why a world cannot be played.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SimError {
    /// An engine cannot be.
    #[error(transparent)]
    Engine(#[from] EngineConfigError),
    /// A router's settings cannot be.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// An autoscaler's settings cannot be.
    #[error("autoscaling: {0}")]
    Scale(#[from] ScaleError),
    /// Both would decide who is there.
    #[error("outages of a fleet that is scaled are not modelled: leave out one of the two")]
    OutagesOfScaled,
    /// An engine cuts prompts differently.
    #[error(
        "engine {engine} has blocks of {engine_block} tokens, the workload of {block_size}: give the \
         engine that block_size"
    )]
    BlockSize {
        /// Which engine.
        engine: usize,
        /// Its block size.
        engine_block: u32,
        /// The workload's.
        block_size: u32,
    },
    /// Nobody serves, or nobody routes.
    #[error("the world has no {0}: give it at least one")]
    Nobody(&'static str),
    /// An outage of nobody.
    #[error("an outage is of engine {0}, and there are {1}: count them from 0")]
    NoSuchEngine(u32, usize),
}
