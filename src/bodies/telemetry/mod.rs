//! What a router leaves behind for people: the decision log's files.
//!
//! Guarantees: never slows a decision down. What cannot be written in time is dropped, counted,
//! and marked in the file.
//!
//! Not here: what an entry says (see [`llmd_brain::brain::LogEntry`]).

pub mod decision_log;
