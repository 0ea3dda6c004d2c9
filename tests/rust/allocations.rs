//! What a request allocates in the steady state: its decision, and the scores that explain it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it calls as well"
)]

use allocation_counter::measure;
use llmd_brain::brain::{Action, Brain, BrainConfig, Input};
use llmd_brain::fleet::{EndpointSpec, KvSource};
use llmd_brain::index::Matches;
use llmd_brain::schedule::Request;
use llmd_brain::{ReservationId, Time};
use std::time::Duration;

fn brain(endpoints: usize) -> Brain {
    let brain = Brain::new(BrainConfig::default()).unwrap();
    for number in 0..endpoints {
        let spec = EndpointSpec {
            kv_source: KvSource::Events,
            ..EndpointSpec::new(format!("http://{number}"), "m")
        };
        brain.step(Time::ZERO, Input::Join(spec)).unwrap();
    }
    brain
}

/// Shorter than a block, so that the index, whose memory is its own affair, has nothing to do.
fn request() -> Request {
    Request { model: "m".into(), prompt_tokens: 15, block_tokens: 16, ..Request::default() }
}

fn route(brain: &Brain, now: Time, matches: &mut Matches) -> ReservationId {
    brain.matches(now, &[], matches);
    match brain.decide(now, &request(), &[], matches, &[]) {
        Action::Route(decision) => decision.reservation,
        other => panic!("not routed: {other:?}"),
    }
}

#[test]
fn a_request_allocates_its_decision_and_its_scores_and_news_of_it_nothing() {
    for endpoints in [1, 64, 300] {
        let brain = brain(endpoints);
        let mut matches = Matches::new();
        let mut now = Time::ZERO;
        for _ in 0..200 {
            now = now + Duration::from_millis(1);
            let reservation = route(&brain, now, &mut matches);
            brain.finished(now, reservation, 20);
        }

        let mut reservation = ReservationId(0);
        let request = request();
        let routing = measure(|| {
            brain.matches(now, &[], &mut matches);
            let action = brain.decide(now, &request, &[], &matches, &[]);
            reservation = action.decision().unwrap().reservation;
        });
        let news = measure(|| {
            brain.first_token(now, reservation);
            brain.progress(now, reservation, 10);
            brain.finished(now, reservation, 20);
        });

        assert_eq!((routing.count_total, news.count_total), (2, 0), "{endpoints} endpoints");
    }
}
