//! Block keys and vLLM's block hashes.

use crate::errors::{self, PromptError};
use crate::options;
use crate::tokens::Tokens;
use llmd_brain::BlockKey;
use llmd_brain::prompt::vllm::{self, HashAlgorithm, LoraAdapter, RequestExtras};
use llmd_brain::prompt::{Chain, Scope, text, token_keys};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

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
    text::text_keys(text, block_size, &scope, &mut keys).map_err(|error| errors::prompt(&error))?;
    Ok(column(py, keys))
}

fn column(py: Python<'_>, keys: Vec<BlockKey>) -> Bound<'_, PyArray1<u64>> {
    PyArray1::from_iter(py, keys.into_iter().map(|BlockKey(key)| key))
}

#[doc = stub_doc!("vllm_block_hashes")]
#[pyfunction]
#[pyo3(
    signature = (
        tokens, *, block_size=16, algorithm="sha256", seed=None, lora=None, cache_salt=None,
        multimodal=None
    ),
    text_signature = "(tokens, *, block_size=16, algorithm='sha256', seed=None, lora=None, \
        cache_salt=None, multimodal=())"
)]
#[expect(clippy::too_many_arguments, reason = "one a keyword of the Python function")]
pub fn vllm_block_hashes<'py>(
    py: Python<'py>,
    tokens: Tokens<'py>,
    block_size: u32,
    algorithm: &str,
    seed: Option<&str>,
    lora: Option<(String, String)>,
    cache_salt: Option<&str>,
    multimodal: Option<&Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let algorithm: HashAlgorithm = algorithm
        .parse()
        .map_err(|error: vllm::UnknownAlgorithm| PromptError::new_err(error.to_string()))?;
    let seed = match (seed, algorithm) {
        (Some(seed), _) => seed,
        (None, HashAlgorithm::Sha256 | HashAlgorithm::Sha256Cbor) => vllm::DEFAULT_SEED,
        (None, HashAlgorithm::Xxhash | HashAlgorithm::XxhashCbor) => {
            return Err(PromptError::new_err(format!(
                "seed is None: without PYTHONHASHSEED an engine draws its seed for {algorithm} at \
                 random; start it with one, and give the same here"
            )));
        }
    };
    let items = match multimodal {
        None => Vec::new(),
        Some(items) => options::multimodal("multimodal", items)?,
    };
    // Refuses a block size that cannot be.
    Chain::new("", None, block_size).map_err(|error| errors::prompt(&error))?;
    let scope = Scope { multimodal: items, ..Scope::default() };
    scope.check(tokens.as_slice().len()).map_err(|error| errors::prompt(&error))?;
    let extras = RequestExtras {
        lora: lora.as_ref().map(|(name, path)| LoraAdapter { name, path }),
        multimodal: &scope.multimodal,
        cache_salt,
        prompt_embeds: None,
    };
    // SHA-256 of a long prompt takes longer than taking the GIL again. The tokens are copied, since
    // other threads may write the array meanwhile.
    let tokens = tokens.as_slice().to_vec();
    let hashes = py.detach(|| {
        let root = vllm::none_hash(algorithm, seed);
        vllm::block_hashes(algorithm, &root, &tokens, block_size, &extras)
    });
    Ok(hashes.iter().map(|hash| PyBytes::new(py, hash.as_bytes())).collect())
}
