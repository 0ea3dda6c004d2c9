//! The embedded engine from outside: real HTTP, a real SUB socket, and what a real vLLM answered.

// A test that cannot go on has failed; counters are whole numbers, whatever their type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp)]

mod bad_input;
mod conversation;
mod disconnects;
mod engine;
mod goldens;
mod kv_events;
mod msgpack;
mod process;
mod ranks;
mod streaming;
