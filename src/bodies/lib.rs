//! Everything that touches the world: sockets, clocks, files.

pub mod zmtp;

pub mod engine_server;

pub mod cli;
