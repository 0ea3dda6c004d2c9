//! vLLM's own block hashes.
