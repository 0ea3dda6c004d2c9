//! The path of a request, without building an [`Input`]: what bodies call for every request.

use super::answers::IndexAnswers;
use super::{Action, Brain, BrainError, Input, RejectReason};
use crate::index::Matches;
use crate::schedule::{Choice, Decision, Features, ForeignScore, Request};
use crate::{BlockKey, ReservationId, Ticket, Time};

impl Brain {
    /// Matched blocks of every endpoint. Takes no lock of the brain, and allocates nothing once
    /// `out` has grown to the fleet's size.
    pub fn matches(&self, now: Time, keys: &[BlockKey], out: &mut Matches) {
        self.residency().matches(now, keys, out);
    }

    /// [`Input::Arrive`] with a match that the caller has already made: `Route`, `Hold` or
    /// `Reject`.
    pub fn decide(
        &self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Action {
        let mut answers = IndexAnswers::given(self.residency(), matches);
        self.state.lock().arrive(now, request, keys, foreign, &mut answers)
    }

    /// [`decide`](Self::decide) with scores made for the features of `version`.
    ///
    /// # Errors
    /// [`BrainError::StaleFeatures`] where the fleet has changed since: take the features again
    /// once, then commit by [`decide`](Self::decide), which uses what still fits.
    pub fn commit(
        &self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
        foreign: &[ForeignScore],
        version: u64,
    ) -> Result<Action, BrainError> {
        let mut answers = IndexAnswers::given(self.residency(), matches);
        let mut state = self.state.lock();
        let current = state.version();
        if current != version {
            return Err(BrainError::StaleFeatures { given: version, current });
        }
        Ok(state.arrive(now, request, keys, foreign, &mut answers))
    }

    /// What a foreign scorer sees: the candidates of a request, as columns, and the version that
    /// scores for them are committed with.
    ///
    /// # Errors
    /// The reason, where no endpoint could take it.
    pub fn features(
        &self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
    ) -> Result<(u64, Features), RejectReason> {
        self.state.lock().features(now, request, keys, matches)
    }

    /// Where a request would go now, and why. Changes nothing.
    ///
    /// # Errors
    /// The reason, where no endpoint could take it.
    pub fn explain(
        &self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, RejectReason> {
        self.state.lock().explain(now, request, keys, matches, foreign)
    }

    /// [`Input::FirstToken`].
    pub fn first_token(&self, now: Time, reservation: ReservationId) -> Vec<Action> {
        self.inform(now, Input::FirstToken(reservation))
    }

    /// [`Input::Progress`].
    pub fn progress(
        &self,
        now: Time,
        reservation: ReservationId,
        output_tokens: u32,
    ) -> Vec<Action> {
        self.inform(now, Input::Progress(reservation, output_tokens))
    }

    /// [`Input::Finished`]. Idempotent.
    pub fn finished(
        &self,
        now: Time,
        reservation: ReservationId,
        output_tokens: u32,
    ) -> Vec<Action> {
        self.inform(now, Input::Finished(reservation, output_tokens))
    }

    /// [`Input::Cancelled`]. Idempotent.
    pub fn cancelled(&self, now: Time, ticket: Ticket) -> Vec<Action> {
        self.inform(now, Input::Cancelled(ticket))
    }

    /// [`Input::Tick`].
    pub fn tick(&self, now: Time) -> Vec<Action> {
        self.inform(now, Input::Tick)
    }

    /// Inputs about requests never fail: what is no longer known is ignored.
    fn inform(&self, now: Time, input: Input) -> Vec<Action> {
        self.step(now, input).unwrap_or_default()
    }
}

impl Action {
    /// The decision, where this places a request.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        match self {
            Self::Route(decision) | Self::Release(decision) => Some(decision),
            _ => None,
        }
    }
}
