//! The gateway from outside: real HTTP, embedded engines, and engines that misbehave.

// A test that cannot go on has failed; counters are whole numbers, whatever their type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp)]

mod bad_requests;
mod certificates;
mod chaos;
mod clients;
mod engine_http;
mod failures;
mod fuzz_http1;
mod fuzz_http2;
mod gateway;
mod hedging;
mod hostile;
mod keys;
mod looking_after;
mod mounted;
mod passing_on;
mod peers;
mod stopping;
mod tls;
mod traces;
mod witness;
