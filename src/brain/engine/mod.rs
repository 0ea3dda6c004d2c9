//! A model of an inference engine: paged KV cache, continuous batching, step time.
