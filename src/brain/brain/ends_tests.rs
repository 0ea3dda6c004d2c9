use super::{Action, Brain, BrainConfig, Input};
use crate::fleet::{EndpointSpec, FirstTokens, MetricsSample};
use crate::index::Matches;
use crate::schedule::Request;
use crate::{EndpointId, ReservationId, Time};
use proptest::prelude::*;
use std::time::Duration;

/// More than any answer takes here.
const LATE: Time = Time::from_nanos(500_000_000_000);

fn brain(profile: Option<&str>) -> (Brain, EndpointId) {
    let mut config = BrainConfig::default();
    config.fleet.first_tokens = FirstTokens::Guessed;
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

fn known() -> (Brain, EndpointId) {
    brain(Some("qwen3-32b_h100_tp2"))
}

fn place(brain: &Brain, at: Time, output_tokens: u32, end_is_untold: bool) -> ReservationId {
    let request = Request {
        prompt_tokens: 1_000,
        expected_output_tokens: Some(output_tokens),
        end_is_untold,
        ..Request::default()
    };
    match brain.decide(at, &request, &[], &Matches::new(), &[]) {
        Action::Route(decision) => decision.reservation,
        other => panic!("{other:?}"),
    }
}

fn page(brain: &Brain, at: Time, id: EndpointId, running: u32) {
    let sample = MetricsSample {
        running_requests: Some(running.into()),
        waiting_requests: Some(0.0),
        ..MetricsSample::default()
    };
    brain.step(at, Input::Metrics(id, sample)).unwrap();
}

fn booked(brain: &Brain, at: Time) -> u32 {
    brain.step(at, Input::Tick).unwrap();
    brain.endpoints(at)[0].inflight_requests
}

fn seconds(seconds: f64) -> Time {
    Time::from_millis_f64(seconds * 1e3)
}

#[test]
fn an_untold_request_is_over_when_the_model_says_so() {
    let (brain, _) = known();
    place(&brain, Time::ZERO, 100, true);
    place(&brain, Time::ZERO, 1_000, true);
    let told = place(&brain, Time::ZERO, 100, false);
    assert_eq!(booked(&brain, seconds(0.5)), 3);
    // 100 tokens at some 20 ms, then 1,000.
    assert_eq!(booked(&brain, seconds(8.0)), 2);
    assert_eq!(booked(&brain, LATE), 1);
    brain.step(LATE, Input::Finished(told, 100)).unwrap();
    assert_eq!((booked(&brain, LATE), brain.stats().guessed_ends), (0, 2));
    assert_eq!(brain.next_wakeup(), None);
}

#[test]
fn an_end_that_is_told_first_is_the_end() {
    let (brain, _) = known();
    let id = place(&brain, Time::ZERO, 100, true);
    brain.step(seconds(0.1), Input::Finished(id, 5)).unwrap();
    assert_eq!((booked(&brain, LATE), brain.stats().guessed_ends), (0, 0));
    // And one that is told after a guess is late.
    let id = place(&brain, LATE, 100, true);
    let later = LATE + Duration::from_secs(100);
    assert_eq!(booked(&brain, later), 0);
    brain.step(later, Input::Finished(id, 5)).unwrap();
    let stats = brain.stats();
    assert_eq!((stats.guessed_ends, stats.finished, stats.late_news), (1, 1, 1));
}

#[test]
fn a_first_token_that_is_told_late_moves_the_end() {
    let brain = Brain::new(BrainConfig::default()).unwrap();
    let mut spec = EndpointSpec::new("http://a:8000", "");
    spec.labels.insert("engine-profile".to_owned(), "qwen3-32b_h100_tp2".to_owned());
    brain.step(Time::ZERO, Input::Join(spec)).unwrap();
    let id = place(&brain, Time::ZERO, 100, true);
    assert_eq!(booked(&brain, seconds(20.0)), 1);
    brain.step(seconds(20.0), Input::FirstToken(id)).unwrap();
    assert_eq!(booked(&brain, seconds(20.5)), 1);
    assert_eq!(booked(&brain, seconds(30.0)), 0);
}

#[test]
fn the_limit_of_an_answer_bounds_what_is_expected() {
    let (brain, _) = known();
    let request = Request {
        prompt_tokens: 1_000,
        max_output_tokens: Some(2),
        end_is_untold: true,
        ..Request::default()
    };
    brain.decide(Time::ZERO, &request, &[], &Matches::new(), &[]);
    assert_eq!(booked(&brain, seconds(2.0)), 0);
}

#[test]
fn a_page_with_fewer_requests_ends_those_that_were_likely_to_end_first() {
    let (brain, engine) = known();
    let long = place(&brain, Time::ZERO, 4_000, true);
    let short = place(&brain, Time::ZERO, 100, true);
    place(&brain, Time::ZERO, 2_000, true);
    page(&brain, seconds(1.0), engine, 2);
    assert_eq!((booked(&brain, seconds(1.0)), brain.stats().guessed_ends), (2, 1));
    brain.step(seconds(1.0), Input::Finished(short, 0)).unwrap();
    assert_eq!(brain.stats().late_news, 1);
    brain.step(seconds(1.0), Input::Finished(long, 0)).unwrap();
    assert_eq!((booked(&brain, seconds(1.0)), brain.stats().late_news), (1, 1));
}

#[test]
fn what_was_sent_just_before_a_page_may_be_missing_on_it() {
    let (brain, engine) = known();
    place(&brain, Time::ZERO, 4_000, true);
    place(&brain, seconds(1.0), 4_000, true);
    page(&brain, seconds(1.2), engine, 1);
    assert_eq!(booked(&brain, seconds(1.2)), 2);
    page(&brain, seconds(1.6), engine, 1);
    assert_eq!(booked(&brain, seconds(1.6)), 1);
}

#[test]
fn a_request_that_takes_longer_stays_while_pages_show_it() {
    let (brain, engine) = known();
    place(&brain, Time::ZERO, 10, true);
    for tenths in 1..600 {
        let at = seconds(f64::from(tenths) / 10.0);
        page(&brain, at, engine, 1);
        assert_eq!(booked(&brain, at), 1, "{at:?}");
    }
    // Pages come no more.
    assert_eq!(booked(&brain, seconds(70.0)), 0);
}

#[test]
fn without_model_and_pages_the_lease_ends_it() {
    let (brain, _) = brain(None);
    place(&brain, Time::ZERO, 10, true);
    assert_eq!(booked(&brain, seconds(599.0)), 1);
    assert_eq!(booked(&brain, seconds(1_300.0)), 0);
    assert_eq!((brain.stats().guessed_ends, brain.stats().expired_leases), (0, 1));
}

#[test]
fn without_a_model_pages_end_it() {
    let (brain, engine) = brain(None);
    place(&brain, Time::ZERO, 10, true);
    place(&brain, Time::ZERO, 10, true);
    page(&brain, seconds(2.0), engine, 1);
    assert_eq!(booked(&brain, seconds(2.0)), 1);
    page(&brain, seconds(3.0), engine, 0);
    assert_eq!(booked(&brain, seconds(3.0)), 0);
}

#[test]
fn an_endpoint_that_leaves_takes_its_own_along() {
    let (brain, engine) = known();
    place(&brain, Time::ZERO, 100, true);
    brain.step(seconds(0.1), Input::Leave(engine)).unwrap();
    brain.step(LATE, Input::Tick).unwrap();
    assert_eq!((brain.stats().guessed_ends, brain.next_wakeup()), (0, None));
}

#[derive(Debug, Clone)]
enum Event {
    /// A request comes, of so many tokens, and takes so many times what is expected.
    Comes {
        tokens: u32,
        factor: f64,
        is_untold: bool,
    },
    Page,
}

fn event() -> impl Strategy<Value = Event> {
    let comes = (1u32..2_000, 0.1f64..3.0, any::<bool>())
        .prop_map(|(tokens, factor, is_untold)| Event::Comes { tokens, factor, is_untold });
    prop_oneof![2 => comes, 3 => Just(Event::Page)]
}

proptest! {
    /// An engine whose only sender this is, whose pages are true.
    #[test]
    fn a_true_page_leaves_no_more_booked_than_there_is(
        events in proptest::collection::vec((0.0f64..3.0, event()), 1..80),
    ) {
        let (brain, engine) = known();
        // When those in flight really end, and when each was sent.
        let mut running: Vec<(f64, Option<ReservationId>)> = Vec::new();
        let mut sent_s = Vec::new();
        let mut now_s = 0.0;
        for (pause_s, event) in events {
            now_s += pause_s;
            let at = seconds(now_s);
            let (over, left): (Vec<_>, Vec<_>) = running.drain(..).partition(|it| it.0 <= now_s);
            running = left;
            for id in over.into_iter().filter_map(|it| it.1) {
                brain.step(at, Input::Finished(id, 10)).unwrap();
            }
            match event {
                Event::Comes { tokens, factor, is_untold } => {
                    let id = place(&brain, at, tokens, is_untold);
                    let ends_s = now_s + f64::from(tokens) * 0.02 * factor;
                    running.push((ends_s, (!is_untold).then_some(id)));
                    sent_s.push(now_s);
                }
                Event::Page => {
                    // Of those that were sent just now, a page need not show any.
                    let sent = sent_s.iter().filter(|it| **it + 0.5 > now_s).count() as u32;
                    let there = running.len() as u32;
                    page(&brain, at, engine, there);
                    let held = booked(&brain, at);
                    prop_assert!(held <= there + sent, "{held} of {there}, {sent} just now");
                    let told = running.iter().filter(|it| it.1.is_some()).count() as u32;
                    prop_assert!(held >= told);
                }
            }
        }
        // Nobody is kept for ever.
        let last = seconds(now_s + 20_000.0);
        for id in running.into_iter().filter_map(|it| it.1) {
            brain.step(last, Input::Finished(id, 10)).unwrap();
        }
        prop_assert_eq!(booked(&brain, last), 0);
    }
}
