//! Block keys and vLLM's block hashes.

use crate::errors::PromptError;
use crate::tokens::Tokens;
use llmd_brain::prompt;
use pyo3::prelude::*;

/// A brain's refusal of a prompt as the Python exception.
pub fn raise(error: &prompt::PromptError) -> PyErr {
    PromptError::new_err(error.to_string())
}

#[pyfunction]
pub fn probe(tokens: Tokens<'_>) -> usize { tokens.as_slice().iter().map(|x| *x as usize).sum() }
#[pyfunction]
pub fn probe_json<'py>(v: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> { crate::json::to_python(v.py(), &crate::json::from_python(v)?) }
