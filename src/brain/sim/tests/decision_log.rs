//! A workload taken out of a log is what a brain was asked.

use super::*;
use crate::brain::{Action, Brain, BrainConfig, Input, LogEntry};
use crate::fleet::EndpointSpec;
use crate::schedule::Request;
use crate::{ReservationId, Ticket, Time};
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client does next.
#[derive(Debug, Clone)]
enum Act {
    Ask {
        blocks: u32,
        session: Option<u8>,
        hold_ms: u64,
    },
    /// Of those in flight, one by its number, ends with so many tokens, or is told to have them.
    Finish(usize, u32),
    Progress(usize, u32),
    Cancel(usize),
    /// The only endpoint comes or goes, so that requests are held, released and refused.
    Toggle,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1_u32..9, proptest::option::of(0_u8..3), prop_oneof![Just(0), Just(50)])
            .prop_map(|(blocks, session, hold_ms)| Act::Ask { blocks, session, hold_ms }),
        3 => (0_usize..8, 1_u32..100).prop_map(|(at, tokens)| Act::Finish(at, tokens)),
        1 => (0_usize..8, 1_u32..100).prop_map(|(at, tokens)| Act::Progress(at, tokens)),
        1 => (0_usize..8).prop_map(Act::Cancel),
        1 => Just(Act::Toggle),
    ]
}

#[derive(Debug)]
struct Asked {
    at: Time,
    blocks: u32,
    session: Option<u8>,
    output: Option<u32>,
}

/// A brain, its clients, and what they remember.
struct Clients {
    brain: Brain,
    now: Time,
    asked: Vec<Asked>,
    held: Vec<(Ticket, usize)>,
    running: Vec<(Ticket, ReservationId, usize)>,
    endpoint: Option<crate::EndpointId>,
}

impl Clients {
    fn step(&mut self, input: Input) {
        let is_new = matches!(input, Input::Arrive { .. });
        for action in self.brain.step(self.now, input).unwrap() {
            match action {
                Action::Route(it) if is_new => {
                    self.running.push((it.ticket, it.reservation, self.asked.len() - 1));
                }
                Action::Release(it) => {
                    let held = self.held.iter().position(|held| held.0 == it.ticket).unwrap();
                    let (_, asked) = self.held.remove(held);
                    self.running.push((it.ticket, it.reservation, asked));
                }
                Action::Hold(ticket) => self.held.push((ticket, self.asked.len() - 1)),
                Action::Joined(id) => self.endpoint = Some(id),
                Action::Left(_) => self.endpoint = None,
                _ => {}
            }
        }
        if self.endpoint.is_none() {
            self.running.clear();
        }
    }

    fn act(&mut self, act: &Act) {
        self.now = self.now + Duration::from_millis(7);
        match *act {
            Act::Ask { blocks, session, hold_ms } => {
                self.asked.push(Asked { at: self.now, blocks, session, output: None });
                let request = Request {
                    prompt_tokens: blocks * 16 + 3,
                    block_tokens: 16,
                    session_id: session.map(|it| it.to_string()),
                    hold_ms,
                    ..Request::default()
                };
                let keys = keys(self.asked.len() as u64, blocks).collect();
                self.step(Input::Arrive { request, keys, foreign: Vec::new() });
            }
            Act::Finish(at, tokens) if at < self.running.len() => {
                let (_, reservation, asked) = self.running.remove(at);
                self.asked[asked].output = Some(tokens);
                self.step(Input::Finished(reservation, tokens));
            }
            Act::Progress(at, tokens) if at < self.running.len() => {
                let (_, reservation, asked) = self.running[at];
                self.asked[asked].output = Some(tokens);
                self.step(Input::Progress(reservation, tokens));
            }
            Act::Cancel(at) if at < self.running.len() => {
                let (ticket, ..) = self.running.remove(at);
                self.step(Input::Cancelled(ticket));
            }
            Act::Toggle => match self.endpoint {
                Some(id) => self.step(Input::Leave(id)),
                None => self.step(Input::Join(EndpointSpec::new("a", ""))),
            },
            Act::Finish(..) | Act::Progress(..) | Act::Cancel(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn a_log_is_what_was_asked(acts in proptest::collection::vec(act(), 1..80)) {
        let entries: Arc<Mutex<Vec<LogEntry>>> = Arc::default();
        let brain = Brain::new(BrainConfig::default()).unwrap();
        let sink = Arc::clone(&entries);
        brain.record(Some(Box::new(move |entry| sink.lock().unwrap().push(entry))));
        let mut clients = Clients {
            brain,
            now: Time::ZERO,
            asked: Vec::new(),
            held: Vec::new(),
            running: Vec::new(),
            endpoint: None,
        };
        for act in &acts {
            clients.act(act);
        }
        let mut trace = DecisionLogTrace::new(16);
        for entry in entries.lock().unwrap().drain(..) {
            trace.turn(entry);
        }
        let asked = clients.asked;
        let read = trace.finish(Some(1_000));
        if asked.is_empty() {
            prop_assert_eq!(read, Err(TraceError::NoRequest));
            return Ok(());
        }
        let (workload, gaps) = read.unwrap();
        let unknown = asked.iter().filter(|it| it.output.is_none()).count();
        prop_assert_eq!(gaps.assumed_outputs, unknown as u64);

        // Sessions in the order in which they began; who has none is one.
        let mut order: Vec<Vec<usize>> = Vec::new();
        for (at, it) in asked.iter().enumerate() {
            let known = order.iter_mut().find(|turns| {
                it.session.is_some() && asked[turns[0]].session == it.session
            });
            match known {
                Some(turns) => turns.push(at),
                None => order.push(vec![at]),
            }
        }
        prop_assert_eq!(workload.sessions().len(), order.len());
        for (turns, session) in order.iter().zip(workload.sessions()) {
            prop_assert_eq!(turns.len(), session.len());
            for (&turn, prompt) in turns.iter().zip(&workload.prompts()[session.start as usize..]) {
                let it = &asked[turn];
                let since = it.at.as_millis_f64() - asked[0].at.as_millis_f64();
                prop_assert!((prompt.at_ms - since).abs() < 1e-6);
                prop_assert_eq!(prompt.prompt_tokens, it.blocks * 16 + 3);
                prop_assert_eq!(prompt.output_tokens, it.output.unwrap_or(1_000));
                let own: Vec<BlockKey> = keys(turn as u64 + 1, it.blocks).collect();
                prop_assert_eq!(workload.keys(prompt), &own[..]);
            }
        }
    }
}
