//! Records as bytes, in pieces as they come.
//!
//! A stream is a header and frames, all numbers little-endian:
//!
//! | bytes | header |
//! |---|---|
//! | 6 | `LLMDKV` |
//! | 2 | version, 1 |
//! | 4 | block size of the router, in tokens |
//! | 4 | 0 |
//!
//! | bytes | frame |
//! |---|---|
//! | 1 | kind: 1 an endpoint begins, 2 records, 3 the endpoint ends, 4 the stream ends |
//! | 4 | bytes of the payload, at most 4 MiB |
//! | n | payload |
//! | 8 | XXH3 of all that, with the checksum before it as seed (the header's own at first) |
//!
//! So a byte that changed, and a frame that was lost, repeated or moved, is found where it is read.

use super::{MAX_RECORD_BLOCKS, MoreCopies, Record, Run};
use crate::{BlockKey, EngineHash, Tier};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a stream begins with.
const MAGIC: &[u8; 6] = b"LLMDKV";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;
/// Bytes of a frame before its payload, and after.
const BEFORE: usize = 5;
const AFTER: usize = 8;
/// Payload after which a frame of records is closed.
const FULL_BYTES: usize = 256 << 10;
/// A record has at most 2^16 keys and names of 8 bytes each.
const MAX_PAYLOAD_BYTES: usize = 4 << 20;

const ENDPOINT: u8 = 1;
const RECORDS: u8 = 2;
const ENDPOINT_END: u8 = 3;
const END: u8 = 4;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They begin with something else.
    #[error("not a snapshot of an index: it begins with {0:?}")]
    Magic([u8; 6]),
    /// It was written by another release.
    #[error("the snapshot has version {0}, this release reads version {VERSION}: take it anew")]
    Version(u16),
    /// Something changed on the way.
    #[error("the snapshot is damaged at byte {at}: take it anew")]
    Checksum {
        /// Where the frame begins.
        at: u64,
    },
    /// The end is missing.
    #[error("the snapshot breaks off at byte {at}: take it anew")]
    Truncated {
        /// Where what is there ends.
        at: u64,
    },
    /// It is intact, but says what no release writes.
    #[error("the snapshot makes no sense at byte {at}: {what}")]
    Malformed {
        /// Where the frame begins.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a stream, without any input or output of its own. What is ready is to be taken away from time to time.
#[derive(Debug)]
pub struct Writer {
    ready: Vec<u8>,
    records: Vec<u8>,
    check: u64,
}

impl Writer {
    /// Begins a stream, of an index with this block size.
    #[must_use]
    pub fn new(block_size: u32) -> Self {
        let mut ready = MAGIC.to_vec();
        ready.extend(VERSION.to_le_bytes());
        ready.extend(block_size.to_le_bytes());
        ready.extend([0; 4]);
        let check = xxh3_64_with_seed(&ready, 0);
        Self { ready, records: vec![], check }
    }

    /// An endpoint's records follow. `description` says to the reader whose they are.
    pub fn endpoint(&mut self, description: &[u8]) {
        self.frame(ENDPOINT, description);
    }

    /// One of its records.
    pub fn record(&mut self, record: &Record) {
        encode(record, &mut self.records);
        if self.records.len() >= FULL_BYTES {
            self.close_records();
        }
    }

    /// The endpoint's records are complete: so many blocks are held.
    pub fn endpoint_end(&mut self, blocks: u64) {
        self.close_records();
        self.frame(ENDPOINT_END, &blocks.to_le_bytes());
    }

    /// The stream is complete.
    pub fn end(&mut self) {
        self.frame(END, &[]);
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// Bytes ready to be taken.
    #[must_use]
    pub fn ready_bytes(&self) -> usize {
        self.ready.len()
    }

    fn close_records(&mut self) {
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.frame(RECORDS, &records);
            self.records = records;
            self.records.clear();
        }
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let start = self.ready.len();
        self.ready.push(kind);
        self.ready.extend((payload.len() as u32).to_le_bytes());
        self.ready.extend(payload);
        self.check = xxh3_64_with_seed(&self.ready[start..], self.check);
        self.ready.extend(self.check.to_le_bytes());
    }
}

/// What comes next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The stream begins: block size of the router, in tokens.
    Header(u32),
    /// An endpoint's records follow.
    Endpoint(Vec<u8>),
    /// One of its records.
    Record(Record),
    /// They are complete: so many blocks.
    EndpointEnd(u64),
    /// The stream is complete.
    End,
}

/// Reads a stream, in whatever pieces it comes.
#[derive(Debug, Default)]
pub struct Reader {
    waiting: Vec<u8>,
    /// How much of that is read.
    done: usize,
    /// Where `waiting` begins in the stream.
    before: u64,
    check: u64,
    begun: bool,
    ended: bool,
    /// A frame of records that is being read: where its payload goes on and ends in `waiting`.
    records: Option<(usize, usize)>,
}

impl Reader {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// More of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.records.is_none() {
            self.waiting.drain(..self.done);
            self.before += self.done as u64;
            self.done = 0;
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// What comes next; `None` where more of the stream is needed for that.
    ///
    /// # Errors
    /// [`FormatError`]: nothing that follows can be read.
    #[allow(clippy::should_implement_trait)] // It is one: it may go on after `None`.
    pub fn next(&mut self) -> Result<Option<Item>, FormatError> {
        if let Some((from, to)) = self.records {
            return self.next_record(from, to).map(Some);
        }
        if !self.begun {
            return self.header();
        }
        let at = self.before + self.done as u64;
        let rest = &self.waiting[self.done..];
        let Some(([kind, length @ ..], _)) = rest.split_first_chunk::<BEFORE>() else {
            return Ok(None);
        };
        let malformed = |what| FormatError::Malformed { at, what };
        if self.ended {
            return Err(malformed("it goes on behind its end"));
        }
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_PAYLOAD_BYTES {
            // Of a sane stream only damage makes that.
            return Err(FormatError::Checksum { at });
        }
        let Some((frame, after)) = rest.split_at_checked(BEFORE + length) else { return Ok(None) };
        let Some((check, _)) = after.split_first_chunk::<AFTER>() else { return Ok(None) };
        if u64::from_le_bytes(*check) != xxh3_64_with_seed(frame, self.check) {
            return Err(FormatError::Checksum { at });
        }
        self.check = u64::from_le_bytes(*check);
        let payload = &frame[BEFORE..];
        let start = self.done + BEFORE;
        let item = match *kind {
            ENDPOINT => Item::Endpoint(payload.to_vec()),
            RECORDS if length > 0 => return self.next_record(start, start + length).map(Some),
            ENDPOINT_END => match payload.try_into() {
                Ok(blocks) => Item::EndpointEnd(u64::from_le_bytes(blocks)),
                Err(_) => return Err(malformed("an endpoint's end has no number of blocks")),
            },
            END => Item::End,
            _ => return Err(malformed("a frame of no known kind")),
        };
        self.ended = item == Item::End;
        self.done = start + length + AFTER;
        Ok(Some(item))
    }

    /// No more of the stream is to come.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] where the end was not read.
    pub fn finish(&self) -> Result<(), FormatError> {
        match self.ended && self.done == self.waiting.len() {
            true => Ok(()),
            false => Err(FormatError::Truncated { at: self.before + self.waiting.len() as u64 }),
        }
    }

    fn header(&mut self) -> Result<Option<Item>, FormatError> {
        let Some((header, _)) = self.waiting.split_first_chunk::<HEADER_BYTES>() else {
            let known = self.waiting.len().min(MAGIC.len());
            if self.waiting[..known] != MAGIC[..known] {
                let mut magic = [0; 6];
                magic[..known].copy_from_slice(&self.waiting[..known]);
                return Err(FormatError::Magic(magic));
            }
            return Ok(None);
        };
        let [a, b, c, d, e, f, low, high, size @ .., _, _, _, _] = *header;
        if [a, b, c, d, e, f] != *MAGIC {
            return Err(FormatError::Magic([a, b, c, d, e, f]));
        }
        let version = u16::from_le_bytes([low, high]);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        self.check = xxh3_64_with_seed(header, 0);
        (self.begun, self.done) = (true, HEADER_BYTES);
        Ok(Some(Item::Header(u32::from_le_bytes(size))))
    }

    fn next_record(&mut self, from: usize, to: usize) -> Result<Item, FormatError> {
        let mut rest = &self.waiting[from..to];
        let at = self.before + from as u64;
        let record = decode(&mut rest).map_err(|what| FormatError::Malformed { at, what })?;
        self.records = (!rest.is_empty()).then_some((to - rest.len(), to));
        self.done = to + AFTER;
        Ok(Item::Record(record))
    }
}

const GROUP: u8 = 0;
const RUN: u8 = 1;
const COPIES: u8 = 2;

/// A kind and three small numbers, then what the kind has.
fn encode(record: &Record, out: &mut Vec<u8>) {
    let number = |out: &mut Vec<u8>, number: u32| out.extend(number.to_le_bytes());
    match record {
        Record::Group(group) => {
            out.push(GROUP);
            number(out, *group);
        }
        Record::Run(run) => {
            let tiers = run.tiers.iter().fold(0u8, |bits, tier| bits | 1 << tier.index());
            out.extend([RUN, tiers]);
            number(out, run.parent.map_or(0, |parent| parent.saturating_add(1)));
            number(out, run.keys.len() as u32);
            out.extend(run.keys.iter().flat_map(|key| key.0.to_le_bytes()));
            out.extend(run.names.iter().flat_map(|name| name.0.to_le_bytes()));
        }
        Record::Copies(more) => {
            out.extend([COPIES, more.tier.index() as u8]);
            out.extend(more.copies.to_le_bytes());
            number(out, more.run);
            number(out, more.offset);
            number(out, more.names.len() as u32);
            out.extend(more.names.iter().flat_map(|name| name.0.to_le_bytes()));
        }
    }
}

fn decode(from: &mut &[u8]) -> Result<Record, &'static str> {
    match take::<1>(from)?[0] {
        GROUP => Ok(Record::Group(number(from)?)),
        RUN => {
            let [bits] = take(from)?;
            let tiers: Vec<Tier> =
                Tier::ALL.into_iter().filter(|tier| bits >> tier.index() & 1 != 0).collect();
            if bits >> Tier::COUNT != 0 {
                return Err("a run on a tier that there is not");
            }
            let parent = number(from)?.checked_sub(1);
            let len = blocks(from)?;
            let keys = words(from, len)?.map(BlockKey).collect();
            let names = if tiers.is_empty() { 0 } else { len };
            let names = words(from, names)?.map(EngineHash).collect();
            Ok(Record::Run(Run { parent, tiers, keys, names }))
        }
        COPIES => {
            let [tier] = take(from)?;
            let tier = Tier::ALL.get(tier as usize).copied();
            let tier = tier.ok_or("copies on a tier that there is not")?;
            let copies = u16::from_le_bytes(take(from)?);
            if copies == 0 {
                return Err("a record of no copies");
            }
            let (run, offset) = (number(from)?, number(from)?);
            let len = blocks(from)?;
            let names = words(from, len)?.map(EngineHash).collect();
            Ok(Record::Copies(MoreCopies { run, offset, tier, copies, names }))
        }
        _ => Err("a record of no known kind"),
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, rest) = from.split_first_chunk().ok_or("a record breaks off")?;
    *from = rest;
    Ok(*taken)
}

fn number(from: &mut &[u8]) -> Result<u32, &'static str> {
    take(from).map(u32::from_le_bytes)
}

fn blocks(from: &mut &[u8]) -> Result<usize, &'static str> {
    let blocks = number(from)? as usize;
    match blocks {
        0 => Err("a record of no blocks"),
        1..=MAX_RECORD_BLOCKS => Ok(blocks),
        _ => Err("a record of too many blocks"),
    }
}

fn words<'a>(
    from: &mut &'a [u8],
    len: usize,
) -> Result<impl Iterator<Item = u64> + use<'a>, &'static str> {
    let (taken, rest) = from.split_at_checked(len * 8).ok_or("a record breaks off")?;
    *from = rest;
    let (words, _) = taken.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)))
}
