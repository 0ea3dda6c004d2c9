//! What the latency models have learned, as a file.

use super::LiveRouter;
use super::error::RouterError;
use llmd_brain::brain::Input;
use llmd_brain::predict::{MAX_SAVED_BYTES, SavedModels, SavedModelsError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Why such a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LearnedError {
    /// The file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is in it.
    #[error(transparent)]
    Document(#[from] SavedModelsError),
}

impl LiveRouter {
    /// Saves what the latency models have learned of every endpoint; returns of how many. The file
    /// appears whole, or not.
    ///
    /// # Errors
    /// [`RouterError::Learned`], [`RouterError::Closed`].
    pub fn save_predictor(&self, path: &Path) -> Result<usize, RouterError> {
        self.check_open()?;
        let saved = self.brain.learned_models();
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let write = || -> io::Result<()> {
            let mut file = File::create(partial)?;
            file.write_all(&saved.encode())?;
            file.sync_all()?;
            std::fs::rename(partial, path)
        };
        write().map_err(|source| {
            // Whatever is there of it is of no use, and may not be there at all.
            let _ = std::fs::remove_file(partial);
            RouterError::Learned { path: path.to_owned(), source: source.into() }
        })?;
        Ok(saved.endpoints())
    }

    /// Takes up what [`Self::save_predictor`] saved; a file that is not there is none.
    pub(super) fn load_predictor(&self, path: &Path) -> Result<(), RouterError> {
        let failed = |source: LearnedError| RouterError::Learned { path: path.to_owned(), source };
        let Some(saved) = read(path).map_err(failed)? else { return Ok(()) };
        self.step(Input::LearnedModels(Box::new(saved)))?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<SavedModels>, LearnedError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    // One more than the limit, so that what is too large is seen to be.
    file.take(MAX_SAVED_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(SavedModels::decode(&bytes)?))
}
