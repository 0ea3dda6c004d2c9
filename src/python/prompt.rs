//! Block keys and vLLM's block hashes.

use crate::errors;
use crate::options;
use crate::tokens::Tokens;
use llmd_brain::BlockKey;
use llmd_brain::prompt::{text, token_keys};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[doc = stub_doc!("block_keys")]
#[pyfunction]
#[pyo3(signature = (tokens, *, block_size=16, **options))]
pub fn block_keys<'py>(
    py: Python<'py>,
    tokens: Tokens<'py>,
    block_size: u32,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let scope = options::scope(options)?;
    let mut keys = Vec::new();
    token_keys(tokens.as_slice(), block_size, &scope, &mut keys)
        .map_err(|error| errors::prompt(&error))?;
    Ok(column(py, keys))
}

#[doc = stub_doc!("text_block_keys")]
#[pyfunction]
#[pyo3(signature = (text, *, block_size=16, **options))]
pub fn text_block_keys<'py>(
    py: Python<'py>,
    text: &str,
    block_size: u32,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let scope = options::scope(options)?;
    let mut keys = Vec::new();
    text::text_keys(text, block_size, &scope, &mut keys)
        .map_err(|error| errors::prompt(&error))?;
    Ok(column(py, keys))
}

fn column(py: Python<'_>, keys: Vec<BlockKey>) -> Bound<'_, PyArray1<u64>> {
    PyArray1::from_iter(py, keys.into_iter().map(|BlockKey(key)| key))
}
