//! Everything that touches the world: sockets, clocks, files.
//!
//! The rooms, each of which imports only those listed above it.

pub mod telemetry;

pub mod tls;

pub mod http;

pub mod zmtp;

pub mod observe;

pub mod request_body;

pub mod tokenize;

pub mod router;

pub mod engine_server;

pub mod gateway;

pub mod stdio;

pub mod expert_load;

pub mod cli;
