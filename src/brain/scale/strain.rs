//! How near a fleet of so many replicas is to missing its objectives.
//!
//! With `P` and `D` the prefill and decode work that comes, in replicas (milliseconds of work a
//! millisecond), `O` the share of `P` that takes the place of decode steps, and each of `n` replicas given
//! `p = P/n`, `w = D/n`, `o = O/n`:
//!
//! **Time per output token.** A step costs `d` or the prefill that it does, and what everyone in it adds.
//! By Little's law those who decode are as many as their answers take, so a token takes
//! `d / (1 - p - w + o)` on average, and the objective `T` is met while `p + w - o <= 1 - d/T`.
//!
//! **Time to first token.** Prefills wait for prefills, each of which carries the decodes of one step
//! along: they take `x = p + o*w / (1 - p - w + o)` of a replica's time. The router sends a request where
//! it waits least, so replicas are the servers of one queue: with Sakasegawa's approximation (Ann. Inst.
//! Statist. Math. 29, 1977) a request waits with the probability `x^(sqrt(2(n+1)) - 1)`, and then,
//! exponentially (Kingman), `m2 / (2 m1) / (n (1 - x))` on average, `m1` and `m2` being the moments of a
//! prefill. The largest `x` at which no more than the share allowed waits longer than it may is found by
//! halving. (With all work in the place of `x`, fleets were twice as large as they had to be.)
//!
//! **KV.** What is in flight over what `n` replicas hold for it.
//!
//! None of this knows how well prefixes are shared, how bursty arrivals are, or what the engine's model
//! leaves out: the [`Scaler`](super::Scaler) learns by how much it is off.

use super::{Demand, ScaleConfig};

/// Which limit the fleet is nearest to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Nothing is asked of it.
    Idle,
    /// The time per output token.
    Tpot,
    /// The time to first token.
    Ttft,
    /// Room for KV.
    Kv,
}

impl Bound {
    /// Its name: `idle`, `tpot`, `ttft`, `kv`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Tpot => "tpot",
            Self::Ttft => "ttft",
            Self::Kv => "kv",
        }
    }
}

/// What a fleet is asked for, and what of each replica may be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strain {
    /// Prefill work that comes, in replicas, and how much of it takes the place of decode steps.
    prefill: f64,
    overlap: f64,
    /// Decode work.
    decode: f64,
    /// KV in flight, in replicas' shares of their caches.
    kv: f64,
    /// Largest share of a replica's time by the time per output token.
    tpot_limit: f64,
    /// Milliseconds that a request may wait, over `m2 / (2 m1)`; `None` without that objective.
    patience: Option<f64>,
    /// Share of the requests that may wait longer.
    late_share: f64,
}

/// Objectives or not, a replica that has more to do than this falls behind.
const MOST_SHARE: f64 = 0.95;

/// The halvings of an interval of 1 that leave less than a thousandth.
const HALVINGS: u32 = 11;

impl Strain {
    /// The strain of what came over so many seconds.
    pub(super) fn of(config: &ScaleConfig, came: &Demand, seconds: f64) -> Self {
        let per_request =
            |sum: f64, requests: f64| if requests > 0.0 { sum / requests } else { 0.0 };
        let modelled = came.requests;
        let floor = per_request(came.tpot_floor, modelled).min(MOST_SHARE);
        let residual_ms = per_request(came.prefill_ms_squared, came.prefill_ms) / 2.0;
        let allowance_ms = per_request(came.wait_allowance_ms, came.ttft_bounded_requests);
        let is_bounded = came.ttft_bounded_requests > 0.0 && residual_ms > 0.0;
        // Whoever was turned away, or came where no costs are known, asked for as much as the others.
        let uncounted = came.rejected_requests + came.unmodelled_requests;
        let scale = if modelled > 0.0 { 1.0 + uncounted / modelled } else { 1.0 };
        let replicas = scale / 1e3 / seconds;
        let room = came.kv_tokens_per_replica * config.kv_share;
        Self {
            prefill: came.prefill_ms * replicas,
            overlap: came.overlap_ms.min(came.prefill_ms) * replicas,
            decode: came.decode_ms * replicas,
            kv: if room > 0.0 { came.resident_tokens / room } else { 0.0 },
            tpot_limit: (1.0 - floor).min(MOST_SHARE),
            patience: is_bounded.then(|| allowance_ms / residual_ms),
            late_share: 1.0 - config.attainment,
        }
    }

    /// Work that comes, in replicas.
    #[must_use]
    pub fn work(&self) -> f64 {
        self.prefill + self.decode
    }

    /// The same with other work of the same kind.
    pub(super) fn with_work(self, work: f64) -> Self {
        let factor = if self.work() > 0.0 { work / self.work() } else { 0.0 };
        let (prefill, overlap) = (self.prefill * factor, self.overlap * factor);
        Self { prefill, overlap, decode: self.decode * factor, ..self }
    }

    /// How strained `replicas` are, and by what: at 1 the objectives are just met by these formulas.
    /// Falls with the number of replicas.
    #[must_use]
    pub fn at(&self, replicas: u32) -> (f64, Bound) {
        let servers = f64::from(replicas.max(1));
        let kv = self.kv / servers;
        let [prefill, decode, overlap] =
            [self.prefill, self.decode, self.overlap].map(|it| it / servers);
        let busy = prefill + decode - overlap;
        let carried = overlap * decode / (1.0 - busy).max(1.0 - MOST_SHARE);
        let tpot = busy / self.tpot_limit;
        let ttft = (prefill + carried) / self.ttft_limit(servers);
        let (time, bound) = if ttft > tpot { (ttft, Bound::Ttft) } else { (tpot, Bound::Tpot) };
        match (time > 0.0 || kv > 0.0, kv > time) {
            (false, _) => (0.0, Bound::Idle),
            (_, true) => (kv, Bound::Kv),
            (_, false) => (time, bound),
        }
    }

    /// Fewest replicas within the bounds that are not strained beyond `allowed`.
    pub(super) fn needed(&self, config: &ScaleConfig, allowed: f64) -> u32 {
        let all = config.min_replicas..=config.max_replicas;
        all.into_iter().find(|it| self.at(*it).0 <= allowed).unwrap_or(config.max_replicas)
    }

    /// Largest share of each of so many servers' time at which few enough wait too long.
    fn ttft_limit(&self, servers: f64) -> f64 {
        let Some(patience) = self.patience else { return MOST_SHARE };
        let power = libm::sqrt(2.0 * (servers + 1.0)) - 1.0;
        let late = |x: f64| libm::pow(x, power) * libm::exp(-patience * servers * (1.0 - x));
        let (mut low, mut high) = (0.0, MOST_SHARE);
        if late(high) <= self.late_share {
            return high;
        }
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if late(middle) <= self.late_share { low = middle } else { high = middle }
        }
        // Never 0, so that there is a strain.
        low.max(1e-3)
    }
}
