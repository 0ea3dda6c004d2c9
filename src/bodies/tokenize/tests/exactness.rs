//! The tokens of the pieces are those of the whole, whatever the tokenizer and the text.

use super::tokenizers_of::{Made, added, families, tokenizer_json};
use crate::tokenize::folder::Folder;
use crate::tokenize::pieces::Pieces;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::OnceLock;

/// Added tokens that stand apart, and such as reach into each other or take blanks along.
fn plain_tokens() -> Vec<Value> {
    ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|tool|>", "[INST]"]
        .iter()
        .map(|it| added(it, &[]))
        .collect()
}

fn odd_tokens() -> Vec<Value> {
    vec![
        added("<s>", &[]),
        added("</s>", &["normalized"]),
        added("<|im_start|>", &["rstrip"]),
        added("<|im_end|>", &["lstrip"]),
        added("<|im_end|>\n", &[]),
        added("x<|tool|>", &[]),
        added("<|tool|>", &[]),
        added("[INST]", &["single_word"]),
        added("[/INST]", &[]),
        added("word", &["single_word", "plain"]),
        added("\nfn", &["plain", "normalized"]),
        added("Mask", &["lstrip"]),
        added(">>", &[]),
        added(">", &["plain"]),
        added("ａ", &["normalized"]),
    ]
}

fn all() -> &'static Vec<(String, Pieces)> {
    static ALL: OnceLock<Vec<(String, Pieces)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut made = Vec::new();
        for (name, family) in families() {
            for (kind, tokens) in [("plain", plain_tokens()), ("odd", odd_tokens())] {
                let framed = json!({"type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}});
                let json = tokenizer_json(&family, &tokens, &framed);
                let folder = Made::of(&[("tokenizer.json", json.to_string())]);
                for least in [1, 7, 40] {
                    let pieces = Pieces::new(Folder::read(&folder.0).unwrap(), 1 << 16).with_pieces_of(least);
                    made.push((format!("{name}, {kind} tokens, pieces of {least}"), pieces));
                }
            }
        }
        made
    })
}

/// Text in which everything that tokenizers look at stands beside everything else.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\n"),
        Just("\r\n"),
        Just(" "),
        Just("  "),
        Just("\t"),
        Just("\u{a0}"),
        Just("\u{3000}"),
        Just("\u{2028}"),
        Just("a"),
        Just("the"),
        Just("Word"),
        Just("word"),
        Just("fn"),
        Just("Mask"),
        Just("É"),
        Just("e\u{301}"),
        Just("\u{301}"),
        Just("\u{212b}"),
        Just("東京"),
        Just("に"),
        Just("🙂"),
        Just("1"),
        Just("2024"),
        Just("½"),
        Just("."),
        Just("!?"),
        Just("/"),
        Just("'s"),
        Just("'LL"),
        Just("▁"),
        Just("_"),
        Just("<"),
        Just(">"),
        Just("<s>"),
        Just("</s>"),
        Just("<|im_start|>"),
        Just("<|im_end|>"),
        Just("<|im_"),
        Just("<|tool|>"),
        Just("x"),
        Just("[INST]"),
        Just("[/INST]"),
        Just("ａ"),
        Just("\0"),
    ];
    let known = proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat());
    prop_oneof![4 => known, 1 => "\\PC{0,60}", 1 => "(\\PC|\n|[a-z]){0,60}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_tokens_of_the_pieces_are_those_of_the_whole(text in any_text(), more in any_text()) {
        for (name, pieces) in all() {
            let whole = format!("{text}{more}");
            // What is known when the second one comes is of the first.
            for text in [&text, &whole, &whole] {
                for special in [false, true] {
                    let encoded = pieces.encode(text, special).unwrap();
                    prop_assert_eq!(
                        &encoded.ids, &pieces.plain(text, special), "{}: {:?}", name, pieces.cut(text)
                    );
                }
            }
            prop_assert_eq!(pieces.unknown_bytes(&whole), 0);
        }
    }
}

#[test]
fn texts_are_cut_before_tokens_and_at_lines_where_that_is_certain() {
    let cuts = |wanted: &str, text: &str| {
        let (_, pieces) = all().iter().find(|(name, _)| name == wanted).unwrap();
        pieces.cut(text)
    };
    let text = "<|im_start|>user\nHello\nworld<|im_end|>\n<|im_start|>";
    for family in ["llama3", "qwen3", "gpt-oss", "deepseek"] {
        assert_eq!(
            cuts(&format!("{family}, plain tokens, pieces of 1"), text),
            ["<|im_start|>user\n", "Hello\n", "world", "<|im_end|>\n", "<|im_start|>"],
        );
    }
    for family in ["gpt2", "llama2", "gemma", "bert"] {
        assert_eq!(
            cuts(&format!("{family}, plain tokens, pieces of 1"), text),
            ["<|im_start|>user\nHello\nworld", "<|im_end|>\n", "<|im_start|>"],
        );
    }
    // A token that takes blanks before it along is no place to cut, nor is one that others reach into; and one
    // of these has a line break before a letter inside.
    assert_eq!(
        cuts("llama3, odd tokens, pieces of 1", "a<|im_end|><|im_start|><|tool|>\nb<s>[/INST]"),
        ["a<|im_end|>", "<|im_start|><|tool|>\nb", "<s>", "[/INST]"],
    );
}

#[test]
fn a_conversation_that_grows_is_known_up_to_its_end() {
    let (_, pieces) = all().iter().find(|(name, _)| name.starts_with("gpt2, plain")).unwrap();
    let mut talk = String::new();
    for turn in 0..20 {
        talk.push_str(&format!("<|im_start|>user\nTurn {turn} of the talk that grows.<|im_end|>"));
        let open = format!("{talk}<|im_start|>assistant\n");
        let encoded = pieces.encode(&open, false).unwrap();
        let new =
            "<|im_start|>user\nTurn 10 of the talk that grows.<|im_end|><|im_start|>assistant\n"
                .len();
        assert!(encoded.text_bytes - encoded.known_bytes <= new, "turn {turn}: {encoded:?}");
    }
}
