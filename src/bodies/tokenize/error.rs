//! Why a tokenizer cannot be used, and why a prompt's tokens are not known here.

use std::path::PathBuf;
use thiserror::Error;

/// A folder that is no tokenizer for here.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file that is needed and cannot be read.
    #[error(
        "{path}: {source}; give the folder of a model as Hugging Face lays it out, with tokenizer.json"
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that says something else than it should.
    #[error("{path}: {what}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A tokenizer that an engine would not take as its file says.
    #[error("{path}: {what}, so its tokens here would not be the engine's")]
    Unlike {
        /// Which file.
        path: PathBuf,
        /// What it asks for.
        what: &'static str,
    },
}

/// Why the tokens that an engine makes of a prompt are not known here. The prompt itself may be fine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotExact {
    /// There is nothing to render chats with.
    #[error("{0}: its chats are not rendered by a template that is known here")]
    NoTemplate(String),
    /// Images, sounds and the like, whose tokens are made elsewhere.
    #[error("{0} is no text")]
    NotText(String),
    /// Something that is not understood, or that an engine would turn away.
    #[error("{at} is {what}")]
    Shape {
        /// Where it stands.
        at: String,
        /// What is there.
        what: String,
    },
    /// A field that changes prompts in ways that are not done here.
    #[error("the field {0} changes prompts in ways that are not known here")]
    Field(String),
    /// The template turned the chat away, or cannot be rendered here.
    #[error("the chat template: {0}")]
    Template(String),
    /// The body says nothing of a prompt, or not in JSON.
    #[error("the body: {0}")]
    Body(String),
    /// The tokenizer failed.
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
}

impl NotExact {
    pub(super) fn shape(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Shape { at: at.into(), what: what.into() }
    }
}
