//! Where a text may be cut so that the tokens of its parts, one after the other, are those of the whole.
//!
//! Two kinds of places are certain:
//!
//! - Before a special token that stands in the text as it is. Tokenizers look for added tokens first, in the
//!   text as it was given, the leftmost and of those the longest; what is between two of them is normalised and
//!   split without a look at what is outside. A cut before one is safe if no other added token can reach over
//!   its beginning, and if it takes no blanks to its sides. Chat templates put such a token at every turn.
//! - Between a line break and an ASCII letter, if the tokenizer splits text by a regular expression each of
//!   whose alternatives is known not to match across such a place, nor to match otherwise before it for what
//!   comes after it. Those of most models of the last years are: see [`SAFE`].
//!
//! Anywhere else a token of the whole text may reach over the place, or the text before it be split otherwise
//! for what comes after: there is no cut.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;
use tokenizers::AddedToken;

/// Alternatives of pre-tokenizers that are safe around a line break before an ASCII letter: no match has one of
/// these beside the other, and none that ends before it looks at what comes after, except at the last blank of a
/// run, which ends with the line break and is [`LINE_BREAKS`]'s.
const SAFE: [&str; 20] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"'(?i:[sdmt]|ll|ve|re)",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"\p{N}{1,3}",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    LINE_BREAKS,
    r"\s+(?!\S)",
    r"\s+",
    r"[一-龥぀-ゟ゠-ヿ]+",
];
/// Takes a run of blanks up to its last line break; without it the run is split otherwise before a letter than at
/// the end of a text.
const LINE_BREAKS: &str = r"\s*[\r\n]+";

/// Finds the cuts of one tokenizer.
pub(super) struct Boundaries {
    /// Added tokens before which a text may be cut.
    tokens: Option<AhoCorasick>,
    after_line_breaks: bool,
}

impl Boundaries {
    /// The cuts that are certain for a tokenizer with these added tokens, and this `tokenizer.json`.
    pub(super) fn of(added: &[AddedToken], pipeline: &Pipeline) -> Self {
        let raw: Vec<&AddedToken> = added.iter().filter(|it| !it.normalized).collect();
        let clean: Vec<&str> =
            raw.iter().filter(|it| is_clean(it, &raw)).map(|it| it.content.as_str()).collect();
        let tokens = (!clean.is_empty())
            .then(|| {
                AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(clean).ok()
            })
            .flatten();
        let after_line_breaks =
            pipeline.splits_at_lines() && added.iter().all(leaves_line_breaks_alone);
        Self { tokens, after_line_breaks }
    }

    /// The first cut of `text` at or after `from`, where there is one. `ahead` is kept from call to call for the
    /// same text, with `from` never smaller than before.
    pub(super) fn next(&self, text: &str, from: usize, ahead: &mut Ahead) -> Option<usize> {
        if ahead.token.is_none_or(|token| token < from) && !ahead.no_more_tokens {
            let found = self.tokens.as_ref().and_then(|tokens| {
                tokens.find(aho_corasick::Input::new(text).range(from..)).map(|found| found.start())
            });
            (ahead.token, ahead.no_more_tokens) = (found, found.is_none());
        }
        let until = ahead.token;
        let line = self.after_line_breaks.then(|| line_start(text, from, until)).flatten();
        line.or(until)
    }
}

/// What was found ahead of the last cut.
#[derive(Default)]
pub(super) struct Ahead {
    token: Option<usize>,
    no_more_tokens: bool,
}

/// The first place at or after `from`, and before `until`, between a line break and an ASCII letter.
fn line_start(text: &str, from: usize, until: Option<usize>) -> Option<usize> {
    let bytes = &text.as_bytes()[..until.unwrap_or(text.len())];
    let searched = bytes.get(from.saturating_sub(1)..)?;
    let start = from.saturating_sub(1);
    memchr::memchr_iter(b'\n', searched)
        .map(|at| start + at + 1)
        .find(|&at| at >= from && bytes.get(at).is_some_and(u8::is_ascii_alphabetic))
}

/// Whether every occurrence of a token in a text is found as that token, whatever is around it, and takes nothing
/// of it along.
fn is_clean(token: &AddedToken, all: &[&AddedToken]) -> bool {
    let content = token.content.as_str();
    let starts_well = content
        .chars()
        .next()
        .is_some_and(|it| !it.is_whitespace() && !it.is_alphanumeric() && it != '_');
    if token.lstrip || token.single_word || !starts_well {
        return false;
    }
    all.iter().all(|other| {
        let other = other.content.as_str();
        // A longer one that begins with it would be found instead.
        let is_longest = other == content || !other.starts_with(content);
        // One that begins before it and reaches into it would be found before.
        let reaches_in = (1..other.len()).filter(|&at| other.is_char_boundary(at)).any(|at| {
            let end = &other[at..];
            end.starts_with(content) || content.starts_with(end)
        });
        is_longest && !reaches_in
    })
}

/// Whether a token neither reaches over the place between a line break and a letter, nor takes a line break before
/// it along.
fn leaves_line_breaks_alone(token: &AddedToken) -> bool {
    let bytes = token.content.as_bytes();
    let over = bytes.windows(2).any(|it| it[0] == b'\n' && it[1].is_ascii_alphabetic());
    let begins_with_letter = bytes.first().is_some_and(u8::is_ascii_alphabetic);
    !(over || token.lstrip && begins_with_letter)
}

/// The part of `tokenizer.json` that says how text is split.
#[derive(Deserialize)]
pub(super) struct Pipeline {
    #[serde(default)]
    normalizer: Option<Kind>,
    #[serde(default)]
    pre_tokenizer: Option<PreTokenizer>,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
    Split {
        pattern: Pattern,
        behavior: String,
        #[serde(default)]
        invert: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum Pattern {
    Regex(String),
    String(serde::de::IgnoredAny),
}

fn yes() -> bool {
    true
}

impl Pipeline {
    fn splits_at_lines(&self) -> bool {
        // NFC changes nothing at an ASCII letter nor at a line break.
        let is_normalized = self.normalizer.as_ref().is_none_or(|it| it.r#type == "NFC");
        let steps = match &self.pre_tokenizer {
            Some(PreTokenizer::Sequence { pretokenizers }) => pretokenizers.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => return false,
        };
        let has_lines = steps.iter().any(|it| {
            matches!(it, PreTokenizer::Split { pattern: Pattern::Regex(it), .. }
                if alternatives(it).contains(&LINE_BREAKS))
        });
        is_normalized && has_lines && steps.iter().all(PreTokenizer::is_safe)
    }
}

impl PreTokenizer {
    fn is_safe(&self) -> bool {
        match self {
            Self::Split { pattern: Pattern::Regex(it), behavior, invert } => {
                let alternatives = alternatives(it);
                let position = |wanted| alternatives.iter().position(|it| *it == wanted);
                let is_in_order = match (position(LINE_BREAKS), position(r"\s+(?!\S)")) {
                    (Some(lines), Some(blanks)) => lines < blanks,
                    (None, Some(_)) => false,
                    (_, None) => true,
                };
                behavior == "Isolated"
                    && !invert
                    && is_in_order
                    && alternatives.iter().all(|it| SAFE.contains(it))
            }
            Self::ByteLevel { add_prefix_space, use_regex } => !add_prefix_space && !use_regex,
            Self::Split { .. } | Self::Sequence { .. } | Self::Other => false,
        }
    }
}

/// The alternatives of a regular expression at its outermost level.
fn alternatives(regex: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start, mut is_escaped) = (Vec::new(), 0, 0, false);
    for (at, letter) in regex.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => {
                found.push(&regex[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&regex[start..]);
    found
}
