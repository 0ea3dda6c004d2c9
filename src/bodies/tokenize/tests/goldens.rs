//! Chats as vLLM itself makes their prompts: see `make goldens`, which captures `expected.json`.

use super::tokenizers_of::{Made, added, families, tokenizer_json};
use crate::tokenize::clock::strftime;
use crate::tokenize::{ContentFormat, Model, Object};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

#[derive(Deserialize)]
struct Expected {
    content_format: ContentFormat,
    prompts: BTreeMap<String, Prompt>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Prompt {
    Made { text: String },
    Refused { refused: String },
}

/// Ours; `LLMD_CHATS` names another folder of the same form, of templates that are not ours to keep.
fn folder() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/chats");
    std::env::var_os("LLMD_CHATS").map_or(ours, PathBuf::from)
}

/// The day as a template tells it, before and after a midnight that may just have passed.
fn today() -> impl Iterator<Item = String> {
    let now = SystemTime::now();
    let told = |at| strftime("%d %b %Y", at).unwrap();
    [now, now - Duration::from_secs(60)].into_iter().map(told)
}

#[test]
fn chats_are_rendered_as_vllm_renders_them() {
    let folder = folder();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let bodies: BTreeMap<String, Object> = serde_json::from_str(&read("bodies.json")).unwrap();
    let all: BTreeMap<String, Expected> = serde_json::from_str(&read("expected.json")).unwrap();
    let special = ["<unk>", "<s>", "</s>", "<pad>"].map(|it| added(it, &[]));
    let tokenizer = tokenizer_json(&families()["gpt2"], &special, &Value::Null).to_string();
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"});
    let mut wrong = Vec::new();
    for (name, expected) in &all {
        let made = Made::of(&[
            ("tokenizer.json", tokenizer.clone()),
            ("tokenizer_config.json", config.to_string()),
            ("chat_template.jinja", read(&format!("templates/{name}.jinja"))),
        ]);
        let model = Model::load(&made.0).unwrap();
        let format = model.content_format();
        if format != Some(expected.content_format) {
            wrong.push(format!("{name} wants {format:?}, not {:?}", expected.content_format));
        }
        for (body, prompt) in &expected.prompts {
            match (model.chat_text(bodies[body].clone()), prompt) {
                (Ok(text), Prompt::Made { text: expected })
                    if today().any(|day| text == expected.replace("{today}", &day)) => {}
                (Err(_), Prompt::Refused { .. }) => {}
                (Ok(text), Prompt::Made { text: expected }) => {
                    wrong.push(format!("{name}, {body}:\n  is  {text:?}\n  not {expected:?}"));
                }
                (Ok(_), Prompt::Refused { refused }) => {
                    wrong.push(format!("{name}, {body}: vLLM says {refused}"));
                }
                (Err(error), Prompt::Made { .. }) => wrong.push(format!("{name}, {body}: {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
