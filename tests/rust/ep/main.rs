//! The stages of expert parallelism on the CPU against oracles that are written the slow way.

mod oracle;
mod stages;
