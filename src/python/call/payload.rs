//! The payload of a call whose prompt is text, with all that its tokens depend on.

use super::fields::Fields;
use crate::ordered;
use llmd_bodies::tokenize::{Json, Object};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// Fields that say what a prompt is made of, besides the prompt.
const FIELDS: [&str; 13] = [
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "reasoning_effort",
    "truncate_prompt_tokens",
    "kv_transfer_params",
    "suffix",
    "media_io_kwargs",
    "mm_processor_kwargs",
];

/// A payload with a prompt.
pub struct Payload;

impl Payload {
    /// The body of the first payload that has a prompt, where that is text; `None` where it is tokens, or there
    /// is none, or it can be read only once.
    pub fn text_of<'py>(
        args: &Bound<'py, PyAny>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Object>> {
        let py = args.py();
        if let Some(kwargs) = kwargs
            && kwargs.get_item(intern!(py, "request_token_ids"))?.is_some_and(|it| !it.is_none())
        {
            return Ok(None);
        }
        let named = kwargs.filter(|it| !it.is_empty()).map(PyDictMethods::values);
        for payload in args.try_iter()?.chain(named.into_iter().flatten().map(Ok)) {
            let payload = payload?;
            let Some(fields) = Fields::of(&payload) else { continue };
            if fields.get(intern!(py, "prompt_token_ids"))?.is_some() {
                return Ok(None);
            }
            for name in [intern!(py, "messages"), intern!(py, "prompt")] {
                if let Some(prompt) = fields.get(name)? {
                    return body(&fields, name, &prompt);
                }
            }
        }
        Ok(None)
    }
}

fn body<'py>(
    fields: &Fields<'_, 'py>,
    name: &Bound<'py, PyString>,
    prompt: &Bound<'py, PyAny>,
) -> PyResult<Option<Object>> {
    let py = name.py();
    let mut body = Object::new();
    let name = name.to_str()?;
    let prompt = match prompt.cast::<PyString>() {
        Ok(text) => Json::String(text.to_str()?.to_owned()),
        Err(_) if name == "prompt" => {
            // Several texts, or tokens: of those nothing is converted.
            let Ok(first) = prompt.get_item(0) else { return Ok(None) };
            let Ok(first) = first.cast_into::<PyString>() else { return Ok(None) };
            Json::String(first.to_str()?.to_owned())
        }
        // What is no JSON is not understood; the router goes by what it can make of it as text.
        Err(_) => match ordered::from_python(prompt) {
            Ok(it) => it,
            Err(_) => return Ok(None),
        },
    };
    body.insert(name.to_owned(), prompt);
    for field in FIELDS {
        if let Some(value) = fields.get(&PyString::intern(py, field))? {
            match ordered::from_python(&value) {
                Ok(it) => body.insert(field.to_owned(), it),
                Err(_) => return Ok(None),
            };
        }
    }
    Ok(Some(body))
}
