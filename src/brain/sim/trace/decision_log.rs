//! Our own decision log: what a router was asked, whatever it answered.
//!
//! A log tells when each request came, how long its prompt was, the keys of its blocks, its session, and,
//! of those that finished, how much was generated. It does not tell how much a request would have generated
//! that was refused, cancelled or still running at the log's end: those get what is assumed, and are
//! counted. Models, adapters, labels, priorities and objectives are not part of a workload: in a simulation
//! every engine can serve every request, under the world's objectives.

use super::TraceError;
use crate::brain::{Action, Input, LogEntry};
use crate::schedule::Request;
use crate::sim::Workload;
use crate::{BlockKey, ReservationId, Ticket, Time};
use serde::Serialize;
use std::collections::HashMap;

/// What a log leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LogGaps {
    /// Requests whose end is not in the log: how much they generated is assumed.
    pub assumed_outputs: u64,
    /// Requests whose prompt was text: its length in tokens is the router's estimate.
    pub estimated_prompts: u64,
    /// Turns that the writer could not keep up with: requests may be missing.
    pub lost_entries: u64,
}

struct Logged {
    at: Time,
    prompt_tokens: u32,
    /// Told by the end, or by the progress before it.
    output_tokens: Option<u32>,
    keys: Vec<BlockKey>,
}

/// Gathers a workload from the entries of a log, in their order.
#[derive(Default)]
pub struct DecisionLogTrace {
    block_size: u32,
    requests: Vec<Logged>,
    /// Requests of each session, in the order in which sessions began.
    sessions: Vec<Vec<usize>>,
    session_ids: HashMap<String, usize>,
    held: HashMap<Ticket, usize>,
    running: HashMap<ReservationId, usize>,
    gaps: LogGaps,
}

impl DecisionLogTrace {
    /// Of a router with this block size.
    #[must_use]
    pub fn new(block_size: u32) -> Self {
        Self { block_size, ..Self::default() }
    }

    /// The next turn.
    pub fn turn(&mut self, entry: LogEntry) {
        let arrived = match entry.input {
            Input::Arrive { request, keys, .. } => Some(self.arrived(entry.now, &request, keys)),
            Input::Progress(reservation, tokens) => {
                if let Some(&at) = self.running.get(&reservation) {
                    self.requests[at].output_tokens = Some(tokens);
                }
                None
            }
            Input::Finished(reservation, tokens) => {
                if let Some(at) = self.running.remove(&reservation) {
                    self.requests[at].output_tokens = Some(tokens);
                }
                None
            }
            _ => None,
        };
        for action in &entry.actions {
            match (action, arrived) {
                (Action::Route(decision), Some(at)) => {
                    self.running.insert(decision.reservation, at);
                }
                (Action::Hold(ticket), Some(at)) => {
                    self.held.insert(*ticket, at);
                }
                (Action::Release(decision), _) => {
                    if let Some(at) = self.held.remove(&decision.ticket) {
                        self.running.insert(decision.reservation, at);
                    }
                }
                (Action::Reject { ticket, .. }, _) => {
                    self.held.remove(ticket);
                }
                _ => {}
            }
        }
    }

    /// So many turns are missing here.
    pub fn lost(&mut self, entries: u64) {
        self.gaps.lost_entries += entries;
    }

    fn arrived(&mut self, now: Time, request: &Request, keys: Vec<BlockKey>) -> usize {
        let at = self.requests.len();
        self.gaps.estimated_prompts += u64::from(request.is_text);
        self.requests.push(Logged {
            at: now,
            prompt_tokens: request.prompt_tokens,
            output_tokens: None,
            keys,
        });
        let alone = self.sessions.len();
        let session = match &request.session_id {
            Some(id) => *self.session_ids.entry(id.clone()).or_insert(alone),
            None => alone,
        };
        match self.sessions.get_mut(session) {
            Some(turns) => turns.push(at),
            None => self.sessions.push(vec![at]),
        }
        at
    }

    /// The workload, an open loop whose times count from the first request, and what is assumed in it:
    /// requests whose end is unknown generate `assumed_output_tokens`, by default the mean of the others.
    ///
    /// # Errors
    /// [`TraceError`] where there is no request, or nothing to assume.
    pub fn finish(
        mut self,
        assumed_output_tokens: Option<u32>,
    ) -> Result<(Workload, LogGaps), TraceError> {
        let first = self.requests.first().ok_or(TraceError::NoRequest)?.at;
        let known: Vec<u64> =
            self.requests.iter().filter_map(|it| it.output_tokens.map(u64::from)).collect();
        self.gaps.assumed_outputs = (self.requests.len() - known.len()) as u64;
        let mean = (known.iter().sum::<u64>() as f64 / known.len() as f64).round() as u32;
        let assumed = match assumed_output_tokens {
            Some(tokens) => tokens,
            None if known.is_empty() => return Err(TraceError::NoOutput),
            None => mean,
        };
        let mut workload = Workload::new(self.block_size);
        for turns in &self.sessions {
            workload.begin_session();
            for &turn in turns {
                let it = &mut self.requests[turn];
                let at_ms = it.at.as_millis_f64() - first.as_millis_f64();
                let output_tokens = it.output_tokens.unwrap_or(assumed);
                workload.push(at_ms, it.prompt_tokens, output_tokens, std::mem::take(&mut it.keys));
            }
        }
        Ok((workload, self.gaps))
    }
}
