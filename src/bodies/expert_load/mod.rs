//! Recorded loads of experts as files: numpy's arrays, SGLang's dumps, vLLM's log lines.
//!
//! Tokens of `layers x experts`, or of `times x layers x experts`, which are added up.

mod documents;
mod npy;
mod vllm_log;

pub use documents::{read_map, write_map};
pub use vllm_log::{BalancednessLine, read_vllm_log};

use llmd_brain::moe::{ExpertLoad, MoeError};
use std::path::{Path, PathBuf};

/// Why a file is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadFileError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{path}: {why}")]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to give.
        why: String,
    },
    /// Its numbers are no tokens.
    #[error("{path}: {source}")]
    Load {
        /// Which.
        path: PathBuf,
        /// Why.
        source: MoeError,
    },
}

/// Reads `.npy` (numpy) or `.json`: `{"logical_count": ...}` as SGLang has it, or the array alone.
///
/// # Errors
/// Where the file is none of these, or its numbers are no tokens.
pub fn read_load(path: &Path) -> Result<ExpertLoad, LoadFileError> {
    let bytes = bytes_of(path)?;
    let format = |why: String| LoadFileError::Format { path: path.to_owned(), why };
    let array = if bytes.starts_with(npy::MAGIC) {
        npy::parse(&bytes).map_err(format)?
    } else {
        documents::parse_load(&bytes).map_err(format)?
    };
    let (layers, experts, tokens) = array.added_up().map_err(format)?;
    ExpertLoad::new(layers, experts, tokens)
        .map_err(|source| LoadFileError::Load { path: path.to_owned(), source })
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, LoadFileError> {
    std::fs::read(path).map_err(|source| LoadFileError::Io { path: path.to_owned(), source })
}

/// Numbers in C order.
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Array {
    /// Layers, experts and tokens; of three dimensions the first is added up.
    fn added_up(self) -> Result<(usize, usize, Vec<f64>), String> {
        let (times, layers, experts) = match self.shape[..] {
            [layers, experts] => (1, layers, experts),
            [times, layers, experts] => (times, layers, experts),
            _ => {
                return Err(format!(
                    "it is of shape {:?}: give layers x experts, or times x layers x experts",
                    self.shape
                ));
            }
        };
        let each = layers * experts;
        if each == 0 || self.values.len() != times * each {
            return Err(format!("{} numbers are not of shape {:?}", self.values.len(), self.shape));
        }
        let mut sums = vec![0.0; each];
        for time in self.values.chunks_exact(each) {
            sums.iter_mut().zip(time).for_each(|(sum, it)| *sum += it);
        }
        Ok((layers, experts, sums))
    }
}

#[cfg(test)]
mod tests;
