//! What has been learned, as a document: saved by one process, taken up by the next.
//!
//! JSON, so that it can be looked at; numbers are written so that they read back to the bit. A
//! document names its format, and one of another format is refused rather than guessed at. Every
//! number is checked: a damaged document is an error, and never a model that says nonsense.
//!
//! Endpoints are known by address, rank and model; those who are in the document and not (yet) in the
//! fleet are kept until they join.

use super::drift::Drift;
use super::fit::Fit;
use super::interference::Interference;
use super::margin::Margin;
use super::models::Part;
use serde::{Deserialize, Serialize};

/// Version of the document that this release writes and reads.
const FORMAT: u32 = 1;
/// Largest document that is read: some 2 kB an endpoint.
pub const MAX_SAVED_BYTES: usize = 64 << 20;

/// Everything that a predictor has learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedModels {
    format: u32,
    pub(super) mean_output_tokens: f64,
    pub(super) pools: Vec<SavedPool>,
    pub(super) endpoints: Vec<SavedEndpoint>,
}

/// What the endpoints of a model have shown together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPool {
    pub(super) model: String,
    pub(super) fits: [Fit; Part::COUNT],
    pub(super) interference: Interference,
}

/// What an endpoint has shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedEndpoint {
    pub(super) address: String,
    pub(super) dp_rank: u32,
    pub(super) model: String,
    pub(super) fits: [Fit; Part::COUNT],
    pub(super) ttft_margin: Margin,
    pub(super) tpot_margin: Margin,
    pub(super) drift: [Drift; Part::COUNT],
}

/// Why a document of learned models cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SavedModelsError {
    /// Too much.
    #[error("it has {0} bytes, more than the limit of {MAX_SAVED_BYTES}: it is something else")]
    TooLarge(usize),
    /// It is of another release.
    #[error(
        "its format is {0}, this release reads {FORMAT}: delete it, and the models are learned anew"
    )]
    Format(u32),
    /// It is not one.
    #[error(
        "it is not a document of latency models: {0}: delete it, and the models are learned anew"
    )]
    Malformed(String),
    /// A value that no predictor writes.
    #[error("{of} has a value that cannot be: delete it, and the models are learned anew")]
    Unsound {
        /// Whose.
        of: String,
    },
}

/// What every version of the document has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

impl SavedModels {
    pub(super) fn new(
        mean_output_tokens: f64,
        pools: Vec<SavedPool>,
        endpoints: Vec<SavedEndpoint>,
    ) -> Self {
        Self { format: FORMAT, mean_output_tokens, pools, endpoints }
    }

    /// Endpoints in it.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// The document as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Numbers and names: nothing that JSON cannot say.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The document in `bytes`.
    ///
    /// # Errors
    /// [`SavedModelsError`] where it is damaged, or of another release.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedModelsError> {
        if bytes.len() > MAX_SAVED_BYTES {
            return Err(SavedModelsError::TooLarge(bytes.len()));
        }
        let malformed = |error: serde_json::Error| SavedModelsError::Malformed(error.to_string());
        let Versioned { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format != FORMAT {
            return Err(SavedModelsError::Format(format));
        }
        let saved: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        saved.check()?;
        Ok(saved)
    }

    fn check(&self) -> Result<(), SavedModelsError> {
        let unsound = |of: &str| Err(SavedModelsError::Unsound { of: of.to_owned() });
        if !(0.0..=1e9).contains(&self.mean_output_tokens) {
            return unsound("mean_output_tokens");
        }
        for pool in &self.pools {
            if !(pool.fits.iter().all(Fit::is_sound) && pool.interference.is_sound()) {
                return unsound(&format!("the pool of model {:?}", pool.model));
            }
        }
        for it in &self.endpoints {
            let sound = it.fits.iter().all(Fit::is_sound)
                && it.ttft_margin.is_sound()
                && it.tpot_margin.is_sound()
                && it.drift.iter().all(Drift::is_sound);
            if !sound {
                return unsound(&format!("endpoint {:?}", it.address));
            }
        }
        Ok(())
    }
}
