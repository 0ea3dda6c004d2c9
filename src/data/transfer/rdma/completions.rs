//! The card's thread: takes what the card completed, and ends parts with it.

use super::chain::Posted;
use super::lane::Lane;
use super::queue_pair::Completed;
use crate::transfer::descriptor::Check;
use crate::transfer::wire::request::Request;
use crate::transfer::{Op, TransferError};
use std::sync::Arc;
use std::time::Instant;

impl Lane {
    /// The card's thread: spins while requests are with the card, and sleeps otherwise.
    pub(super) fn poll(&self) {
        loop {
            {
                let mut state = self.state.lock();
                while state.posted.is_empty() && state.lost.is_none() {
                    self.changed.wait(&mut state);
                }
                if let Some(lost) = state.lost.clone() {
                    drop(state);
                    return self.drain(&lost);
                }
            }
            match self.connection.completed() {
                Some(completed) => self.take_completion(completed),
                None => {
                    self.watch();
                    std::thread::yield_now();
                }
            }
        }
    }

    fn take_completion(&self, Completed { chain, last, status }: Completed) {
        if status != 0 {
            let what = format!("a request ended with status {status} ({})", meaning(status));
            let error = TransferError::Device { device: self.device.clone(), what };
            if let Some((_, chain)) = self.state.lock().posted.get(&chain) {
                chain.work().fail(error.clone());
            }
            self.lose(&error);
        }
        if last {
            let (done, _stopped) = {
                let mut state = self.state.lock();
                let done = state.posted.remove(&chain);
                let stopped = match state.lost {
                    None => self.pump(&mut state),
                    Some(_) => Vec::new(),
                };
                (done, stopped)
            };
            if let Some((_, chain)) = done
                && chain.completed()
                && status == 0
            {
                self.finish(&chain.posted);
            }
        }
    }

    /// All bytes of a part went. A read asks whether the epochs still hold, which suffices: they
    /// held when the descriptors were made, and never come back.
    fn finish(&self, posted: &Arc<Posted>) {
        let work = posted.hold.work();
        if let Some(grant) = posted.grant {
            match self.send(&Request::Release { id: grant }) {
                Ok(()) if work.stopping() => {}
                Ok(()) => work.part_done(posted.part),
                Err(error) => work.fail(error),
            }
            return;
        }
        if work.stopping() {
            return;
        }
        let region = work.remote().id;
        let checks: Vec<Check> = work.part(posted.part).remote.clone();
        let kept = posted.clone();
        let asked = self.ask(
            region,
            |id| Request::Move { op: Op::Read, id, region, checks, spans: Vec::new() },
            |_| {
                Box::new(move |verdict| match verdict {
                    Ok(()) => kept.hold.work().part_done(kept.part),
                    Err(error) => kept.hold.work().fail(error),
                })
            },
        );
        if let Err(error) = asked {
            work.fail(error);
        }
    }

    /// A card reports a silent peer by itself; a card that says nothing at all is given up.
    fn watch(&self) {
        let state = self.state.lock();
        let limit = self.stall_timeout;
        if state.posted.values().any(|(since, _)| since.elapsed() > limit) {
            drop(state);
            let (peer, waited_ms) = (self.peer.clone(), self.stall_ms());
            self.lose(&TransferError::Stalled { peer, waited_ms });
        }
    }

    /// After a loss: waits until the card gives back what it has, so that nothing is written later.
    fn drain(&self, lost: &TransferError) {
        self.lose(lost);
        let start = Instant::now();
        loop {
            {
                let state = self.state.lock();
                if state.posted.is_empty() {
                    break;
                }
                state.posted.values().for_each(|(_, chain)| chain.work().fail(lost.clone()));
            }
            match self.connection.completed() {
                Some(Completed { chain, last: true, .. }) => {
                    let given_back = self.state.lock().posted.remove(&chain);
                    drop(given_back);
                }
                _ if start.elapsed() > self.stall_timeout => {
                    // It says nothing of them, or never took them: without the queue pair it has none.
                    self.connection.give_up();
                    let given_up = std::mem::take(&mut self.state.lock().posted);
                    given_up.values().for_each(|(_, chain)| chain.work().fail(lost.clone()));
                }
                _ => std::thread::yield_now(),
            }
        }
        self.socket.shut_down();
    }
}

/// Codes of `ibv_wc_status` that a peer causes.
fn meaning(status: u32) -> &'static str {
    match status {
        4 => "local protection error",
        5 => "flushed",
        9 => "the peer's card refused the request",
        10 => "the peer's memory is not registered any more",
        11 => "the peer's card failed",
        12 => "the peer does not answer",
        13 => "the peer is not ready",
        _ => "see ibv_wc_status",
    }
}
