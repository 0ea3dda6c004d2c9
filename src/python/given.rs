//! A prompt as a caller gives it: token ids, the keys of a prompt that grows, the body of a request, or text.

use crate::errors::{self, PromptError};
use crate::prompt_keys::PromptKeys;
use crate::request_body::RequestBody;
use crate::tokens::Tokens;
use llmd_bodies::router::{self, LiveRouter, Scratch};
use llmd_brain::prompt::Scope;
use llmd_brain::schedule::Request;
use pyo3::prelude::*;

/// The first argument of a call that takes a prompt.
pub enum Prompt<'py> {
    /// Token ids.
    Tokens(Tokens<'py>),
    /// Keys that there are already.
    Keys(Bound<'py, PromptKeys>),
    /// The body of an OpenAI request.
    Body(Bound<'py, RequestBody>),
}

impl Prompt<'_> {
    /// Puts the keys into `scratch`, and what is asked for and how long it is into `request`.
    pub fn read(
        &self,
        live: &LiveRouter,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> PyResult<()> {
        let read = match self {
            Self::Body(body) => return body.get().prepare(live, scope, request, scratch),
            Self::Tokens(tokens) => {
                let prompt = router::Prompt::Tokens(tokens.as_slice());
                live.prepare(prompt, scope, request, scratch)
            }
            Self::Keys(keys) => {
                if *scope != Scope::default() {
                    return Err(PromptError::new_err(
                        "model, lora, cache_salt or multimodal is given for PromptKeys, which are \
                         bound to their own: give it where they are made",
                    ));
                }
                let keys = keys.get();
                keys.look(|prompt| {
                    let keys_of = router::Prompt::Keys(prompt);
                    live.prepare(keys_of, prompt.scope(), request, scratch)?;
                    keys.model().clone_into(&mut request.model);
                    Ok(())
                })
            }
        };
        read.map_err(|error| errors::prompt(&error))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Prompt<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(keys) = given.cast::<PromptKeys>() {
            return Ok(Self::Keys(keys.to_owned()));
        }
        match given.cast::<RequestBody>() {
            Ok(body) => Ok(Self::Body(body.to_owned())),
            Err(_) => Tokens::extract(given).map(Self::Tokens),
        }
    }
}

/// Exactly one of a call's two ways to give a prompt.
pub enum Given<'a, P> {
    /// The first argument.
    Prompt(&'a P),
    /// `text=`.
    Text(&'a str),
}

impl<'a, P> Given<'a, P> {
    /// Either of a call's two arguments.
    pub fn one(prompt: Option<&'a P>, text: Option<&'a str>) -> PyResult<Self> {
        match (prompt, text) {
            (Some(prompt), None) => Ok(Self::Prompt(prompt)),
            (None, Some(text)) => Ok(Self::Text(text)),
            (Some(_), Some(_)) => {
                Err(PromptError::new_err("both tokens and text are given: give one of them"))
            }
            (None, None) => {
                Err(PromptError::new_err("no prompt is given: give its token ids, or text="))
            }
        }
    }
}

impl Given<'_, Prompt<'_>> {
    /// As [`Prompt::read`].
    pub fn read(
        &self,
        live: &LiveRouter,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> PyResult<()> {
        match self {
            Self::Prompt(prompt) => prompt.read(live, scope, request, scratch),
            Self::Text(text) => live
                .prepare(router::Prompt::Text(text), scope, request, scratch)
                .map_err(|error| errors::prompt(&error)),
        }
    }
}
