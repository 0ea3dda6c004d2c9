//! Figures of a run.

use super::accuracy::Accuracy;
use super::{Fate, Outcome, Row};
use serde::{Deserialize, Serialize};

/// A prompt with more is a long one: policies differ in whether they give those up for the others.
pub const LONG_PROMPT_TOKENS: u32 = 20_000;

/// Figures over the rows that are counted. Percentiles are of served requests, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests counted.
    pub requests: u64,
    /// Served.
    pub served: u64,
    /// Served within their objectives.
    pub in_slo: u64,
    /// The same as a share of the requests counted.
    pub slo_attainment: f64,
    /// The same a second of the time in which those requests came.
    pub goodput_requests_per_s: f64,
    /// Requests counted whose prompts are longer than [`LONG_PROMPT_TOKENS`].
    pub long_prompts: u64,
    /// Share of those that were served within their objectives; 1 where there are none.
    pub slo_attainment_long_prompts: f64,
    /// Prompt tokens found on the GPU, of all prompt tokens served.
    pub hit_ratio: f64,
    /// The same, host tier included.
    pub hit_ratio_with_host: f64,
    /// Median time to first token.
    pub ttft_p50_ms: f64,
    /// 90 % were faster.
    pub ttft_p90_ms: f64,
    /// 99 % were faster.
    pub ttft_p99_ms: f64,
    /// Median time per output token.
    pub tpot_p50_ms: f64,
    /// 99 % were faster.
    pub tpot_p99_ms: f64,
    /// Longest wait for a first token, of those that never got one up to the end; the rejected know.
    pub longest_wait_ms: f64,
    /// How well the router's predictions came true.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Tokens prefilled by the busiest engine over the mean.
    pub imbalance: f64,
    /// Running requests that were sent back to the queue, warm-up included.
    pub preemptions: u64,
    /// Connections that broke because an engine died, warm-up included.
    pub retries: u64,
    /// Jain's index of the sessions' shares of requests in SLO: 1 where all fare alike.
    pub fairness: f64,
    /// Replicas times the hours in which they were there, while the requests counted came.
    pub replica_hours: f64,
    /// Orders of the autoscaler, warm-up included.
    pub scale_orders: u64,
    /// A million tokens (prompt and output) of requests in SLO, at what the replicas cost.
    pub usd_per_million_tokens: f64,
}

impl Summary {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let counted: Vec<&Row> = outcome.rows.iter().filter(|row| row.is_counted).collect();
        let served: Vec<&Row> =
            counted.iter().filter(|row| row.fate == Fate::Served).copied().collect();
        let in_slo = served.iter().filter(|row| row.is_in_slo()).count() as u64;
        let long: Vec<&&Row> =
            counted.iter().filter(|row| row.prompt_tokens > LONG_PROMPT_TOKENS).collect();
        let sum =
            |of: fn(&Row) -> u32| served.iter().map(|row| u64::from(of(row))).sum::<u64>() as f64;
        let prompts = sum(|row| row.prompt_tokens).max(1.0);
        let hits = sum(|row| row.hit_tokens);
        let ttft = Sorted::of(served.iter().map(|row| row.ttft_ms()));
        let tpot =
            Sorted::of(served.iter().filter(|row| row.output_tokens > 1).map(|row| row.tpot_ms()));
        let waiting = counted.iter().filter(|row| row.fate != Fate::Rejected);
        let waits = waiting.map(|row| match row.first_token_ms.is_nan() {
            true => outcome.ended_ms - row.arrived_ms,
            false => row.ttft_ms(),
        });
        let begun = counted.first().map_or(0.0, |row| row.arrived_ms);
        let came_last = counted.last().map_or(0.0, |row| row.arrived_ms);
        let span_s = ((came_last - begun) / 1e3).max(1e-9);
        let in_slo_tokens: u64 = served
            .iter()
            .filter(|row| row.is_in_slo())
            .map(|row| u64::from(row.prompt_tokens) + u64::from(row.output_tokens))
            .sum();
        let there = outcome
            .stints
            .iter()
            .map(|it| (it.to_ms.min(came_last) - it.from_ms.max(begun)).max(0.0) / 3_600e3);
        let replica_hours: f64 = there.sum();
        let usd = outcome.usd_per_replica_hour * replica_hours;
        Self {
            requests: counted.len() as u64,
            served: served.len() as u64,
            in_slo,
            slo_attainment: in_slo as f64 / counted.len().max(1) as f64,
            long_prompts: long.len() as u64,
            slo_attainment_long_prompts: match long.len() {
                0 => 1.0,
                all => long.iter().filter(|row| row.is_in_slo()).count() as f64 / all as f64,
            },
            goodput_requests_per_s: in_slo as f64 / span_s,
            hit_ratio: hits / prompts,
            hit_ratio_with_host: (hits + sum(|row| row.host_hit_tokens)) / prompts,
            ttft_p50_ms: ttft.at(0.5),
            ttft_p90_ms: ttft.at(0.9),
            ttft_p99_ms: ttft.at(0.99),
            tpot_p50_ms: tpot.at(0.5),
            tpot_p99_ms: tpot.at(0.99),
            longest_wait_ms: waits.fold(0.0, f64::max),
            accuracy: Accuracy::of(outcome),
            imbalance: imbalance(outcome),
            preemptions: outcome.engines.iter().map(|engine| engine.preemptions).sum(),
            retries: outcome.rows.iter().map(|row| u64::from(row.retries)).sum(),
            fairness: fairness(&counted),
            replica_hours,
            scale_orders: outcome.orders.len() as u64,
            usd_per_million_tokens: usd * 1e6 / (in_slo_tokens.max(1) as f64),
        }
    }
}

struct Sorted(Vec<f64>);

impl Sorted {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        Self(values)
    }

    /// The value that a share of them is not above; 0 where there is none.
    fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }
}

fn imbalance(outcome: &Outcome) -> f64 {
    let work = |engine: &crate::engine::Counters| {
        engine.prefix_queries_tokens - engine.prefix_hits_tokens - engine.host_hits_tokens
    };
    let all: u64 = outcome.engines.iter().map(work).sum();
    let most = outcome.engines.iter().map(work).max().unwrap_or_default();
    most as f64 * outcome.engines.len() as f64 / all.max(1) as f64
}

fn fairness(counted: &[&Row]) -> f64 {
    let mut of_session: Vec<(f64, f64)> = Vec::new();
    for row in counted {
        let session = row.session as usize;
        if of_session.len() <= session {
            of_session.resize(session + 1, (0.0, 0.0));
        }
        let (good, all) = &mut of_session[session];
        *good += f64::from(u8::from(row.is_in_slo()));
        *all += 1.0;
    }
    of_session.retain(|(_, all)| *all > 0.0);
    let shares = of_session.iter().map(|(good, all)| good / all);
    let (sum, squares) = shares.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    if squares > 0.0 { sum * sum / (squares * of_session.len() as f64) } else { 1.0 }
}
