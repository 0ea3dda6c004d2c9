//! Reading msgpack in place (<https://github.com/msgpack/msgpack/blob/master/spec.md>).
//!
//! A walker over borrowed bytes, for payloads whose shape is known: it yields what the caller asks
//! for and skips the rest, so nothing is built only to be thrown away. A declared length is never
//! believed further than the bytes that are there: every element takes at least one.

use super::runs;

/// Why bytes cannot be read as what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MsgpackError {
    /// The bytes end within a value.
    #[error("the payload ends in the middle of a value")]
    Truncated,
    /// Another type than the format has there.
    #[error("expected {expected}, found the msgpack byte {found:#04x}")]
    Type {
        /// What the format has there.
        expected: &'static str,
        /// The first byte of the value.
        found: u8,
    },
    /// Values nested beyond reason.
    #[error("values nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// An array or map that declares more than the caller's limit.
    #[error("{what} of {length} elements, the limit is {limit}")]
    TooLong {
        /// Of what.
        what: &'static str,
        /// Declared.
        length: usize,
        /// Allowed.
        limit: usize,
    },
}

/// Deepest nesting that is skipped over.
pub const MAX_DEPTH: usize = 16;

/// A value that needs no further reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scalar<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Negative(i64),
    Float(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
}

/// A position in a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

type Result<T> = std::result::Result<T, MsgpackError>;

impl<'a> Reader<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn peek(&self) -> Result<u8> {
        self.rest.first().copied().ok_or(MsgpackError::Truncated)
    }

    pub fn next_is_array(&self) -> bool {
        matches!(self.rest.first(), Some(0x90..=0x9f | 0xdc | 0xdd))
    }

    pub fn next_is_map(&self) -> bool {
        matches!(self.rest.first(), Some(0x80..=0x8f | 0xde | 0xdf))
    }

    /// Consumes a nil, if there is one.
    #[inline]
    pub fn nil(&mut self) -> bool {
        let is_nil = self.rest.first() == Some(&0xc0);
        if is_nil {
            self.rest = &self.rest[1..];
        }
        is_nil
    }

    /// Length of an array, at most `limit`.
    pub fn array(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let length = match self.byte()? {
            marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
            0xdc => usize::from(self.u16()?),
            0xdd => self.u32()? as usize,
            found => return Err(MsgpackError::Type { expected: "an array", found }),
        };
        self.believable(what, length, limit, 1)
    }

    /// Number of entries of a map, at most `limit`.
    pub fn map(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let length = match self.byte()? {
            marker @ 0x80..=0x8f => usize::from(marker & 0x0f),
            0xde => usize::from(self.u16()?),
            0xdf => self.u32()? as usize,
            found => return Err(MsgpackError::Type { expected: "a map", found }),
        };
        self.believable(what, length, limit, 2)
    }

    /// A string's bytes; they need not be UTF-8.
    #[inline]
    pub fn text(&mut self) -> Result<&'a [u8]> {
        if let Some((&marker @ 0xa0..=0xbf, rest)) = self.rest.split_first()
            && let Some((text, rest)) = rest.split_at_checked(usize::from(marker & 0x1f))
        {
            self.rest = rest;
            return Ok(text);
        }
        let found = self.peek()?;
        match self.scalar()? {
            Scalar::Text(text) => Ok(text),
            _ => Err(MsgpackError::Type { expected: "a string", found }),
        }
    }

    /// Consumes these very bytes, if they come next.
    #[inline]
    pub fn eat<const N: usize>(&mut self, bytes: &[u8; N]) -> bool {
        match self.rest.split_first_chunk() {
            Some((next, rest)) if next == bytes => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Consumes up to `count` nils. Returns how many.
    pub fn nils(&mut self, count: usize) -> usize {
        let nils = self.rest.iter().take(count).take_while(|&&byte| byte == 0xc0).count();
        self.rest = &self.rest[nils..];
        nils
    }

    /// An integer that is not negative.
    #[inline]
    pub fn unsigned(&mut self, expected: &'static str) -> Result<u64> {
        let found = self.peek()?;
        if found < 0x80 {
            self.rest = &self.rest[1..];
            return Ok(u64::from(found));
        }
        match self.scalar()? {
            Scalar::Unsigned(value) => Ok(value),
            _ => Err(MsgpackError::Type { expected, found }),
        }
    }

    /// An unsigned integer in one of its shortest forms up to 32 bits, as encoders write token ids;
    /// `None`, and nothing consumed, for anything else.
    pub fn short_u32(&mut self) -> Option<u32> {
        let (value, rest) = match self.rest {
            [value @ 0x00..=0x7f, rest @ ..] | [0xcc, value, rest @ ..] => {
                (u32::from(*value), rest)
            }
            [0xcd, a, b, rest @ ..] => (u32::from(u16::from_be_bytes([*a, *b])), rest),
            [0xce, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
            _ => return None,
        };
        self.rest = rest;
        Some(value)
    }

    /// Fills `ids` with the token ids that come next, as [`Self::short_u32`] reads them, but faster.
    /// Returns how many; it may stop before any.
    pub fn short_u32s(&mut self, ids: &mut [u32]) -> usize {
        let (read, used) = runs::short_ids(self.rest, ids);
        self.rest = &self.rest[used..];
        read
    }

    /// An unsigned integer in the widest form, as nearly all hashes are; `None`, and nothing
    /// consumed, for anything else.
    #[inline]
    pub fn wide_u64(&mut self) -> Option<u64> {
        let ([0xcf, value @ ..], rest) = self.rest.split_first_chunk::<9>()? else { return None };
        self.rest = rest;
        Some(u64::from_be_bytes(*value))
    }

    /// A number as a float.
    pub fn number(&mut self, expected: &'static str) -> Result<f64> {
        let found = self.peek()?;
        match self.scalar()? {
            Scalar::Float(value) => Ok(value),
            Scalar::Unsigned(value) => Ok(value as f64),
            Scalar::Negative(value) => Ok(value as f64),
            _ => Err(MsgpackError::Type { expected, found }),
        }
    }

    /// Anything but an array, a map or an extension.
    pub fn scalar(&mut self) -> Result<Scalar<'a>> {
        Ok(match self.byte()? {
            value @ 0x00..=0x7f => Scalar::Unsigned(u64::from(value)),
            marker @ 0xa0..=0xbf => Scalar::Text(self.take(usize::from(marker & 0x1f))?),
            0xc0 => Scalar::Nil,
            0xc2 => Scalar::Bool(false),
            0xc3 => Scalar::Bool(true),
            0xc4 => Scalar::Bytes(self.run_u8()?),
            0xc5 => Scalar::Bytes(self.run_u16()?),
            0xc6 => Scalar::Bytes(self.run_u32()?),
            0xca => Scalar::Float(f64::from(f32::from_bits(self.u32()?))),
            0xcb => Scalar::Float(f64::from_bits(self.u64()?)),
            0xcc => Scalar::Unsigned(u64::from(self.byte()?)),
            0xcd => Scalar::Unsigned(u64::from(self.u16()?)),
            0xce => Scalar::Unsigned(u64::from(self.u32()?)),
            0xcf => Scalar::Unsigned(self.u64()?),
            0xd0 => signed(i64::from(self.byte()?.cast_signed())),
            0xd1 => signed(i64::from(self.u16()?.cast_signed())),
            0xd2 => signed(i64::from(self.u32()?.cast_signed())),
            0xd3 => signed(self.u64()?.cast_signed()),
            0xd9 => Scalar::Text(self.run_u8()?),
            0xda => Scalar::Text(self.run_u16()?),
            0xdb => Scalar::Text(self.run_u32()?),
            value @ 0xe0..=0xff => Scalar::Negative(i64::from(value.cast_signed())),
            found => return Err(MsgpackError::Type { expected: "a scalar", found }),
        })
    }

    /// Reads past one value of any type.
    pub fn skip(&mut self) -> Result<()> {
        // Elements still to come, by depth: no recursion on foreign input.
        let mut open = [0usize; MAX_DEPTH];
        let mut depth = 0;
        loop {
            let elements = match self.peek()? {
                0x90..=0x9f | 0xdc | 0xdd => self.array("an array", usize::MAX)?,
                0x80..=0x8f | 0xde | 0xdf => 2 * self.map("a map", usize::MAX / 2)?,
                0xc1 => return Err(MsgpackError::Type { expected: "a value", found: 0xc1 }),
                marker @ (0xc7..=0xc9 | 0xd4..=0xd8) => {
                    self.extension(marker)?;
                    0
                }
                _ => {
                    self.scalar()?;
                    0
                }
            };
            if elements > 0 {
                *open.get_mut(depth).ok_or(MsgpackError::TooDeep)? = elements;
                depth += 1;
                continue;
            }
            loop {
                let Some(level) = depth.checked_sub(1) else { return Ok(()) };
                open[level] -= 1;
                if open[level] > 0 {
                    break;
                }
                depth = level;
            }
        }
    }

    fn extension(&mut self, marker: u8) -> Result<()> {
        self.byte()?;
        let length = match marker {
            0xc7 => usize::from(self.byte()?),
            0xc8 => usize::from(self.u16()?),
            0xc9 => self.u32()? as usize,
            _ => 1 << (marker - 0xd4),
        };
        self.take(length + 1)?;
        Ok(())
    }

    fn believable(
        &self,
        what: &'static str,
        length: usize,
        limit: usize,
        bytes_each: usize,
    ) -> Result<usize> {
        if length > limit {
            Err(MsgpackError::TooLong { what, length, limit })
        } else if length.saturating_mul(bytes_each) > self.rest.len() {
            Err(MsgpackError::Truncated)
        } else {
            Ok(length)
        }
    }

    fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.rest.split_first().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    fn run_u8(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(self.byte()?);
        self.take(length)
    }

    fn run_u16(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(self.u16()?);
        self.take(length)
    }

    fn run_u32(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }
}

fn signed<'a>(value: i64) -> Scalar<'a> {
    match u64::try_from(value) {
        Ok(value) => Scalar::Unsigned(value),
        Err(_) => Scalar::Negative(value),
    }
}
