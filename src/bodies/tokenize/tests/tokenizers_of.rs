//! Tokenizers as those of known families of models are built, trained on this crate's own sources.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{ModelWrapper, PreTokenizerWrapper, Tokenizer, models::TrainerWrapper};

/// Llama 3, and with `{1,3}` left out Qwen 2 and 3.
pub const LINES_APART: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-4o and gpt-oss.
pub const CASES_APART: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek V3: the last of three.
pub const SIGNS_APART: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const CORPUS: [&str; 4] = [
    include_str!("../messages.rs"),
    include_str!("../boundaries.rs"),
    include_str!("../../request_body/tests.rs"),
    "Ünïcödé — naïve café, 東京都 に 行きました。 🙂👍🏽 Привет, мир! e\u{301}a\u{308} \u{212b} ½ ﬁ ①\r\n\r\n\t",
];

/// The part of `tokenizer.json` that a family is known by.
pub fn families() -> BTreeMap<&'static str, Value> {
    let bytes = |add_prefix_space: bool, use_regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
               "use_regex": use_regex})
    };
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let steps = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
    BTreeMap::from([
        ("llama3", json!({"pre_tokenizer": steps(vec![split(LINES_APART), bytes(false, false)])})),
        (
            "qwen3",
            json!({
                "normalizer": {"type": "NFC"},
                "pre_tokenizer": steps(vec![split(&LINES_APART.replace("{1,3}", "")), bytes(false, false)]),
            }),
        ),
        ("gpt-oss", json!({"pre_tokenizer": steps(vec![split(CASES_APART), bytes(false, false)])})),
        (
            "deepseek",
            json!({"pre_tokenizer": steps(vec![
                split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(SIGNS_APART), bytes(false, false),
            ])}),
        ),
        ("gpt2", json!({"pre_tokenizer": bytes(false, true)})),
        ("gpt2-space", json!({"pre_tokenizer": bytes(true, true)})),
        (
            "llama2",
            json!({
                "normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ]},
            }),
        ),
        (
            "metaspace",
            json!({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                                     "split": true}}),
        ),
        (
            "gemma",
            json!({
                "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                                  "behavior": "MergedWithPrevious", "invert": false},
            }),
        ),
        (
            "bert",
            json!({
                "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                               "strip_accents": null, "lowercase": true},
                "pre_tokenizer": {"type": "BertPreTokenizer"},
            }),
        ),
    ])
}

/// An added token as `tokenizer.json` has it.
pub fn added(content: &str, flags: &[&str]) -> Value {
    let has = |flag: &str| flags.contains(&flag);
    json!({"content": content, "single_word": has("single_word"), "lstrip": has("lstrip"),
           "rstrip": has("rstrip"), "normalized": has("normalized"), "special": !has("plain")})
}

/// A `tokenizer.json`: of a family, with these added tokens.
pub fn tokenizer_json(family: &Value, added: &[Value], post_processor: &Value) -> Value {
    let mut tokenizer = Tokenizer::new(ModelWrapper::BPE(BPE::default()));
    if let Some(it) = family.get("pre_tokenizer") {
        let it: PreTokenizerWrapper = serde_json::from_value(it.clone()).unwrap();
        tokenizer.with_pre_tokenizer(Some(it));
    }
    let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
    let trainer = BpeTrainer::builder()
        .vocab_size(1_500)
        .show_progress(false)
        .initial_alphabet(alphabet.into_iter().collect())
        .build();
    tokenizer
        .train(
            &mut TrainerWrapper::BpeTrainer(trainer),
            CORPUS.iter().flat_map(|it| it.split_inclusive('.')),
        )
        .unwrap();
    let mut whole = serde_json::to_value(&tokenizer).unwrap();
    for (name, it) in family.as_object().unwrap() {
        whole[name] = it.clone();
    }
    let first = whole["model"]["vocab"].as_object().unwrap().len();
    let numbered = added.iter().enumerate().map(|(at, it)| {
        let mut it = it.clone();
        it["id"] = json!(first + at);
        it
    });
    whole["added_tokens"] = numbered.collect();
    whole["post_processor"] = post_processor.clone();
    whole
}

/// A folder of its own, gone with the value.
pub struct Made(pub PathBuf);

impl Made {
    pub fn of(files: &[(&str, String)]) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("llmd-tokenize-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}
