//! One connection: a thread that asks and sends, a thread that takes the answers.

use super::chunk::Chunk;
use crate::transfer::wire::dial::Dialed;
use crate::transfer::wire::frame::HEADER_BYTES;
use crate::transfer::wire::pieces::Pieces;
use crate::transfer::wire::reply::{Reply, VERDICT_BYTES, Verdict};
use crate::transfer::wire::request::{Request, put_move};
use crate::transfer::wire::socket::{FrameReader, FrameWriter, Lost, Socket};
use crate::transfer::{Op, TransferError};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Requests of one connection that wait for their answers: one is being answered while the next is
/// on its way.
const MAX_ASKED: usize = 4;

/// What the connections to a peer share.
pub(super) struct Lane {
    pub peer: String,
    pub stall_timeout: Duration,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    notes: VecDeque<Request>,
    /// Notes that left the list and are not on their way yet.
    telling: usize,
    lost: Option<TransferError>,
    sockets: Vec<Arc<Socket>>,
}

impl Lane {
    pub fn new(peer: String, stall_timeout: Duration) -> Self {
        Self { peer, stall_timeout, queue: Mutex::default(), changed: Condvar::new() }
    }

    /// Why the peer is gone, if it is.
    pub fn lost(&self) -> Option<TransferError> {
        self.queue.lock().lost.clone()
    }

    pub fn post(&self, chunks: Vec<Chunk>) -> Result<(), TransferError> {
        let mut queue = self.queue.lock();
        if let Some(lost) = &queue.lost {
            return Err(lost.clone());
        }
        queue.chunks.extend(chunks);
        self.changed.notify_all();
        Ok(())
    }

    /// What the peer is told of, in its turn: the thread that takes answers must never wait to send.
    pub fn tell(&self, note: Request) -> Result<(), TransferError> {
        let mut queue = self.queue.lock();
        if let Some(lost) = &queue.lost {
            return Err(lost.clone());
        }
        queue.notes.push_back(note);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until what was to be told is on its way, or the peer is lost.
    pub fn flush(&self) {
        let mut queue = self.queue.lock();
        while queue.lost.is_none() && (!queue.notes.is_empty() || queue.telling > 0) {
            if self.changed.wait_for(&mut queue, self.stall_timeout).timed_out() {
                return;
            }
        }
    }

    /// Gives the peer up: every chunk that waits fails, every connection ends.
    pub fn lose(&self, error: &TransferError) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.lost.get_or_insert_with(|| error.clone());
            queue.sockets.drain(..).for_each(|socket| socket.shut_down());
            self.changed.notify_all();
            std::mem::take(&mut queue.chunks)
        };
        waiting.iter().for_each(|chunk| chunk.work().fail(error.clone()));
    }

    fn error(&self, lost: Lost) -> TransferError {
        lost.error(&self.peer, self.stall_timeout.as_millis() as u64)
    }
}

/// What a connection does next.
enum Next {
    Ask(Chunk),
    Tell(Request),
}

/// One connection's two threads and what they share.
pub(super) struct Stream {
    lane: Arc<Lane>,
    socket: Arc<Socket>,
    asked: Mutex<Asked>,
    /// The length of the list of what was asked; changed before `Lane::changed` is told.
    unanswered: AtomicUsize,
}

#[derive(Default)]
struct Asked {
    waiting: VecDeque<(u64, Instant, Chunk)>,
    next_id: u64,
}

impl Stream {
    pub fn start(lane: Arc<Lane>, dialed: Dialed) -> Result<Arc<Self>, TransferError> {
        let Dialed { socket, reader, writer, .. } = dialed;
        let socket = Arc::new(socket);
        {
            let mut queue = lane.queue.lock();
            if let Some(lost) = &queue.lost {
                return Err(lost.clone());
            }
            queue.sockets.push(socket.clone());
        }
        let (asked, unanswered) = (Mutex::default(), AtomicUsize::new(0));
        let stream = Arc::new(Self { lane, socket, asked, unanswered });
        let (sends, takes) = (stream.clone(), stream.clone());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let builder = std::thread::Builder::new().name(name.into());
            builder.spawn(work).map_err(|e| TransferError::os("starting a thread", e))
        };
        spawn("llmd-tcp-send", Box::new(move || sends.send(writer)))?;
        spawn("llmd-tcp-take", Box::new(move || takes.take(reader)))?;
        Ok(stream)
    }

    /// Takes chunks and sends their requests, until the peer is lost.
    fn send(&self, mut writer: FrameWriter) {
        while let Some(next) = self.next() {
            let sent = match next {
                Next::Ask(chunk) if chunk.work().stopping() => Ok(()),
                Next::Ask(chunk) => self.ask(&mut writer, chunk),
                Next::Tell(note) => self.tell(&mut writer, &note),
            };
            if let Err(error) = sent {
                self.lane.lose(&error);
            }
        }
    }

    /// The next chunk, when there is one and room to ask for it, or what the peer is to be told.
    fn next(&self) -> Option<Next> {
        let mut queue = self.lane.queue.lock();
        loop {
            if queue.lost.is_some() {
                return None;
            }
            if let Some(note) = queue.notes.pop_front() {
                queue.telling += 1;
                return Some(Next::Tell(note));
            }
            if self.unanswered.load(Ordering::Acquire) < MAX_ASKED
                && let Some(chunk) = queue.chunks.pop_front()
            {
                return Some(Next::Ask(chunk));
            }
            self.lane.changed.wait(&mut queue);
        }
    }

    fn tell(&self, writer: &mut FrameWriter, note: &Request) -> Result<(), TransferError> {
        let sent = writer.send(&self.socket, &[], None, |body| note.encode(body));
        self.lane.queue.lock().telling -= 1;
        self.lane.changed.notify_all();
        sent.map_err(|lost| self.lane.error(lost))
    }

    fn ask(&self, writer: &mut FrameWriter, mut chunk: Chunk) -> Result<(), TransferError> {
        let (work, op) = (chunk.work().clone(), chunk.work().op());
        let region = work.remote().id;
        let spans: Vec<_> = chunk.spans().collect();
        let checks = chunk.take_checks();
        // The chunk waits for its answer; its twin keeps the memory that is sent from.
        let twin = chunk.twin();
        let id = {
            let mut asked = self.asked.lock();
            // Lost is set before the list is emptied for good.
            if let Some(lost) = self.lane.lost() {
                work.fail(lost);
                return Ok(());
            }
            asked.next_id += 1;
            let id = asked.next_id;
            asked.waiting.push_back((id, Instant::now(), chunk));
            self.unanswered.fetch_add(1, Ordering::AcqRel);
            id
        };
        let payload = match op {
            Op::Read => None,
            Op::Write => Some(twin.pieces().ok_or_else(not_here)?),
        };
        let encode =
            |body: &mut Vec<u8>| put_move(body, op, id, region, &checks, spans.iter().copied());
        let sent = writer.send(&self.socket, &[], payload, encode);
        sent.map_err(|lost| self.lane.error(lost))
    }

    /// Takes answers until the peer is gone.
    fn take(&self, mut reader: FrameReader) {
        let lost = loop {
            match self.take_one(&mut reader) {
                Ok(()) => {}
                Err(Lost::Quiet) if !self.overdue() => {}
                Err(lost) => break self.lane.error(lost),
            }
        };
        self.lane.lose(&lost);
        let waiting = std::mem::take(&mut self.asked.lock().waiting);
        waiting.iter().for_each(|(_, _, chunk)| chunk.work().fail(lost.clone()));
    }

    fn overdue(&self) -> bool {
        let asked = self.asked.lock();
        let oldest = asked.waiting.front();
        oldest.is_some_and(|(_, since, _)| since.elapsed() >= self.lane.stall_timeout)
    }

    fn take_one(&self, reader: &mut FrameReader) -> Result<(), Lost> {
        let header = reader.next(&self.socket)?;
        let wrong = || Lost::Broken(format!("reply {} without meaning", header.kind));
        let reply = Reply::decode(header.kind, reader.body()).ok_or_else(wrong)?;
        let id = match reply {
            Reply::Data { id } | Reply::Verdict { id, .. } => id,
            other => return Err(Lost::Broken(format!("{other:?} on a TCP connection"))),
        };
        let chunk = {
            let mut asked = self.asked.lock();
            match asked.waiting.front() {
                Some((front, ..)) if *front == id => {}
                _ => return Err(Lost::Broken(format!("an answer to {id}, which was not next"))),
            }
            asked.waiting.pop_front().map(|(_, _, chunk)| chunk).ok_or_else(wrong)?
        };
        let verdict = match reply {
            Reply::Verdict { verdict, .. } => Ok(verdict),
            _ => self.take_data(reader, header.payload_bytes, id, &chunk),
        };
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
        drop(self.lane.queue.lock());
        self.lane.changed.notify_all();
        match verdict {
            Ok(verdict) => {
                match verdict.error(chunk.work().remote().id, &self.lane.peer) {
                    None => chunk.done(),
                    Some(error) => chunk.work().fail(error),
                }
                Ok(())
            }
            Err(lost) => {
                chunk.work().fail(self.lane.error(lost.clone()));
                Err(lost)
            }
        }
    }

    /// Receives a read's bytes and, in the same calls, the verdict behind them.
    fn take_data(
        &self,
        reader: &mut FrameReader,
        payload_bytes: u64,
        id: u64,
        chunk: &Chunk,
    ) -> Result<Verdict, Lost> {
        if payload_bytes != chunk.bytes || chunk.work().op() != Op::Read {
            let asked = chunk.bytes;
            return Err(Lost::Broken(format!(
                "{payload_bytes} bytes where {asked} were asked for"
            )));
        }
        let mut verdict = [0; HEADER_BYTES + VERDICT_BYTES];
        let mut pieces = Pieces::default();
        if chunk.work().stopping() {
            reader.discard(&self.socket, payload_bytes)?;
        } else {
            pieces = chunk.pieces().ok_or_else(|| Lost::Broken("a device's memory".into()))?;
        }
        pieces.receive_into(&mut verdict);
        reader.payload(&self.socket, pieces)?;
        let (header, body) = verdict.split_first_chunk::<HEADER_BYTES>().ok_or(Lost::Closed)?;
        let header = reader.header(header)?;
        match Reply::decode(header.kind, body) {
            Some(Reply::Verdict { id: named, verdict }) if named == id => Ok(verdict),
            _ => Err(Lost::Broken("bytes without a verdict on them".into())),
        }
    }
}

fn not_here() -> TransferError {
    TransferError::os("moving a device's memory", "this path moves host memory only")
}
