//! Requests for an alias: which model each gets, and how many got which.

use super::LiveRouter;
use super::request::{Prompt, Scratch};
use llmd_brain::aliases::Aliases;
use llmd_brain::schedule::Request;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The aliases of a router, with counts of requests.
pub(super) struct AliasCounts {
    aliases: Aliases,
    placed: BTreeMap<String, BTreeMap<String, AtomicU64>>,
}

impl AliasCounts {
    pub(super) fn new(aliases: &Aliases) -> Self {
        let mut placed: BTreeMap<String, BTreeMap<String, AtomicU64>> = BTreeMap::new();
        for (alias, model) in aliases.pairs() {
            let models = placed.entry(alias.to_owned()).or_default();
            models.insert(model.to_owned(), AtomicU64::new(0));
        }
        Self { aliases: aliases.clone(), placed }
    }

    /// A request for an alias got its place, or waits for one.
    fn count(&self, alias: &str, model: &str) {
        if let Some(count) = self.placed.get(alias).and_then(|models| models.get(model)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// By alias and model, requests that came.
    pub(super) fn totals(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let counts = |models: &BTreeMap<String, AtomicU64>| {
            models.iter().map(|(model, count)| (model.clone(), count.load(Relaxed))).collect()
        };
        self.placed.iter().map(|(alias, models)| (alias.clone(), counts(models))).collect()
    }
}

impl LiveRouter {
    /// Whether a name stands for other models.
    #[must_use]
    pub fn is_alias(&self, name: &str) -> bool {
        self.alias_counts.placed.contains_key(name)
    }

    /// The names that do.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.alias_counts.placed.keys().map(String::as_str)
    }

    /// Whether any name does.
    #[must_use]
    pub fn has_aliases(&self) -> bool {
        !self.alias_counts.placed.is_empty()
    }

    pub(super) fn count_alias(&self, request: &Request, scratch: &Scratch) {
        if let Some(alias) = &scratch.alias {
            self.alias_counts.count(alias, &request.model);
        }
    }

    /// The model that a request gets for the name of one, where that is an alias.
    pub(super) fn model_of_alias(
        &self,
        name: &str,
        request: &Request,
        prompt: Prompt<'_>,
    ) -> Option<&str> {
        let aliases = &self.alias_counts.aliases;
        // Keys are bound to a model already.
        if !self.is_alias(name) || matches!(prompt, Prompt::Keys(_)) {
            return None;
        }
        let who = match &request.session_id {
            Some(session) => xxh3_64(session.as_bytes()),
            None => hash_of(prompt),
        };
        let members = self.members.read();
        aliases.model(name, who, |model| members.serves(model))
    }
}

/// Of whoever has no session: the same prompt goes the same way.
fn hash_of(prompt: Prompt<'_>) -> u64 {
    match prompt {
        Prompt::Text(text) => xxh3_64(text.as_bytes()),
        Prompt::Tokens(tokens) => {
            let mut hash = Xxh3::new();
            tokens.iter().for_each(|token| hash.update(&token.to_le_bytes()));
            hash.digest()
        }
        Prompt::Keys(_) => 0,
    }
}
