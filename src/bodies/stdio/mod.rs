//! The brain behind lines of JSON: any program drives it, at whatever time it says.
//!
//! ```text
//! in   {"ev":"init","n":8,"block":512,"kv_tokens":269000,"engine":{"pf_fixed":3.52,..},"hold":true}
//!      {"ev":"stored"|"removed","w":0,"ids":[..]}
//!      {"ev":"arrive","id":7,"t":12.5,"len":8000,"ids":[..],"sess":1,"workers":[{"waiting":0,..},..]}
//!      {"ev":"first"|"done","id":7,"w":2,"t":..}   {"ev":"tick","t":..}   {"ev":"end"}
//! out  {"w":2}, {"hold":true} or {"reject":why,"status":503} to each arrival; {"go":[[id,w],..]} to
//!      first, done and tick, only where init had hold, with "gave_up":[[id,status,why],..] where a
//!      held request goes nowhere (it was shed, or its deadline passed)
//! ```
//!
//! An arrival may say more: `tenant`, `prio`, `deadline_ms`, `out` (tokens of its answer),
//! `slo_ttft_ms`, `slo_tpot_ms`. A rejection with status 429 has `retry_after_ms`.
//!
//! Times are milliseconds of whatever clock the program has. Blocks have numbers; a stored block must
//! have been in a prompt before, which tells what it follows.

mod protocol;
#[cfg(test)]
mod tests;

pub use protocol::{Answer, Arrive, Engine, Event, Init, Worker};

use llmd_brain::brain::{Action, Brain, BrainConfig, BrainError, Input, Rejected};
use llmd_brain::fleet::{Capacity, EndpointSpec, KvSource, MetricsSample};
use llmd_brain::flow::WhenHeldTooLong;
use llmd_brain::index::Matches;
use llmd_brain::predict::EngineProfile;
use llmd_brain::schedule::{Decision, Request, Slo};
use llmd_brain::{BlockKey, EndpointId, EngineHash, ReservationId, Ticket, Time};
use std::collections::HashMap;
use std::io::{BufRead, Write};

/// Longest lease: requests end when the program says so.
const LEASE_MS: u64 = 24 * 3_600_000;

/// Why a line could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// It is not one of the protocol's.
    #[error("line {line}: {why}: see `llmd-sched policy --help` for the protocol")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// The brain refused it.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves a program until it says `end` or closes its side.
///
/// # Errors
/// [`StdioError`] names the line.
pub fn serve(
    config: &BrainConfig,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), StdioError> {
    let mut policy: Option<Policy> = None;
    for (number, line) in (1..).zip(input.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let at_line = |why: String| StdioError::Line { line: number, why };
        let event = serde_json::from_str(&line).map_err(|why| at_line(why.to_string()))?;
        let answer = match (event, &mut policy) {
            (Event::End, _) => break,
            (Event::Init(init), None) => {
                policy = Some(Policy::new(config, &init).map_err(|why| at_line(why.to_string()))?);
                continue;
            }
            (Event::Init(_), Some(_)) => return Err(at_line("a second init".into())),
            (_, None) => return Err(at_line("nothing may come before init".into())),
            (event, Some(policy)) => policy.take(event).map_err(|why| at_line(why.to_string()))?,
        };
        if let Some(answer) = answer {
            let text = serde_json::to_string(&answer).map_err(|why| at_line(why.to_string()))?;
            writeln!(output, "{text}")?;
            output.flush()?;
        }
    }
    Ok(())
}

/// A block of some prompt.
#[derive(Debug, Clone, Copy)]
struct Block {
    key: BlockKey,
    parent: Option<u64>,
}

/// The brain, by the protocol's names.
pub struct Policy {
    brain: Brain,
    workers: Vec<EndpointId>,
    request: Request,
    slo: Slo,
    holds: bool,
    blocks: HashMap<u64, Block>,
    sent: HashMap<u64, ReservationId>,
    held: HashMap<Ticket, u64>,
    matches: Matches,
    keys: Vec<BlockKey>,
    names: Vec<EngineHash>,
    latest: Time,
}

/// Why the policy cannot take an event.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The brain refused it.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// A worker that there is not.
    #[error("worker {given} is not there: init said n = {n}, workers are 0 to {n} - 1")]
    Worker {
        /// What was given.
        given: u32,
        /// How many there are.
        n: usize,
    },
    /// A block that no prompt had.
    #[error("block {0} was in no prompt: send the request that has it first")]
    Block(u64),
    /// A request that is not in flight.
    #[error("request {0} is not in flight: it was never sent, or is done")]
    Request(u64),
    /// Time that is no number.
    #[error("t = {0} is not a time: give milliseconds, 0 or more")]
    Time(f64),
}

impl Policy {
    /// A fleet as `init` says.
    ///
    /// # Errors
    /// [`BrainError`] where there can be no such fleet.
    pub fn new(config: &BrainConfig, init: &Init) -> Result<Self, BrainError> {
        let mut config = config.clone();
        config.block_size = init.block;
        config.fleet.lease_ms = LEASE_MS;
        // What is held as long as it may be goes wherever it costs the least.
        config.flow.when_held_too_long = WhenHeldTooLong::Dispatch;
        config.fleet.max_endpoints = config.fleet.max_endpoints.max(init.n as usize);
        let brain = Brain::new(config)?;
        let Engine { pf_fixed, pf_tok, pf_attn, dc_fixed, dc_seq, dc_kv } = init.engine;
        let steps = [pf_fixed, pf_tok, pf_attn, dc_fixed, dc_seq, dc_kv];
        let profile = EngineProfile::custom(steps, init.kv_tokens, 0);
        let mut workers = Vec::new();
        for number in 0..init.n {
            let mut spec = EndpointSpec::new(format!("worker-{number}"), "");
            spec.kv_source = KvSource::Events;
            spec.capacity = Capacity {
                kv_blocks: init.kv_tokens / u64::from(init.block.max(1)),
                block_size: init.block,
                max_running_requests: init.max_seqs,
                max_batch_tokens: init.max_batch_tokens,
                ..Capacity::default()
            };
            spec.labels.insert("engine-profile".to_owned(), profile.label());
            let joined = brain.step(Time::ZERO, Input::Join(spec))?;
            workers.extend(joined.iter().filter_map(|action| match action {
                Action::Joined(id) => Some(*id),
                _ => None,
            }));
        }
        let request = Request {
            block_tokens: init.block,
            slo: Slo { ttft_ms: init.slo_ttft_ms, tpot_ms: init.slo_tpot_ms },
            hold_ms: if init.hold { init.max_hold_ms } else { 0 },
            ..Request::default()
        };
        Ok(Self {
            brain,
            workers,
            slo: request.slo,
            request,
            holds: init.hold,
            blocks: HashMap::new(),
            sent: HashMap::new(),
            held: HashMap::new(),
            matches: Matches::new(),
            keys: Vec::new(),
            names: Vec::new(),
            latest: Time::ZERO,
        })
    }

    /// Takes an event; the answer, where the protocol has one.
    ///
    /// # Errors
    /// [`PolicyError`] says what does not fit, and nothing has changed.
    pub fn take(&mut self, event: Event) -> Result<Option<Answer>, PolicyError> {
        match event {
            Event::Init(_) | Event::End => Ok(None),
            Event::Stored { w, ids } => self.stored(w, &ids).map(|()| None),
            Event::Removed { w, ids } => {
                let worker = self.worker(w)?;
                self.names.clear();
                self.names.extend(ids.iter().map(|id| EngineHash(*id)));
                self.brain.residency().remove(worker, &self.names);
                Ok(None)
            }
            Event::Arrive(arrive) => self.arrive(&arrive).map(Some),
            Event::First { id, t, .. } => {
                let now = self.time(t)?;
                let sent = *self.sent.get(&id).ok_or(PolicyError::Request(id))?;
                let actions = self.brain.first_token(now, sent);
                Ok(self.go(actions))
            }
            Event::Done { id, t, .. } => {
                let now = self.time(t)?;
                let sent = self.sent.remove(&id).ok_or(PolicyError::Request(id))?;
                // The protocol does not tell how long the answer was.
                let tokens = self.brain.generated_by(now, sent);
                let actions = self.brain.finished(now, sent, tokens);
                Ok(self.go(actions))
            }
            Event::Tick { t } => {
                let now = self.time(t)?;
                let actions = self.brain.tick(now);
                Ok(self.go(actions))
            }
        }
    }

    fn stored(&mut self, w: u32, ids: &[u64]) -> Result<(), PolicyError> {
        let worker = self.worker(w)?;
        if let Some(unknown) = ids.iter().find(|id| !self.blocks.contains_key(id)) {
            return Err(PolicyError::Block(*unknown));
        }
        let mut at = 0;
        while at < ids.len() {
            let first = *self.blocks.get(&ids[at]).ok_or(PolicyError::Block(ids[at]))?;
            self.keys.clear();
            self.names.clear();
            self.keys.push(first.key);
            self.names.push(EngineHash(ids[at]));
            at += 1;
            while let Some(id) = ids.get(at)
                && let Some(block) = self.blocks.get(id)
                && block.parent == Some(ids[at - 1])
            {
                self.keys.push(block.key);
                self.names.push(EngineHash(*id));
                at += 1;
            }
            let parent = first.parent.map(EngineHash);
            self.brain.residency().store(worker, parent, &self.names, &self.keys);
        }
        Ok(())
    }

    fn arrive(&mut self, it: &Arrive) -> Result<Answer, PolicyError> {
        let now = self.time(it.t)?;
        for (worker, &id) in it.workers.iter().zip(&self.workers) {
            let sample = MetricsSample {
                waiting_requests: Some(worker.waiting),
                running_requests: Some(worker.running),
                kv_usage: Some(worker.kv),
                ..MetricsSample::default()
            };
            self.brain.step(now, Input::Metrics(id, sample))?;
        }
        let mut keys = std::mem::take(&mut self.keys);
        keys.clear();
        let (mut parent, mut key) = (None, BlockKey(0));
        for &id in &it.ids {
            key = chained(key, id);
            self.blocks.insert(id, Block { key, parent });
            parent = Some(id);
            keys.push(key);
        }
        self.request.prompt_tokens = it.len;
        self.request.session_id = it.sess.map(|session| session.to_string());
        self.request.tenant.clone_from(&it.tenant);
        self.request.priority = it.prio;
        self.request.deadline_ms = it.deadline_ms;
        self.request.expected_output_tokens = it.out;
        self.request.slo.ttft_ms = it.slo_ttft_ms.or(self.slo.ttft_ms);
        self.request.slo.tpot_ms = it.slo_tpot_ms.or(self.slo.tpot_ms);
        self.brain.matches(now, &keys, &mut self.matches);
        let action = self.brain.decide(now, &self.request, &keys, &self.matches, &[]);
        self.keys = keys;
        Ok(match action {
            Action::Hold(ticket) => {
                self.held.insert(ticket, it.id);
                Answer::Hold { hold: true }
            }
            Action::Reject { why, retry_after_ms, .. } => {
                let it = Rejected { why, retry_after_ms };
                Answer::Reject { reject: it.to_string(), status: it.status(), retry_after_ms }
            }
            action => match action.decision() {
                Some(decision) => Answer::Worker { w: self.send(it.id, decision) },
                None => {
                    let (reject, retry_after_ms) = ("no decision".to_owned(), None);
                    Answer::Reject { reject, status: 503, retry_after_ms }
                }
            },
        })
    }

    /// Who goes where, of the requests that were held.
    fn go(&mut self, actions: Vec<Action>) -> Option<Answer> {
        let (mut go, mut gave_up) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Release(decision) => {
                    if let Some(id) = self.held.remove(&decision.ticket) {
                        go.push((id, self.send(id, &decision)));
                    }
                }
                Action::Reject { ticket, why, retry_after_ms } => {
                    if let Some(id) = self.held.remove(&ticket) {
                        let it = Rejected { why, retry_after_ms };
                        gave_up.push((id, it.status(), it.to_string()));
                    }
                }
                _ => {}
            }
        }
        self.holds.then_some(Answer::Go { go, gave_up })
    }

    fn send(&mut self, id: u64, decision: &Decision) -> u32 {
        self.sent.insert(id, decision.reservation);
        // Workers joined in order, and nobody else did.
        decision.endpoint.slot.0
    }

    fn worker(&self, w: u32) -> Result<EndpointId, PolicyError> {
        let n = self.workers.len();
        self.workers.get(w as usize).copied().ok_or(PolicyError::Worker { given: w, n })
    }

    fn time(&mut self, t: f64) -> Result<Time, PolicyError> {
        if !t.is_finite() || t < 0.0 {
            return Err(PolicyError::Time(t));
        }
        self.latest = self.latest.max(Time::from_millis_f64(t));
        Ok(self.latest)
    }
}

/// The key of a block behind another: numbers may mean different contents behind different prefixes.
fn chained(before: BlockKey, id: u64) -> BlockKey {
    let mixed =
        (before.0 ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x2545_F491_4F6C_DD1D);
    let wide = u128::from(mixed) * 0xDA94_2042_E4DD_58B5_u128;
    BlockKey((wide as u64) ^ ((wide >> 64) as u64))
}
