//! Many prompts in one argument: a sequence of prompts, or the tokens of all in one array.

use crate::errors::{self, PromptError};
use crate::given::Prompt;
use crate::tokens::Tokens;
use llmd_bodies::router::{self, LiveRouter, Scratch};
use llmd_brain::prompt::Scope;
use llmd_brain::schedule::Request;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;

/// The prompts of one call.
pub enum Batch<'py> {
    /// Each by itself, read when it is its turn.
    Each(Vec<Bound<'py, PyAny>>),
    /// One after the other, with the position of each one's first token, and the end.
    Flat { tokens: Tokens<'py>, offsets: Vec<usize> },
}

impl<'py> Batch<'py> {
    /// The prompts of a call's arguments.
    pub fn of(prompts: &Bound<'py, PyAny>, offsets: Option<Bound<'py, PyAny>>) -> PyResult<Self> {
        let Some(offsets) = offsets else {
            return prompts.try_iter()?.collect::<PyResult<_>>().map(Self::Each);
        };
        let tokens: Tokens<'py> = prompts.extract()?;
        let offsets = read_offsets(&offsets, tokens.as_slice().len())?;
        Ok(Self::Flat { tokens, offsets })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Each(prompts) => prompts.len(),
            Self::Flat { offsets, .. } => offsets.len().saturating_sub(1),
        }
    }

    /// As [`Prompt::read`], of one of them.
    pub fn read(
        &self,
        position: usize,
        live: &LiveRouter,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> PyResult<()> {
        match self {
            Self::Each(prompts) => {
                prompts[position].extract::<Prompt<'_>>()?.read(live, scope, request, scratch)
            }
            Self::Flat { tokens, offsets } => {
                let tokens = &tokens.as_slice()[offsets[position]..offsets[position + 1]];
                live.prepare(router::Prompt::Tokens(tokens), scope, request, scratch)
                    .map_err(|error| errors::prompt(&error))
            }
        }
    }
}

/// Ascending positions, none past `tokens`.
fn read_offsets(offsets: &Bound<'_, PyAny>, tokens: usize) -> PyResult<Vec<usize>> {
    let expected = "give where each prompt begins in the tokens, and the end: one-dimensional, \
                    ascending integers";
    let bad = |why: String| PromptError::new_err(format!("offsets: {why}: {expected}"));
    let numpy = offsets.py().import("numpy")?;
    let array = numpy
        .call_method1("asarray", (offsets,))
        .and_then(|array| array.call_method("astype", ("int64",), None))
        .map_err(|error| bad(error.to_string()))?;
    let array = array.cast::<PyArray1<i64>>().map_err(|_| bad("not one-dimensional".into()))?;
    let mut read = Vec::new();
    let mut least = 0;
    for (position, offset) in array.to_vec()?.into_iter().enumerate() {
        match usize::try_from(offset) {
            Ok(offset) if (least..=tokens).contains(&offset) => {
                read.push(offset);
                least = offset;
            }
            _ => {
                return Err(bad(format!(
                    "{offset} at position {position} is not from {least} to {tokens}"
                )));
            }
        }
    }
    Ok(read)
}
