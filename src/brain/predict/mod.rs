//! Latency models: what a decision costs, in milliseconds, before it is made.
