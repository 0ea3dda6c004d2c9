//! Requests that wait, with clients that go away and endpoints that come and go: every request ends
//! once, in one way, and nothing stays booked.

use super::{Action, Brain, BrainConfig, EndpointChange, Input};
use crate::fleet::{Capacity, EndpointSpec};
use crate::flow::WaitWhen;
use crate::index::Matches;
use crate::rng::Rng;
use crate::schedule::Request;
use crate::{BlockKey, EndpointId, ReservationId, Ticket, Time};
use std::collections::BTreeMap;
use std::time::Duration;

const SESSIONS: u64 = 60;

/// What a caller knows of its requests.
#[derive(Default)]
struct Caller {
    waiting: BTreeMap<Ticket, u64>,
    running: BTreeMap<Ticket, (ReservationId, EndpointId, u64)>,
    answered: u64,
    turned_away: u64,
    cancelled: u64,
    longest_queue: usize,
}

impl Caller {
    fn hear(&mut self, session: Option<u64>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Route(it) => {
                    let sent = (it.reservation, it.endpoint, session.unwrap());
                    assert!(self.running.insert(it.ticket, sent).is_none());
                }
                Action::Hold(ticket) => {
                    assert!(self.waiting.insert(ticket, session.unwrap()).is_none());
                }
                Action::Release(it) => {
                    let session = self.waiting.remove(&it.ticket).expect("it waited");
                    let sent = (it.reservation, it.endpoint, session);
                    assert!(self.running.insert(it.ticket, sent).is_none());
                }
                Action::Reject { ticket, .. } => {
                    self.waiting.remove(&ticket);
                    self.turned_away += 1;
                }
                Action::Cancel { ticket, .. } => {
                    self.cancelled += u64::from(self.running.remove(&ticket).is_some());
                }
                Action::Joined(_) | Action::Left(_) | Action::Resync(_) => {}
            }
        }
        self.longest_queue = self.longest_queue.max(self.waiting.len());
    }

    fn any(&self, rng: &mut Rng) -> Option<(Ticket, ReservationId)> {
        let at = rng.below(self.running.len().max(1) as u64) as usize;
        self.running.iter().nth(at).map(|(ticket, sent)| (*ticket, sent.0))
    }
}

fn keys(session: u64, blocks: u64) -> Vec<BlockKey> {
    (0..blocks).map(|at| BlockKey(Rng::new(session << 20 | at).next_u64())).collect()
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refusal = |set: fn(&mut crate::flow::SessionConfig)| {
        let mut config = BrainConfig::default();
        set(&mut config.flow.sessions);
        Brain::new(config).err().expect("refused").to_string()
    };
    let message = refusal(|it| it.quantum_s = 0.0);
    assert!(message.contains("flow.sessions.quantum_s = 0"), "{message}");
    let message = refusal(|it| it.patience_s = 1.0);
    assert!(message.contains("patience_s = 1") && message.contains("300"), "{message}");
    assert!(refusal(|it| it.tight_share = f64::NAN).contains("tight_share"));
}

/// Sessions that are too many for the KV, clients that go away, endpoints that come and go:
/// every request ends once, in one way, and nothing stays booked.
#[test]
fn nothing_is_lost_or_booked_twice_while_sessions_wait() {
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut config = BrainConfig::default();
        config.flow.sessions.age_s = 20.0;
        config.flow.sessions.patience_s = 40.0;
        let brain = Brain::new(config).unwrap();
        let mut caller = Caller::default();
        let mut now = Time::ZERO;
        let mut joined = 0;
        let mut endpoints: Vec<EndpointId> = Vec::new();
        let mut turns = vec![0_u64; SESSIONS as usize];
        let mut arrived = 0;
        for step in 0..12_000 {
            now = now + Duration::from_millis(rng.below(60));
            if endpoints.len() < 3 || rng.below(3_000) == 0 {
                joined += 1;
                let mut spec = EndpointSpec::new(format!("http://{joined}"), "");
                spec.capacity = Capacity { kv_blocks: 600, block_size: 16, ..Capacity::default() };
                let actions = brain.step(now, Input::Join(spec)).unwrap();
                endpoints.extend(actions.iter().filter_map(|action| match action {
                    Action::Joined(id) => Some(*id),
                    _ => None,
                }));
                caller.hear(None, actions);
            }
            match rng.below(1_000) {
                0..450 if caller.running.len() + caller.waiting.len() < SESSIONS as usize => {
                    let session = rng.below(SESSIONS);
                    let busy = caller.waiting.values().any(|other| *other == session)
                        || caller.running.values().any(|it| it.2 == session);
                    if busy {
                        continue;
                    }
                    turns[session as usize] += 1;
                    let keys = keys(session, 30 + 2 * turns[session as usize].min(60));
                    let request = Request {
                        prompt_tokens: keys.len() as u32 * 16,
                        block_tokens: 16,
                        session_id: Some(session.to_string()),
                        hold_ms: if session.is_multiple_of(4) {
                            0
                        } else {
                            60_000 + rng.below(60_000)
                        },
                        ..Request::default()
                    };
                    let mut matches = Matches::new();
                    brain.matches(now, &keys, &mut matches);
                    arrived += 1;
                    let action = brain.decide(now, &request, &keys, &matches, &[]);
                    caller.hear(Some(session), vec![action]);
                }
                0..800 => {
                    if let Some((ticket, reservation)) = caller.any(&mut rng) {
                        caller.hear(None, brain.first_token(now, reservation));
                        caller.hear(None, brain.finished(now, reservation, 20));
                        caller.running.remove(&ticket);
                        caller.answered += 1;
                    }
                }
                800..830 => {
                    let held = caller.waiting.keys().next().copied();
                    if let Some(ticket) = held.or_else(|| caller.any(&mut rng).map(|it| it.0)) {
                        caller.cancelled += u64::from(caller.waiting.remove(&ticket).is_some());
                        caller.hear(None, brain.cancelled(now, ticket));
                    }
                }
                830 if endpoints.len() > 2 => {
                    let gone = endpoints.remove(rng.below(3) as usize % endpoints.len());
                    let change = if step % 2 == 0 {
                        Input::Leave(gone)
                    } else {
                        Input::Change(gone, EndpointChange::Drain)
                    };
                    caller.hear(None, brain.step(now, change).unwrap());
                }
                _ => caller.hear(None, brain.tick(now)),
            }
            let stats = brain.stats();
            assert_eq!(stats.holding_now, caller.waiting.len() as u64);
        }
        assert!(caller.longest_queue > 5, "they wait: {}", caller.longest_queue);
        while let Some((ticket, reservation)) = caller.any(&mut rng) {
            caller.hear(None, brain.finished(now, reservation, 5));
            caller.running.remove(&ticket);
            caller.answered += 1;
        }
        now = now + Duration::from_secs(200);
        caller.hear(None, brain.tick(now));
        while let Some((ticket, reservation)) = caller.any(&mut rng) {
            caller.hear(None, brain.finished(now, reservation, 5));
            caller.running.remove(&ticket);
            caller.answered += 1;
        }
        assert!(caller.waiting.is_empty());
        assert_eq!(arrived, caller.answered + caller.turned_away + caller.cancelled);
        let left = brain.own_totals(now);
        assert!(left.iter().all(|it| it.load.is_idle()), "nothing stays booked");
    }
}

/// What a caller does of its own accord.
struct Crowd {
    brain: Brain,
    caller: Caller,
    rng: Rng,
    now: Time,
    endpoints: Vec<EndpointId>,
    joined: u32,
    arrived: u64,
}

impl Crowd {
    fn new(seed: u64) -> Self {
        let mut config = BrainConfig { seed, ..BrainConfig::default() };
        config.flow.turns.wait = WaitWhen::Always;
        config.flow.turns.age_s = 5.0;
        config.flow.max_held_requests = 10_500;
        Self {
            brain: Brain::new(config).unwrap(),
            caller: Caller::default(),
            rng: Rng::new(seed),
            now: Time::ZERO,
            endpoints: Vec::new(),
            joined: 0,
            arrived: 0,
        }
    }

    fn join(&mut self) {
        self.joined += 1;
        let mut spec = EndpointSpec::new(format!("http://{}", self.joined), "");
        if self.joined.is_multiple_of(2) {
            spec.labels.insert("gpu".into(), "large".into());
        }
        let runs = if self.joined.is_multiple_of(3) { 8 } else { 0 };
        spec.capacity = Capacity {
            kv_blocks: 4_000,
            block_size: 16,
            max_running_requests: runs,
            ..Capacity::default()
        };
        let actions = self.brain.step(self.now, Input::Join(spec)).unwrap();
        self.endpoints.extend(actions.iter().filter_map(|action| match action {
            Action::Joined(id) => Some(*id),
            _ => None,
        }));
        self.caller.hear(None, actions);
    }

    fn arrive(&mut self) {
        let rng = &mut self.rng;
        let keys = keys(rng.below(40), 1 + rng.below(60));
        let mut request = Request {
            prompt_tokens: keys.len() as u32 * 16 + 3,
            block_tokens: 16,
            tenant: Some(rng.below(5).to_string()),
            priority: rng.below(4) as i32 - 2,
            hold_ms: 20_000 + rng.below(600_000),
            ..Request::default()
        };
        match rng.below(40) {
            0 => request.deadline_ms = Some(1 + rng.below(5_000)),
            1 => request.hold_ms = 0,
            2 => request.expected_output_tokens = Some(1),
            3..8 => drop(request.required_labels.insert("gpu".into(), "large".into())),
            8 => drop(request.required_labels.insert("gpu".into(), "there is none".into())),
            _ => {}
        }
        let mut matches = Matches::new();
        self.brain.matches(self.now, &keys, &mut matches);
        self.arrived += 1;
        let action = self.brain.decide(self.now, &request, &keys, &matches, &[]);
        self.caller.hear(Some(0), vec![action]);
    }

    fn finish_one(&mut self) {
        let Some((ticket, reservation)) = self.caller.any(&mut self.rng) else { return };
        let (brain, now) = (&self.brain, self.now);
        self.caller.hear(None, brain.first_token(now, reservation));
        self.caller.running.remove(&ticket);
        self.caller.answered += 1;
        self.caller.hear(None, brain.finished(now, reservation, 20));
    }

    fn cancel_one(&mut self) {
        let waiting = self.caller.waiting.len() as u64;
        let any = self.rng.below(waiting.max(1)) as usize;
        let Some(ticket) = self.caller.waiting.keys().nth(any).copied() else { return };
        self.caller.waiting.remove(&ticket);
        self.caller.cancelled += 1;
        self.caller.hear(None, self.brain.cancelled(self.now, ticket));
    }

    fn somebody_goes(&mut self) {
        let at = self.rng.below(self.endpoints.len() as u64) as usize;
        let gone = self.endpoints.remove(at);
        let change = match self.rng.below(3) {
            0 => Input::Leave(gone),
            1 => Input::Change(gone, EndpointChange::Drain),
            _ => Input::Change(gone, EndpointChange::Unreachable),
        };
        self.caller.hear(None, self.brain.step(self.now, change).unwrap());
    }

    /// What the brain has booked and holds is what the caller was told.
    fn check(&self) {
        let stats = self.brain.stats();
        assert_eq!(stats.holding_now, self.caller.waiting.len() as u64);
        let booked: u32 =
            self.brain.own_totals(Time::ZERO).iter().map(|it| it.load.inflight_requests).sum();
        assert_eq!(booked as usize, self.caller.running.len());
    }
}

#[test]
fn ten_thousand_wait_for_their_turns_and_nothing_is_lost_or_booked_twice() {
    for seed in 0..2 {
        let mut crowd = Crowd::new(seed);
        (0..6).for_each(|_| crowd.join());
        for step in 0..26_000 {
            crowd.now = crowd.now + Duration::from_millis(crowd.rng.below(12));
            let flood = crowd.caller.waiting.len() < 10_000 && step < 20_000;
            match crowd.rng.below(1_000) {
                0..700 if flood => crowd.arrive(),
                0..850 => crowd.finish_one(),
                850..940 => crowd.cancel_one(),
                940 if crowd.endpoints.len() > 3 => crowd.somebody_goes(),
                941 if crowd.endpoints.len() < 8 => crowd.join(),
                _ => {
                    let due = crowd.brain.next_wakeup().unwrap_or(crowd.now);
                    let to = due.max(crowd.now).min(crowd.now + Duration::from_millis(20));
                    crowd.now = to;
                    crowd.caller.hear(None, crowd.brain.tick(to));
                }
            }
            if step % 50 == 0 {
                crowd.check();
            }
        }
        assert!(crowd.caller.longest_queue > 5_000, "{}", crowd.caller.longest_queue);
        while !(crowd.caller.waiting.is_empty() && crowd.caller.running.is_empty()) {
            let due = crowd.brain.next_wakeup().unwrap_or(crowd.now).max(crowd.now);
            crowd.now = due.min(crowd.now + Duration::from_millis(500));
            crowd.caller.hear(None, crowd.brain.tick(crowd.now));
            crowd.finish_one();
        }
        crowd.check();
        let ended = crowd.caller.answered + crowd.caller.turned_away + crowd.caller.cancelled;
        assert_eq!(crowd.arrived, ended);
        assert!(crowd.brain.stats().held > 10_000);
        let state = crowd.brain.state.lock();
        assert_eq!((state.opens_at, state.asks_at), (None, None));
        assert!(state.turns.is_empty() && state.parked.is_empty() && state.unsaid.is_empty());
    }
}
