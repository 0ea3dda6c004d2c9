//! The index as a file: what engines hold, and up to which of their messages.
//!
//! A router that joins late loads what another one saved, and asks each engine only for what came
//! since: a bookmark goes with each endpoint, and the stream's own rules ([`Recovery`]) tell whether
//! the engine is still the one that was followed. Where it is not, what was loaded is void, as after
//! any restart.
//!
//! An endpoint is saved, and loaded, between two messages of its stream, so that what it holds and
//! its bookmark are of one moment.
//!
//! [`Recovery`]: crate::observe::Recovery

use super::LiveRouter;
use super::error::RouterError;
use crate::observe::{Bookmark, GoOn, Subscriber, SyncError};
use llmd_brain::EndpointId;
use llmd_brain::index::snapshot::format::{FormatError, Item, Reader, Writer};
use llmd_brain::index::snapshot::{Exported, ImportError, Record};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Bytes read from a file at once.
const PIECE_BYTES: usize = 256 << 10;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is in it.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// What it says.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It was taken with another block size.
    #[error(
        "it has blocks of {theirs} tokens, and this router of {ours}: make the router with block_size={theirs}, or take the snapshot anew"
    )]
    BlockSize {
        /// In the file.
        theirs: u32,
        /// In the router.
        ours: u32,
    },
    /// A part of it is not what a router writes.
    #[error("it makes no sense: {0}")]
    Malformed(String),
    /// Less came back than was saved.
    #[error("of endpoint {address} {saved} blocks were saved and {loaded} came back: take it anew")]
    Incomplete {
        /// Whose.
        address: String,
        /// How many there should be.
        saved: u64,
        /// How many there are.
        loaded: u64,
    },
    /// An endpoint's events are no longer followed.
    #[error(transparent)]
    Stream(#[from] SyncError),
}

/// What was saved or loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotSummary {
    /// Endpoints.
    pub endpoints: u64,
    /// Blocks that they hold, each counted for each endpoint that holds it.
    pub blocks: u64,
    /// Endpoints left out. Saving: those without KV events, and those whose blocks are not simply the
    /// router's (hybrid models, another block size). Loading: those that are not in this fleet, with
    /// that address, rank and model, and those that have events here and had none there.
    pub left_out: u64,
}

/// Whose records follow.
#[derive(Debug, Serialize, Deserialize)]
struct Section {
    address: String,
    dp_rank: u32,
    model: String,
    /// The last message of its stream that is in the records.
    bookmark: Option<Bookmark>,
}

type Saved = (Exported, Vec<Record>, Option<Bookmark>);

impl LiveRouter {
    /// Saves what the engines are known by their events to hold. The file appears whole, or not.
    ///
    /// # Errors
    /// [`RouterError::Snapshot`], [`RouterError::Closed`].
    pub fn save_index(self: &Arc<Self>, path: &Path) -> Result<SnapshotSummary, RouterError> {
        self.check_open()?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let write = || -> Result<SnapshotSummary, SnapshotError> {
            let mut file = File::create(partial)?;
            let summary = self.write_index(&mut file)?;
            file.sync_all()?;
            std::fs::rename(partial, path)?;
            Ok(summary)
        };
        write().map_err(|source| {
            // Whatever is there of it is of no use, and may not be there at all.
            let _ = std::fs::remove_file(partial);
            RouterError::Snapshot { path: path.to_owned(), source }
        })
    }

    /// Loads what [`Self::save_index`] saved, for those endpoints that are in this fleet already,
    /// and goes on with each engine's events from there. What else was known of those by their
    /// events is forgotten.
    ///
    /// # Errors
    /// [`RouterError::Snapshot`]: endpoints that came before the damage are loaded, the others are
    /// as they were. [`RouterError::Closed`].
    pub fn load_index(self: &Arc<Self>, path: &Path) -> Result<SnapshotSummary, RouterError> {
        self.check_open()?;
        let read = || self.read_index(File::open(path)?);
        read().map_err(|source| RouterError::Snapshot { path: path.to_owned(), source })
    }

    fn write_index(
        self: &Arc<Self>,
        to: &mut impl Write,
    ) -> Result<SnapshotSummary, SnapshotError> {
        let mut writer = Writer::new(self.brain.config().block_size);
        let mut summary = SnapshotSummary::default();
        for (id, spec, subscriber) in self.members.followed() {
            let (exported, records, bookmark) = self.export(id, subscriber)?;
            let Exported::Whole { blocks } = exported else {
                summary.left_out += 1;
                continue;
            };
            let section = Section {
                address: spec.address.clone(),
                dp_rank: spec.dp_rank,
                model: spec.model.clone(),
                bookmark,
            };
            writer.endpoint(&serde_json::to_vec(&section).map_err(io::Error::from)?);
            for record in &records {
                writer.record(record);
                if writer.ready_bytes() >= PIECE_BYTES {
                    to.write_all(&writer.take())?;
                }
            }
            writer.endpoint_end(blocks);
            summary.endpoints += 1;
            summary.blocks += blocks;
        }
        writer.end();
        to.write_all(&writer.take())?;
        Ok(summary)
    }

    fn export(
        self: &Arc<Self>,
        id: EndpointId,
        subscriber: Option<Arc<Subscriber>>,
    ) -> Result<Saved, SnapshotError> {
        let router = Arc::clone(self);
        let export = move |bookmark| {
            let mut records = vec![];
            let exported = router.brain.residency().export(id, |record| records.push(record));
            (exported, records, bookmark)
        };
        let Some(subscriber) = subscriber else { return Ok(export(None)) };
        self.between(subscriber, move |bookmark| (export(bookmark), GoOn::Here))
    }

    fn between<T: Send + 'static>(
        &self,
        subscriber: Arc<Subscriber>,
        work: impl FnOnce(Option<Bookmark>) -> (T, GoOn) + Send + 'static,
    ) -> Result<T, SnapshotError> {
        let done = self.wait_on(async move { subscriber.between(work).await });
        Ok(done.map_err(|_| SyncError::Ended)??)
    }

    fn read_index(self: &Arc<Self>, from: impl Read) -> Result<SnapshotSummary, SnapshotError> {
        let mut items = Items { from, reader: Reader::new(), piece: vec![0; PIECE_BYTES] };
        let ours = self.brain.config().block_size;
        match items.next()? {
            Item::Header(theirs) if theirs == ours => {}
            Item::Header(theirs) => return Err(SnapshotError::BlockSize { theirs, ours }),
            item => return Err(unexpected(&item)),
        }
        let mut summary = SnapshotSummary::default();
        loop {
            match items.next()? {
                Item::Endpoint(section) => {
                    self.read_endpoint(&section, &mut items, &mut summary)?;
                }
                Item::End => break,
                item => return Err(unexpected(&item)),
            }
        }
        items.finish()?;
        Ok(summary)
    }

    fn read_endpoint(
        self: &Arc<Self>,
        section: &[u8],
        items: &mut Items<impl Read>,
        summary: &mut SnapshotSummary,
    ) -> Result<(), SnapshotError> {
        let section: Section = serde_json::from_slice(section)
            .map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        let mut records = vec![];
        let saved = loop {
            match items.next()? {
                Item::Record(record) => records.push(record),
                Item::EndpointEnd(blocks) => break blocks,
                item => return Err(unexpected(&item)),
            }
        };
        let Section { address, dp_rank, model, bookmark } = section;
        let is_it = |spec: &llmd_brain::fleet::EndpointSpec| {
            spec.address == address && spec.dp_rank == dp_rank && spec.model == model
        };
        let found = self.members.followed().into_iter().find(|(_, spec, _)| is_it(spec));
        let Some((id, _, subscriber)) = found else {
            summary.left_out += 1;
            return Ok(());
        };
        if bookmark.is_none() && subscriber.is_some() {
            // Nothing says which of its events are in the records.
            summary.left_out += 1;
            return Ok(());
        }
        let loaded = self.import(id, subscriber, records, bookmark)?;
        if loaded != saved {
            return Err(SnapshotError::Incomplete { address, saved, loaded });
        }
        summary.endpoints += 1;
        summary.blocks += loaded;
        Ok(())
    }

    fn import(
        self: &Arc<Self>,
        id: EndpointId,
        subscriber: Option<Arc<Subscriber>>,
        records: Vec<Record>,
        bookmark: Option<Bookmark>,
    ) -> Result<u64, SnapshotError> {
        let router = Arc::clone(self);
        let import = move || {
            let mut records = records.into_iter();
            let next = || Ok::<_, ImportError>(records.next());
            router.brain.residency().import(router.now(), id, next)
        };
        let Some(subscriber) = subscriber else { return Ok(import()?) };
        let imported = self.between(subscriber, move |_| {
            let imported = import();
            // What is not known from the records is to be known from the stream.
            let go_on = GoOn::Behind(bookmark.filter(|_| imported.is_ok()));
            (imported, go_on)
        })?;
        Ok(imported?)
    }
}

/// What a file has, one after another.
struct Items<R> {
    from: R,
    reader: Reader,
    piece: Vec<u8>,
}

impl<R: Read> Items<R> {
    fn next(&mut self) -> Result<Item, SnapshotError> {
        loop {
            if let Some(item) = self.reader.next()? {
                return Ok(item);
            }
            match self.from.read(&mut self.piece)? {
                0 => {
                    self.reader.finish()?;
                    return Err(SnapshotError::Malformed("it goes on behind its end".into()));
                }
                bytes => self.reader.push(&self.piece[..bytes]),
            }
        }
    }

    /// Nothing is to come behind the end.
    fn finish(&mut self) -> Result<(), SnapshotError> {
        let bytes = self.from.read(&mut self.piece)?;
        self.reader.push(&self.piece[..bytes]);
        Ok(self.reader.finish()?)
    }
}

fn unexpected(item: &Item) -> SnapshotError {
    let what = match item {
        Item::Header(_) => "a second header",
        Item::Endpoint(_) => "an endpoint within another",
        Item::Record(_) => "a record of no endpoint",
        Item::EndpointEnd(_) => "an end of no endpoint",
        Item::End => "an end within an endpoint",
    };
    SnapshotError::Malformed(what.into())
}
