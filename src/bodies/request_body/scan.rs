//! JSON from front to back, of which the end may be missing.
//!
//! Not a parser: what is passed over is not checked, so that a text without errors is read as any
//! parser reads it, and one with some is read as far as it can be. No call goes deeper than the one
//! before, whatever the text nests; every call but the last moves on or stops.

use memchr::{memchr2, memchr3};
use std::ops::Range;

/// The text ended, or is none that JSON can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop;

/// A position in a text.
#[derive(Debug, Clone)]
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
}

/// A string as it stands between its quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw<'a> {
    text: &'a str,
    /// Whether its closing quote is there.
    is_whole: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes before the position.
    pub(super) fn read_bytes(&self) -> usize {
        self.at
    }

    /// Passes over a value, and says where it stood.
    pub(super) fn passed(&mut self) -> Result<Range<usize>, Stop> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Ok(start..self.at)
    }

    /// The next byte that is no white space.
    pub(super) fn peek(&mut self) -> Result<u8, Stop> {
        while let Some(&byte) = self.text.as_bytes().get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Stop)
    }

    /// Passes over `wanted` where it is next.
    pub(super) fn take(&mut self, wanted: u8) -> Result<bool, Stop> {
        let is_next = self.peek()? == wanted;
        self.at += usize::from(is_next);
        Ok(is_next)
    }

    fn need(&mut self, wanted: u8) -> Result<(), Stop> {
        if self.take(wanted)? { Ok(()) } else { Err(Stop) }
    }

    /// After the opening bracket of an object: calls `field` with the name of each, which reads the
    /// value. Ends after the closing one.
    pub(super) fn fields(
        &mut self,
        mut field: impl FnMut(&mut Self, Raw<'a>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.need(b'{')?;
        if self.take(b'}')? {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.need(b':')?;
            self.peek()?;
            field(self, name)?;
            if !self.take(b',')? {
                return self.need(b'}');
            }
            self.peek()?;
        }
    }

    /// The same for an array, whose items have no names.
    pub(super) fn items(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.need(b'[')?;
        if self.take(b']')? {
            return Ok(());
        }
        loop {
            self.peek()?;
            item(self)?;
            if !self.take(b',')? {
                return self.need(b']');
            }
        }
    }

    /// A whole string.
    pub(super) fn string(&mut self) -> Result<Raw<'a>, Stop> {
        let raw = self.string_so_far()?;
        if raw.is_whole { Ok(raw) } else { Err(Stop) }
    }

    /// A string, or as much of it as is there.
    pub(super) fn string_so_far(&mut self) -> Result<Raw<'a>, Stop> {
        self.need(b'"')?;
        let start = self.at;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            match memchr2(b'"', b'\\', rest) {
                Some(found) if rest[found] == b'"' => {
                    let text = &self.text[start..self.at + found];
                    self.at += found + 1;
                    return Ok(Raw { text, is_whole: true });
                }
                // The byte after the backslash is of the escape, unless the text ends with it.
                Some(found) if found + 2 <= rest.len() => self.at += found + 2,
                _ => {
                    self.at = self.text.len();
                    return Ok(Raw { text: &self.text[start..], is_whole: false });
                }
            }
        }
    }

    /// A whole number, between 0 and the most that a `u32` holds; one that is cut off is none.
    pub(super) fn integer(&mut self) -> Result<u32, Stop> {
        self.peek()?;
        let bytes = self.text.as_bytes();
        let mut value = 0u64;
        let start = self.at;
        while let Some(digit) = bytes.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            value = value * 10 + u64::from(digit - b'0');
            if value > u64::from(u32::MAX) {
                return Err(Stop);
            }
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(b'.' | b'e' | b'E') | None => Err(Stop),
            Some(_) if self.at == start => Err(Stop),
            Some(_) => Ok(value as u32),
        }
    }

    /// Passes over any value, and returns it as it stands there.
    pub(super) fn skip(&mut self) -> Result<&'a str, Stop> {
        self.peek()?;
        let start = self.at;
        let mut open = 0u32;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    self.at += 1;
                    open += 1;
                }
                b'}' | b']' if open > 0 => {
                    self.at += 1;
                    open -= 1;
                }
                b',' | b':' if open > 0 => {
                    self.at += 1;
                    continue;
                }
                b'}' | b']' | b',' | b':' => return Err(Stop),
                _ => self.scalar()?,
            }
            if open == 0 {
                return Ok(&self.text[start..self.at]);
            }
            self.seek_bracket()?;
        }
    }

    /// Inside brackets, to the next thing that matters to their count.
    fn seek_bracket(&mut self) -> Result<(), Stop> {
        let rest = &self.text.as_bytes()[self.at..];
        let quote_or_end = memchr3(b'"', b']', b'}', rest).ok_or(Stop)?;
        let opening = memchr2(b'[', b'{', &rest[..quote_or_end]);
        self.at += opening.unwrap_or(quote_or_end);
        Ok(())
    }

    /// A number or a word, which something has to follow.
    fn scalar(&mut self) -> Result<(), Stop> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        self.at += rest.iter().position(is_end).ok_or(Stop)?;
        Ok(())
    }
}

impl Raw<'_> {
    /// Whether its closing quote is there.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it is `name`, which has nothing to escape. Whoever writes it with escapes all the same means
    /// the same field, to an engine: it must not be another one here.
    pub(super) fn is(&self, name: &str) -> bool {
        self.text == name
            || self.text.len() > name.len()
                && memchr::memchr(b'\\', self.text.as_bytes()).is_some()
                && self.to_text() == name
    }

    /// Appends what it stands for. Half of a surrogate pair becomes U+FFFD, an escape that is cut off
    /// or none is left out.
    pub(super) fn push_to(&self, out: &mut String) {
        let mut rest = self.text;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            out.push_str(&rest[..at]);
            rest = escape(&rest[at..], out);
        }
        out.push_str(rest);
    }

    /// What it stands for.
    pub(super) fn to_text(self) -> String {
        let mut text = String::with_capacity(self.text.len());
        self.push_to(&mut text);
        text
    }
}

/// Appends what the escape at the front of `text` stands for; returns what follows it.
fn escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let Some(&kind) = text.as_bytes().get(1) else { return "" };
    out.push(match kind {
        b'"' | b'\\' | b'/' => kind as char,
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            // What is too short for digits is the end of what is there.
            let Some((first, rest)) = unit(&text[2..]) else { return after(text, 6) };
            let second = match (first, rest.strip_prefix("\\u")) {
                (0xd800..0xdc00, Some(low)) => {
                    unit(low).filter(|(it, _)| (0xdc00..0xe000).contains(it))
                }
                _ => None,
            };
            let (code, rest) = match second {
                Some((low, rest)) => (0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00), rest),
                None => (first, rest),
            };
            out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            return rest;
        }
        // The backslash is no escape; what follows stands for itself.
        _ => return after(text, 1),
    });
    after(text, 2)
}

/// The four hexadecimal digits at the front of `text`, and what follows them.
fn unit(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4).filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, &text[4..]))
}

fn after(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}
