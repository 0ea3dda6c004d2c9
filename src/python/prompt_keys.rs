//! `PromptKeys`: the keys of a prompt that grows.

use crate::errors;
use crate::options;
use crate::tokens::Tokens;
use llmd_brain::prompt::GrowingPrompt;
use numpy::PyArray1;
use parking_lot::Mutex;
use pyo3::prelude::*;

#[doc = stub_doc!("PromptKeys")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct PromptKeys {
    /// Locked only with the GIL held, and for no call into Python.
    prompt: Mutex<GrowingPrompt>,
    /// As the caller named it: empty for the model that everybody serves.
    model: String,
}

impl PromptKeys {
    /// Wraps an empty prompt of a request that named `model`.
    pub fn new(prompt: GrowingPrompt, model: String) -> Self {
        Self { prompt: Mutex::new(prompt), model }
    }

    /// A look at the prompt.
    pub fn look<T>(&self, look: impl FnOnce(&GrowingPrompt) -> T) -> T {
        look(&self.prompt.lock())
    }

    /// The model that its requests ask for.
    pub fn model(&self) -> &str {
        &self.model
    }
}

#[pymethods]
impl PromptKeys {
    #[doc = stub_doc!("PromptKeys.extend")]
    #[pyo3(
        signature = (tokens, *, multimodal=None),
        text_signature = "($self, tokens, *, multimodal=())"
    )]
    pub fn extend(
        &self,
        tokens: Tokens<'_>,
        multimodal: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let items = match multimodal {
            None => Vec::new(),
            Some(items) => options::multimodal("multimodal", items)?,
        };
        let extended = self.prompt.lock().extend(tokens.as_slice(), &items);
        extended.map_err(|error| errors::prompt(&error))
    }

    #[doc = stub_doc!("PromptKeys.truncate")]
    fn truncate(&self, length: usize) -> usize {
        self.prompt.lock().truncate(length)
    }

    #[doc = stub_doc!("PromptKeys.block_size")]
    #[getter]
    fn block_size(&self) -> u32 {
        self.look(GrowingPrompt::block_size)
    }

    #[doc = stub_doc!("PromptKeys.keys")]
    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        self.look(|prompt| PyArray1::from_iter(py, prompt.keys().iter().map(|key| key.0)))
    }

    fn __len__(&self) -> usize {
        self.look(GrowingPrompt::len)
    }

    fn __repr__(&self) -> String {
        let (tokens, blocks) = self.look(|prompt| (prompt.len(), prompt.keys().len()));
        format!("PromptKeys({tokens} tokens, {blocks} full blocks of {})", self.block_size())
    }
}
