//! `GET /live`: the gateway at one moment, as its page and `llmd-sched top` show it.

use super::Gateway;
use super::history::HistoryDocument;
use super::recent::{Entry, Fate};
use super::upstream::Upstream;
use super::vigil::Standing;
use crate::router::{EndpointDocument, HealthName, LoadDocument, TierBlocks};
use llmd_brain::brain::BrainStats;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

/// The gateway now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveDocument {
    /// Of the program.
    pub version: String,
    /// When it started, in milliseconds since 1970: another number is another process.
    pub started_ms: u64,
    /// The same for now.
    pub now_ms: u64,
    /// Whether it is about to stop.
    pub is_draining: bool,
    /// What became of requests.
    pub gateway: GatewayDocument,
    /// What became of those that were placed, and who waits.
    pub requests: BrainStats,
    /// The last minutes.
    pub history: HistoryDocument,
    /// The engines' ranks, by address.
    pub endpoints: Vec<LiveEndpoint>,
    /// The last decisions, the last first.
    pub decisions: Vec<RecentDecision>,
}

/// Counters since it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayDocument {
    /// Requests for engines.
    pub requests: u64,
    /// Of those, not answered to the end yet.
    pub in_flight: u64,
    /// Answered to the end.
    pub completed: u64,
    /// Tokens in those.
    pub output_tokens: u64,
    /// Answers that an engine broke off.
    pub cut_off: u64,
    /// Answers whose client went away.
    pub client_left: u64,
    /// Second tries.
    pub retries: u64,
    /// Times that an engine was left alone.
    pub ejections: u64,
    /// Answers of the gateway's own that were given, by status.
    pub refused: BTreeMap<u16, u64>,
}

/// Whether an engine gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Failed, and is left alone for a while.
    Ejected,
    /// Gets none, and is not left alone by the gateway.
    Unreachable,
    /// Was never reached: what it is has to be asked first.
    Joining,
    /// Gets none, and leaves once it is idle.
    Draining,
    /// Gets none until it is uncordoned.
    Cordoned,
    /// Back after it was left alone: the next answer decides.
    Trial,
    /// Gets requests.
    Up,
}

impl EndpointState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Trial => "trial",
            Self::Up => "up",
        }
    }

    fn of(health: HealthName, standing: Option<Standing>) -> Self {
        match (health, standing) {
            (HealthName::Draining | HealthName::Left, _) => Self::Draining,
            (HealthName::Cordoned, _) => Self::Cordoned,
            (HealthName::Unreachable, Some(Standing::Ejected)) => Self::Ejected,
            (HealthName::Unreachable, _) => Self::Unreachable,
            (HealthName::Ready, Some(Standing::Trial)) => Self::Trial,
            (HealthName::Ready, _) => Self::Up,
        }
    }
}

/// A rank of an engine: of what `/endpoints` says, what changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveEndpoint {
    /// As in `/endpoints`; empty before it has joined.
    pub id: String,
    /// Base URL.
    pub url: String,
    /// Data-parallel rank.
    pub dp_rank: u32,
    /// Model; empty where it does not say.
    pub model: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it gets requests.
    pub state: EndpointState,
    /// What it has to do.
    #[serde(flatten)]
    pub load: LoadDocument,
    /// KV blocks that it is known or believed to hold.
    pub held_blocks: TierBlocks,
    /// Failed requests and probes of the engine, all ranks together.
    pub failures: u64,
}

/// A decision, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecentDecision {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Model asked for, cut off where it is long.
    pub model: String,
    /// Who pays; empty where nobody is said to.
    pub tenant: String,
    /// Where it went.
    pub url: String,
    /// To which rank.
    pub dp_rank: u32,
    /// How long it had to wait for its place.
    pub held_ms: f64,
    /// Tokens of the prompt; of text an estimate.
    pub prompt_tokens: u32,
    /// Of those, believed to be cached where it went.
    pub matched_tokens: u32,
    /// The same for whoever holds the most of it.
    pub best_matched_tokens: u32,
    /// What that belief rests on.
    pub match_source: String,
    /// How many could have got it.
    pub candidates: usize,
    /// The policy.
    pub profile: String,
    /// What each of its scorers gave the one who got it.
    pub scores: Vec<GivenScore>,
    /// Time to first token as expected.
    pub predicted_ttft_ms: Option<f64>,
    /// As it then was, from the decision on; of an answer that is not streamed nobody knows.
    pub ttft_ms: Option<f64>,
    /// From the decision to the end of the answer.
    pub took_ms: Option<f64>,
    /// HTTP status of the engine's answer.
    pub status: Option<u16>,
    /// Tokens of the answer, where they are known.
    pub output_tokens: Option<u32>,
    /// What became of it.
    pub fate: Fate,
}

/// A scorer's word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GivenScore {
    /// Its name.
    pub name: String,
    /// Its weight in the sum.
    pub weight: f64,
    /// From 0 to 1.
    pub value: f64,
}

impl Gateway {
    /// What its page shows.
    #[must_use]
    pub fn document(&self) -> LiveDocument {
        let counts = &self.counts;
        let elapsed = self.started.elapsed();
        LiveDocument {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.unix_ms(Duration::ZERO),
            now_ms: self.unix_ms(elapsed),
            is_draining: self.is_draining(),
            gateway: GatewayDocument {
                requests: counts.requests.load(Relaxed),
                in_flight: counts.in_flight(),
                completed: counts.completed.load(Relaxed),
                output_tokens: counts.output_tokens.load(Relaxed),
                cut_off: counts.cut_off.load(Relaxed),
                client_left: counts.client_left.load(Relaxed),
                retries: counts.retries.load(Relaxed),
                ejections: self.fleet.ejections.load(Relaxed),
                refused: counts.refusals().filter(|(_, count)| *count > 0).collect(),
            },
            requests: self.live.brain().stats(),
            history: self.history.document(),
            endpoints: self.live_endpoints(),
            decisions: self.recent.last().iter().map(|entry| self.decision(entry)).collect(),
        }
    }

    /// A time since it started, as people count.
    fn unix_ms(&self, since_start: Duration) -> u64 {
        let since = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default() + since_start;
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn live_endpoints(&self) -> Vec<LiveEndpoint> {
        let upstreams = self.fleet.upstreams();
        let mut missing: HashMap<&str, &Arc<Upstream>> =
            upstreams.iter().map(|it| (it.address.as_str(), it)).collect();
        let by_address = missing.clone();
        let mut all: Vec<LiveEndpoint> = Vec::new();
        for document in self.live.documents() {
            let upstream = by_address.get(document.address.as_str());
            missing.remove(document.address.as_str());
            all.push(LiveEndpoint::of(document, upstream.map(|it| &***it)));
        }
        all.extend(missing.values().map(|it| LiveEndpoint::joining(it)));
        all.sort_by(|a, b| (&a.url, a.dp_rank).cmp(&(&b.url, b.dp_rank)));
        all
    }

    fn decision(&self, entry: &Entry) -> RecentDecision {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        RecentDecision {
            at_ms: self.unix_ms(entry.placed_at.duration_since(self.started)),
            model: entry.model.clone(),
            tenant: entry.tenant.clone(),
            url: entry.spec.address.clone(),
            dp_rank: entry.spec.dp_rank,
            held_ms: ms(entry.held),
            prompt_tokens: entry.prompt_tokens,
            matched_tokens: entry.matched_tokens,
            best_matched_tokens: entry.best_matched_tokens,
            match_source: entry.match_source.as_str().to_owned(),
            candidates: entry.candidates,
            profile: entry.scores.profile().to_owned(),
            scores: entry
                .scores
                .scores()
                .map(|(name, weight, value)| GivenScore { name: name.to_owned(), weight, value })
                .collect(),
            predicted_ttft_ms: entry.predicted.ttft_ms,
            ttft_ms: entry.ttft.map(ms),
            took_ms: entry.took.map(ms),
            status: entry.status,
            output_tokens: entry.output_tokens,
            fate: entry.fate,
        }
    }
}

impl LiveEndpoint {
    fn of(document: EndpointDocument, upstream: Option<&Upstream>) -> Self {
        let standing = upstream.map(|it| it.vigil.standing());
        Self {
            state: EndpointState::of(document.health, standing),
            failures: upstream.map_or(0, |it| it.counts.failures.load(Relaxed)),
            id: document.id,
            url: document.address,
            dp_rank: document.dp_rank,
            model: document.model,
            labels: document.labels,
            load: document.load,
            held_blocks: document.held_blocks_by_tier,
        }
    }

    fn joining(upstream: &Upstream) -> Self {
        Self {
            id: String::new(),
            url: upstream.address.clone(),
            dp_rank: 0,
            model: String::new(),
            labels: BTreeMap::new(),
            state: EndpointState::Joining,
            load: LoadDocument::default(),
            held_blocks: TierBlocks::default(),
            failures: upstream.counts.failures.load(Relaxed),
        }
    }
}
