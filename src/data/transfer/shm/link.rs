//! The Unix socket to a peer: its segments, its grants, and the news that it is gone.

use super::Segment;
use crate::transfer::descriptor::Check;
use crate::transfer::epochs::Epochs;
use crate::transfer::wire::dial::Dialed;
use crate::transfer::wire::pieces::Pieces;
use crate::transfer::wire::reply::{Reply, Verdict};
use crate::transfer::wire::request::Request;
use crate::transfer::wire::socket::{FrameReader, FrameWriter, Lost, Socket};
use crate::transfer::work::Use;
use crate::transfer::{End, RemoteRegion, TransferError};
use parking_lot::{Condvar, Mutex};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Grants that wait for an answer. Their answers must fit into the socket while this side's thread is
/// about to send, or both sides would wait for each other to read.
const MAX_ASKED: usize = 64;

/// A peer's region, mapped here.
pub(in crate::transfer) struct Attached {
    /// Its bytes; none of a device's memory, which its own path opens.
    pub memory: Option<Segment>,
    length: u64,
    pub epochs: Epochs,
}

/// What is done when the owner answers a request for a grant; run by the link's thread.
pub(in crate::transfer) type OnGrant = Box<dyn FnOnce(Result<(), TransferError>) + Send>;

enum Attachment {
    Asked,
    Refused(Verdict),
    There(Arc<Attached>),
}

pub(in crate::transfer) struct Link {
    socket: Socket,
    writer: Mutex<FrameWriter>,
    peer: String,
    stall_timeout: Duration,
    next_id: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    attachments: HashMap<u64, Attachment>,
    grants: HashMap<u64, (Instant, u64, OnGrant)>,
    /// Grants that are to be asked for when others were answered.
    queued: VecDeque<(u64, u64, Vec<Check>, OnGrant)>,
    /// Grants under which a thread may write to the peer's memory now.
    writing: usize,
    lost: Option<TransferError>,
}

impl Link {
    pub fn start(dialed: Dialed, stall_timeout: Duration) -> Result<Arc<Self>, TransferError> {
        let Dialed { socket, reader, writer, name, .. } = dialed;
        let link = Arc::new(Self {
            socket,
            writer: Mutex::new(writer),
            peer: name,
            stall_timeout,
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let ours = link.clone();
        let thread = std::thread::Builder::new().name("llmd-shm-link".into());
        thread
            .spawn(move || ours.listen(reader))
            .map_err(|e| TransferError::os("starting a thread", e))?;
        Ok(link)
    }

    /// Ends the connection, which lets the owner have its blocks back: only when no thread writes to
    /// them any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        let peer = self.peer.clone();
        let closed = || TransferError::PeerGone { peer, why: "this end closed".into() };
        state.lost.get_or_insert_with(closed);
        if state.writing == 0 {
            self.socket.shut_down();
        }
    }

    /// Why the peer is gone, if it is.
    pub fn lost(&self) -> Option<TransferError> {
        self.state.lock().lost.clone()
    }

    /// What is said of a peer that was waited for too long.
    pub fn stalled(&self) -> TransferError {
        TransferError::Stalled { peer: self.peer.clone(), waited_ms: self.stall_ms() }
    }

    fn stall_ms(&self) -> u64 {
        self.stall_timeout.as_millis() as u64
    }

    fn send(&self, request: &Request) -> Result<(), TransferError> {
        let sent = self
            .writer
            .lock()
            .send(&self.socket, &[], None::<Pieces<'_>>, |body| request.encode(body))
            .map_err(|lost| lost.error(&self.peer, self.stall_ms()));
        if let Err(error) = &sent {
            // Half a frame may be out: nothing after it would be understood.
            self.lose(error);
        }
        sent
    }

    /// Maps a region, or finds it mapped.
    pub fn attach(&self, region: &RemoteRegion) -> Result<Arc<Attached>, TransferError> {
        let id = region.id;
        let deadline = Instant::now() + self.stall_timeout;
        let mut state = self.state.lock();
        if let Entry::Vacant(vacant) = state.attachments.entry(id) {
            vacant.insert(Attachment::Asked);
            drop(state);
            self.send(&Request::Attach { region: id })?;
            state = self.state.lock();
        }
        loop {
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            match state.attachments.get(&id) {
                Some(Attachment::There(attached)) => {
                    let attached = attached.clone();
                    let bytes = attached.length;
                    let (shape, blocks) = (region.shape, attached.epochs.blocks());
                    if bytes == shape.length && blocks == shape.layout.blocks {
                        return Ok(attached);
                    }
                    let what = format!("region {id:#x} has {bytes} bytes in {blocks} blocks");
                    return Err(TransferError::Protocol { peer: self.peer.clone(), what });
                }
                Some(Attachment::Asked) => {}
                Some(Attachment::Refused(verdict)) => {
                    let error = verdict.error(id, &self.peer);
                    state.attachments.remove(&id);
                    return Err(error.unwrap_or(TransferError::UnknownRegion { region: id }));
                }
                None => return Err(TransferError::UnknownRegion { region: id }),
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                drop(state);
                let stalled = self.stalled();
                self.lose(&stalled);
                return Err(stalled);
            }
        }
    }

    /// A region that was mapped and is still there.
    pub fn attached(&self, id: u64) -> Result<Arc<Attached>, TransferError> {
        let state = self.state.lock();
        match (&state.lost, state.attachments.get(&id)) {
            (Some(lost), _) => Err(lost.clone()),
            (None, Some(Attachment::There(attached))) => Ok(attached.clone()),
            _ => Err(TransferError::UnknownRegion { region: id }),
        }
    }

    /// Bytes of peers' regions that are mapped here.
    pub fn attached_bytes(&self) -> u64 {
        let state = self.state.lock();
        let bytes = state.attachments.values().map(|attachment| match attachment {
            Attachment::There(there) => there.length,
            _ => 0,
        });
        bytes.sum()
    }

    /// Asks the owner to hold blocks; `then` gets its answer and the grant's number is returned.
    pub fn grant(
        &self,
        region: u64,
        checks: &[Check],
        then: impl FnOnce(u64) -> OnGrant,
    ) -> Result<(), TransferError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            state.queued.push_back((id, region, checks.to_vec(), then(id)));
        }
        self.ask_for_grants();
        Ok(())
    }

    fn ask_for_grants(&self) {
        loop {
            let request = {
                let mut state = self.state.lock();
                if state.grants.len() >= MAX_ASKED || state.lost.is_some() {
                    return;
                }
                let Some((id, region, checks, then)) = state.queued.pop_front() else { return };
                state.grants.insert(id, (Instant::now(), region, then));
                Request::Grant { id, region, checks }
            };
            // An error has lost the link, which has told everybody.
            if self.send(&request).is_err() {
                return;
            }
        }
    }

    /// Says that nothing is written under a grant any more.
    pub fn release(&self, id: u64) {
        // Where this fails the connection ends, and the owner lets go by itself.
        let _ = self.send(&Request::Release { id });
        let mut state = self.state.lock();
        state.writing -= 1;
        if state.writing == 0 && state.lost.is_some() {
            self.socket.shut_down();
        }
    }

    /// A part was copied, or given up: lets the owner's blocks go and says how it went.
    pub fn conclude(&self, hold: &Use, part: usize, attached: &Attached, grant: Option<u64>) {
        let work = hold.work();
        if let Some(grant) = grant {
            self.release(grant);
        }
        if let Some(lost) = self.lost() {
            work.fail(lost);
        } else if let Some(stale) = attached.epochs.stale_since(&work.part(part).remote) {
            let region = work.remote().id;
            let (slot, expected) = (stale.slot, stale.epoch);
            work.fail(TransferError::Stale { end: End::Remote, region, slot, expected });
        } else if !work.stopping() {
            work.part_done(part);
        }
    }

    pub fn notify(&self, request: &Request) -> Result<(), TransferError> {
        self.send(request)
    }

    /// The link's thread: takes what the peer says until it is gone.
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
        state.grants.values().any(|(since, ..)| since.elapsed() >= self.stall_timeout)
    }

    fn take(&self, reader: &mut FrameReader) -> Result<(), Lost> {
        let header = reader.next(&self.socket)?;
        let reply = Reply::decode(header.kind, reader.body())
            .filter(|_| header.payload_bytes == 0)
            .ok_or_else(|| Lost::Broken(format!("reply {} without meaning", header.kind)))?;
        let files = reader.take_files();
        match reply {
            Reply::Attached { region, length, blocks } => {
                let attached = attach(files, length, blocks)
                    .map_err(|error| Lost::Broken(error.to_string()))?;
                self.set(region, Some(Attachment::There(Arc::new(attached))))
            }
            Reply::NotAttached { region, verdict } => {
                self.set(region, Some(Attachment::Refused(verdict)))
            }
            Reply::Detached { region } => self.set(region, None),
            Reply::Verdict { id, verdict } => {
                let (region, then) = {
                    let mut state = self.state.lock();
                    let Some((_, region, then)) = state.grants.remove(&id) else {
                        return Err(Lost::Broken(format!(
                            "an answer to grant {id}, which is none"
                        )));
                    };
                    state.writing += usize::from(verdict == Verdict::Done);
                    (region, then)
                };
                then(verdict.error(region, &self.peer).map_or(Ok(()), Err));
                self.ask_for_grants();
                Ok(())
            }
            other => Err(Lost::Broken(format!("{other:?} on a Unix socket"))),
        }
    }

    fn set(&self, region: u64, attachment: Option<Attachment>) -> Result<(), Lost> {
        let mut state = self.state.lock();
        let asked = matches!(state.attachments.get(&region), Some(Attachment::Asked));
        match attachment {
            // What nobody asked for may not fill this map.
            Some(_) if !asked => {
                return Err(Lost::Broken(format!("region {region:#x}, which nobody asked for")));
            }
            Some(attachment) => drop(state.attachments.insert(region, attachment)),
            None => drop(state.attachments.remove(&region)),
        }
        self.changed.notify_all();
        Ok(())
    }

    fn lose(&self, error: &TransferError) {
        self.state.lock().lost.get_or_insert_with(|| error.clone());
        self.close();
        let (grants, queued) = {
            let mut state = self.state.lock();
            state.attachments.clear();
            self.changed.notify_all();
            (std::mem::take(&mut state.grants), std::mem::take(&mut state.queued))
        };
        let asked = grants.into_values().map(|(_, _, then)| then);
        for then in asked.chain(queued.into_iter().map(|(_, _, _, then)| then)) {
            then(Err(error.clone()));
        }
    }
}

fn attach(
    files: Vec<std::os::fd::OwnedFd>,
    length: u64,
    blocks: u32,
) -> Result<Attached, TransferError> {
    let mut files = files.into_iter();
    let Some(epochs) = files.next() else {
        return Err(TransferError::os("attaching a segment", "its files are missing"));
    };
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let memory = files.next().map(|memory| Segment::attach(memory, bytes, true)).transpose()?;
    let words = Segment::attach(epochs, blocks as usize * 8, false)?;
    Ok(Attached { memory, length, epochs: Epochs::attached(words, blocks) })
}
