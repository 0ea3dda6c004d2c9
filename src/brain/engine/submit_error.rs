use super::RequestId;

/// Why a request cannot be queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing to compute.
    #[error("request {}: the prompt is empty: give at least one token", .0.0)]
    EmptyPrompt(RequestId),
    /// Nothing to generate.
    #[error("request {}: output_tokens is 0: an engine generates at least one token", .0.0)]
    EmptyOutput(RequestId),
    /// Two requests of one name.
    #[error("request {} is in the engine already: give each request its own id", .0.0)]
    DuplicateId(RequestId),
    /// It would never end.
    #[error(
        "request {}: {tokens} tokens do not fit the KV cache of {kv_tokens} tokens: shorten the \
         request or raise kv_blocks", id.0
    )]
    TooLong {
        /// Which.
        id: RequestId,
        /// Prompt and output.
        tokens: u64,
        /// What there is.
        kv_tokens: u64,
    },
}
