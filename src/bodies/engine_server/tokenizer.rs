//! Text as tokens, without a vocabulary file: every token is spelled by a rule, about four bytes
//! of English each.
//!
//! | ids | spell |
//! |---|---|
//! | 0 to 15 | specials: padding, the frame of a chat; no text spells them |
//! | 16 to 271 | one byte |
//! | 272 to 286 | 2 to 16 spaces |
//! | 287 to 2,506 | one to three digits, with or without a space before them |
//! | 2,507 to 1,903,522 | one to four ASCII letters, of which only the first may be a capital, with or without a space before them |
//!
//! Encoding is greedy from left to right, so it is a function of the text, and decoding gives the
//! text back byte for byte. A space that precedes a word or number belongs to it: that is why
//! text that ends in a whole word can be continued by `" word"` without the tokens before it
//! changing, which is what keeps the prefix of a growing conversation cached.

/// Ends a turn; the model emits it where it ends by itself.
pub const END_OF_TURN: u32 = 2;
/// Opens a prompt.
pub const BEGIN: u32 = 1;

const BYTES: u32 = 16;
const SPACES: u32 = BYTES + 256;
const NUMBERS: u32 = SPACES + 15;
const NUMBERS_OF_A_KIND: u32 = 10 + 100 + 1_000;
const WORDS: u32 = NUMBERS + 2 * NUMBERS_OF_A_KIND;
const WORDS_OF_A_KIND: u32 = 26 + 676 + 17_576 + 456_976;
/// Tokens that there are: ids are below this.
pub const VOCABULARY: u32 = WORDS + 4 * WORDS_OF_A_KIND;

const MAX_DIGITS: usize = 3;
const MAX_LETTERS: usize = 4;
const MAX_SPACES: usize = 16;

/// Appends the tokens of `text`.
pub fn encode(text: &str, out: &mut Vec<u32>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b' ' {
            at += word(&bytes[at..], false, out);
            continue;
        }
        let spaces = bytes[at..].iter().take_while(|&&byte| byte == b' ').count();
        at += spaces;
        let joins = bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        blank(spaces - usize::from(joins), out);
        if joins {
            at += word(&bytes[at..], true, out);
        }
    }
}

/// Appends the text of `tokens`, which need not be UTF-8. Specials and ids out of the vocabulary
/// have none.
pub fn decode(tokens: &[u32], out: &mut Vec<u8>) {
    tokens.iter().for_each(|&token| spell(token, out));
}

/// The text of `tokens`, with a replacement character for what is not UTF-8.
#[must_use]
pub fn decode_lossy(tokens: &[u32]) -> String {
    let mut bytes = Vec::new();
    decode(tokens, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The token of at most four letters, the first of which may be a capital; what does not fit a
/// token is left out.
#[must_use]
pub fn word_token(letters: &[u8], after_space: bool) -> u32 {
    let capital = letters.first().is_some_and(u8::is_ascii_uppercase);
    let letters = &letters[..letters.len().min(MAX_LETTERS)];
    let value = letters.iter().fold(0, |value, letter| {
        value * 26 + u32::from(letter.to_ascii_lowercase().saturating_sub(b'a'))
    });
    let shorter: u32 = (1..letters.len() as u32).map(|length| 26u32.pow(length)).sum();
    let kind = 2 * u32::from(after_space) + u32::from(capital);
    WORDS + kind * WORDS_OF_A_KIND + shorter + value
}

/// Appends the token that begins `bytes`, and says how many bytes it took.
fn word(bytes: &[u8], after_space: bool, out: &mut Vec<u32>) -> usize {
    let Some(&first) = bytes.first() else { return 0 };
    if first.is_ascii_digit() {
        let digits = run(bytes, MAX_DIGITS, u8::is_ascii_digit);
        let value = bytes[..digits].iter().fold(0, |value, d| value * 10 + u32::from(d - b'0'));
        let shorter: u32 = (1..digits as u32).map(|length| 10u32.pow(length)).sum();
        out.push(NUMBERS + u32::from(after_space) * NUMBERS_OF_A_KIND + shorter + value);
        digits
    } else if first.is_ascii_alphabetic() {
        let letters = 1 + run(&bytes[1..], MAX_LETTERS - 1, u8::is_ascii_lowercase);
        out.push(word_token(&bytes[..letters], after_space));
        letters
    } else {
        out.push(BYTES + u32::from(first));
        1
    }
}

fn run(bytes: &[u8], most: usize, is: impl Fn(&u8) -> bool) -> usize {
    bytes.iter().take(most).take_while(|byte| is(byte)).count()
}

fn blank(mut spaces: usize, out: &mut Vec<u32>) {
    while spaces > 1 {
        let taken = spaces.min(MAX_SPACES);
        out.push(SPACES + taken as u32 - 2);
        spaces -= taken;
    }
    if spaces == 1 {
        out.push(BYTES + u32::from(b' '));
    }
}

fn spell(token: u32, out: &mut Vec<u8>) {
    match token {
        BYTES..SPACES => out.push((token - BYTES) as u8),
        SPACES..NUMBERS => out.resize(out.len() + (token - SPACES) as usize + 2, b' '),
        NUMBERS..WORDS => {
            let (kind, rest) = split(token - NUMBERS, NUMBERS_OF_A_KIND);
            spell_digits(rest, 10, kind == 1, |digit| b'0' + digit, out);
        }
        WORDS..VOCABULARY => {
            let (kind, rest) = split(token - WORDS, WORDS_OF_A_KIND);
            let start = out.len() + usize::from(kind >= 2);
            spell_digits(rest, 26, kind >= 2, |letter| b'a' + letter, out);
            if kind % 2 == 1 {
                out[start].make_ascii_uppercase();
            }
        }
        _ => {}
    }
}

fn split(value: u32, by: u32) -> (u32, u32) {
    (value / by, value % by)
}

/// The inverse of "shorter ones first, then by value": `rest` in `base`, of the length it tells.
fn spell_digits(
    mut rest: u32,
    base: u32,
    after_space: bool,
    letter: impl Fn(u8) -> u8,
    out: &mut Vec<u8>,
) {
    let mut length = 1;
    while rest >= base.pow(length) {
        rest -= base.pow(length);
        length += 1;
    }
    if after_space {
        out.push(b' ');
    }
    for position in (0..length).rev() {
        out.push(letter((rest / base.pow(position) % base) as u8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        encode(text, &mut tokens);
        tokens
    }

    fn pieces(text: &str) -> Vec<String> {
        encoded(text).into_iter().map(|token| decode_lossy(&[token])).collect()
    }

    #[test]
    fn words_numbers_and_spaces_are_cut_as_stated() {
        assert_eq!(pieces("Hello world"), ["Hell", "o", " worl", "d"]);
        assert_eq!(pieces("  if x1234==05:"), [" ", " if", " x", "123", "4", "=", "=", "05", ":"]);
        assert_eq!(pieces("HTTP é"), ["H", "T", "T", "P", " ", "\u{fffd}", "\u{fffd}"]);
        assert_eq!(pieces(&" ".repeat(19)), [" ".repeat(16), " ".repeat(3)]);
        assert_eq!(pieces("a  "), ["a", "  "]);
        assert!(encoded("").is_empty());
    }

    #[test]
    fn english_has_about_four_bytes_a_token() {
        let text = "The router keeps a model of what every engine holds, and sends each request to \
                    the engine that can answer it soonest.";
        let ratio = text.len() as f64 / encoded(text).len() as f64;
        assert!((3.0..4.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_edges_of_the_vocabulary_decode() {
        let edges = [BYTES, SPACES, NUMBERS, WORDS, VOCABULARY];
        let texts: Vec<String> = edges.iter().map(|&edge| decode_lossy(&[edge])).collect();
        assert_eq!(texts, ["\0", "  ", "0", "a", ""]);
        let before: Vec<String> = edges.iter().map(|&edge| decode_lossy(&[edge - 1])).collect();
        assert_eq!(before, ["", "\u{fffd}", &" ".repeat(16), " 999", " Zzzz"]);
    }

    proptest! {
        #[test]
        fn decoding_gives_the_text_back(text in "([ a-zA-Z0-9]|\\PC|\n){0,60}") {
            let tokens = encoded(&text);
            prop_assert!(tokens.iter().all(|&token| (BYTES..VOCABULARY).contains(&token)));
            prop_assert_eq!(decode_lossy(&tokens), text);
        }

        #[test]
        fn every_token_has_its_own_spelling(token in BYTES..VOCABULARY) {
            let mut bytes = Vec::new();
            decode(&[token], &mut bytes);
            if let Ok(text) = String::from_utf8(bytes) {
                let again = encoded(&text);
                // A digit or letter that a rule spells is not spelled as a byte.
                let canonical = token >= SPACES || !text.as_bytes()[0].is_ascii_alphanumeric();
                prop_assert_eq!(again == [token], canonical);
            }
        }

        #[test]
        fn a_word_after_a_space_leaves_what_is_before_as_it_was(
            text in "([ a-zA-Z0-9]|\\PC|\n){0,40}",
            letters in "[a-z]{1,4}",
        ) {
            let mut expected = encoded(&text);
            expected.push(word_token(letters.as_bytes(), true));
            prop_assert_eq!(encoded(&format!("{text} {letters}")), expected);
        }
    }
}
