//! Engines that an autoscaler starts and drains.

use super::{Event, Sim, SimError, nanos};
use crate::Time;
use crate::brain::{EndpointChange, Input};
use crate::scale::{OngoingRequests, Replicas, Scaler};
use crate::sim::{Autoscale, Order, ScaleRule, Stint};

/// How an engine stands with the autoscaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Off,
    /// Serves from this time on.
    Starting(Time),
    Serving,
    /// Finishes what it has.
    Draining,
}

#[derive(Debug)]
enum Rule {
    Slo(Box<Scaler>),
    Ongoing(OngoingRequests),
}

/// The autoscaler, and what it has done.
#[derive(Debug)]
pub(super) struct Scaling {
    rule: Rule,
    standing: Vec<Standing>,
    /// Since when each engine is paid for.
    since: Vec<Time>,
    target: u32,
    pub(super) stints: Vec<Stint>,
    pub(super) orders: Vec<Order>,
}

impl Scaling {
    fn new(world: &Autoscale, engines: usize) -> Result<Self, SimError> {
        world.validate(engines)?;
        let initial = world.initial_replicas;
        let serves = |engine: usize| engine < initial as usize;
        Ok(Self {
            rule: match &world.rule {
                ScaleRule::Slo(config) => Rule::Slo(Box::new(Scaler::new(config.clone())?)),
                ScaleRule::Ongoing(config) => Rule::Ongoing(OngoingRequests::new(config.clone())?),
            },
            standing: (0..engines)
                .map(|at| if serves(at) { Standing::Serving } else { Standing::Off })
                .collect(),
            since: vec![Time::ZERO; engines],
            target: initial,
            stints: Vec::new(),
            orders: Vec::new(),
        })
    }

    fn count(&self, of: impl Fn(Standing) -> bool) -> u32 {
        self.standing.iter().filter(|it| of(**it)).count() as u32
    }

    /// The last engine that stands so.
    fn last(&self, of: impl Fn(Standing) -> bool) -> Option<usize> {
        self.standing.iter().rposition(|it| of(*it))
    }

    fn ends(&mut self, now: Time, engine: usize) {
        self.standing[engine] = Standing::Off;
        let from_ms = self.since[engine].as_millis_f64();
        self.stints.push(Stint { engine: engine as u32, from_ms, to_ms: now.as_millis_f64() });
    }

    /// All stints up to the end.
    pub(super) fn close(mut self, now: Time) -> (Vec<Stint>, Vec<Order>) {
        for engine in 0..self.standing.len() {
            if self.standing[engine] != Standing::Off {
                self.ends(now, engine);
            }
        }
        (self.stints, self.orders)
    }
}

impl Sim<'_> {
    /// Engines beyond the first are not there yet; the first look is a period from now.
    pub(super) fn plan_scaling(&mut self) -> Result<(), SimError> {
        let Some(autoscale) = &self.world.autoscale else { return Ok(()) };
        if !self.world.outages.is_empty() {
            return Err(SimError::OutagesOfScaled);
        }
        let scaling = Scaling::new(autoscale, self.engines.len())?;
        for engine in autoscale.initial_replicas..self.engines.len() as u32 {
            self.engines[engine as usize].is_up = false;
            self.notice(engine)?;
        }
        self.scaling = Some(scaling);
        self.at(Time::from_millis_f64(autoscale.period_s * 1e3), Event::Look);
        Ok(())
    }

    /// The rule is asked, and obeyed.
    pub(super) fn look(&mut self) -> Result<(), SimError> {
        let (Some(autoscale), Some(mut scaling)) = (&self.world.autoscale, self.scaling.take())
        else {
            return Ok(());
        };
        let ready = scaling.count(|it| it == Standing::Serving);
        let replicas = Replicas { ready, target: scaling.target };
        let desired = match &mut scaling.rule {
            Rule::Slo(scaler) => {
                for (number, router) in self.routers.iter().enumerate() {
                    scaler.read(self.now, &format!("router-{number}"), &router.brain.demand())?;
                }
                scaler.look(self.now, replicas).desired
            }
            Rule::Ongoing(rule) => {
                let held: usize = self.routers.iter().map(|it| it.held.len()).sum();
                let loads = self.engines.iter().map(|it| it.model.load());
                let sent: u32 = loads.map(|it| it.waiting_requests + it.running_requests).sum();
                rule.look(self.now, replicas, held as f64 + f64::from(sent))
            }
        };
        if desired != scaling.target {
            scaling.target = desired;
            scaling.orders.push(Order { at_ms: self.now.as_millis_f64(), replicas: desired });
        }
        self.scaling = Some(scaling);
        self.obey(nanos(autoscale.startup_s * 1e3))?;
        let next = self.now.as_nanos() + nanos(autoscale.period_s * 1e3);
        self.at(Time::from_nanos(next), Event::Look);
        Ok(())
    }

    /// Starts or drains until as many are there, or on their way, as are wanted.
    fn obey(&mut self, startup_nanos: u64) -> Result<(), SimError> {
        let is_starting = |it| matches!(it, Standing::Starting(_));
        loop {
            let now = self.now;
            let Some(scaling) = &mut self.scaling else { return Ok(()) };
            let there = scaling.count(|it| it == Standing::Serving || is_starting(it));
            if there < scaling.target {
                // Whoever still drains has its cache, and is there at once, unless a router has let it go.
                let drains = (0..scaling.standing.len()).rfind(|at| {
                    scaling.standing[*at] == Standing::Draining
                        && self.routers.iter().all(|it| it.knows(*at))
                });
                if let Some(engine) = drains {
                    scaling.standing[engine] = Standing::Serving;
                    self.change(engine, EndpointChange::Uncordon)?;
                } else if let Some(engine) =
                    scaling.standing.iter().position(|it| *it == Standing::Off)
                {
                    let ready = Time::from_nanos(now.as_nanos() + startup_nanos);
                    scaling.standing[engine] = Standing::Starting(ready);
                    scaling.since[engine] = now;
                    self.at(ready, Event::Serve { engine: engine as u32 });
                } else {
                    return Ok(());
                }
            } else if there > scaling.target {
                if let Some(engine) = scaling.last(is_starting) {
                    scaling.ends(now, engine);
                } else if let Some(engine) = self.least_busy() {
                    self.drain(engine)?;
                } else {
                    return Ok(());
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Whoever serves and has the fewest requests; of equals the last.
    fn least_busy(&self) -> Option<usize> {
        let standing = &self.scaling.as_ref()?.standing;
        let serving = (0..standing.len()).filter(|at| standing[*at] == Standing::Serving);
        serving.rev().min_by_key(|at| {
            let load = self.engines[*at].model.load();
            load.waiting_requests + load.running_requests
        })
    }

    fn drain(&mut self, engine: usize) -> Result<(), SimError> {
        if let Some(scaling) = &mut self.scaling {
            scaling.standing[engine] = Standing::Draining;
        }
        self.change(engine, EndpointChange::Drain)?;
        self.leave_if_drained(engine)
    }

    fn change(&mut self, engine: usize, change: EndpointChange) -> Result<(), SimError> {
        for router in 0..self.routers.len() {
            if !self.routers[router].knows(engine) {
                continue;
            }
            let id = self.routers[router].id(engine);
            self.tell(router, Input::Change(id, change))?;
        }
        Ok(())
    }

    /// An engine that drains and has nothing left goes, and its cache with it.
    pub(super) fn leave_if_drained(&mut self, engine: usize) -> Result<(), SimError> {
        let Some(scaling) = &mut self.scaling else { return Ok(()) };
        let it = &mut self.engines[engine];
        if scaling.standing[engine] != Standing::Draining || it.model.has_work() {
            return Ok(());
        }
        scaling.ends(self.now, engine);
        it.is_up = false;
        it.announced = None;
        it.model.crash();
        self.notice(engine as u32)
    }

    /// A replica that was started serves, unless it is no longer wanted.
    pub(super) fn serve(&mut self, engine: u32) -> Result<(), SimError> {
        let Some(scaling) = &mut self.scaling else { return Ok(()) };
        let standing = &mut scaling.standing[engine as usize];
        if *standing != Standing::Starting(self.now) {
            return Ok(());
        }
        *standing = Standing::Serving;
        self.return_(engine)
    }
}
