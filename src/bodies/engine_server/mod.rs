//! The embedded engine: [`llmd_brain::engine`] behind real HTTP and real ZMQ.
//!
//! For whoever has no model and no GPU at hand: to a router it is a vLLM. It answers vLLM's
//! endpoints (completions, chat, streams, `/tokenize`, `/metrics`, `/kv_event_sources`...) in
//! vLLM's shapes, takes the time that a profile says, holds as many KV blocks as it is told, and
//! publishes what it stores and evicts as vLLM does: same frames, same fields, same block hashes.
//! One process serves one or more data-parallel ranks.
//!
//! Guaranteed: the same prompt has the same tokens and the same output on every server of one
//! model name; a conversation that sends the answers back hits the cache up to the last block;
//! hit tokens in a response, in the metrics and in the events agree; a client that goes away
//! frees what it held.
//!
//! It computes nothing: the text means nothing ([`model_output`]), the tokenizer is a rule
//! ([`tokenizer`]), there are no logprobs, tools, images or structured output, and requests that
//! ask for them are refused. A completion that sets `max_tokens` gets exactly so many unless a
//! stop ends it; a chat that sets none ends its turn after 32 to 288 tokens.

mod chat;
mod config;
mod generation;
mod histogram;
mod host_contents;
mod http;
mod job;
mod kv_events;
mod metrics;
mod metrics_page;
pub mod model_output;
mod openai;
mod rank;
mod server;
pub mod tokenizer;

pub use chat::{Message, render as render_chat};
pub use config::{EngineServerConfig, ServerConfigError};
pub use kv_events::{HashForm, KvEventsConfig};
pub use server::{EngineServer, EngineServerError, KvEventSource};
