//! Everything that touches the world: sockets, clocks, files.

pub mod http;

pub mod zmtp;

pub mod observe;
