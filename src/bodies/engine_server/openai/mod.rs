//! The OpenAI API in vLLM's dialect: what a request says, and what it is answered.
//!
//! Fields that cannot change what the embedded engine answers (`temperature`, `priority`,
//! `user`...) are read over. Those that ask for something that it does not produce (`logprobs`,
//! structured output, `echo`...) are refused, so that nobody waits for it in vain.

mod answer;
pub(super) mod error;
mod prompt_input;
mod request;
mod stream;

pub(super) use answer::{ChoiceResult, Envelope, Kind, Tokens, full_answer};
pub(super) use error::ApiError;
pub(super) use prompt_input::PromptInput;
pub(super) use request::{
    DetokenizeRequest, GenerationRequest, StopInput, StreamOptions, TokenizeRequest, parse,
};
pub(super) use stream::{ChunkWriter, DONE, Delta};
