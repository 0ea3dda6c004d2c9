//! The least engine that has what the predictor models: a first-come queue of chunked prefills and
//! a batch of decodes, both in steps whose time a profile gives.

use crate::predict::EngineProfile;
use crate::{ReservationId, Time};
use std::collections::VecDeque;

pub(super) const BATCH_TOKENS: u64 = 8_192;

#[derive(Debug)]
struct Waiting {
    id: ReservationId,
    done: u64,
    prompt: u64,
    output: u32,
}

#[derive(Debug)]
struct Decoding {
    id: ReservationId,
    context: u64,
    emitted: u32,
    output: u32,
}

/// A token that came: the how many-th of its request, and whether it was the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) id: ReservationId,
    pub(super) number: u32,
    pub(super) is_last: bool,
}

#[derive(Debug)]
pub(super) struct SteppedEngine {
    profile: &'static EngineProfile,
    now_ms: f64,
    waiting: VecDeque<Waiting>,
    decoding: Vec<Decoding>,
}

impl SteppedEngine {
    pub(super) fn new(profile: &'static EngineProfile) -> Self {
        Self { profile, now_ms: 0.0, waiting: VecDeque::new(), decoding: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        now: Time,
        id: ReservationId,
        prompt: u32,
        cached: u32,
        output: u32,
    ) {
        if self.is_idle() {
            self.now_ms = self.now_ms.max(now.as_millis_f64());
        }
        let (done, prompt) = (cached.into(), prompt.into());
        self.waiting.push_back(Waiting { id, done, prompt, output });
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.decoding.is_empty()
    }

    /// When the step that begins now (or began in the past) began.
    pub(super) fn step_starts(&self) -> Time {
        Time::from_millis_f64(self.now_ms)
    }

    /// Runs a step whose time is `noise` times the profile's, and tells when it ended and what
    /// tokens came of it.
    pub(super) fn step(&mut self, noise: f64) -> (Time, Vec<Token>) {
        let batch = self.decoding.len() as u64;
        let context = self.decoding.iter().map(|request| request.context).sum();
        let mut room = BATCH_TOKENS.saturating_sub(batch);
        let (mut tokens, mut pairs, mut finished) = (0, 0.0, 0);
        for request in &mut self.waiting {
            let chunk = room.min(request.prompt - request.done);
            pairs += chunk as f64 * (request.done as f64 + chunk as f64 / 2.0);
            tokens += chunk;
            room -= chunk;
            request.done += chunk;
            finished += usize::from(request.done == request.prompt);
            if room == 0 {
                break;
            }
        }
        self.now_ms += noise * self.profile.step_ms(tokens, pairs, batch, context);
        for request in &mut self.decoding {
            request.context += 1;
            request.emitted += 1;
        }
        let begun = self.waiting.drain(..finished).map(|request| Decoding {
            id: request.id,
            context: request.prompt + 1,
            emitted: 1,
            output: request.output,
        });
        self.decoding.extend(begun);
        let token = |request: &Decoding| Token {
            id: request.id,
            number: request.emitted,
            is_last: request.emitted >= request.output,
        };
        let tokens = self.decoding.iter().map(token).collect();
        self.decoding.retain(|request| request.emitted < request.output);
        (self.step_starts(), tokens)
    }
}
