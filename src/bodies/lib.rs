//! Everything that touches the world: sockets, clocks, files.

pub mod telemetry;

pub mod router;
