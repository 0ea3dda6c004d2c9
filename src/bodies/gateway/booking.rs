//! A request's place: from the brain, at once or after it was held, and given up where nobody says
//! that the answer ended.

use super::asked::Asked;
use super::recent::{Fate, Kept, Ring};
use super::refusal::Refusal;
use crate::router::{LiveRouter, Outcome, Placed, Placement, RouterError, Scratch};
use hyper::StatusCode;
use llmd_brain::Ticket;
use llmd_brain::fleet::EndpointSpec;
use llmd_brain::schedule::Decision;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The load of a request at an endpoint; cancelled when it is dropped before it ended.
pub(super) struct Booking {
    live: Arc<LiveRouter>,
    placed: Placed,
    kept: Option<Kept>,
    /// From when until when it was held.
    held: Option<(Instant, Instant)>,
    is_over: bool,
}

impl Booking {
    /// A place for a request, waited for where the brain holds it, and kept among the last decisions
    /// where there is a ring of them.
    pub(super) async fn make(
        live: &Arc<LiveRouter>,
        ring: Option<&Arc<Ring>>,
        asked: &mut Asked,
    ) -> Result<Self, Refusal> {
        let came = Instant::now();
        let placement = SCRATCH.with_borrow_mut(|scratch| {
            let Asked { scope, request, read, .. } = asked;
            live.prepare_body(read, scope, request, scratch)
                .map_err(|error| Refusal::invalid("invalid_prompt", error.to_string()))?;
            live.place(request, &[], scratch).map_err(|error| refused(&error))
        })?;
        let mut held = None;
        let placed = match placement {
            Placement::Placed(placed) => placed,
            Placement::Held(ticket) => {
                let since = Instant::now();
                let placed = Self::wait(live, ticket).await?;
                held = Some((since, Instant::now()));
                placed
            }
        };
        let kept = ring.map(|ring| {
            let model = asked.read.model.as_deref().unwrap_or(&asked.request.model);
            ring.keep(&placed.decision, &placed.spec, &asked.request, model, came)
        });
        let live = Arc::clone(live);
        Ok(Self { live, placed, kept, held, is_over: false })
    }

    async fn wait(live: &Arc<LiveRouter>, ticket: Ticket) -> Result<Placed, Refusal> {
        let (tell, told) = oneshot::channel();
        let mut waiting = Waiting { live, ticket, is_over: false };
        live.wait(ticket, Box::new(move |outcome| drop(tell.send(outcome))));
        let outcome = told.await.unwrap_or(Outcome::Closed);
        waiting.is_over = true;
        match outcome {
            Outcome::Placed(decision) => live.placed(decision).map_err(|error| refused(&error)),
            Outcome::Rejected(rejected) => Err(Refusal::rejected(&rejected)),
            Outcome::Closed => Err(Refusal::unavailable("the gateway is shutting down")),
        }
    }

    /// From when until when the request was held, if it was.
    pub(super) fn held(&self) -> Option<(Instant, Instant)> {
        self.held
    }

    pub(super) fn decision(&self) -> &Decision {
        &self.placed.decision
    }

    pub(super) fn spec(&self) -> &EndpointSpec {
        &self.placed.spec
    }

    /// The engine's answer began.
    pub(super) fn answered(&self, status: StatusCode) {
        if let Some(kept) = &self.kept {
            kept.answered(status.as_u16());
        }
    }

    pub(super) fn first_token(&self) {
        if let Some(kept) = &self.kept {
            kept.first_token();
        }
        self.live.first_token(self.placed.decision.reservation);
    }

    pub(super) fn progress(&self, output_tokens: u32) {
        self.live.progress(self.placed.decision.reservation, output_tokens);
    }

    /// The answer ended, with so many tokens; where nobody told how many, as many as it is expected
    /// to have had by now.
    pub(super) fn finish(mut self, output_tokens: Option<u32>) {
        self.is_over = true;
        self.ended(Fate::Answered, output_tokens);
        let reservation = self.placed.decision.reservation;
        let tokens = output_tokens
            .unwrap_or_else(|| self.live.brain().generated_by(self.live.now(), reservation));
        self.live.finish(reservation, tokens);
    }

    /// The engine failed, or declined.
    pub(super) fn failed(&self) {
        self.ended(Fate::Failed, None);
    }

    fn ended(&self, fate: Fate, output_tokens: Option<u32>) {
        if let Some(kept) = &self.kept {
            kept.ended(fate, output_tokens);
        }
    }

    /// Where it is kept among the last decisions.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.kept.clone()
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        if !self.is_over {
            self.ended(Fate::Left, None);
            self.live.cancel(&self.placed.decision);
        }
    }
}

/// A held request whose client may go away.
struct Waiting<'a> {
    live: &'a Arc<LiveRouter>,
    ticket: Ticket,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.live.withdraw(self.ticket);
        }
    }
}

fn refused(error: &RouterError) -> Refusal {
    match error {
        RouterError::Rejected(rejected) => Refusal::rejected(rejected),
        RouterError::Closed => Refusal::unavailable("the gateway is shutting down"),
        other => Refusal::unavailable(other.to_string()),
    }
}
