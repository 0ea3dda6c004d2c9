//! A model's folder as Hugging Face lays it out, read as `transformers` 5 reads it for vLLM.
//!
//! Read are `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `config.json`,
//! `chat_template.jinja` and `chat_template.json`; all but the first may be missing.
//!
//! Not here: the classes of `transformers` that build a tokenizer anew from the vocabulary of `tokenizer.json`,
//! for which what that file says of splitting and normalising has to be what the class does; it is, in files that
//! `transformers` wrote.

use super::boundaries::Pipeline;
use super::error::LoadError;
use super::json::{Json, Object};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// The names of special tokens that every tokenizer may have.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Architectures whose chats vLLM renders by code of its own.
const RENDERED_BY_CODE: [&str; 8] = [
    "MoonshotKimiaForCausalLM",
    "KimiK3ForConditionalGeneration",
    "DeepseekV32ForCausalLM",
    "DeepseekV4ForCausalLM",
    "DeepseekV4ForConditionalGeneration",
    "DeepseekV41ForCausalLM",
    "InklingForCausalLM",
    "GptOssForCausalLM",
];

/// What a folder says.
pub(super) struct Folder {
    pub tokenizer: Tokenizer,
    pub pipeline: Pipeline,
    /// What the template may call by name: `bos_token` and the like.
    pub special_tokens: Vec<(String, String)>,
    pub templates: Templates,
    /// Tokens before and after a text, where `tokenizer_config.json` says so rather than `tokenizer.json`.
    pub frame: Option<Frame>,
}

/// What goes around a text that gets special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

/// The templates for chats.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Templates {
    /// None, or none that is used; with whose fault it is.
    None(String),
    /// For chats, and for chats with tools where that differs.
    Some { default: String, tools: Option<String> },
}

impl Folder {
    pub(super) fn read(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("tokenizer.json");
        let text = read(&path)?;
        let damaged = |what: String| LoadError::Damaged { path: path.clone(), what };
        let mut tokenizer: Tokenizer =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let pipeline: Pipeline =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if let tokenizers::ModelWrapper::BPE(model) = tokenizer.get_model()
            && model.dropout.is_some_and(|it| it > 0.0)
        {
            return Err(LoadError::Unlike { path, what: "it drops merges at random" });
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| damaged(error.to_string()))?;

        let config_path = folder.join("tokenizer_config.json");
        let config = object(&config_path)?.unwrap_or_default();
        if config.get("fix_mistral_regex") == Some(&Json::Bool(true)) {
            let what =
                "fix_mistral_regex has the engine split text otherwise than tokenizer.json says";
            return Err(LoadError::Unlike { path: config_path, what });
        }
        let special = Special::read(folder, &config_path, &config)?;
        let added = |error: tokenizers::Error| damaged(error.to_string());
        tokenizer.add_tokens(special.added).map_err(added)?;
        tokenizer.add_special_tokens(special.extra).map_err(added)?;
        let frame = frame(&tokenizer, &config, &special.names);
        let templates = templates(folder, &config)?;
        Ok(Self { tokenizer, pipeline, special_tokens: special.names, templates, frame })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

fn text(path: &Path) -> Result<Option<String>, LoadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path: path.to_owned(), source }),
    }
}

/// The object that a file has, where there is one.
fn object(path: &Path) -> Result<Option<Object>, LoadError> {
    let Some(text) = text(path)? else { return Ok(None) };
    let damaged = |what: String| LoadError::Damaged { path: path.to_owned(), what };
    // Lengths of "any size" are written there as numbers that nobody asks for.
    let loose: Loose = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(loose.0))
}

/// An object without the values that [`Json`] refuses.
struct Loose(Object);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = indexmap::IndexMap::<String, Box<serde_json::value::RawValue>>::deserialize(
            deserializer,
        )?;
        let known = fields.into_iter().filter_map(|(name, raw)| {
            Json::read(raw.get().as_bytes()).ok().map(|value| (name, value))
        });
        Ok(Self(known.collect()))
    }
}

/// The special tokens that the files beside `tokenizer.json` tell of.
struct Special {
    /// What `tokenizer.json` need not have, or not with these flags.
    added: Vec<AddedToken>,
    extra: Vec<AddedToken>,
    names: Vec<(String, String)>,
}

impl Special {
    fn read(folder: &Path, config_path: &Path, config: &Object) -> Result<Self, LoadError> {
        let mut config = config.clone();
        let mut listed = BTreeMap::new();
        if let Some(Json::Object(decoder)) = config.get("added_tokens_decoder") {
            for (id, token) in decoder {
                let damaged =
                    |what: String| LoadError::Damaged { path: config_path.to_owned(), what };
                let id: u32 = id
                    .parse()
                    .map_err(|_| damaged(format!("added_tokens_decoder: {id:?} is no token id")))?;
                let token = added_token(token)
                    .ok_or_else(|| damaged(format!("added_tokens_decoder: {id} is no token")))?;
                listed.insert(id, token);
            }
        } else if let Some(older) = object(&folder.join("special_tokens_map.json"))? {
            config.extend(older);
        }
        let by_content = |content: &str| listed.values().find(|it| it.content == content).cloned();
        let mut names = Vec::new();
        let mut extra = Vec::new();
        let mut name = |name: &str, value: &Json, extra: &mut Vec<AddedToken>| {
            let Some(content) = content(value) else { return };
            names.push((name.to_owned(), content.to_owned()));
            let flags = by_content(content).or_else(|| added_token(value));
            extra.extend(flags.or_else(|| Some(AddedToken::from(content, true))));
        };
        for key in NAMED {
            if let Some(value) = config.get(key) {
                name(key, value, &mut extra);
            }
        }
        for (key, value) in &config {
            if key.ends_with("_token") && !NAMED.contains(&key.as_str()) && content(value).is_some()
            {
                name(key, value, &mut extra);
            }
        }
        match config.get("extra_special_tokens").or_else(|| config.get("additional_special_tokens"))
        {
            Some(Json::Object(tokens)) => {
                tokens.iter().for_each(|(key, value)| name(key, value, &mut extra));
            }
            Some(Json::Array(tokens)) => extra.extend(tokens.iter().filter_map(|token| {
                let content = content(token)?;
                by_content(content)
                    .or_else(|| added_token(token))
                    .or_else(|| Some(AddedToken::from(content, true)))
            })),
            _ => {}
        }
        Ok(Self { added: listed.into_values().collect(), extra, names })
    }
}

/// The text of a token, which is that or an object with its flags.
fn content(token: &Json) -> Option<&str> {
    match token {
        Json::Object(fields) => fields.get("content")?.as_str(),
        other => other.as_str(),
    }
}

/// A token with its flags, where they are written.
fn added_token(token: &Json) -> Option<AddedToken> {
    let Json::Object(fields) = token else { return None };
    let flag = |name: &str| match fields.get(name) {
        Some(Json::Bool(it)) => Some(*it),
        _ => None,
    };
    let special = flag("special").unwrap_or(false);
    Some(
        AddedToken::from(content(token)?, special)
            .single_word(flag("single_word").unwrap_or(false))
            .lstrip(flag("lstrip").unwrap_or(false))
            .rstrip(flag("rstrip").unwrap_or(false))
            .normalized(flag("normalized").unwrap_or(!special)),
    )
}

/// The tokens around a text, where `tokenizer_config.json` names them.
fn frame(tokenizer: &Tokenizer, config: &Object, names: &[(String, String)]) -> Option<Frame> {
    let says = |key: &str| config.get(key).map(|it| *it == Json::Bool(true));
    let (bos, eos) = (says("add_bos_token"), says("add_eos_token"));
    if bos.is_none() && eos.is_none() {
        return None;
    }
    let id = |is_wanted: Option<bool>, name: &str| {
        let (_, content) = names.iter().find(|(it, _)| it == name)?;
        tokenizer.token_to_id(content).filter(|_| is_wanted == Some(true))
    };
    Some(Frame {
        before: id(bos, "bos_token").into_iter().collect(),
        after: id(eos, "eos_token").into_iter().collect(),
    })
}

fn templates(folder: &Path, config: &Object) -> Result<Templates, LoadError> {
    let shown = || folder.display().to_string();
    if let Some(model) = object(&folder.join("config.json"))?
        && let Some(Json::Array(all)) = model.get("architectures")
        && let Some(by_code) =
            all.iter().filter_map(Json::as_str).find(|it| RENDERED_BY_CODE.contains(it))
    {
        return Ok(Templates::None(by_code.to_owned()));
    }
    let folder_of_templates: PathBuf = folder.join("additional_chat_templates");
    if let Some(default) = text(&folder.join("chat_template.jinja"))? {
        let tools = text(&folder_of_templates.join("tool_use.jinja"))?;
        return Ok(Templates::Some { default, tools });
    }
    if folder.join("chat_template.json").exists() {
        return Ok(Templates::None(format!("{} (the template of a processor)", shown())));
    }
    Ok(match config.get("chat_template") {
        Some(Json::String(default)) => Templates::Some { default: default.clone(), tools: None },
        Some(Json::Array(all)) => {
            let named = |wanted: &str| {
                all.iter().find_map(|it| match it {
                    Json::Object(it) if it.get("name")?.as_str() == Some(wanted) => {
                        it.get("template")?.as_str().map(str::to_owned)
                    }
                    _ => None,
                })
            };
            match named("default") {
                Some(default) => Templates::Some { default, tools: named("tool_use") },
                None => Templates::None(shown()),
            }
        }
        _ => Templates::None(shown()),
    })
}
