//! Pickle protocol 5 of the values that vLLM hashes, byte for byte as CPython's C pickler writes
//! it (`Modules/_pickle.c`; PEP 3154, PEP 574).
//!
//! A pickle is not a function of values alone: an object that is met a second time is written as a
//! reference to the first. Which strings are one object is known for vLLM's tags (literals, one
//! object each) and for strings of at most one Latin-1 character (CPython keeps one of each);
//! other equal strings are taken for distinct objects, as they are when the engine's core process
//! has decoded them from a message. An engine that hands over one string object for two items of
//! one block hashes differently: only the CBOR algorithms are free of this.

use super::ExtraKey;

const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const STOP: u8 = b'.';
const NONE: u8 = b'N';
const MARK: u8 = b'(';
const TUPLE: u8 = b't';
const EMPTY_TUPLE: u8 = b')';
/// `TUPLE1`, `TUPLE2`, `TUPLE3`, by length.
const SHORT_TUPLES: [u8; 4] = [EMPTY_TUPLE, 0x85, 0x86, 0x87];
const MEMOIZE: u8 = 0x94;
const BINGET: u8 = b'h';
const LONG_BINGET: u8 = b'j';
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const BININT: u8 = b'J';
const LONG1: u8 = 0x8A;
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';
const SHORT_BINUNICODE: u8 = 0x8C;
const BINUNICODE: u8 = b'X';
const BINUNICODE8: u8 = 0x8D;

/// Below this a frame's header is left out.
const FRAME_SIZE_MIN: usize = 4;
/// From this on a frame is closed, and a single string is written outside of frames.
const FRAME_SIZE_TARGET: usize = 64 * 1024;
/// Opcode and 8 bytes of length.
const FRAME_HEADER_BYTES: usize = 9;

/// Appends the pickle of a string.
pub fn text(out: &mut Vec<u8>, text: &str) {
    let mut pickler = Pickler::new(out);
    pickler.text(text);
    pickler.stop();
}

/// Appends the pickle of `(parent, tokens, extra or None)`.
pub fn block(out: &mut Vec<u8>, parent: &[u8], tokens: &[u32], extra: &[ExtraKey<'_>]) {
    let mut pickler = Pickler::new(out);
    pickler.begin_tuple(3);
    pickler.bytes(parent);
    pickler.begin_tuple(tokens.len());
    for &token in tokens {
        pickler.integer(i64::from(token));
    }
    pickler.end_tuple(tokens.len());
    if extra.is_empty() {
        pickler.none();
    } else {
        pickler.begin_tuple(extra.len());
        for key in extra {
            pickler.extra_key(key);
        }
        pickler.end_tuple(extra.len());
    }
    pickler.end_tuple(3);
    pickler.stop();
}

struct Pickler<'o, 'k> {
    out: &'o mut Vec<u8>,
    /// Where the open frame's header stands.
    frame: Option<usize>,
    /// Objects written so far that a reference can name.
    memoized: u32,
    /// Strings that are one object wherever they occur, and the memo's number of each.
    shared: Vec<(&'k str, u32)>,
}

impl<'o, 'k> Pickler<'o, 'k> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(&[PROTO, 5]);
        Self { out, frame: None, memoized: 0, shared: Vec::new() }
    }

    /// Called before each object: a frame that has grown large ends here.
    #[inline]
    fn boundary(&mut self) {
        if let Some(start) = self.frame
            && self.out.len() - start - FRAME_HEADER_BYTES >= FRAME_SIZE_TARGET
        {
            self.close_frame();
        }
    }

    fn close_frame(&mut self) {
        let Some(start) = self.frame.take() else { return };
        let body = start + FRAME_HEADER_BYTES;
        let len = self.out.len() - body;
        if len < FRAME_SIZE_MIN {
            self.out.drain(start..body);
        } else {
            self.out[start] = FRAME;
            self.out[start + 1..body].copy_from_slice(&(len as u64).to_le_bytes());
        }
    }

    /// Writes opcodes, inside a frame.
    #[inline]
    fn write(&mut self, opcodes: &[u8]) {
        if self.frame.is_none() {
            self.frame = Some(self.out.len());
            self.out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        }
        self.out.extend_from_slice(opcodes);
    }

    /// Writes a string's header and content, outside of frames where it is large.
    fn write_counted(&mut self, header: &[u8], content: &[u8]) {
        if content.len() >= FRAME_SIZE_TARGET {
            self.close_frame();
            self.out.extend_from_slice(header);
            self.out.extend_from_slice(content);
        } else {
            self.write(header);
            self.write(content);
        }
    }

    /// Numbers the object just written.
    fn memoize(&mut self) -> u32 {
        self.write(&[MEMOIZE]);
        self.memoized += 1;
        self.memoized - 1
    }

    fn reference(&mut self, number: u32) {
        if let Ok(number) = u8::try_from(number) {
            self.write(&[BINGET, number]);
        } else {
            self.write(&[LONG_BINGET]);
            self.write(&number.to_le_bytes());
        }
    }

    fn none(&mut self) {
        self.boundary();
        self.write(&[NONE]);
    }

    #[inline]
    fn integer(&mut self, value: i64) {
        self.boundary();
        if let Ok(value) = u8::try_from(value) {
            self.write(&[BININT1, value]);
        } else if let Ok(value) = u16::try_from(value) {
            let [a, b] = value.to_le_bytes();
            self.write(&[BININT2, a, b]);
        } else if let Ok(value) = i32::try_from(value) {
            let [a, b, c, d] = value.to_le_bytes();
            self.write(&[BININT, a, b, c, d]);
        } else {
            // The fewest bytes of two's complement that keep the sign.
            let magnitude_bits = 64 - (value ^ (value >> 63)).leading_zeros() as usize;
            let len = magnitude_bits / 8 + 1;
            self.write(&[LONG1, len as u8]);
            self.write(&value.to_le_bytes()[..len]);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.boundary();
        if let Ok(len) = u8::try_from(bytes.len()) {
            self.write_counted(&[SHORT_BINBYTES, len], bytes);
        } else {
            let [a, b, c, d] = (bytes.len() as u32).to_le_bytes();
            self.write_counted(&[BINBYTES, a, b, c, d], bytes);
        }
        self.memoize();
    }

    /// A string that occurs as one object only here, unless CPython shares it by itself.
    fn text(&mut self, text: &'k str) {
        let mut chars = text.chars();
        let is_shared =
            chars.next().is_none_or(|first| (first as u32) < 256 && chars.next().is_none());
        if is_shared {
            self.shared_text(text);
        } else {
            self.boundary();
            self.fresh_text(text);
        }
    }

    /// A string that is the same object wherever it occurs.
    fn shared_text(&mut self, text: &'k str) {
        self.boundary();
        let known = self.shared.iter().find(|(known, _)| *known == text).map(|&(_, number)| number);
        match known {
            Some(number) => self.reference(number),
            None => {
                let number = self.fresh_text(text);
                self.shared.push((text, number));
            }
        }
    }

    fn fresh_text(&mut self, text: &str) -> u32 {
        if let Ok(len) = u8::try_from(text.len()) {
            self.write_counted(&[SHORT_BINUNICODE, len], text.as_bytes());
        } else if let Ok(len) = u32::try_from(text.len()) {
            let [a, b, c, d] = len.to_le_bytes();
            self.write_counted(&[BINUNICODE, a, b, c, d], text.as_bytes());
        } else {
            let mut header = [BINUNICODE8; 9];
            header[1..].copy_from_slice(&(text.len() as u64).to_le_bytes());
            self.write_counted(&header, text.as_bytes());
        }
        self.memoize()
    }

    /// Before the elements of a tuple of `len`.
    fn begin_tuple(&mut self, len: usize) {
        self.boundary();
        if len >= SHORT_TUPLES.len() {
            self.write(&[MARK]);
        }
    }

    /// After the elements of a tuple of `len`.
    fn end_tuple(&mut self, len: usize) {
        self.write(&[SHORT_TUPLES.get(len).copied().unwrap_or(TUPLE)]);
        if len > 0 {
            self.memoize();
        }
    }

    fn extra_key(&mut self, key: &ExtraKey<'k>) {
        match *key {
            ExtraKey::Lora(lora) => {
                self.begin_tuple(3);
                self.shared_text("lora");
                self.text(lora.name);
                self.text(lora.path);
                self.end_tuple(3);
            }
            ExtraKey::Multimodal { identifier, offset } => {
                self.begin_tuple(3);
                self.shared_text("mm");
                self.text(identifier);
                self.integer(offset);
                self.end_tuple(3);
            }
            ExtraKey::CacheSalt(salt) => {
                self.begin_tuple(2);
                self.shared_text("cache_salt");
                self.text(salt);
                self.end_tuple(2);
            }
            ExtraKey::PromptEmbeds(digest) => {
                self.begin_tuple(2);
                self.shared_text("prompt_embeds");
                self.bytes(digest);
                self.end_tuple(2);
            }
        }
    }

    fn stop(mut self) {
        self.write(&[STOP]);
        self.close_frame();
    }
}
