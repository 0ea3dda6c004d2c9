//! Requests as the body of an OpenAI request asks for them.

use super::{LiveRouter, Prompt, Scratch};
use crate::request_body::{BodyPrompt, RequestBody};
use llmd_brain::prompt::{PromptError, Scope};
use llmd_brain::schedule::Request;

impl Prompt<'_> {
    /// The prompt of a request of whose prompt nothing is known: it counts as a request, fills no
    /// block, and matches nothing.
    pub const UNKNOWN: Prompt<'static> = Prompt::Tokens(&[0]);
}

impl LiveRouter {
    /// As [`prepare`](Self::prepare), from a body; what `scope` and `request` say already, its salt
    /// among it, wins over what the body says.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn prepare_body(
        &self,
        body: &RequestBody,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> Result<(), PromptError> {
        let salted = match (&scope.cache_salt, &body.cache_salt) {
            (None, Some(salt)) => Some(Scope { cache_salt: Some(salt.clone()), ..scope.clone() }),
            _ => None,
        };
        let prompt = match &body.prompt {
            Some(BodyPrompt::Tokens(ids)) => Prompt::Tokens(ids),
            Some(BodyPrompt::Text(text)) => Prompt::Text(text),
            None => Prompt::UNKNOWN,
        };
        self.prepare(prompt, salted.as_ref().unwrap_or(scope), request, scratch)?;
        request.prompt_tokens = request.prompt_tokens.saturating_add(body.missing_tokens);
        request.max_output_tokens = request.max_output_tokens.or(body.max_output_tokens);
        if request.priority == 0 {
            request.priority = body.priority.unwrap_or_default();
        }
        Ok(())
    }
}
