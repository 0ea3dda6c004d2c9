//! Where the body of an answer ends (RFC 9112, 6.3), and its pieces out of what a connection gives.

use super::WireError;
use bytes::{Buf, Bytes, BytesMut};

/// Longest line with a chunk's size; extensions, which nobody uses, are part of it.
const MAX_LINE_BYTES: usize = 1 << 10;
/// Most bytes of trailers, which are read and not passed on.
const MAX_TRAILER_BYTES: usize = 16 << 10;

/// How the end of a body is known, and how far it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked(Chunks),
    /// It ends with its connection.
    UntilClose,
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    Size,
    Data(u64),
    /// The line's end that follows the data.
    DataEnd,
    /// So many bytes of trailers were read.
    Trailers(usize),
    Over,
}

impl Framing {
    pub(super) const CHUNKED: Self = Self::Chunked(Chunks::Size);
    pub(super) const EMPTY: Self = Self::Length(0);

    /// Whether all was read.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks::Over))
    }

    /// Bytes that are left, where that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Chunked(Chunks::Over) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next piece of the body that `buffer` holds, taken out of it; `None` where it takes more
    /// bytes, or the body is over. What of framing follows the piece is read with it, so that the
    /// end is known as soon as it came.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, WireError> {
        let piece = match self {
            Self::UntilClose if buffer.is_empty() => None,
            Self::UntilClose => Some(buffer.split().freeze()),
            Self::Length(left) => take_of(left, buffer),
            Self::Chunked(chunks) => {
                chunks.advance(buffer)?;
                match chunks {
                    Chunks::Data(left) => take_of(left, buffer),
                    _ => None,
                }
            }
        };
        if let (Self::Chunked(chunks), true) = (self, piece.is_some()) {
            chunks.advance(buffer)?;
        }
        Ok(piece)
    }
}

/// As much of what is left as there is.
fn take_of(left: &mut u64, buffer: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    if length == 0 {
        return None;
    }
    *left -= length as u64;
    Some(buffer.split_to(length).freeze())
}

impl Chunks {
    /// Reads framing, up to data or as far as there are bytes.
    fn advance(&mut self, buffer: &mut BytesMut) -> Result<(), WireError> {
        loop {
            *self = match *self {
                Self::Data(0) => Self::DataEnd,
                Self::Data(_) | Self::Over => return Ok(()),
                Self::Size => match line(buffer, MAX_LINE_BYTES)? {
                    None => return Ok(()),
                    Some(line) => match size(&line)? {
                        0 => Self::Trailers(0),
                        size => Self::Data(size),
                    },
                },
                Self::DataEnd => {
                    if !b"\r\n".starts_with(&buffer[..buffer.len().min(2)]) {
                        return Err(WireError::Framing("a chunk is longer than it says"));
                    }
                    if buffer.len() < 2 {
                        return Ok(());
                    }
                    buffer.advance(2);
                    Self::Size
                }
                Self::Trailers(read) => match line(buffer, MAX_TRAILER_BYTES - read)? {
                    None => return Ok(()),
                    Some(line) if line.is_empty() => Self::Over,
                    Some(line) => Self::Trailers((read + line.len() + 2).min(MAX_TRAILER_BYTES)),
                },
            };
        }
    }
}

/// The next line, without its end.
fn line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, WireError> {
    let Some(end) = memchr::memchr(b'\n', &buffer[..buffer.len().min(limit + 2)]) else {
        return match buffer.len() >= limit + 2 {
            true => Err(WireError::Framing("a line of its chunks is too long")),
            false => Ok(None),
        };
    };
    let mut line = buffer.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(WireError::Framing("a line of its chunks ends without a carriage return"));
    }
    line.truncate(line.len() - 2);
    Ok(Some(line))
}

/// A chunk's size, in hexadecimal digits; what stands behind a semicolon means nothing.
fn size(line: &[u8]) -> Result<u64, WireError> {
    let wrong = WireError::Framing("a chunk's size is no number");
    let said = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii_end();
    // Fifteen digits fit, whatever they are.
    if said.is_empty() || said.len() > 15 || !said.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong);
    }
    let digits = std::str::from_utf8(said).ok();
    digits.and_then(|it| u64::from_str_radix(it, 16).ok()).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body that bytes hold which come in pieces of these lengths, and what is left over.
    fn read(
        mut framing: Framing,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, bool, Vec<u8>), WireError> {
        let (mut buffer, mut body, mut at) = (BytesMut::new(), Vec::new(), 0);
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
        while at < bytes.len() {
            let end = at.saturating_add(cuts.next().unwrap_or(1).max(1)).min(bytes.len());
            buffer.extend_from_slice(&bytes[at..end]);
            at = end;
            while let Some(piece) = framing.take(&mut buffer)? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
        }
        Ok((body, framing.is_over(), buffer.to_vec()))
    }

    fn chunked(pieces: &[Vec<u8>], trailer: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend_from_slice(format!("{:X};a=b\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        bytes
    }

    #[test]
    fn the_end_is_known_with_the_last_piece() {
        let mut buffer = BytesMut::from(&b"3\r\nabc\r\n0\r\n\r\n"[..]);
        let mut framing = Framing::CHUNKED;
        assert_eq!(framing.take(&mut buffer).unwrap().unwrap(), "abc");
        assert!(framing.is_over() && buffer.is_empty());
    }

    #[test]
    fn framing_that_can_be_read_in_two_ways_is_refused() {
        for wrong in [
            "3\nabc\r\n0\r\n\r\n",
            "\r\n",
            "-1\r\n",
            "+3\r\nabc\r\n",
            "0x3\r\nabc\r\n",
            "3 3\r\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n\r\n",
            "10000000000000000\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let told = read(Framing::CHUNKED, wrong.as_bytes(), &[]);
            assert!(matches!(told, Err(WireError::Framing(_))), "{wrong:?}: {told:?}");
        }
        let long = format!("3;{}", "x".repeat(2 * MAX_LINE_BYTES));
        assert!(read(Framing::CHUNKED, long.as_bytes(), &[7; 999]).is_err());
        let trailers = chunked(&[], &"a: b\r\n".repeat(MAX_TRAILER_BYTES / 4));
        assert!(read(Framing::CHUNKED, &trailers, &[100; 999]).is_err());
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(1_usize..20, 0..60),
            next in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let whole = pieces.concat();
            let mut bytes = chunked(&pieces, "x: y\r\n");
            bytes.extend_from_slice(&next);
            let told = read(Framing::CHUNKED, &bytes, &cuts).unwrap();
            prop_assert_eq!(told, (whole.clone(), true, next.clone()));
            let mut bytes = whole.clone();
            bytes.extend_from_slice(&next);
            let told = read(Framing::Length(whole.len() as u64), &bytes, &cuts).unwrap();
            prop_assert_eq!(told, (whole.clone(), true, next));
            let told = read(Framing::UntilClose, &whole, &cuts).unwrap();
            prop_assert_eq!(told, (whole, false, Vec::new()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(prop::sample::select(b"0123fF;\r\n abx".to_vec()), 0..80),
            cuts in prop::collection::vec(1_usize..9, 0..40),
        ) {
            let at_once = read(Framing::CHUNKED, &bytes, &[]).map_err(|error| error.to_string());
            let in_pieces = read(Framing::CHUNKED, &bytes, &cuts).map_err(|error| error.to_string());
            prop_assert_eq!(at_once, in_pieces);
        }
    }
}
