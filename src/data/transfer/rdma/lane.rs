//! One peer's queue pair and the TCP connection beside it: a thread each.

use super::chain::{CHAIN_REQUESTS, Chain};
use super::queue_pair::{Connection, MAX_REQUESTS};
use super::responder::RemoteKey;
use crate::transfer::wire::dial::Dialed;
use crate::transfer::wire::reply::Reply;
use crate::transfer::wire::request::Request;
use crate::transfer::wire::socket::{FrameReader, FrameWriter, Lost, Socket};
use crate::transfer::{RemoteRegion, TransferError};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is done with the owner's answer; run by the thread that takes answers.
pub(super) type OnVerdict = Box<dyn FnOnce(Result<(), TransferError>) + Send>;

pub(super) struct Lane {
    pub(super) connection: Connection,
    pub(super) socket: Socket,
    writer: Mutex<FrameWriter>,
    pub peer: String,
    pub(super) device: String,
    pub(super) stall_timeout: Duration,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    next_id: u64,
    /// Regions' keys; none while asked for, `Err` where there is none.
    keys: HashMap<u64, Option<Result<RemoteKey, ()>>>,
    asked: HashMap<u64, (Instant, u64, OnVerdict)>,
    waiting: VecDeque<Chain>,
    /// With the card, and since when.
    pub posted: HashMap<u64, (Instant, Chain)>,
    pub lost: Option<TransferError>,
}

impl Lane {
    /// Starts the threads; the queue pair is connected.
    pub fn start(
        connection: Connection,
        device: String,
        dialed: Dialed,
        stall_timeout: Duration,
    ) -> Result<Arc<Self>, TransferError> {
        let Dialed { socket, reader, writer, name, .. } = dialed;
        let lane = Arc::new(Self {
            connection,
            socket,
            writer: Mutex::new(writer),
            peer: name,
            device,
            stall_timeout,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (listens, polls) = (lane.clone(), lane.clone());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let builder = std::thread::Builder::new().name(name.into());
            builder.spawn(work).map_err(|e| TransferError::os("starting a thread", e))
        };
        spawn("llmd-rdma-take", Box::new(move || listens.listen(reader)))?;
        spawn("llmd-rdma-poll", Box::new(move || polls.poll()))?;
        Ok(lane)
    }

    pub fn lost(&self) -> Option<TransferError> {
        self.state.lock().lost.clone()
    }

    pub(super) fn stall_ms(&self) -> u64 {
        self.stall_timeout.as_millis() as u64
    }

    pub(super) fn send(&self, request: &Request) -> Result<(), TransferError> {
        let sent = self.writer.lock().send(&self.socket, &[], None, |body| request.encode(body));
        let sent = sent.map_err(|lost| lost.error(&self.peer, self.stall_ms()));
        if let Err(error) = &sent {
            self.lose(error);
        }
        sent
    }

    pub fn tell(&self, request: &Request) -> Result<(), TransferError> {
        self.send(request)
    }

    /// The key of a peer's region, asked for once.
    pub fn key(&self, region: &RemoteRegion) -> Result<RemoteKey, TransferError> {
        let id = region.id;
        let deadline = Instant::now() + self.stall_timeout;
        let mut state = self.state.lock();
        if let std::collections::hash_map::Entry::Vacant(vacant) = state.keys.entry(id) {
            vacant.insert(None);
            drop(state);
            self.send(&Request::RemoteKey { region: id })?;
            state = self.state.lock();
        }
        loop {
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            match state.keys.get(&id) {
                Some(Some(Ok(key))) => return Ok(*key),
                Some(None) => {}
                _ => {
                    state.keys.remove(&id);
                    return Err(RemoteKey::missing(region));
                }
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                drop(state);
                let (peer, waited_ms) = (self.peer.clone(), self.stall_ms());
                let stalled = TransferError::Stalled { peer, waited_ms };
                self.lose(&stalled);
                return Err(stalled);
            }
        }
    }

    /// Sends a request that a verdict answers, which `then` gets; also where the peer is lost.
    pub fn ask(
        &self,
        region: u64,
        request: impl FnOnce(u64) -> Request,
        then: impl FnOnce(u64) -> OnVerdict,
    ) -> Result<(), TransferError> {
        let id = {
            let mut state = self.state.lock();
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            state.next_id += 1;
            let id = state.next_id;
            state.asked.insert(id, (Instant::now(), region, then(id)));
            id
        };
        // An error has lost the lane, which told `then`.
        let _ = self.send(&request(id));
        Ok(())
    }

    /// Gives chains to the card, in their order, as it has room.
    pub fn post(&self, chains: Vec<Chain>) {
        let mut state = self.state.lock();
        if let Some(lost) = &state.lost {
            let lost = lost.clone();
            drop(state);
            chains.iter().for_each(|chain| chain.work().fail(lost.clone()));
            return;
        }
        state.waiting.extend(chains);
        let stopped = self.pump(&mut state);
        self.changed.notify_all();
        drop(state);
        drop(stopped);
    }

    /// Returns chains of transfers that stop. They are to be dropped without the lock: with the last
    /// of a transfer goes the path, which takes it.
    pub(super) fn pump(&self, state: &mut State) -> Vec<Chain> {
        let mut stopped = Vec::new();
        while state.posted.len() < MAX_REQUESTS / CHAIN_REQUESTS {
            let Some(chain) = state.waiting.pop_front() else { break };
            let work = chain.work().clone();
            // A write's last chain goes out even for a transfer that stops: its immediate is what
            // the owner lets go of the blocks by.
            if work.stopping() && chain.posted.grant.is_none() {
                stopped.push(chain);
                continue;
            }
            state.next_id += 1;
            let id = state.next_id;
            let immediate = chain.posted.grant.filter(|_| chain.last).map(|grant| grant as u32);
            let posted = self.connection.post(work.op(), id, &chain.requests(), immediate);
            match posted {
                Ok(()) => drop(state.posted.insert(id, (Instant::now(), chain))),
                Err(error) => {
                    // Part of the chain may be with the card: only its end lets go of the memory.
                    work.fail(error.clone());
                    state.posted.insert(id, (Instant::now(), chain));
                    state.lost.get_or_insert(error);
                    self.connection.stop();
                    break;
                }
            }
        }
        stopped
    }

    /// Gives the peer up. The card's thread ends what the card has.
    pub fn lose(&self, error: &TransferError) {
        let (waiting, asked) = {
            let mut state = self.state.lock();
            state.lost.get_or_insert_with(|| error.clone());
            self.connection.stop();
            self.changed.notify_all();
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.asked))
        };
        self.socket.shut_down();
        waiting.iter().for_each(|chain| chain.work().fail(error.clone()));
        for (_, _, then) in asked.into_values() {
            then(Err(error.clone()));
        }
    }

    fn listen(&self, mut reader: FrameReader) {
        let lost = loop {
            match self.take(&mut reader) {
                Ok(()) => {}
                Err(Lost::Quiet) if !self.overdue() && self.lost().is_none() => {}
                Err(lost) => break lost.error(&self.peer, self.stall_ms()),
            }
        };
        self.lose(&lost);
    }

    fn overdue(&self) -> bool {
        let state = self.state.lock();
        state.asked.values().any(|(since, ..)| since.elapsed() >= self.stall_timeout)
    }

    fn take(&self, reader: &mut FrameReader) -> Result<(), Lost> {
        let header = reader.next(&self.socket)?;
        let reply = Reply::decode(header.kind, reader.body())
            .filter(|_| header.payload_bytes == 0)
            .ok_or_else(|| Lost::Broken(format!("reply {} without meaning", header.kind)))?;
        match reply {
            // The answer to a read of no bytes; the verdict follows.
            Reply::Data { .. } => Ok(()),
            Reply::Verdict { id, verdict } => {
                let asked = self.state.lock().asked.remove(&id);
                let Some((_, region, then)) = asked else {
                    return Err(Lost::Broken(format!("an answer to {id}, which was not asked")));
                };
                then(verdict.error(region, &self.peer).map_or(Ok(()), Err));
                Ok(())
            }
            Reply::RemoteKey { region, address, key } => {
                let mut state = self.state.lock();
                match state.keys.get_mut(&region) {
                    Some(slot @ None) => {
                        *slot = Some(key.map(|key| RemoteKey { address, key }).ok_or(()));
                    }
                    _ => return Err(Lost::Broken(format!("an unasked key of {region:#x}"))),
                }
                self.changed.notify_all();
                Ok(())
            }
            other => Err(Lost::Broken(format!("{other:?} beside a queue pair"))),
        }
    }
}
