//! Prompts that come as text, as their engine's own tokens.
//!
//! What was encoded before is found again where it is asked for, and a little that is new is encoded
//! there; more than that would keep the thread's other requests waiting, and is done by another thread.
//! Where the tokens are not known ([`NotExact`](crate::tokenize::NotExact)) the text counts, as without a tokenizer.

use super::GatewayError;
use super::asked::Asked;
use crate::request_body::BodyPrompt;
use crate::tokenize::{Json, Model};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of new text that are encoded where they come: 0.2 us each.
const MOST_AT_ONCE_BYTES: usize = 4 << 10;

/// The tokenizers of models.
#[derive(Default)]
pub(super) struct Tokenizers {
    models: BTreeMap<String, (PathBuf, Arc<Model>)>,
}

impl Tokenizers {
    /// Reads folders, but for those that were read `before`.
    pub(super) fn load(
        folders: &BTreeMap<String, PathBuf>,
        before: Option<&Self>,
    ) -> Result<Self, GatewayError> {
        let mut models = BTreeMap::new();
        for (name, folder) in folders {
            let known = before.and_then(|it| it.models.get(name)).filter(|it| it.0 == *folder);
            let model = match known {
                Some((_, model)) => Arc::clone(model),
                None => Arc::new(Model::load(folder).map_err(|error| GatewayError::Tokenizer {
                    model: name.clone(),
                    reason: error.to_string(),
                })?),
            };
            models.insert(name.clone(), (folder.clone(), model));
        }
        Ok(Self { models })
    }

    /// All of them, by model.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.models.iter().map(|(name, (_, model))| (name.as_str(), &**model))
    }

    /// Puts a request's tokens in the place of its text, where they are known.
    pub(super) async fn encode(&self, asked: &mut Asked, body: &Bytes) {
        if !matches!(asked.read.prompt, Some(BodyPrompt::Text(_))) {
            return;
        }
        let Some((_, model)) = self.models.get(&asked.scope.model) else { return };
        let Ok(Json::Object(object)) = Json::read(body) else { return };
        let encoded = match model.encode_quickly(object, MOST_AT_ONCE_BYTES) {
            Ok(Ok(encoded)) => Ok(encoded),
            Err(not_exact) => Err(not_exact),
            Ok(Err(_)) => {
                let (model, body) = (Arc::clone(model), body.clone());
                match tokio::task::spawn_blocking(move || model.encode_body(&body)).await {
                    Ok(encoded) => encoded,
                    Err(_) => return,
                }
            }
        };
        match encoded {
            Ok(encoded) => asked.read.prompt = Some(BodyPrompt::Tokens(encoded.ids)),
            Err(not_exact) => tracing::debug!(%not_exact, "a prompt is matched as text"),
        }
    }
}
