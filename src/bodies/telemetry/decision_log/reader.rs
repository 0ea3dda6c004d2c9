//! Reads a decision log, and makes its decisions again.

use super::{FORMAT, Frame, Header, MAGIC, MAX_FRAME_BYTES, OLDEST_FORMAT};
use llmd_brain::brain::{BrainConfig, BrainError, LogEntry, Replay, ReplayReport};
use llmd_brain::sim::TraceError;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Why a decision log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be read.
    #[error("the decision log cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("not a decision log: it does not begin with {MAGIC:?}")]
    Magic,
    /// It was written by another release.
    #[error(
        "a decision log of format {format}, by release {release}; release {} reads formats \
         {OLDEST_FORMAT} to {FORMAT}: read it with the release that wrote it", env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// Of the file.
        format: u32,
        /// Which wrote it.
        release: String,
    },
    /// It was written under other rules.
    #[error(
        "a decision log of format {format}, by release {release}; release {} makes decisions of format \
         {FORMAT} again: replay it with the release that wrote it, or simulate what was asked",
        env!("CARGO_PKG_VERSION")
    )]
    OtherRules {
        /// Of the file.
        format: u32,
        /// Which wrote it.
        release: String,
    },
    /// A frame that no writer makes.
    #[error("the decision log is damaged at frame {frame}: {reason}")]
    Damaged {
        /// Number of the frame, from 0.
        frame: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration in its header cannot be.
    #[error("the configuration in the decision log's header cannot be: {0}")]
    Config(String),
    /// A brain cannot be made of that configuration.
    #[error(transparent)]
    Brain(#[from] BrainError),
    /// Nothing in it can be simulated.
    #[error(transparent)]
    Workload(#[from] TraceError),
}

/// What comes next in a log.
#[derive(Debug)]
pub enum Next {
    /// A turn.
    Entry(Box<LogEntry>),
    /// So many turns are missing.
    Lost(u64),
    /// The log ended in order.
    End,
    /// The log was cut off: its router did not close it.
    CutOff,
}

/// A decision log that is being read.
pub struct LogReader<R> {
    source: R,
    header: Header,
    frames: u64,
}

impl LogReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> LogReader<R> {
    /// Reads a log's header.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn new(mut source: R) -> Result<Self, LogError> {
        let mut magic = [0; MAGIC.len()];
        match source.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            _ => return Err(LogError::Magic),
        }
        match read_frame(&mut source, 0)? {
            Some(Frame::Header(header)) if (OLDEST_FORMAT..=FORMAT).contains(&header.format) => {
                Ok(Self { source, header, frames: 1 })
            }
            Some(Frame::Header(Header { format, release, .. })) => {
                Err(LogError::Format { format, release })
            }
            _ => Err(LogError::Damaged { frame: 0, reason: "no header".to_owned() }),
        }
    }

    /// What the log was made by.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The configuration of the brain that made the log.
    ///
    /// # Errors
    /// [`LogError::Config`].
    pub fn config(&self) -> Result<BrainConfig, LogError> {
        serde_json::from_str(&self.header.config)
            .map_err(|error| LogError::Config(error.to_string()))
    }

    /// The next record.
    ///
    /// # Errors
    /// [`LogError`]; a frame that the file ends in the middle of is not one.
    pub fn next_record(&mut self) -> Result<Next, LogError> {
        let frame = self.frames;
        self.frames += 1;
        match read_frame(&mut self.source, frame)? {
            None => Ok(Next::CutOff),
            Some(Frame::Entry(entry)) => Ok(Next::Entry(entry)),
            Some(Frame::Lost(count)) => Ok(Next::Lost(count)),
            Some(Frame::End) => Ok(Next::End),
            Some(Frame::Header(_)) => {
                Err(LogError::Damaged { frame, reason: "a second header".to_owned() })
            }
        }
    }
}

/// `None` where the source ends before the frame does.
fn read_frame(source: &mut impl Read, frame: u64) -> Result<Option<Frame>, LogError> {
    let mut length = [0; 4];
    if !filled(source, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME_BYTES {
        let reason = format!("a length of {length} bytes, more than {MAX_FRAME_BYTES}");
        return Err(LogError::Damaged { frame, reason });
    }
    // Grows with what is there, not with what the length promises.
    let mut bytes = Vec::new();
    source.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Ok(None);
    }
    rmp_serde::from_slice(&bytes)
        .map(Some)
        .map_err(|error| LogError::Damaged { frame, reason: error.to_string() })
}

fn filled(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match source.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What came of making a whole log's decisions again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReplay {
    /// What differs.
    pub report: ReplayReport,
    /// Entries that are missing from the log.
    pub lost: u64,
    /// Whether the log ended in order.
    pub complete: bool,
}

/// Makes the decisions of a log again, with a brain of the log's own configuration.
///
/// # Errors
/// [`LogError`].
pub fn replay(path: &Path) -> Result<FileReplay, LogError> {
    let mut reader = LogReader::open(path)?;
    let &Header { format, ref release, .. } = reader.header();
    if format != FORMAT {
        return Err(LogError::OtherRules { format, release: release.clone() });
    }
    let mut replay = Replay::new(reader.config()?)?;
    let mut lost = 0;
    let complete = loop {
        match reader.next_record()? {
            Next::Entry(entry) => {
                replay.turn(&entry);
            }
            Next::Lost(count) => lost += count,
            Next::End => break true,
            Next::CutOff => break false,
        }
    };
    Ok(FileReplay { report: replay.report().clone(), lost, complete })
}
