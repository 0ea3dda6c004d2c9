//! Engines that die and come back.
//!
//! A dead engine forgets everything at once. Its connections break: clients send what it had, and what
//! is sent to it until the routers know, to their router again after a pause. Routers are told after a
//! while that the endpoint left, and at once that it joined; one that is back before they noticed says
//! through its events that its cache is empty.

use super::{Event, Sim, SimError, nanos};
use crate::Time;
use crate::brain::{Action, Input};

impl Sim<'_> {
    /// The events of all outages. Engines that begin dead are nowhere yet.
    pub(super) fn plan_outages(&mut self) -> Result<(), SimError> {
        let world = self.world;
        for outage in &world.outages {
            if outage.engine as usize >= self.engines.len() {
                return Err(SimError::NoSuchEngine(outage.engine, self.engines.len()));
            }
            let engine = outage.engine;
            if outage.fails_ms <= 0.0 {
                self.engines[engine as usize].is_up = false;
                self.notice(engine)?;
            } else {
                self.at(Time::from_millis_f64(outage.fails_ms), Event::Fail { engine });
            }
            if outage.returns_ms.is_finite() {
                self.at(Time::from_millis_f64(outage.returns_ms), Event::Return { engine });
            }
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, engine: u32) -> Result<(), SimError> {
        let it = &mut self.engines[engine as usize];
        it.is_up = false;
        it.announced = None;
        let lost = it.model.crash();
        let notice = self.now.as_nanos() + nanos(self.world.outage_notice_ms);
        self.at(Time::from_nanos(notice), Event::Notice { engine });
        for id in lost {
            self.broken(id.0 as u32)?;
        }
        Ok(())
    }

    /// A connection broke: the router hears of it, the client tries again.
    pub(super) fn broken(&mut self, row: u32) -> Result<(), SimError> {
        let it = &mut self.rows[row as usize];
        it.retries += 1;
        it.first_token_ms = f64::NAN;
        let again = self.now.as_nanos() + nanos(self.world.retry_ms);
        // Before the router is told: what that lets go may be sent to the same engine.
        self.at(Time::from_nanos(again), Event::Ask { row });
        match self.sent[row as usize].take() {
            Some(sent) => self.tell(sent.router as usize, Input::Cancelled(sent.ticket)),
            None => Ok(()),
        }
    }

    /// The routers know that an engine is gone, unless it is back.
    pub(super) fn notice(&mut self, engine: u32) -> Result<(), SimError> {
        if self.engines[engine as usize].is_up {
            return Ok(());
        }
        for router in 0..self.routers.len() {
            self.engines[engine as usize].unread[router].clear();
            if let Some(id) = self.routers[router].lose(engine as usize) {
                self.tell(router, Input::Leave(id))?;
            }
        }
        Ok(())
    }

    pub(super) fn return_(&mut self, engine: u32) -> Result<(), SimError> {
        let at = engine as usize;
        if std::mem::replace(&mut self.engines[at].is_up, true) {
            return Ok(());
        }
        self.engines[at].is_empty_now(self.now);
        for router in 0..self.routers.len() {
            if self.routers[router].knows(at) {
                continue;
            }
            self.engines[at].unread[router].clear();
            let spec = self.routers[router].spec(at);
            for action in self.routers[router].brain.step(self.now, Input::Join(spec))? {
                match action {
                    Action::Joined(id) => self.routers[router].gain(at, id),
                    action => self.carry_out(router, None, action)?,
                }
            }
            self.wake(router);
        }
        Ok(())
    }
}
