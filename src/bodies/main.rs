//! The `llmd-sched` binary.

fn main() {}
