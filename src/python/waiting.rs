//! Waiting for held requests: a thread without the GIL, or an asyncio event loop.
//!
//! A loop is woken once a batch. Whoever decides a held request (a timer, another thread's
//! `finish`) only puts it into a channel; one thread takes the GIL for all that wait there, and
//! hands each loop its share in one `call_soon_threadsafe`.

use crate::decision::Decision;
use crate::errors::{self, NoEndpointError};
use crate::fleet::SIGNAL_CHECK;
use llmd_bodies::router::{LiveRouter, Outcome, Placed, fork};
use llmd_brain::Ticket;
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

/// Waits without the GIL for what becomes of a held request. Ctrl-C withdraws it.
pub fn wait(py: Python<'_>, live: &Arc<LiveRouter>, ticket: Ticket) -> PyResult<Placed> {
    let (tell, mut told) = mpsc::channel();
    // Nobody listens any more where the request was withdrawn.
    live.wait(ticket, Box::new(move |outcome| drop(tell.send(outcome))));
    loop {
        let news = py.detach(|| {
            let news = told.recv_timeout(SIGNAL_CHECK);
            (news, told)
        });
        told = news.1;
        match news.0 {
            Ok(outcome) => return placed(live, outcome),
            Err(RecvTimeoutError::Disconnected) => return placed(live, Outcome::Closed),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(interrupted) = py.check_signals() {
            live.withdraw(ticket);
            if let Ok(Outcome::Placed(decision)) = told.try_recv() {
                live.cancel(&decision);
            }
            return Err(interrupted);
        }
    }
}

fn placed(live: &LiveRouter, outcome: Outcome) -> PyResult<Placed> {
    match outcome {
        Outcome::Placed(decision) => live.placed(decision).map_err(errors::router),
        Outcome::Rejected(it) => Err(errors::rejected(&it)),
        Outcome::Closed => {
            Err(NoEndpointError::new_err(("the router was closed while it held this", "closed")))
        }
    }
}

/// A new future of the running event loop.
pub fn future(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("asyncio")?.call_method0("get_running_loop")?.call_method0("create_future")
}

/// Has `future` set to what becomes of a held request; cancelling it withdraws the request.
pub fn await_on(
    future: &Bound<'_, PyAny>,
    live: &Arc<LiveRouter>,
    ticket: Ticket,
    prompt_tokens: u32,
) -> PyResult<()> {
    let py = future.py();
    let deliveries = deliveries()?;
    let router = Arc::clone(live);
    let withdraw = PyCFunction::new_closure(py, None, None, {
        let live = Arc::clone(live);
        move |arguments, _| -> PyResult<()> {
            if arguments.get_item(0)?.call_method0("cancelled")?.is_truthy()? {
                live.withdraw(ticket);
            }
            Ok(())
        }
    })?;
    future.call_method1("add_done_callback", (withdraw,))?;
    let mut delivery = Delivery {
        event_loop: future.call_method0("get_loop")?.unbind(),
        future: future.clone().unbind(),
        live: router,
        outcome: Outcome::Closed,
        prompt_tokens,
    };
    live.wait(
        ticket,
        Box::new(move |outcome| {
            delivery.outcome = outcome;
            // The thread that listens lives as long as the process.
            drop(deliveries.send(delivery));
        }),
    );
    Ok(())
}

/// What became of one request, on its way to its future.
struct Delivery {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    live: Arc<LiveRouter>,
    outcome: Outcome,
    prompt_tokens: u32,
}

impl Delivery {
    /// Sets the future, in its event loop's thread.
    fn settle(self, py: Python<'_>) -> PyResult<()> {
        let future = self.future.bind(py);
        if future.call_method0("done")?.is_truthy()? {
            self.give_up();
            return Ok(());
        }
        match placed(&self.live, self.outcome) {
            Ok(placed) => {
                let decision = Decision::new(self.live, placed, self.prompt_tokens);
                future.call_method1("set_result", (decision,))?;
            }
            Err(error) => {
                future.call_method1("set_exception", (error.into_value(py),))?;
            }
        }
        Ok(())
    }

    /// Nobody wants it any more.
    fn give_up(self) {
        if let Outcome::Placed(decision) = self.outcome {
            self.live.cancel(&decision);
        }
    }
}

/// The channel to the thread that wakes event loops, and the process that it runs in. Locked only
/// with the GIL held.
static DELIVERIES: Mutex<Option<(u64, Sender<Delivery>)>> = Mutex::new(None);

fn deliveries() -> PyResult<Sender<Delivery>> {
    let mut deliveries = DELIVERIES.lock();
    match &*deliveries {
        Some((epoch, sender)) if *epoch == fork::epoch() => Ok(sender.clone()),
        _ => {
            let (sender, receiver) = mpsc::channel();
            std::thread::Builder::new()
                .name("llmd-waker".to_owned())
                .spawn(move || deliver(&receiver))
                .map_err(|error| PyOSError::new_err(error.to_string()))?;
            *deliveries = Some((fork::epoch(), sender.clone()));
            Ok(sender)
        }
    }
}

/// The waker's thread.
fn deliver(waiting: &Receiver<Delivery>) {
    while let Ok(first) = waiting.recv() {
        // Python is shutting down where it cannot be attached to: nobody awaits any more.
        let _ = Python::try_attach(|py| {
            // What came while the GIL was awaited is in the batch: all that one call let go.
            wake(py, std::iter::once(first).chain(waiting.try_iter()).collect());
        });
    }
}

/// Hands each event loop its share of a batch.
fn wake(py: Python<'_>, mut batch: Vec<Delivery>) {
    while let Some(event_loop) = batch.first().map(|first| first.event_loop.clone_ref(py)) {
        let (share, rest): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|delivery| delivery.event_loop.is(&event_loop));
        batch = rest;
        let share = Arc::new(Mutex::new(share));
        let settle = PyCFunction::new_closure(py, None, None, {
            let share = Arc::clone(&share);
            move |arguments, _| -> PyResult<()> {
                let py = arguments.py();
                let share = std::mem::take(&mut *share.lock());
                share.into_iter().try_for_each(|delivery| delivery.settle(py))
            }
        });
        let told = settle
            .and_then(|settle| event_loop.call_method1(py, "call_soon_threadsafe", (settle,)));
        if told.is_err() {
            // The loop is closed, and its futures with it.
            let share = std::mem::take(&mut *share.lock());
            share.into_iter().for_each(Delivery::give_up);
        }
    }
}
