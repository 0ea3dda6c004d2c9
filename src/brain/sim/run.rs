//! The loop: events in order of time, of equal times in the order in which they were made.

mod agenda;
mod outages;
mod proxy;
mod scaling;

use self::agenda::Agenda;
use self::proxy::Proxy;
use self::scaling::Scaling;
use super::engines::{Engine, Samples};
use super::outcome::{Fate, Outcome, Row};
use super::routers::Router;
use super::{Arrivals, Ends, SimError, Stint, Workload, World};
use crate::brain::{Action, Input};
use crate::engine::{EngineConfig, EngineRequest, RequestId, SharedCache, Step};
use crate::fleet::Predicted;
use crate::predict::EngineProfile;
use crate::rng::Rng;
use crate::schedule::Decision;
use crate::{ReservationId, Ticket, Time};

/// Most steps that an engine decodes between two events: bounds what a submission cuts.
const MOST_STEPS: u32 = 256;

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A request of the workload comes.
    Arrive { prompt: u32, session: u32 },
    /// An engine's step ends.
    StepEnds { engine: u32 },
    /// A router wants to look at its clock.
    Wake { router: u32 },
    /// Routers tell each other their loads.
    Exchange,
    /// A client asks its router: again, since its connection broke, or let in by the proxy.
    Ask { row: u32 },
    /// An engine dies.
    Fail { engine: u32 },
    /// Routers learn that.
    Notice { engine: u32 },
    /// It is back.
    Return { engine: u32 },
    /// The autoscaler is asked.
    Look,
    /// An engine that it started serves.
    Serve { engine: u32 },
}

impl Event {
    fn is_work(self) -> bool {
        matches!(self, Self::Arrive { .. } | Self::StepEnds { .. } | Self::Ask { .. })
    }
}

/// Plays a workload in a world.
///
/// # Errors
/// [`SimError`] where they do not fit together.
pub fn run(workload: &Workload, world: &World) -> Result<Outcome, SimError> {
    let mut sim = Sim::new(workload, world)?;
    sim.plan_outages()?;
    sim.plan_scaling()?;
    sim.start();
    sim.play()?;
    Ok(sim.outcome())
}

/// Where a request is, while an engine has it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    router: u32,
    ticket: Ticket,
    reservation: ReservationId,
}

struct Sim<'a> {
    workload: &'a Workload,
    world: &'a World,
    engines: Vec<Engine>,
    /// The kinds of engines.
    profiles: Vec<EngineProfile>,
    routers: Vec<Router>,
    agenda: Agenda<Event>,
    rows: Vec<Row>,
    /// Row by row, as `rows`.
    sent: Vec<Option<Sent>>,
    /// Of each session, the next of its requests.
    next_turn: Vec<u32>,
    /// Sessions that have not begun, last first.
    unbegun: Vec<u32>,
    now: Time,
    /// Arrivals and ends of steps on the agenda: without any, nothing more happens.
    under_way: u64,
    kv_lag_nanos: u64,
    step: Step,
    proxy: Proxy,
    scaling: Option<Scaling>,
}

impl<'a> Sim<'a> {
    fn new(workload: &'a Workload, world: &'a World) -> Result<Self, SimError> {
        if world.engines.is_empty() {
            return Err(SimError::Nobody("engine"));
        }
        if world.routers == 0 {
            return Err(SimError::Nobody("router"));
        }
        let (routers, block_size) = (world.routers as usize, workload.block_size());
        let samples =
            Samples::new(nanos(world.metrics_interval_ms), nanos(world.metrics_lag_ms), routers);
        let shared = world.shared_cache.then(SharedCache::default);
        let (mut engines, mut profiles) = (Vec::with_capacity(world.engines.len()), Vec::new());
        for (engine, config) in world.engines.iter().enumerate() {
            if config.block_size != block_size {
                let engine_block = config.block_size;
                return Err(SimError::BlockSize { engine, engine_block, block_size });
            }
            let mut config = config.clone();
            config.jitter_seed = world.seed.wrapping_add(engine as u64);
            if !profiles.contains(&config.profile) {
                profiles.push(config.profile);
            }
            if shared.is_some() {
                config.host_ms_per_token = 0.0;
            }
            let (samples, shared) = (samples.clone(), shared.clone());
            let at_step_end = world.pages_at_step_end;
            engines.push(Engine::new(config, routers, samples, shared, at_step_end)?);
        }
        let routers = (0..routers).map(|number| Router::new(world, block_size, number));
        Ok(Self {
            workload,
            world,
            engines,
            profiles,
            routers: routers.collect::<Result<_, _>>()?,
            agenda: Agenda::new(),
            rows: Vec::with_capacity(workload.prompts().len()),
            sent: Vec::with_capacity(workload.prompts().len()),
            next_turn: workload.sessions().iter().map(|session| session.start).collect(),
            unbegun: Vec::new(),
            now: Time::ZERO,
            under_way: 0,
            kv_lag_nanos: nanos(world.kv_lag_ms),
            step: Step::default(),
            proxy: Proxy::of(&world.arrivals),
            scaling: None,
        })
    }

    fn at(&mut self, time: Time, event: Event) {
        self.under_way += u64::from(event.is_work());
        self.agenda.add(time, event);
    }

    /// The first events.
    fn start(&mut self) {
        let mut rng = Rng::new(self.world.seed);
        let (workload, world) = (self.workload, self.world);
        match world.arrivals {
            Arrivals::Open { requests_per_s, jitter_ms } => {
                let prompts = workload.prompts();
                let mut times: Vec<f64> = prompts
                    .iter()
                    .map(|it| {
                        it.at_ms + if jitter_ms > 0.0 { rng.next_f64() * jitter_ms } else { 0.0 }
                    })
                    .collect();
                let first = times.iter().copied().fold(f64::INFINITY, f64::min);
                let last = times.iter().copied().fold(0.0, f64::max);
                let mean_rate = prompts.len() as f64 / ((last - first) / 1e3).max(1e-9);
                let stretch = requests_per_s.map_or(1.0, |rate| mean_rate / rate);
                times.iter_mut().for_each(|time| *time = (*time - first) * stretch);
                let sessions = (0..).zip(workload.sessions());
                let arrivals = sessions.flat_map(|(session, turns)| {
                    turns.clone().map(move |prompt| (prompt, session))
                });
                let timed = arrivals.map(|(prompt, session)| {
                    let at = Time::from_millis_f64(times[prompt as usize]);
                    (at, Event::Arrive { prompt, session })
                });
                self.under_way += self.agenda.plan(timed) as u64;
            }
            Arrivals::Closed { sessions, .. } => {
                let mut order: Vec<u32> = (0..workload.sessions().len() as u32).collect();
                for left in (1..order.len()).rev() {
                    order.swap(left, rng.below(left as u64 + 1) as usize);
                }
                self.unbegun = order;
                for _ in 0..sessions {
                    // Nobody begins at the very same instant.
                    let at = Time::from_millis_f64(rng.next_f64() * 1e3);
                    self.begin_session(at);
                }
            }
        }
        if self.routers.len() > 1 && world.exchange_interval_ms > 0.0 {
            self.at(Time::from_millis_f64(world.exchange_interval_ms), Event::Exchange);
        }
    }

    fn begin_session(&mut self, at: Time) {
        if let Some(session) = self.unbegun.pop() {
            self.next_turn_at(at, session);
        }
    }

    /// The next request of a session comes at `at`; `false` where it has none.
    fn next_turn_at(&mut self, at: Time, session: u32) -> bool {
        let turns = &self.workload.sessions()[session as usize];
        let prompt = self.next_turn[session as usize];
        let goes_on = prompt < turns.end;
        if goes_on {
            self.next_turn[session as usize] += 1;
            self.at(at, Event::Arrive { prompt, session });
        }
        goes_on
    }

    fn play(&mut self) -> Result<(), SimError> {
        let horizon = match self.world.arrivals {
            Arrivals::Open { .. } => Time::MAX,
            Arrivals::Closed { horizon_s, .. } => Time::from_millis_f64(horizon_s * 1e3),
        };
        while self.under_way > 0 || self.routers.iter().any(|router| !router.held.is_empty()) {
            let Some((at, event)) = self.agenda.next() else { break };
            self.under_way -= u64::from(event.is_work());
            if at > horizon {
                self.now = horizon;
                break;
            }
            self.now = at;
            match event {
                Event::Arrive { prompt, session } => self.arrive(prompt, session)?,
                Event::StepEnds { engine } => self.step_ends(engine as usize)?,
                Event::Wake { router } => {
                    self.routers[router as usize].wakes_at = None;
                    self.tell(router as usize, Input::Tick)?;
                }
                Event::Exchange => self.exchange()?,
                Event::Ask { row } => self.ask(row)?,
                Event::Fail { engine } => self.fail(engine)?,
                Event::Notice { engine } => self.notice(engine)?,
                Event::Return { engine } => self.return_(engine)?,
                Event::Look => self.look()?,
                Event::Serve { engine } => self.serve(engine)?,
            }
        }
        Ok(())
    }

    fn arrive(&mut self, prompt: u32, session: u32) -> Result<(), SimError> {
        let row = self.rows.len() as u32;
        let it = &self.workload.prompts()[prompt as usize];
        self.rows.push(Row {
            prompt,
            session,
            tenant: self.workload.tenant(session),
            is_counted: true,
            fate: Fate::Unserved,
            engine: u32::MAX,
            arrived_ms: self.now.as_millis_f64(),
            sent_ms: f64::NAN,
            first_token_ms: f64::NAN,
            finished_ms: f64::NAN,
            ttft_limit_ms: self.world.slo.ttft_limit_ms(&self.profiles, it.prompt_tokens),
            tpot_limit_ms: self.world.slo.tpot_ms,
            prompt_tokens: it.prompt_tokens,
            output_tokens: it.output_tokens,
            hit_tokens: 0,
            host_hit_tokens: 0,
            matched_tokens: 0,
            predicted: Predicted::default(),
            retries: 0,
        });
        self.sent.push(None);
        let is_first = prompt == self.workload.sessions()[session as usize].start;
        match is_first && !self.proxy.lets_in(row) {
            true => Ok(()),
            false => self.ask(row),
        }
    }

    /// A request asks its router for a place.
    fn ask(&mut self, row: u32) -> Result<(), SimError> {
        let router = row as usize % self.routers.len();
        let Row { prompt, session, .. } = self.rows[row as usize];
        let it = &self.workload.prompts()[prompt as usize];
        let (now, lag) = (self.now, self.kv_lag_nanos);
        self.routers[router].catch_up(now, lag, &mut self.engines);
        let keys = self.workload.keys(it);
        let tenant = self.workload.tenant(session);
        let action = self.routers[router].arrive(now, it.prompt_tokens, session, tenant, keys);
        if let Action::Hold(ticket) = &action {
            self.routers[router].held.insert(*ticket, row);
        }
        self.carry_out(router, Some(row), action)?;
        self.wake(router);
        Ok(())
    }

    /// Tells a router something and carries out what it wants.
    fn tell(&mut self, router: usize, input: Input) -> Result<(), SimError> {
        // Whoever may let a held request go has to know what is so now, and who has to guess at what
        // other routers do, in which order things came.
        if self.routers.len() > 1 || !self.routers[router].held.is_empty() {
            self.routers[router].catch_up(self.now, self.kv_lag_nanos, &mut self.engines);
        }
        let actions = self.routers[router].brain.step(self.now, input)?;
        for action in actions {
            self.carry_out(router, None, action)?;
        }
        self.wake(router);
        Ok(())
    }

    fn carry_out(
        &mut self,
        router: usize,
        row: Option<u32>,
        action: Action,
    ) -> Result<(), SimError> {
        match action {
            Action::Route(decision) => match row {
                Some(row) => self.send(router, row, &decision),
                None => Ok(()),
            },
            Action::Release(decision) => match self.routers[router].held.remove(&decision.ticket) {
                Some(row) => self.send(router, row, &decision),
                None => Ok(()),
            },
            Action::Reject { ticket, .. } => {
                if let Some(row) = row.or_else(|| self.routers[router].held.remove(&ticket)) {
                    self.rows[row as usize].fate = Fate::Rejected;
                    self.session_goes_on(row);
                }
                Ok(())
            }
            Action::Left(id) => {
                self.routers[router].left(id);
                Ok(())
            }
            Action::Hold(_) | Action::Cancel { .. } | Action::Joined(_) | Action::Resync(_) => {
                Ok(())
            }
        }
    }

    fn send(&mut self, router: usize, row: u32, decision: &Decision) -> Result<(), SimError> {
        let at = self.routers[router].engine(decision.endpoint);
        let it = &mut self.rows[row as usize];
        it.engine = at as u32;
        it.sent_ms = self.now.as_millis_f64();
        it.matched_tokens = decision.matched_tokens;
        it.predicted = decision.predicted;
        let engine = &mut self.engines[at];
        let prompt = &self.workload.prompts()[it.prompt as usize];
        self.sent[row as usize] = Some(Sent {
            router: router as u32,
            ticket: decision.ticket,
            reservation: decision.reservation,
        });
        if !engine.is_up {
            return self.broken(row);
        }
        engine.before_change(self.now);
        let submitted = engine.model.submit_at(
            self.now,
            EngineRequest {
                id: RequestId(row.into()),
                prompt_tokens: prompt.prompt_tokens,
                output_tokens: prompt.output_tokens,
                keys: self.workload.keys(prompt).to_vec(),
            },
        );
        if submitted.is_err() {
            return self.refused(row);
        }
        if engine.announced.is_some() {
            self.step_ends_at(at);
        } else {
            self.begin_step(at);
        }
        Ok(())
    }

    /// An engine refuses a request that can never fit: its answer is an error, at once.
    fn refused(&mut self, row: u32) -> Result<(), SimError> {
        self.rows[row as usize].fate = Fate::Refused;
        if let Some(sent) = self.sent[row as usize].take() {
            self.tell(sent.router as usize, Input::Finished(sent.reservation, 0))?;
        }
        self.session_goes_on(row);
        Ok(())
    }

    fn begin_step(&mut self, at: usize) {
        let engine = &mut self.engines[at];
        engine.model.begin_run(self.now, MOST_STEPS);
        engine.announced = None;
        self.step_ends_at(at);
    }

    /// An engine's step ends when the model says so now. An event of an earlier plan comes too late or
    /// finds that nothing ends.
    fn step_ends_at(&mut self, at: usize) {
        let engine = &mut self.engines[at];
        let ends = engine.model.planned().map(|planned| planned.ends);
        if engine.announced != ends {
            engine.announced = ends;
            if let Some(ends) = ends {
                self.at(ends, Event::StepEnds { engine: at as u32 });
            }
        }
    }

    fn step_ends(&mut self, at: usize) -> Result<(), SimError> {
        if self.engines[at].announced != Some(self.now) {
            return Ok(());
        }
        let mut step = std::mem::take(&mut self.step);
        self.engines[at].finish_step(self.now, &mut step);
        let now_ms = self.now.as_millis_f64();
        for admitted in step.admitted.iter().filter(|it| !it.resumed) {
            let row = &mut self.rows[admitted.id.0 as usize];
            row.hit_tokens = admitted.hit_tokens;
            row.host_hit_tokens = admitted.host_hit_tokens;
        }
        // The engine goes on before anybody hears of it.
        self.begin_step(at);
        for id in &step.first_tokens {
            let row = id.0 as usize;
            self.rows[row].first_token_ms = now_ms;
            if let Some(sent) = self.sent[row].filter(|_| self.world.first_tokens_told) {
                self.tell(sent.router as usize, Input::FirstToken(sent.reservation))?;
            }
        }
        for id in &step.finished {
            let row = id.0 as usize;
            self.rows[row].finished_ms = now_ms;
            self.rows[row].fate = Fate::Served;
            if let Some(sent) = self.sent[row].take().filter(|_| self.world.ends == Ends::Told) {
                let told = self.world.first_tokens_told;
                let output_tokens = if told { self.rows[row].output_tokens } else { 0 };
                self.tell(sent.router as usize, Input::Finished(sent.reservation, output_tokens))?;
            }
            self.session_goes_on(row as u32);
        }
        self.step = step;
        self.leave_if_drained(at)
    }

    /// The next turn of a request's session, or of the session that replaces it.
    fn session_goes_on(&mut self, row: u32) {
        let Arrivals::Closed { think_cap_s, replace_after_s, .. } = self.world.arrivals else {
            return;
        };
        let session = self.rows[row as usize].session;
        let next = self.next_turn[session as usize];
        let think_ms = self.workload.prompts().get(next as usize).map_or(0.0, |next| next.at_ms);
        let after = |ms: f64| Time::from_millis_f64(self.now.as_millis_f64() + ms);
        let (next, replaced) =
            (after(think_ms.clamp(0.0, think_cap_s * 1e3)), after(replace_after_s * 1e3));
        if !self.next_turn_at(next, session) {
            self.begin_session(replaced);
            if let Some(row) = self.proxy.session_ended() {
                self.at(self.now, Event::Ask { row });
            }
        }
    }

    fn wake(&mut self, router: usize) {
        let it = &mut self.routers[router];
        let Some(wanted) = it.brain.next_wakeup() else { return };
        let wanted = wanted.max(self.now);
        if it.wakes_at.is_none_or(|at| wanted < at) {
            it.wakes_at = Some(wanted);
            self.at(wanted, Event::Wake { router: router as u32 });
        }
    }

    fn exchange(&mut self) -> Result<(), SimError> {
        let now = self.now;
        let totals: Vec<_> = self.routers.iter_mut().map(|router| router.totals(now)).collect();
        for router in 0..self.routers.len() {
            for told in totals.iter().enumerate().filter(|(by, _)| *by != router) {
                self.tell(router, Input::PeerTotals(told.1.clone()))?;
            }
        }
        let next = Time::from_millis_f64(now.as_millis_f64() + self.world.exchange_interval_ms);
        self.at(next, Event::Exchange);
        Ok(())
    }

    fn outcome(mut self) -> Outcome {
        let warmup = (self.rows.len() as f64 * self.world.warmup_share) as usize;
        let most_tokens = self.world.engines.iter().map(EngineConfig::kv_tokens).max();
        for (number, row) in self.rows.iter_mut().enumerate() {
            // Who refuses what another could have served was the wrong choice.
            let tokens = u64::from(row.prompt_tokens) + u64::from(row.output_tokens) - 1;
            let fits = Some(tokens) <= most_tokens;
            row.is_counted = number >= warmup && (row.fate != Fate::Refused || fits);
        }
        let views = self.routers.first().map(|router| router.brain.endpoints(self.now));
        let stats = self.routers.first().map(|router| router.brain.stats());
        let ended_ms = self.now.as_millis_f64();
        let (stints, orders) = match self.scaling {
            Some(scaling) => scaling.close(self.now),
            None => {
                let all = 0..self.engines.len() as u32;
                let stint = |engine| Stint { engine, from_ms: 0.0, to_ms: ended_ms };
                (all.map(stint).collect(), Vec::new())
            }
        };
        Outcome {
            stints,
            orders,
            drift_alarms: stats.map_or(0, |stats| stats.drift_alarms),
            timings: views.into_iter().flatten().filter_map(|view| view.latency).collect(),
            engines: self.engines.iter().map(|engine| *engine.model.counters()).collect(),
            rows: self.rows,
            ended_ms,
            usd_per_replica_hour: self.world.usd_per_replica_hour,
        }
    }
}

fn nanos(ms: f64) -> u64 {
    Time::from_millis_f64(ms).as_nanos()
}
