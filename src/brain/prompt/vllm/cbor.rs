//! Canonical CBOR (RFC 8949, section 4.2.1: shortest heads, definite lengths) of the values that
//! vLLM hashes.

use super::ExtraKey;

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const NULL: u8 = 0xF6;

/// Appends a string.
pub fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends `(parent, tokens, extra or None)`.
pub fn block(out: &mut Vec<u8>, parent: &[u8], tokens: &[u32], extra: &[ExtraKey<'_>]) {
    head(out, ARRAY, 3);
    bytes(out, parent);
    head(out, ARRAY, tokens.len() as u64);
    for &token in tokens {
        head(out, UNSIGNED, u64::from(token));
    }
    if extra.is_empty() {
        out.push(NULL);
        return;
    }
    head(out, ARRAY, extra.len() as u64);
    for key in extra {
        extra_key(out, key);
    }
}

fn extra_key(out: &mut Vec<u8>, key: &ExtraKey<'_>) {
    match *key {
        ExtraKey::Lora(lora) => {
            head(out, ARRAY, 3);
            text(out, "lora");
            text(out, lora.name);
            text(out, lora.path);
        }
        ExtraKey::Multimodal { identifier, offset } => {
            head(out, ARRAY, 3);
            text(out, "mm");
            text(out, identifier);
            integer(out, offset);
        }
        ExtraKey::CacheSalt(salt) => {
            head(out, ARRAY, 2);
            text(out, "cache_salt");
            text(out, salt);
        }
        ExtraKey::PromptEmbeds(digest) => {
            head(out, ARRAY, 2);
            text(out, "prompt_embeds");
            bytes(out, digest);
        }
    }
}

fn integer(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        head(out, UNSIGNED, value.cast_unsigned());
    } else {
        head(out, NEGATIVE, (-1 - value).cast_unsigned());
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Major type and argument in the fewest bytes.
#[inline]
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    if argument < 24 {
        out.push(major | argument as u8);
    } else if let Ok(argument) = u8::try_from(argument) {
        out.extend_from_slice(&[major | 24, argument]);
    } else if let Ok(argument) = u16::try_from(argument) {
        let [a, b] = argument.to_be_bytes();
        out.extend_from_slice(&[major | 25, a, b]);
    } else if let Ok(argument) = u32::try_from(argument) {
        let [a, b, c, d] = argument.to_be_bytes();
        out.extend_from_slice(&[major | 26, a, b, c, d]);
    } else {
        out.push(major | 27);
        out.extend_from_slice(&argument.to_be_bytes());
    }
}
