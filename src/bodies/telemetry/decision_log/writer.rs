//! Writes a decision log from a thread of its own.

use super::{FORMAT, Frame, Header, MAGIC, MAX_FRAME_BYTES};
use llmd_brain::brain::{BrainConfig, LogEntry, LogSink};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries that wait for the disk may hold this much memory; what comes on top is lost.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// What a decision log has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStats {
    /// Entries written.
    pub written: u64,
    /// Entries that were not: the disk was too slow, or failed.
    pub lost: u64,
    /// Whether writing failed; nothing more is written then.
    pub failed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    written: AtomicU64,
    lost: AtomicU64,
    failed: AtomicBool,
}

enum Message {
    Entry(Box<LogEntry>),
    End,
}

/// A decision log that is being written. Dropping it writes what waits, and ends the file; what a
/// sink gets later is lost.
#[derive(Debug)]
pub struct DecisionLog {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    max_waiting_bytes: usize,
}

impl DecisionLog {
    /// Begins a new file; one that exists is not overwritten.
    ///
    /// # Errors
    /// Where the file cannot be made, or there is one.
    pub fn create(path: &Path, config: &BrainConfig) -> io::Result<Self> {
        Self::bounded(path, config, MAX_WAITING_BYTES)
    }

    /// As [`create`](Self::create), with another bound on what waits.
    pub(super) fn bounded(
        path: &Path,
        config: &BrainConfig,
        max_waiting_bytes: usize,
    ) -> io::Result<Self> {
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(path)?);
        let header = Header {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            config: serde_json::to_string(config)?,
        };
        file.write_all(&MAGIC)?;
        write_frame(&mut file, &Frame::Header(header))?;
        file.flush()?;
        let shared = Arc::new(Shared::default());
        let (messages, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new().name("llmd-decision-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || write_all(file, &waiting, &shared)
        })?;
        Ok(Self { shared, messages, thread: Some(thread), max_waiting_bytes })
    }

    /// Where a brain sends its entries. Never blocks; counts what it has to drop.
    #[must_use]
    pub fn sink(&self) -> LogSink {
        let shared = Arc::clone(&self.shared);
        let messages = self.messages.clone();
        let max_waiting_bytes = self.max_waiting_bytes;
        Box::new(move |entry| {
            let bytes = weight(&entry);
            let waiting = shared.waiting_bytes.fetch_add(bytes, Relaxed);
            if waiting + bytes > max_waiting_bytes
                || messages.send(Message::Entry(Box::new(entry))).is_err()
            {
                shared.waiting_bytes.fetch_sub(bytes, Relaxed);
                shared.lost.fetch_add(1, Relaxed);
            }
        })
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            written: self.shared.written.load(Relaxed),
            lost: self.shared.lost.load(Relaxed),
            failed: self.shared.failed.load(Relaxed),
        }
    }
}

impl Drop for DecisionLog {
    fn drop(&mut self) {
        // Fails only where the thread is gone already.
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has nothing left to say.
            let _ = thread.join();
        }
    }
}

/// The writer's thread.
fn write_all(mut file: BufWriter<File>, waiting: &Receiver<Message>, shared: &Shared) {
    let mut marked_lost = 0;
    loop {
        let message = waiting.try_recv().or_else(|_| {
            // Nothing waits: let readers see what there is.
            note_failure(file.flush(), shared);
            waiting.recv()
        });
        let Ok(Message::Entry(entry)) = message else { break };
        let bytes = weight(&entry);
        write_entry(&mut file, entry, &mut marked_lost, shared);
        shared.waiting_bytes.fetch_sub(bytes, Relaxed);
    }
    let ended = mark_lost(&mut file, &mut marked_lost, shared)
        .and_then(|()| write_frame(&mut file, &Frame::End))
        .and_then(|()| file.flush());
    note_failure(ended, shared);
}

fn write_entry(
    file: &mut BufWriter<File>,
    entry: Box<LogEntry>,
    marked_lost: &mut u64,
    shared: &Shared,
) {
    if shared.failed.load(Relaxed) {
        shared.lost.fetch_add(1, Relaxed);
        return;
    }
    let written =
        mark_lost(file, marked_lost, shared).and_then(|()| write_frame(file, &Frame::Entry(entry)));
    match written {
        Ok(()) => {
            shared.written.fetch_add(1, Relaxed);
        }
        Err(error) => {
            shared.lost.fetch_add(1, Relaxed);
            note_failure(Err(error), shared);
        }
    }
}

/// Entries were lost between the last one written and the next: say so where they were.
fn mark_lost(file: &mut BufWriter<File>, marked_lost: &mut u64, shared: &Shared) -> io::Result<()> {
    let lost = shared.lost.load(Relaxed);
    if lost > *marked_lost {
        write_frame(file, &Frame::Lost(lost - *marked_lost))?;
        *marked_lost = lost;
    }
    Ok(())
}

fn write_frame(file: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(frame).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len())
        .ok()
        .filter(|&length| length <= MAX_FRAME_BYTES)
        .ok_or_else(|| io::Error::other(format!("a frame of {} bytes", bytes.len())))?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&bytes)
}

fn note_failure(result: io::Result<()>, shared: &Shared) {
    if let Err(error) = result
        && !shared.failed.swap(true, Relaxed)
    {
        tracing::error!(%error, "the decision log cannot be written any more");
    }
}

/// About how much memory an entry holds.
fn weight(entry: &LogEntry) -> usize {
    use llmd_brain::brain::{Action, Input};
    let input = match &entry.input {
        Input::Arrive { keys, .. } => keys.len() * size_of::<u64>(),
        _ => 0,
    };
    let matches: usize = entry.matches.iter().map(|matches| matches.rows.len() * 32).sum();
    let actions: usize = entry
        .actions
        .iter()
        .map(|action| match action {
            Action::Route(decision) | Action::Release(decision) => {
                let why = &decision.reasons;
                why.memory_bytes()
            }
            _ => 0,
        })
        .sum();
    size_of::<LogEntry>() + input + matches + actions
}
