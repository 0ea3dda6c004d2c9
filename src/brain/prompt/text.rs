//! Keys from text, for prompts without tokens.
