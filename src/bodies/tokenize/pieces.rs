//! A text, piece by piece: those that are known from the cache, the others from the tokenizer.

use super::boundaries::{Ahead, Boundaries};
use super::cache::PieceCache;
use super::error::NotExact;
use super::folder::{Folder, Frame};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokenizers::Tokenizer;

/// A piece is at least as long, so that looking one up costs little beside its bytes; the end of a text that is
/// not known yet is on average half as long as the text between two cuts more.
const MIN_PIECE_BYTES: usize = 1_024;

/// Token ids, and how much of the text was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// Bytes of the text.
    pub text_bytes: usize,
    /// Bytes of it whose tokens came from the cache.
    pub known_bytes: usize,
}

/// What a tokenizer did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Prompts whose ids were returned.
    pub encoded: u64,
    /// Prompts whose ids are not known here.
    pub not_exact: u64,
    /// Bytes of the texts of those that were returned.
    pub text_bytes: u64,
    /// Bytes of those texts that were known.
    pub known_bytes: u64,
    /// Ids that were returned.
    pub tokens: u64,
    /// Nanoseconds in which texts that were not known were tokenised.
    pub tokenize_ns: u64,
    /// Bytes that the cache holds now.
    pub cache_bytes: u64,
}

/// A tokenizer with its cache.
pub(super) struct Pieces {
    tokenizer: Tokenizer,
    boundaries: Boundaries,
    cache: PieceCache,
    frame: Result<Frame, NotExact>,
    min_piece_bytes: usize,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    encoded: AtomicU64,
    not_exact: AtomicU64,
    text_bytes: AtomicU64,
    known_bytes: AtomicU64,
    tokens: AtomicU64,
    tokenize_ns: AtomicU64,
}

impl Pieces {
    pub(super) fn new(folder: Folder, cache_bytes: usize) -> Self {
        let Folder { tokenizer, pipeline, frame, .. } = folder;
        let added: Vec<_> = tokenizer.get_added_tokens_decoder().into_values().collect();
        let frame = frame.map_or_else(|| framed(&tokenizer), Ok);
        Self {
            boundaries: Boundaries::of(&added, &pipeline),
            tokenizer,
            cache: PieceCache::new(cache_bytes, RandomState::new().hash_one(0)),
            frame,
            min_piece_bytes: MIN_PIECE_BYTES,
            counts: Counts::default(),
        }
    }

    pub(super) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Encoded, NotExact> {
        let frame = match add_special_tokens {
            true => Some(self.frame.as_ref().map_err(Clone::clone)?),
            false => None,
        };
        let mut ids = Vec::with_capacity(text.len() / 4 + 8);
        if let Some(frame) = frame {
            ids.extend_from_slice(&frame.before);
        }
        let mut unknown_bytes = 0;
        for piece in self.pieces(text) {
            if !self.cache.append(piece, &mut ids) {
                unknown_bytes += piece.len();
                let started = Instant::now();
                let encoding = self.tokenizer.encode_fast(piece, false);
                let encoding = encoding.map_err(|error| NotExact::Tokenizer(error.to_string()))?;
                self.counts.tokenize_ns.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
                self.cache.insert(piece, encoding.get_ids());
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        if let Some(frame) = frame {
            ids.extend_from_slice(&frame.after);
        }
        let known_bytes = text.len() - unknown_bytes;
        self.counts.encoded.fetch_add(1, Relaxed);
        self.counts.text_bytes.fetch_add(text.len() as u64, Relaxed);
        self.counts.known_bytes.fetch_add(known_bytes as u64, Relaxed);
        self.counts.tokens.fetch_add(ids.len() as u64, Relaxed);
        Ok(Encoded { ids, text_bytes: text.len(), known_bytes })
    }

    pub(super) fn unknown_bytes(&self, text: &str) -> usize {
        self.pieces(text).filter(|piece| !self.cache.has(piece)).map(str::len).sum()
    }

    pub(super) fn count_not_exact(&self) {
        self.counts.not_exact.fetch_add(1, Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let counts = &self.counts;
        Counters {
            encoded: counts.encoded.load(Relaxed),
            not_exact: counts.not_exact.load(Relaxed),
            text_bytes: counts.text_bytes.load(Relaxed),
            known_bytes: counts.known_bytes.load(Relaxed),
            tokens: counts.tokens.load(Relaxed),
            tokenize_ns: counts.tokenize_ns.load(Relaxed),
            cache_bytes: self.cache.bytes() as u64,
        }
    }

    /// What the tokenizer itself makes of a text.
    #[cfg(test)]
    pub(super) fn plain(&self, text: &str, add_special_tokens: bool) -> Vec<u32> {
        self.tokenizer.encode_fast(text, add_special_tokens).unwrap().get_ids().to_vec()
    }

    #[cfg(test)]
    pub(super) fn with_pieces_of(mut self, min_piece_bytes: usize) -> Self {
        self.min_piece_bytes = min_piece_bytes;
        self
    }

    #[cfg(test)]
    pub(super) fn cut(&self, text: &str) -> Vec<String> {
        self.pieces(text).map(str::to_owned).collect()
    }

    /// The pieces of a text. Where one ends depends on nothing after the next piece's first token, so a text
    /// that grows keeps its pieces but the last.
    fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let (mut start, mut ahead) = (0, Ahead::default());
        std::iter::from_fn(move || {
            let rest = &text[start..];
            if rest.is_empty() {
                return None;
            }
            let cut = match rest.len() > self.min_piece_bytes {
                true => self.boundaries.next(text, start + self.min_piece_bytes, &mut ahead),
                false => None,
            };
            let end = cut.unwrap_or(text.len());
            let piece = &text[start..end];
            start = end;
            Some(piece)
        })
    }
}

/// What the tokenizer's own post-processor puts around a text: of every one that there is the same, whatever the
/// text.
fn framed(tokenizer: &Tokenizer) -> Result<Frame, NotExact> {
    let ids = |text: &str, special: bool| {
        let encoding = tokenizer.encode_fast(text, special);
        encoding
            .map(|it| it.get_ids().to_vec())
            .map_err(|error| NotExact::Tokenizer(error.to_string()))
    };
    let (plain, with) = (ids("a b", false)?, ids("a b", true)?);
    let at = (0..=with.len() - plain.len().min(with.len()))
        .find(|&at| with[at..].starts_with(&plain))
        .ok_or_else(|| NotExact::Tokenizer("special tokens are put inside the text".to_owned()))?;
    Ok(Frame { before: with[..at].to_vec(), after: with[at + plain.len()..].to_vec() })
}
