//! The stages of expert parallelism on the CPU against oracles that are written the slow way.

#![allow(clippy::unwrap_used)]

mod oracle;
mod stages;
