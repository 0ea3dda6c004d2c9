//! Python bindings: convert, call, convert back. Nothing here decides anything.
//!
//! Docstrings are those of the files of `python/llmd_sched/_core`, written once, there.
//!
//! The GIL: a request is routed with it; whatever may wait (a held request, events, the disk) waits
//! without it. No thread takes it while holding a lock of the brain.
//!
//! NOTE(perf): giving it up and taking it again costs 40 to 60 ns where nobody else wants it, which
//! would not matter. But beside one busy Python thread a call of 4 us that gives it up returns
//! after 38 us on average, and one of 50 us after 130: whoever took it gives it back when it likes.
//! A decision of 5 to 20 us (a batch of them likewise) is sooner done than that. It would also have
//! to copy the tokens, which other threads may write meanwhile.

#![expect(
    clippy::needless_pass_by_value,
    clippy::unused_self,
    reason = "arguments and receivers are as Python calls them"
)]
#![allow(clippy::doc_markdown, clippy::doc_lazy_continuation, reason = "docstrings are Python's")]

/// The docstring of a name in `python/llmd_sched/_core`.
macro_rules! stub_doc {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".txt"))
    };
}

mod batch;
mod call;
mod cli;
mod decision;
mod endpoint;
mod errors;
mod explanation;
mod features;
mod fleet;
mod fork;
mod gateway;
mod given;
mod headers;
mod json;
mod kv;
mod kv_store;
mod matches;
mod moe;
mod mounted;
mod options;
mod ordered;
mod peers;
mod prompt;
mod prompt_keys;
mod replay;
mod request;
mod request_body;
mod router;
mod scaler;
mod scorers;
mod signals;
mod sim;
mod tokenizer;
mod tokens;
mod turn_queue;
mod waiting;

use pyo3::prelude::*;

#[doc = stub_doc!("module")]
#[pymodule]
mod _core {
    use super::*;

    #[pymodule_export]
    use crate::call::_read_call;
    #[pymodule_export]
    use crate::cli::{errand_run, run_cli};
    #[pymodule_export]
    use crate::decision::{Decision, Leg};
    #[pymodule_export]
    use crate::endpoint::Endpoint;
    #[pymodule_export]
    use crate::explanation::{Explanation, FilterStep};
    #[pymodule_export]
    use crate::features::Features;
    #[pymodule_export]
    use crate::fork::{_after_fork, _before_fork};
    #[pymodule_export]
    use crate::gateway::Gateway;
    #[pymodule_export]
    use crate::headers::request_options;
    #[pymodule_export]
    use crate::kv::KvPosition;
    #[pymodule_export]
    use crate::kv_store::KvStore;
    #[pymodule_export]
    use crate::matches::Matches;
    #[pymodule_export]
    use crate::moe::{
        BalanceWatch, ExpertMap, RankScorer, advise_experts, noise_floor, place_experts,
        plan_migration, read_expert_load, rebalance_experts, simulate_expert_steps, simulate_ranks,
    };
    #[pymodule_export]
    use crate::mounted::{Exchange, Mailbox, MountedGateway};
    #[pymodule_export]
    use crate::prompt::{block_keys, text_block_keys, vllm_block_hashes};
    #[pymodule_export]
    use crate::prompt_keys::PromptKeys;
    #[pymodule_export]
    use crate::replay::{ReplayReport, replay};
    #[pymodule_export]
    use crate::request::explain_body;
    #[pymodule_export]
    use crate::request_body::RequestBody;
    #[pymodule_export]
    use crate::router::Router;
    #[pymodule_export]
    use crate::scaler::SloScaler;
    #[pymodule_export]
    use crate::signals::{describe_engine, read_metrics};
    #[pymodule_export]
    use crate::sim::{Workload, builtin_policies, capacity_requests_per_s, simulate};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::turn_queue::TurnQueue;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::fork::register(module)
    }
}
