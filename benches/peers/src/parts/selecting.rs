//! Score and pick over 1,024 endpoints whose matches and loads are known already.

use crate::clock::cpu_s_of;
use crate::race::{Race, Runner};
use crate::report::Report;
use crate::settings::Settings;
use dynamo_kv_router::protocols::{
    RoutingConstraints, WorkerConfigLike, WorkerId, WorkerWithDpRank,
};
use dynamo_kv_router::scheduling::{OverlapSignals, ScheduleMode};
use dynamo_kv_router::{
    DefaultWorkerSelector, KvRouterConfig, SchedulingRequest, WorkerLoadProjection,
    WorkerSelectionInput, WorkerSelector,
};
use llmd_brain::fleet::{Booking, EndpointSpec, Fleet, FleetConfig};
use llmd_brain::index::{MatchSource, Matches};
use llmd_brain::predict::{PredictConfig, Predictor};
use llmd_brain::schedule::{Request, ScheduleConfig, Scheduler};
use llmd_brain::{Ticket, Time};
use rustc_hash::FxHashMap;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;

const ENDPOINTS: u32 = 1024;
const BLOCK_TOKENS: u32 = 16;
const PROMPT_TOKENS: u32 = 2048;
const CHOICES: usize = 1_000;

/// Both sides get the same matches and the same number of requests everywhere.
fn cached_tokens(endpoint: u32) -> u32 {
    endpoint % 32 * 64
}

fn active_requests(endpoint: u32) -> u32 {
    endpoint % 17
}

pub fn one_of_1024(settings: &Settings, report: &mut Report) {
    let choices = settings.count(CHOICES);
    let mut ours = OurFleet::new();
    let theirs = TheirFleet::new();
    let turns: Vec<(&'static str, Runner<'_>)> = vec![
        ("ours", Box::new(|| timed(choices, || ours.choose()))),
        ("DefaultWorkerSelector", Box::new(|| timed(choices, || theirs.choose()))),
    ];
    let race = Race::run(settings.runs, turns);
    for &name in race.names() {
        Report::note(&format!("{name:22} {:8.2} us CPU a choice", race.cost(name, 0) * 1e6));
    }
    let ratio = race.ratio(0, "ours", &["DefaultWorkerSelector"]);
    report.figure("select_1024w", ratio, "x DefaultWorkerSelector");
}

fn timed(choices: usize, mut choose: impl FnMut()) -> Vec<f64> {
    vec![cpu_s_of(|| (0..choices).for_each(|_| choose())) / choices as f64]
}

struct OurFleet {
    scheduler: Scheduler,
    fleet: Fleet,
    predictor: Predictor,
    matches: Matches,
    request: Request,
}

impl OurFleet {
    fn new() -> Self {
        let mut fleet = Fleet::new(FleetConfig::default());
        let mut predictor = Predictor::new(PredictConfig::default()).unwrap();
        let mut matches = Matches::new();
        matches.reset(ENDPOINTS as usize, PROMPT_TOKENS / BLOCK_TOKENS);
        for endpoint in 0..ENDPOINTS {
            let spec = EndpointSpec::new(format!("http://10.0.0.{endpoint}:8000"), "model");
            let id = fleet.join(Time::ZERO, spec).unwrap();
            let row = id.slot.index();
            predictor.admit(id.slot, fleet.columns().model[row], None);
            for request in 0..active_requests(endpoint) {
                let booking = Booking {
                    ticket: Ticket(u64::from(endpoint * 32 + request)),
                    prompt_tokens: PROMPT_TOKENS,
                    uncached_tokens: 16 * request + 1,
                    predicted: Default::default(),
                    objective_tpot_ms: None,
                    expected_output_tokens: None,
                    first_token_is_untold: false,
                };
                let reservation = fleet.book(Time::ZERO, id, &booking).unwrap();
                if request % 4 > 0 {
                    fleet.first_token(Time::ZERO, reservation).unwrap();
                }
            }
            matches.depth_blocks[row] = cached_tokens(endpoint) / BLOCK_TOKENS;
            matches.source[row] = MatchSource::Exact;
            matches.generation[row] = id.generation;
        }
        let request = Request {
            model: "model".into(),
            prompt_tokens: PROMPT_TOKENS,
            block_tokens: BLOCK_TOKENS,
            ..Request::default()
        };
        let scheduler = Scheduler::new(&ScheduleConfig::default(), 1).unwrap();
        Self { scheduler, fleet, predictor, matches, request }
    }

    fn choose(&mut self) {
        let Self { scheduler, fleet, predictor, matches, request } = self;
        let (request, matches) = black_box((request, matches));
        black_box(
            scheduler
                .choose(Time::ZERO, (&*request).into(), fleet, predictor, matches, &[])
                .unwrap(),
        );
    }
}

/// As in the rival's own bench of its selector.
struct TheirFleet {
    selector: DefaultWorkerSelector,
    workers: HashMap<WorkerId, Worker>,
    request: SchedulingRequest,
}

#[derive(Default)]
struct Worker {
    taints: HashSet<String>,
}

impl WorkerConfigLike for Worker {
    fn data_parallel_start_rank(&self) -> u32 {
        0
    }

    fn data_parallel_size(&self) -> u32 {
        1
    }

    fn max_num_batched_tokens(&self) -> Option<u64> {
        None
    }

    fn total_kv_blocks(&self) -> Option<u64> {
        Some(131_072)
    }

    fn taints(&self) -> &HashSet<String> {
        &self.taints
    }
}

impl TheirFleet {
    fn new() -> Self {
        let mut workers = HashMap::new();
        let mut overlap_blocks = FxHashMap::default();
        let mut cached = FxHashMap::default();
        let mut worker_loads = FxHashMap::default();
        for endpoint in 0..ENDPOINTS {
            let worker = WorkerWithDpRank::from_worker_id(u64::from(endpoint));
            let tokens = cached_tokens(endpoint) as usize;
            workers.insert(u64::from(endpoint), Worker::default());
            overlap_blocks.insert(worker, tokens as f64 / f64::from(BLOCK_TOKENS));
            cached.insert(worker, tokens);
            let load = WorkerLoadProjection {
                active_prefill_tokens: endpoint as usize * 16,
                active_decode_blocks: endpoint as usize % 127,
                active_requests: active_requests(endpoint) as usize,
                ..WorkerLoadProjection::default()
            };
            worker_loads.insert(worker, load);
        }
        let request = SchedulingRequest {
            mode: ScheduleMode::QueryOnly { request_id: None },
            token_seq: None,
            isl_tokens: PROMPT_TOKENS as usize,
            lora_name: None,
            expected_output_tokens: Some(256),
            affinity_target: None,
            pinned_worker: None,
            allowed_worker_ids: None,
            routing_constraints: RoutingConstraints {
                required_taints: HashSet::new(),
                preferred_taints: Default::default(),
            },
            router_config_override: None,
            track_prefill_tokens: true,
            priority_jump: 0.0,
            strict_priority: 0,
            policy_class: None,
            session_context: None,
            overlap: OverlapSignals {
                tier_overlap_blocks: Default::default(),
                effective_overlap_blocks: overlap_blocks,
                effective_cached_tokens: cached,
            },
            kv_transfer_candidates: None,
            retain_kv_transfer_chain: false,
            shared_cache_hits: None,
            worker_loads,
            resp_tx: None,
        };
        let config = KvRouterConfig { router_temperature: 0.0, ..KvRouterConfig::default() };
        let selector = DefaultWorkerSelector::new(Some(config), "prefill");
        Self { selector, workers, request }
    }

    fn choose(&self) {
        let (workers, request) = black_box((&self.workers, &self.request));
        let eligibility = request.eligibility();
        let input = WorkerSelectionInput::configured(workers, request, eligibility, BLOCK_TOKENS);
        black_box(self.selector.select_worker(input).unwrap());
    }
}
