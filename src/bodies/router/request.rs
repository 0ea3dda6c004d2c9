//! The path of one request.

use super::LiveRouter;
use super::error::RouterError;
use super::held::{Outcome, Waiter};
use super::members::MembersGuard;
use llmd_brain::brain::{Action, BrainError, RejectReason, Rejected};
use llmd_brain::fleet::EndpointSpec;
use llmd_brain::index::Matches;
use llmd_brain::prompt::{GrowingPrompt, PromptError, Scope, text, token_keys};
use llmd_brain::schedule::{Choice, Decision, Features, ForeignScore, Request};
use llmd_brain::{BlockKey, ReservationId, Ticket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A prompt as a client has it.
#[derive(Debug, Clone, Copy)]
pub enum Prompt<'a> {
    /// As token ids.
    Tokens(&'a [u32]),
    /// As text, where there are no tokens.
    Text(&'a str),
    /// As the keys that it has already.
    Keys(&'a GrowingPrompt),
}

/// Buffers that a thread keeps between requests.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Keys of the prompt's full blocks.
    pub keys: Vec<BlockKey>,
    /// What each endpoint holds of them.
    pub matches: Matches,
    /// The alias that was asked for, where one was.
    pub alias: Option<String>,
}

/// What became of an arrival.
#[derive(Debug)]
pub enum Placement {
    /// It has its place.
    Placed(Placed),
    /// It waits: [`LiveRouter::wait`] tells when it has one.
    Held(Ticket),
}

/// A decision, with who it is for.
#[derive(Debug)]
pub struct Placed {
    /// The decision.
    pub decision: Box<Decision>,
    /// The endpoint of [`Decision::endpoint`].
    pub spec: Arc<EndpointSpec>,
}

impl LiveRouter {
    /// Puts the keys of a prompt into `scratch`, and its length, model and adapter into `request`.
    ///
    /// Keys are bound to a model. A request that names none gets those of the fleet's model where
    /// all endpoints serve one, and one that names an [alias](llmd_brain::aliases) those of the
    /// model that it gets.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn prepare(
        &self,
        prompt: Prompt<'_>,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> Result<(), PromptError> {
        let block_size = self.config().block_size;
        scratch.alias = None;
        let of_alias = self.model_of_alias(&scope.model, request, prompt).map(|model| {
            scratch.alias = Some(scope.model.clone());
            Scope { model: model.to_owned(), ..scope.clone() }
        });
        let scope = of_alias.as_ref().unwrap_or(scope);
        // Keys that there are already are bound already.
        let is_unbound = scope.model.is_empty() && !matches!(prompt, Prompt::Keys(_));
        let of_sole_model = match is_unbound {
            true => self
                .members
                .read()
                .sole_model()
                .map(|model| Scope { model: model.to_owned(), ..scope.clone() }),
            false => None,
        };
        request.model.clone_from(&scope.model);
        let scope = of_sole_model.as_ref().unwrap_or(scope);
        request.is_text = matches!(prompt, Prompt::Text(_));
        request.lora.clone_from(&scope.lora);
        let tokens = match prompt {
            Prompt::Tokens(tokens) => {
                token_keys(tokens, block_size, scope, &mut scratch.keys)?;
                tokens.len()
            }
            Prompt::Text(text) => {
                text::text_keys(text, block_size, scope, &mut scratch.keys)?;
                text::estimated_tokens(text)
            }
            Prompt::Keys(prompt) => {
                if prompt.is_empty() {
                    return Err(PromptError::Empty);
                }
                if prompt.block_size() != block_size {
                    let keys = prompt.block_size();
                    return Err(PromptError::OtherBlockSize { keys, router: block_size });
                }
                scratch.keys.clear();
                scratch.keys.extend_from_slice(prompt.keys());
                prompt.len()
            }
        };
        request.prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        request.block_tokens = block_size;
        Ok(())
    }

    /// The keys of a prompt that will grow, of this router's blocks; `scope` names no multimodal
    /// items yet. Without a model they are bound to the fleet's as in [`prepare`](Self::prepare),
    /// as of now.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn growing_prompt(&self, mut scope: Scope) -> Result<GrowingPrompt, PromptError> {
        if scope.model.is_empty() {
            self.members.read().sole_model().unwrap_or_default().clone_into(&mut scope.model);
        }
        GrowingPrompt::new(self.config().block_size, scope)
    }

    /// Places a prepared request, or holds it.
    ///
    /// # Errors
    /// [`RouterError::Rejected`], [`RouterError::Closed`].
    pub fn place(
        self: &Arc<Self>,
        request: &Request,
        foreign: &[ForeignScore],
        scratch: &mut Scratch,
    ) -> Result<Placement, RouterError> {
        self.check_open()?;
        self.keep_time()?;
        let now = self.now();
        self.brain.matches(now, &scratch.keys, &mut scratch.matches);
        let members = self.members.read();
        let action = self.brain.decide(now, request, &scratch.keys, &scratch.matches, foreign);
        let placed = self.placement(action, &members)?;
        self.count_alias(request, scratch);
        Ok(placed)
    }

    /// What foreign scorers see of a prepared request: the version to commit with, and the
    /// candidates with their features.
    ///
    /// # Errors
    /// [`RouterError::Rejected`] where nobody could take it, [`RouterError::Closed`].
    pub fn features(
        self: &Arc<Self>,
        request: &Request,
        scratch: &mut Scratch,
    ) -> Result<(u64, Features), RouterError> {
        self.check_open()?;
        self.keep_time()?;
        let now = self.now();
        self.brain.matches(now, &scratch.keys, &mut scratch.matches);
        self.brain
            .features(now, request, &scratch.keys, &scratch.matches)
            .map_err(|why| RouterError::Rejected(why.into()))
    }

    /// Places a request with scores made for the features of `version`; `None` where the fleet
    /// has changed since, and nothing was placed.
    ///
    /// # Errors
    /// [`RouterError::Rejected`], [`RouterError::Closed`].
    pub fn commit(
        self: &Arc<Self>,
        request: &Request,
        foreign: &[ForeignScore],
        scratch: &Scratch,
        version: u64,
    ) -> Result<Option<Placement>, RouterError> {
        self.check_open()?;
        let now = self.now();
        let members = self.members.read();
        let committed =
            self.brain.commit(now, request, &scratch.keys, &scratch.matches, foreign, version);
        match committed {
            Ok(action) => {
                let placed = self.placement(action, &members)?;
                self.count_alias(request, scratch);
                Ok(Some(placed))
            }
            Err(BrainError::StaleFeatures { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Where a prepared request would go now, and why; books nothing.
    ///
    /// # Errors
    /// Why it would be turned away.
    pub fn explain(
        &self,
        request: &Request,
        foreign: &[ForeignScore],
        scratch: &mut Scratch,
    ) -> Result<Choice, RejectReason> {
        let now = self.now();
        self.brain.matches(now, &scratch.keys, &mut scratch.matches);
        self.brain.explain(now, request, &scratch.keys, &scratch.matches, foreign)
    }

    /// Has `waiter` called with what becomes of a held request.
    pub fn wait(&self, ticket: Ticket, waiter: Waiter) {
        self.held.wait(ticket, waiter);
        if self.is_closed() {
            // It may have come after everybody was told.
            self.held.decide_all(&Outcome::Closed);
        }
    }

    /// A decision that was made for a held request, with who it is for.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`] where another endpoint has its slot by now; the decision
    /// is cancelled then.
    pub fn placed(&self, decision: Box<Decision>) -> Result<Placed, RouterError> {
        match self.spec(decision.endpoint) {
            Some(spec) => Ok(Placed { decision, spec }),
            None => {
                self.cancel(&decision);
                Err(RouterError::UnknownEndpoint(decision.endpoint.to_string()))
            }
        }
    }

    /// The first token of a request came. Returns whether its reservation still stood, as the
    /// others do.
    pub fn first_token(&self, reservation: ReservationId) -> bool {
        let stood = self.brain.is_reserved(reservation);
        self.carry_out(&self.brain.first_token(self.now(), reservation));
        stood
    }

    /// The output of a request grew to so many tokens in all.
    pub fn progress(&self, reservation: ReservationId, output_tokens: u32) -> bool {
        let stood = self.brain.is_reserved(reservation);
        self.carry_out(&self.brain.progress(self.now(), reservation, output_tokens));
        stood
    }

    /// A request finished.
    pub fn finish(&self, reservation: ReservationId, output_tokens: u32) -> bool {
        let stood = self.brain.is_reserved(reservation);
        self.carry_out(&self.brain.finished(self.now(), reservation, output_tokens));
        stood
    }

    /// A placed request failed, or its client went away.
    pub fn cancel(&self, decision: &Decision) -> bool {
        let stood = self.brain.is_reserved(decision.reservation);
        self.carry_out(&self.brain.cancelled(self.now(), decision.ticket));
        stood
    }

    /// The client of a held request went away.
    pub fn withdraw(&self, ticket: Ticket) {
        self.held.forget(ticket);
        self.carry_out(&self.brain.cancelled(self.now(), ticket));
        // Decided in between: nobody will ask.
        self.held.forget(ticket);
    }

    /// A scorer outside the brain failed.
    pub fn count_scorer_failure(&self) {
        self.scorer_failures.fetch_add(1, Relaxed);
    }

    fn placement(
        &self,
        action: Action,
        members: &MembersGuard<'_>,
    ) -> Result<Placement, RouterError> {
        match action {
            Action::Route(decision) => {
                self.peers.stir();
                match members.spec(decision.endpoint) {
                    Some(spec) => Ok(Placement::Placed(Placed { decision, spec })),
                    None => Err(RouterError::UnknownEndpoint(decision.endpoint.to_string())),
                }
            }
            Action::Reject { why, retry_after_ms, .. } => {
                Err(RouterError::Rejected(Rejected { why, retry_after_ms }))
            }
            Action::Hold(ticket) => {
                self.hurry();
                Ok(Placement::Held(ticket))
            }
            other => {
                tracing::error!(?other, "an arrival was answered by something else");
                Err(RouterError::Rejected(RejectReason::EmptyFleet.into()))
            }
        }
    }
}
