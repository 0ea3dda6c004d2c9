//! One connected peer, as the owner of regions sees it.

use super::Owner;
use crate::transfer::descriptor::Check;
use crate::transfer::rdma::{Responder, remote_key};
use crate::transfer::region::Registered;
use crate::transfer::wire::auth;
use crate::transfer::wire::dial::Identity;
use crate::transfer::wire::frame::{Header, MAX_PAYLOAD_BYTES};
use crate::transfer::wire::pieces::Pieces;
use crate::transfer::wire::reply::{Reply, Verdict};
use crate::transfer::wire::request::{Request, Span};
use crate::transfer::wire::socket::{FrameReader, FrameWriter, Lost, Socket};
use crate::transfer::{Notification, Op, Place};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub(super) struct Connection {
    owner: Arc<Owner>,
    socket: Socket,
    writer: Mutex<FrameWriter>,
    attached: Mutex<HashSet<u64>>,
    grants: Mutex<Grants>,
    /// The peer's queue pair, where it asked for one.
    card: Mutex<Option<Responder>>,
}

/// Blocks that a peer writes to by itself. They are let go when it says so, or when *it* ends the
/// connection, which it does, or the kernel for it, only when none of its threads copies. That this
/// side gave the connection up says nothing about the peer's threads.
#[derive(Default)]
struct Grants {
    /// By the peer's number for the grant.
    held: HashMap<u64, (Arc<Registered>, Vec<Check>)>,
    closing: bool,
}

impl Connection {
    pub fn new(owner: Arc<Owner>, socket: Socket) -> Self {
        let (writer, attached, grants) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { owner, socket, writer, attached, grants, card: Mutex::default() }
    }

    /// Ends the connection; where the peer writes to granted blocks, as soon as it has stopped.
    pub fn close(&self) {
        let mut grants = self.grants.lock();
        grants.closing = true;
        if grants.held.is_empty() {
            self.socket.shut_down();
        } else {
            self.socket.end_sending();
        }
    }

    /// Tells the peer that a region is gone, if it mapped it.
    pub fn detach(&self, region: u64) {
        if self.attached.lock().remove(&region)
            && self.reply(&Reply::Detached { region }, &[], None).is_err()
        {
            self.close();
        }
    }

    /// Answers requests until the peer leaves.
    pub fn serve(&self) {
        if let Some(mut peer) = self.shake_hands() {
            while self.serve_one(&mut peer).is_ok() {}
        }
        // Without its queue pair the peer's card writes nothing any more, whatever the peer does.
        let had_card = self.card.lock().take().is_some();
        self.close();
        if !had_card && !self.grants.lock().held.is_empty() {
            self.socket.await_end();
        }
        for (_, (region, checks)) in self.grants.lock().held.drain() {
            region.epochs.release(&checks);
        }
    }

    fn shake_hands(&self) -> Option<(FrameReader, u64)> {
        self.socket.set_up(self.owner.identity.stall_timeout).ok()?;
        if let Socket::Unix(stream) = &self.socket {
            let peer = rustix::net::sockopt::socket_peercred(stream.as_fd()).ok()?;
            // The abstract namespace has no permissions of its own.
            if peer.uid != rustix::process::getuid() {
                return None;
            }
        }
        let mut reader = FrameReader::default();
        let Identity { key, introduction, .. } = &*self.owner.identity;
        let writer = &mut *self.writer.lock();
        let peer = auth::accept(&self.socket, &mut reader, writer, key, introduction).ok()?;
        Some((reader, peer))
    }

    fn serve_one(&self, (reader, peer): &mut (FrameReader, u64)) -> Result<(), Lost> {
        let header = match reader.next(&self.socket) {
            Err(Lost::Quiet) => return Ok(()),
            other => other?,
        };
        let request = Request::decode(header.kind, reader.body())
            .ok_or_else(|| Lost::Broken(format!("request {} without meaning", header.kind)))?;
        match request {
            Request::Move { op: Op::Read, id, region, checks, spans } => {
                let verdict = self.send(id, region, &checks, &spans)?;
                self.reply(&Reply::Verdict { id, verdict }, &[], None)
            }
            Request::Move { op: Op::Write, id, region, checks, spans } => {
                let verdict = self.receive(reader, &header, region, &checks, &spans)?;
                self.reply(&Reply::Verdict { id, verdict }, &[], None)
            }
            Request::Grant { id, region, checks } => {
                let verdict = self.grant(id, region, checks);
                self.reply(&Reply::Verdict { id, verdict }, &[], None)
            }
            Request::Release { id } => {
                let granted = self.grants.lock().held.remove(&id);
                let Some((region, checks)) = granted else { return Ok(()) };
                let written = match &*self.card.lock() {
                    Some(card) => card.await_written(id, self.owner.identity.stall_timeout),
                    None => Ok(()),
                };
                if written.is_err() {
                    // Its bytes may still come: the blocks go when the queue pair has.
                    self.card.lock().take();
                }
                region.epochs.release(&checks);
                written.map_err(|error| Lost::Broken(error.to_string()))
            }
            Request::Attach { region } => self.attach(region),
            Request::Notify { op, tag, part, bytes } => self
                .owner
                .note(Notification { peer: *peer, op, tag, part, bytes })
                .map_err(|error| Lost::Broken(error.to_string())),
            Request::QueuePair { address } => {
                let opened = self.owner.card.as_ref().map(|card| Responder::open(card, &address));
                let address = match opened {
                    Some(Ok((card, own))) => {
                        *self.card.lock() = Some(card);
                        own
                    }
                    _ => Vec::new(),
                };
                self.reply(&Reply::QueuePair { address }, &[], None)
            }
            Request::RemoteKey { region } => {
                let found = self.owner.registry.get(region);
                let reached = self.owner.card.as_ref().zip(found);
                let reached = reached.and_then(|(card, region)| remote_key(card, &region).ok());
                let (address, key) = reached.unzip();
                let address = address.unwrap_or(0);
                self.reply(&Reply::RemoteKey { region, address, key }, &[], None)
            }
        }
    }

    fn reply(
        &self,
        reply: &Reply,
        files: &[BorrowedFd<'_>],
        payload: Option<Pieces<'_>>,
    ) -> Result<(), Lost> {
        self.writer.lock().send(&self.socket, files, payload, |body| reply.encode(body))
    }

    /// Sends what a read asks for, and returns what is to be said about it.
    fn send(
        &self,
        id: u64,
        region: u64,
        checks: &[Check],
        spans: &[Span],
    ) -> Result<Verdict, Lost> {
        let Some(region) = self.owner.registry.get(region) else {
            return Ok(Verdict::UnknownRegion);
        };
        let pieces = match pieces(&region, spans) {
            Ok(pieces) => pieces,
            Err(verdict) => return Ok(verdict),
        };
        if let Some(stale) = region.epochs.stale(checks) {
            return Ok(stale_verdict(stale));
        }
        self.reply(&Reply::Data { id }, &[], Some(pieces))?;
        // The kernel has copied the bytes; were they still those?
        Ok(region.epochs.stale_since(checks).map_or(Verdict::Done, stale_verdict))
    }

    /// Takes what a write brings.
    fn receive(
        &self,
        reader: &mut FrameReader,
        header: &Header,
        region: u64,
        checks: &[Check],
        spans: &[Span],
    ) -> Result<Verdict, Lost> {
        let Some(region) = self.owner.registry.get(region) else {
            reader.discard(&self.socket, header.payload_bytes)?;
            return Ok(Verdict::UnknownRegion);
        };
        let refused = match pieces(&region, spans) {
            Err(verdict) => verdict,
            Ok(pieces) if pieces.left_bytes() as u64 != header.payload_bytes => {
                let bytes = header.payload_bytes;
                return Err(Lost::Broken(format!("a write with {bytes} bytes for its spans")));
            }
            Ok(pieces) => match region.epochs.hold(checks) {
                Err(stale) => stale_verdict(stale),
                Ok(()) => {
                    let received = reader.payload(&self.socket, pieces);
                    region.epochs.release(checks);
                    received?;
                    // The region may have been closed under a held block.
                    let stale = region.epochs.stale_since(checks);
                    return Ok(stale.map_or(Verdict::Done, stale_verdict));
                }
            },
        };
        reader.discard(&self.socket, header.payload_bytes)?;
        Ok(refused)
    }

    fn grant(&self, id: u64, region: u64, checks: Vec<Check>) -> Verdict {
        let Some(region) = self.owner.registry.get(region) else {
            return Verdict::UnknownRegion;
        };
        let mut grants = self.grants.lock();
        if grants.closing || grants.held.contains_key(&id) {
            return Verdict::Unreachable;
        }
        if let Err(stale) = region.epochs.hold(&checks) {
            return stale_verdict(stale);
        }
        grants.held.insert(id, (region, checks));
        Verdict::Done
    }

    fn attach(&self, id: u64) -> Result<(), Lost> {
        // On the list before the look: whoever drops the region meanwhile tells this peer.
        self.attached.lock().insert(id);
        let not = |verdict| {
            self.attached.lock().remove(&id);
            self.reply(&Reply::NotAttached { region: id, verdict }, &[], None)
        };
        let Some(region) = self.owner.registry.get(id) else {
            return not(Verdict::UnknownRegion);
        };
        let (length, blocks) = (region.shape.length, region.shape.layout.blocks);
        let reply = Reply::Attached { region: id, length, blocks };
        let epochs = region.epochs.segment().file();
        match (&self.socket, region.memory().place()) {
            (Socket::Unix(_), Place::Shared(memory)) => self.reply(&reply, &[epochs, memory], None),
            // The peer's path opens the memory by the handle in the region's descriptor.
            (Socket::Unix(_), Place::Device { .. }) => self.reply(&reply, &[epochs], None),
            _ => not(Verdict::Unreachable),
        }
    }
}

fn stale_verdict(check: &Check) -> Verdict {
    Verdict::Stale { slot: check.slot, expected: check.epoch }
}

/// The spans of a region, if they are in it and its bytes can go through a socket.
fn pieces<'a>(region: &'a Registered, spans: &[Span]) -> Result<Pieces<'a>, Verdict> {
    if let Place::Device { .. } = region.memory().place() {
        return Err(Verdict::Unreachable);
    }
    let mut pieces = Pieces::default();
    let mut bytes = 0;
    for span in spans {
        bytes += u64::from(span.bytes);
        if !pieces.region(region, span.offset, u64::from(span.bytes)) || bytes > MAX_PAYLOAD_BYTES {
            return Err(Verdict::OutOfRange);
        }
    }
    Ok(pieces)
}
