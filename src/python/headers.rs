//! `request_options`: what a request's HTTP headers say, as options.

use crate::errors::PromptError;
use llmd_brain::schedule::RequestHeaders;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

#[doc = stub_doc!("request_options")]
#[pyfunction]
pub fn request_options<'py>(headers: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = headers.py();
    let pairs = match headers.getattr_opt("items")? {
        Some(items) => items.call0()?,
        None => headers.clone(),
    };
    let mut read: Vec<(String, String)> = Vec::new();
    for pair in pairs.try_iter()? {
        let (name, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = pair?.extract()?;
        read.push((text(&name)?, text(&value)?));
    }
    let said = RequestHeaders::read(read.iter().map(|(name, value)| (&**name, &**value)))
        .map_err(|error| PromptError::new_err(error.to_string()))?;
    let options = PyDict::new(py);
    set(&options, "ttft_slo_ms", said.ttft_ms)?;
    set(&options, "tpot_slo_ms", said.tpot_ms)?;
    set(&options, "session_id", said.session_id)?;
    set(&options, "tenant", said.tenant)?;
    set(&options, "priority", said.priority)?;
    set(&options, "deadline_ms", said.deadline_ms)?;
    set(&options, "hold_ms", said.hold_ms)?;
    set(&options, "expected_output_tokens", said.expected_output_tokens)?;
    Ok(options)
}

fn set<'py>(
    options: &Bound<'py, PyDict>,
    name: &str,
    value: Option<impl IntoPyObject<'py>>,
) -> PyResult<()> {
    value.map_or(Ok(()), |value| options.set_item(name, value))
}

/// ASGI gives bytes, most others text.
fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(text.to_string_lossy().into_owned()),
        Err(_) => Ok(String::from_utf8_lossy(value.extract::<&[u8]>()?).into_owned()),
    }
}
