//! The embedded engine from outside: real HTTP, a real SUB socket, and what a real vLLM answered.

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
