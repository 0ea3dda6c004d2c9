//! The walk over a KV event payload that vLLM and SGLang share.
//!
//! A batch is `[timestamp, [event...], dp_rank]` (newer engines may send it as a map). An event is
//! a map tagged `"type"`, or in older releases an array whose first element is the type and whose
//! fields follow in the order of the engine's struct, fewer in older ones. A [`Dialect`] names that
//! order.
//!
//! What an event depends on decides whether a block may ever be matched, so a value that is not
//! understood is never dropped from a block's identity: an odd extra key becomes a text that no
//! request carries.

use super::decoded::{DecodeError, DecodeLimits, Decoded, Skipped};
use super::msgpack::{MsgpackError, Reader, Scalar};
use llmd_brain::index::{
    BlockRemoved, BlockStored, ExtraKey, GroupSpec, KvEvent, KvEventBatch, SpecKind,
};
use llmd_brain::{EngineHash, Tier};

/// How one engine's payloads differ from another's.
pub(super) struct Dialect {
    /// Fields of a positional BlockStored after its type.
    pub stored: &'static [Field],
    /// Fields of a positional BlockRemoved after its type.
    pub removed: &'static [Field],
}

/// The fields of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    BlockHashes,
    ParentBlockHash,
    TokenIds,
    BlockSize,
    LoraId,
    Medium,
    LoraName,
    ExtraKeys,
    GroupIdx,
    SpecKind,
    SlidingWindow,
    Locality,
    CacheSalt,
    /// Known, and of no use here.
    Ignored,
}

impl Field {
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"type" => Self::Type,
            b"block_hashes" => Self::BlockHashes,
            b"parent_block_hash" => Self::ParentBlockHash,
            b"token_ids" => Self::TokenIds,
            b"block_size" => Self::BlockSize,
            b"lora_id" => Self::LoraId,
            b"medium" => Self::Medium,
            b"lora_name" => Self::LoraName,
            b"extra_keys" => Self::ExtraKeys,
            b"group_idx" => Self::GroupIdx,
            b"kv_cache_spec_kind" => Self::SpecKind,
            b"kv_cache_spec_sliding_window" => Self::SlidingWindow,
            b"locality" => Self::Locality,
            b"cache_salt" => Self::CacheSalt,
            b"ownership" | b"session_id" => Self::Ignored,
            _ => return None,
        })
    }
}

/// Most fields of a batch or an event: far more than any has.
const MAX_FIELDS: usize = 64;

pub(super) fn decode(
    payload: &[u8],
    dialect: &Dialect,
    limits: &DecodeLimits,
) -> Result<Decoded, DecodeError> {
    let (at, skipped) = (Reader::new(payload), Skipped::default());
    let mut walk = Walk { at, dialect, limits, skipped, spare_hashes: Vec::new() };
    let batch = walk.batch()?;
    Ok(Decoded { batch, skipped: walk.skipped })
}

/// Attaches what was being read.
trait Context<T> {
    fn reading(self, context: &'static str) -> Result<T, DecodeError>;
}

impl<T> Context<T> for Result<T, MsgpackError> {
    fn reading(self, context: &'static str) -> Result<T, DecodeError> {
        self.map_err(|source| DecodeError::Msgpack { context, source })
    }
}

struct Walk<'a> {
    at: Reader<'a>,
    dialect: &'a Dialect,
    limits: &'a DecodeLimits,
    skipped: Skipped,
    /// Memory of hashes that were copied elsewhere.
    spare_hashes: Vec<EngineHash>,
}

/// An event's fields as they come, before it is known what they mean together.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a [u8]>,
    block_hashes: Vec<EngineHash>,
    parent: Option<EngineHash>,
    token_ids: Vec<u32>,
    block_size: Option<u32>,
    lora_id: Option<u64>,
    lora_name: Option<String>,
    medium: Option<&'a [u8]>,
    extra_keys: Vec<Vec<ExtraKey>>,
    group: Option<u32>,
    spec_kind: Option<&'a [u8]>,
    sliding_window: Option<u32>,
    is_remote: bool,
    cache_salt: Option<String>,
    /// A field that makes no sense; only the first is told.
    broken: Option<DecodeError>,
    has_paired_tokens: bool,
}

impl<'a> Walk<'a> {
    fn batch(&mut self) -> Result<KvEventBatch, DecodeError> {
        let mut batch = KvEventBatch { timestamp_s: 0.0, dp_rank: None, events: Vec::new() };
        if self.at.next_is_map() {
            let mut has_events = false;
            for _ in 0..self.at.map("a batch", MAX_FIELDS).reading("the batch")? {
                match self.at.text().reading("a field name of the batch")? {
                    b"ts" => batch.timestamp_s = self.at.number("a timestamp").reading("ts")?,
                    b"events" => {
                        batch.events = self.events()?;
                        has_events = true;
                    }
                    b"data_parallel_rank" | b"attn_dp_rank" => batch.dp_rank = self.dp_rank()?,
                    _ => self.unknown_field()?,
                }
            }
            return if has_events { Ok(batch) } else { Err(DecodeError::Missing("events")) };
        }
        let fields = self.at.array("a batch", MAX_FIELDS).reading("the batch")?;
        if fields < 2 {
            return Err(DecodeError::Missing("events"));
        }
        batch.timestamp_s = self.at.number("a timestamp").reading("ts")?;
        batch.events = self.events()?;
        if fields > 2 {
            batch.dp_rank = self.dp_rank()?;
        }
        for _ in 3..fields {
            self.unknown_field()?;
        }
        Ok(batch)
    }

    fn dp_rank(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.at.nil() {
            return Ok(None);
        }
        let rank = self.at.unsigned("a rank").reading("data_parallel_rank")?;
        match u32::try_from(rank) {
            Ok(rank) => Ok(Some(rank)),
            Err(_) => Err(value("data_parallel_rank", rank)),
        }
    }

    fn events(&mut self) -> Result<Vec<KvEvent>, DecodeError> {
        let count = self.at.array("events", self.limits.max_events).reading("events")?;
        // A batch mostly holds one or a few; a declared count is not worth an allocation.
        let mut events = Vec::with_capacity(count.min(8));
        for _ in 0..count {
            let fields = self.event()?;
            self.assemble(fields, &mut events)?;
        }
        Ok(events)
    }

    fn event(&mut self) -> Result<Fields<'a>, DecodeError> {
        let block_hashes = std::mem::take(&mut self.spare_hashes);
        let mut fields = Fields { block_hashes, ..Fields::default() };
        if self.at.next_is_map() {
            let entries = self.at.map("an event", MAX_FIELDS).reading("an event")?;
            for _ in self.usual_fields(entries, &mut fields)?..entries {
                let name = self.at.text().reading("a field name of an event")?;
                match Field::named(name) {
                    Some(field) => self.field(field, &mut fields)?,
                    None => self.unknown_field()?,
                }
            }
        } else {
            let count = self.at.array("an event", MAX_FIELDS).reading("an event")?;
            if count == 0 {
                return Err(DecodeError::Missing("the type of an event"));
            }
            let kind = self.at.text().reading("the type of an event")?;
            fields.kind = Some(kind);
            let order = match kind {
                b"BlockStored" => self.dialect.stored,
                b"BlockRemoved" => self.dialect.removed,
                _ => &[],
            };
            for i in 0..count - 1 {
                match order.get(i) {
                    Some(&field) => self.field(field, &mut fields)?,
                    None if order.is_empty() => self.at.skip().reading("an event")?,
                    None => self.unknown_field()?,
                }
            }
        }
        Ok(fields)
    }

    /// Reads the entries of an event's map as far as they come in vLLM's order, some left out, and
    /// are no more than `entries`. Returns how many.
    ///
    /// NOTE(perf): a decoded block is an event of 200 bytes, most of it names. Comparing each with
    /// the one that is expected, marker and all, is a few instructions; reading it as any text and
    /// looking it up took as long as all that it names.
    fn usual_fields(
        &mut self,
        entries: usize,
        into: &mut Fields<'a>,
    ) -> Result<usize, DecodeError> {
        let mut read = 0;
        macro_rules! usual {
            ($($name:literal: $field:ident),* $(,)?) => { $(
                if read < entries && self.at.eat($name) {
                    read += 1;
                    self.field(Field::$field, into)?;
                }
            )* };
        }
        usual! {
            b"\xa4type": Type,
            b"\xacblock_hashes": BlockHashes,
            b"\xb1parent_block_hash": ParentBlockHash,
            b"\xa9token_ids": TokenIds,
            b"\xaablock_size": BlockSize,
            b"\xa7lora_id": LoraId,
            b"\xa6medium": Medium,
            b"\xa9lora_name": LoraName,
            b"\xaaextra_keys": ExtraKeys,
            b"\xa9group_idx": GroupIdx,
            b"\xb2kv_cache_spec_kind": SpecKind,
        }
        Ok(read)
    }

    fn unknown_field(&mut self) -> Result<(), DecodeError> {
        self.skipped.unknown_fields += 1;
        self.at.skip().reading("an unknown field")
    }

    /// Reads one field's value. A value of the wrong kind marks the event as broken; bytes that
    /// are not msgpack are an error, since nothing after them can be found.
    #[inline]
    fn field(&mut self, field: Field, into: &mut Fields<'a>) -> Result<(), DecodeError> {
        let start = self.at;
        let outcome = self.field_value(field, into);
        if let Err(error) = outcome {
            self.at = start;
            self.at.skip().reading("a field of an event")?;
            into.broken.get_or_insert(error);
        }
        Ok(())
    }

    #[inline]
    fn field_value(&mut self, field: Field, into: &mut Fields<'a>) -> Result<(), DecodeError> {
        if self.at.nil() {
            return Ok(());
        }
        match field {
            Field::Type => into.kind = Some(self.at.text().reading("type")?),
            Field::BlockHashes => self.block_hashes(&mut into.block_hashes)?,
            Field::ParentBlockHash => into.parent = Some(self.hash("parent_block_hash")?),
            Field::TokenIds => into.token_ids = self.token_ids(&mut into.has_paired_tokens)?,
            Field::BlockSize => into.block_size = Some(self.small("block_size")?),
            Field::LoraId => into.lora_id = Some(self.at.unsigned("an id").reading("lora_id")?),
            Field::Medium => into.medium = Some(self.at.text().reading("medium")?),
            Field::LoraName => into.lora_name = Some(self.name("lora_name")?),
            Field::ExtraKeys => into.extra_keys = self.extra_keys()?,
            Field::GroupIdx => into.group = Some(self.small("group_idx")?),
            Field::SpecKind => into.spec_kind = Some(self.at.text().reading("spec kind")?),
            Field::SlidingWindow => into.sliding_window = Some(self.small("sliding window")?),
            Field::Locality => {
                into.is_remote =
                    self.at.text().reading("locality")?.eq_ignore_ascii_case(b"remote");
            }
            Field::CacheSalt => into.cache_salt = Some(self.name("cache_salt")?),
            Field::Ignored => self.at.skip().reading("an event")?,
        }
        Ok(())
    }

    fn small(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let wide = self.at.unsigned("a small integer").reading(field)?;
        u32::try_from(wide).map_err(|_| value(field, wide))
    }

    fn name(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let text = self.at.text().reading(field)?;
        self.short(field, text)?;
        std::str::from_utf8(text)
            .map(str::to_owned)
            .map_err(|_| value(field, String::from_utf8_lossy(text)))
    }

    fn short(&self, field: &'static str, text: &[u8]) -> Result<(), DecodeError> {
        if text.len() > self.limits.max_text_bytes {
            return Err(value(field, format_args!("{} bytes long", text.len())));
        }
        Ok(())
    }

    fn block_hashes(&mut self, into: &mut Vec<EngineHash>) -> Result<(), DecodeError> {
        let count =
            self.at.array("block_hashes", self.limits.max_blocks).reading("block_hashes")?;
        into.clear();
        into.reserve_exact(count);
        for _ in 0..count {
            into.push(self.hash("block_hashes")?);
        }
        Ok(())
    }

    /// An engine's name of a block: an integer of 64 bits, signed or not, or the raw hash, of
    /// which the last eight bytes are that integer (vLLM's own rule).
    fn hash(&mut self, field: &'static str) -> Result<EngineHash, DecodeError> {
        if let Some(hash) = self.at.wide_u64() {
            return Ok(EngineHash(hash));
        }
        match self.at.scalar().reading(field)? {
            Scalar::Unsigned(hash) => Ok(EngineHash(hash)),
            Scalar::Negative(hash) => Ok(EngineHash(hash.cast_unsigned())),
            Scalar::Bytes(raw) => match raw.last_chunk() {
                Some(last) => Ok(EngineHash(u64::from_be_bytes(*last))),
                None => Err(value(field, format_args!("{} raw bytes, fewer than 8", raw.len()))),
            },
            other => Err(value(field, format_args!("{other:?}"))),
        }
    }

    fn token_ids(&mut self, has_pairs: &mut bool) -> Result<Vec<u32>, DecodeError> {
        let count = self.at.array("token_ids", self.limits.max_tokens).reading("token_ids")?;
        if count > 0 && self.at.next_is_array() {
            *has_pairs = true;
            for _ in 0..count {
                self.at.skip().reading("token_ids")?;
            }
            return Ok(Vec::new());
        }
        let mut tokens = vec![0; count];
        let mut read = 0;
        loop {
            read += self.at.short_u32s(&mut tokens[read..]);
            let Some(token) = tokens.get_mut(read) else { return Ok(tokens) };
            *token = match self.at.short_u32() {
                Some(token) => token,
                None => self.small("token_ids")?,
            };
            read += 1;
        }
    }

    fn extra_keys(&mut self) -> Result<Vec<Vec<ExtraKey>>, DecodeError> {
        let blocks = self.at.array("extra_keys", self.limits.max_blocks).reading("extra_keys")?;
        // Nearly always nil for every block, which is said by saying nothing.
        let mut keys = Vec::new();
        for block in self.at.nils(blocks)..blocks {
            if self.at.nil() {
                continue;
            }
            let count = self.at.array("extra_keys", MAX_FIELDS).reading("extra_keys")?;
            if keys.is_empty() {
                keys.resize_with(blocks, Vec::new);
            }
            for _ in 0..count {
                let key = self.extra_key()?;
                keys[block].push(key);
            }
        }
        Ok(keys)
    }

    fn extra_key(&mut self) -> Result<ExtraKey, DecodeError> {
        let start = self.at;
        if self.at.next_is_array() {
            let count = self.at.array("an extra key", MAX_FIELDS).reading("extra_keys")?;
            if count == 2
                && let Ok(Scalar::Text(identifier)) = self.at.scalar()
                && let Ok(offset) = self.at.scalar()
                && let Some(offset) = as_offset(offset)
            {
                self.short("extra_keys", identifier)?;
                let identifier = String::from_utf8_lossy(identifier).into_owned();
                return Ok(ExtraKey::Multimodal { identifier, offset });
            }
            self.at = start;
        } else {
            match self.at.scalar() {
                Ok(Scalar::Text(text)) => {
                    self.short("extra_keys", text)?;
                    return Ok(ExtraKey::Text(String::from_utf8_lossy(text).into_owned()));
                }
                Ok(Scalar::Bytes(digest)) => {
                    self.short("extra_keys", digest)?;
                    return Ok(ExtraKey::Text(hex(digest)));
                }
                _ => self.at = start,
            }
        }
        self.at.skip().reading("extra_keys")?;
        let raw = &start.rest()[..start.rest().len() - self.at.rest().len()];
        self.short("extra_keys", raw)?;
        Ok(ExtraKey::Text(format!("msgpack:{}", hex(raw))))
    }

    /// Appends the event that the fields make, if they make one.
    fn assemble(
        &mut self,
        fields: Fields<'a>,
        events: &mut Vec<KvEvent>,
    ) -> Result<(), DecodeError> {
        let Some(kind) = fields.kind else {
            return Err(fields.broken.unwrap_or(DecodeError::Missing("the type of an event")));
        };
        if !matches!(kind, b"BlockStored" | b"BlockRemoved" | b"AllBlocksCleared") {
            self.skipped.unknown_events += 1;
            return Ok(());
        }
        if kind == b"AllBlocksCleared" {
            events.push(KvEvent::Cleared);
            return Ok(());
        }
        let is_stored = kind == b"BlockStored";
        if let Some(error) = fields.broken {
            // A store that is not believed only means blocks that go unknown. A removal that is
            // not carried out would leave blocks credited that are gone.
            if is_stored {
                self.skipped.malformed_stores += 1;
                return Ok(());
            }
            return Err(error);
        }
        if fields.has_paired_tokens {
            self.skipped.paired_token_stores += 1;
            return Ok(());
        }
        let Some(tier) = tier(fields.medium, fields.is_remote) else {
            self.skipped.unknown_mediums += 1;
            return Ok(());
        };
        if is_stored {
            self.store(fields, tier, events);
        } else {
            self.remove(fields, tier, events);
        }
        Ok(())
    }

    fn store(&mut self, fields: Fields<'a>, tier: Tier, events: &mut Vec<KvEvent>) {
        let Some(block_size) = fields.block_size else {
            self.skipped.malformed_stores += 1;
            return;
        };
        let group = fields.group.map(|index| GroupSpec {
            index,
            kind: fields.spec_kind.map_or(SpecKind::Unstated, spec_kind),
            sliding_window_tokens: fields.sliding_window,
        });
        let mut extra_keys = fields.extra_keys;
        if let (Some(salt), None, true) = (fields.cache_salt, fields.parent, extra_keys.is_empty())
        {
            // SGLang's form of what vLLM writes into the first block's extra keys.
            extra_keys.resize_with(fields.block_hashes.len(), Vec::new);
            if let Some(first) = extra_keys.first_mut() {
                first.push(ExtraKey::Text(salt));
            }
        }
        // Releases before lora_name: an adapter that cannot be named must still not pass for none.
        let lora = fields.lora_name.or_else(|| fields.lora_id.map(|id| format!("lora_id:{id}")));
        events.push(KvEvent::Stored(BlockStored {
            block_hashes: fields.block_hashes,
            parent: fields.parent,
            token_ids: fields.token_ids,
            block_size,
            tier,
            lora,
            extra_keys,
            group,
        }));
    }

    /// vLLM removes each block by an event of its own: neighbours become one.
    fn remove(&mut self, fields: Fields<'a>, tier: Tier, events: &mut Vec<KvEvent>) {
        let Fields { block_hashes, group, .. } = fields;
        if let Some(KvEvent::Removed(last)) = events.last_mut()
            && (last.tier, last.group) == (tier, group)
            && last.block_hashes.len() + block_hashes.len() <= self.limits.max_blocks
        {
            last.block_hashes.extend_from_slice(&block_hashes);
            self.spare_hashes = block_hashes;
            return;
        }
        events.push(KvEvent::Removed(BlockRemoved { block_hashes, tier, group }));
    }
}

fn value(field: &'static str, value: impl std::fmt::Display) -> DecodeError {
    DecodeError::Value { field, value: value.to_string() }
}

fn as_offset(scalar: Scalar<'_>) -> Option<i64> {
    match scalar {
        Scalar::Unsigned(offset) => i64::try_from(offset).ok(),
        Scalar::Negative(offset) => Some(offset),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// vLLM: GPU, CPU, STORAGE, with locality LOCAL or REMOTE. SGLang: GPU, CPU_PINNED, DISK, EXTERNAL.
/// Releases that name no medium know only the GPU.
fn tier(medium: Option<&[u8]>, is_remote: bool) -> Option<Tier> {
    if is_remote {
        return Some(Tier::Remote);
    }
    let Some(medium) = medium else { return Some(Tier::Gpu) };
    let is = |name: &str| medium.eq_ignore_ascii_case(name.as_bytes());
    if is("GPU") {
        Some(Tier::Gpu)
    } else if is("CPU") || is("CPU_PINNED") {
        Some(Tier::Cpu)
    } else if is("STORAGE") || is("DISK") {
        Some(Tier::Storage)
    } else if is("EXTERNAL") || is("REMOTE") {
        Some(Tier::Remote)
    } else {
        None
    }
}

fn spec_kind(name: &[u8]) -> SpecKind {
    match name {
        b"full_attention" => SpecKind::FullAttention,
        b"mla_attention" => SpecKind::Mla,
        b"sink_full_attention" => SpecKind::SinkFullAttention,
        b"sliding_window" | b"sliding_window_mla" => SpecKind::SlidingWindow,
        b"chunked_local_attention" => SpecKind::ChunkedLocal,
        b"mamba" => SpecKind::Mamba,
        _ => SpecKind::Other,
    }
}
