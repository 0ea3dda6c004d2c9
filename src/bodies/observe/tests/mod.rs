//! Tests of event decoding and of following a stream.

mod decoding;
mod goldens;
mod recovering;
mod subscribing;
mod value;
