//! First tokens that nobody tells of.
//!
//! Some bodies hear of a request only that it is over (Ray Serve's routers do). What is in flight
//! would then count as a prefill to come for as long as it decodes, and who decodes much would look
//! like who has a long queue. With [`FirstTokens::Guessed`] a prefill counts as done when the latency
//! model of its endpoint says so. Nothing is learned from a guess: of what a body says at the end, only
//! how long the answer was.
//!
//! Others hear of most first tokens, and not of those of answers that come all at once: these say so with the
//! [request](crate::schedule::Request::first_token_is_untold), and it alone is guessed. Where it may have one
//! token only, nothing is: its end tells.

use super::state::State;
use crate::fleet::{FirstTokens, Reservation};
use crate::schedule::Request;
use crate::{ReservationId, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// When each prefill is likely to be done, the first one first. What has ended meanwhile is still in
/// here until then.
#[derive(Debug, Default)]
pub(super) struct Guesses(BinaryHeap<Reverse<(Time, ReservationId)>>);

/// No prefill takes longer, whatever a model says.
const HOUR_MS: f64 = 3_600_000.0;

/// Whether nobody will tell when the answer to a request began.
pub(super) fn is_begun_untold(request: &Request) -> bool {
    request.first_token_is_untold && request.max_output_tokens != Some(1)
}

impl State {
    /// Whether a first token of this request that is heard of is one.
    pub(super) fn is_told_of_first_token(&self, booked: &Reservation) -> bool {
        self.fleet.config().first_tokens == FirstTokens::Told && !booked.first_token_is_untold
    }

    /// A request was booked.
    pub(super) fn guess_first_token(&mut self, now: Time, id: ReservationId) {
        if let Some(booked) = self.fleet.reservation(id)
            && !self.is_told_of_first_token(booked)
        {
            let predicted = booked.predicted.ttft_ms;
            let ttft_ms = predicted.unwrap_or_else(|| self.predictor.prefill_ms(booked));
            let at = Time::from_millis_f64(now.as_millis_f64() + ttft_ms.clamp(0.0, HOUR_MS));
            self.guesses.0.push(Reverse((at, id)));
        }
    }

    /// Prefills that are likely to be done by `now` are.
    pub(super) fn take_guesses(&mut self, now: Time) {
        while let Some(&Reverse((at, id))) = self.guesses.0.peek()
            && at <= now
        {
            self.guesses.0.pop();
            if self.fleet.guess_first_token(now, id)
                && let Some(booked) = self.fleet.reservation(id)
            {
                self.predictor.prefilled(self.fleet.columns(), booked, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::brain::{Action, Brain, BrainConfig, Input};
    use crate::fleet::{EndpointSpec, FirstTokens};
    use crate::index::Matches;
    use crate::schedule::Request;
    use crate::{EndpointId, ReservationId, Time};
    use std::time::Duration;

    fn brain(first_tokens: FirstTokens, profile: Option<&str>) -> (Brain, EndpointId) {
        let mut config = BrainConfig::default();
        config.fleet.first_tokens = first_tokens;
        let brain = Brain::new(config).unwrap();
        let mut spec = EndpointSpec::new("http://a:8000", "");
        if let Some(profile) = profile {
            spec.labels.insert("engine-profile".to_owned(), profile.to_owned());
        }
        match &brain.step(Time::ZERO, Input::Join(spec)).unwrap()[..] {
            [Action::Joined(id)] => (brain, *id),
            other => panic!("{other:?}"),
        }
    }

    fn place(brain: &Brain, at: Time, prompt_tokens: u32) -> (ReservationId, Option<f64>) {
        let request = Request { prompt_tokens, ..Request::default() };
        match brain.decide(at, &request, &[], &Matches::new(), &[]) {
            Action::Route(decision) => (decision.reservation, decision.predicted.ttft_ms),
            other => panic!("{other:?}"),
        }
    }

    /// Prompt tokens that are still to be computed, and requests.
    fn load(brain: &Brain, at: Time) -> (u64, u32) {
        let of = &brain.endpoints(at)[0];
        (of.pending_prefill_tokens, of.inflight_requests)
    }

    #[test]
    fn an_untold_prefill_is_done_when_the_model_says_so() {
        for profile in [Some("qwen3-32b_h100_tp2"), None] {
            let (brain, _) = brain(FirstTokens::Guessed, profile);
            let (_, ttft_ms) = place(&brain, Time::ZERO, 20_000);
            assert_eq!(ttft_ms.is_some(), profile.is_some());
            // A second one looks at what became of the first.
            let soon = Time::from_millis_f64(ttft_ms.unwrap_or(1.0) * 0.9);
            place(&brain, soon, 1);
            assert_eq!(load(&brain, soon), (20_001, 2));
            let late = Time::ZERO + Duration::from_secs(3_600);
            place(&brain, late, 1);
            assert_eq!(load(&brain, late), (1, 3));
        }
    }

    #[test]
    fn guesses_teach_nothing_and_are_forgotten_with_their_requests() {
        let (brain, _) = brain(FirstTokens::Guessed, Some("qwen3-32b_h100_tp2"));
        let (first, _) = place(&brain, Time::ZERO, 20_000);
        let (second, _) = place(&brain, Time::ZERO, 20_000);
        // One that ends before its guess is due, one after it.
        brain.step(Time::ZERO + Duration::from_millis(1), Input::Finished(second, 100)).unwrap();
        let late = Time::ZERO + Duration::from_secs(500);
        place(&brain, late, 1);
        assert_eq!(load(&brain, late), (1, 2));
        brain.step(late, Input::Finished(first, 100)).unwrap();
        assert_eq!(load(&brain, late), (1, 1));
        let latency = brain.endpoints(late)[0].latency.unwrap();
        assert_eq!((latency.prefills_observed, latency.decodes_observed), (0, 0));
    }

    #[test]
    fn an_answer_that_came_all_at_once_does_not_tell_when_it_began() {
        let (brain, _) = brain(FirstTokens::Told, Some("qwen3-32b_h100_tp2"));
        let learned = |at: Time| {
            let latency = brain.endpoints(at)[0].latency.unwrap();
            (latency.prefills_observed, latency.decodes_observed)
        };
        let (whole, _) = place(&brain, Time::ZERO, 1_000);
        let late = Time::ZERO + Duration::from_secs(5);
        brain.step(late, Input::Finished(whole, 100)).unwrap();
        assert_eq!((learned(late), load(&brain, late)), ((0, 0), (0, 0)));
        // That of one token does.
        let (single, _) = place(&brain, late, 1_000);
        let later = late + Duration::from_millis(100);
        brain.step(later, Input::Finished(single, 1)).unwrap();
        assert_eq!(learned(later).0, 1);
    }

    #[test]
    fn an_answer_that_is_said_to_come_all_at_once_is_guessed_alone_and_teaches_nothing() {
        let (brain, _) = brain(FirstTokens::Told, Some("qwen3-32b_h100_tp2"));
        let late = Time::ZERO + Duration::from_secs(500);
        let whole = |max_output_tokens| Request {
            prompt_tokens: 20_000,
            max_output_tokens,
            first_token_is_untold: true,
            ..Request::default()
        };
        let book = |at: Time, request: &Request| match brain.decide(
            at,
            request,
            &[],
            &Matches::new(),
            &[],
        ) {
            Action::Route(decision) => decision.reservation,
            other => panic!("{other:?}"),
        };
        let first = book(Time::ZERO, &whole(None));
        let single = book(Time::ZERO, &whole(Some(1)));
        place(&brain, Time::ZERO, 10_000);
        place(&brain, late, 1);
        // Left are that of one token, whose end tells, the stream, and who looks.
        assert_eq!(load(&brain, late), (30_001, 4));
        let learned = || {
            let latency = brain.endpoints(late)[0].latency.unwrap();
            (latency.prefills_observed, latency.decodes_observed)
        };
        // Nor does one token more or less make its end a beginning.
        let early = book(late, &whole(None));
        for (id, tokens) in [(first, 100), (early, 1)] {
            brain.step(late, Input::Finished(id, tokens)).unwrap();
        }
        assert_eq!((learned(), load(&brain, late)), ((0, 0), (30_001, 3)));
        brain.step(late, Input::Finished(single, 1)).unwrap();
        assert_eq!((learned(), load(&brain, late)), ((1, 0), (10_001, 2)));
    }

    #[test]
    fn who_is_told_does_not_guess() {
        let (brain, _) = brain(FirstTokens::Told, Some("qwen3-32b_h100_tp2"));
        place(&brain, Time::ZERO, 20_000);
        let late = Time::ZERO + Duration::from_secs(500);
        place(&brain, late, 1);
        assert_eq!(load(&brain, late), (20_001, 2));
    }
}
