//! A client's request, read for routing.

use super::edit::{Edit, edited};
use super::refusal::Refusal;
use crate::request_body::RequestBody;
use bytes::Bytes;
use hyper::header::HeaderMap;
use llmd_brain::brain::EndpointView;
use llmd_brain::prompt::Scope;
use llmd_brain::schedule::{Request, RequestHeaders};
use std::collections::HashMap;

/// What a model's name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Served {
    pub(super) model: String,
    pub(super) lora: Option<String>,
}

/// The names that engines serve. Some engine may say nothing: then any name may be its own.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<String, Served>,
    some_say_nothing: bool,
}

impl Names {
    pub(super) fn of(endpoints: &[EndpointView]) -> Self {
        let mut names = Self::default();
        for view in endpoints {
            let spec = &view.spec;
            names.some_say_nothing |= spec.model.is_empty();
            for lora in &spec.loras {
                let served = Served { model: spec.model.clone(), lora: Some(lora.clone()) };
                names.known.entry(lora.clone()).or_insert(served);
            }
        }
        // A model wins over an adapter of its name.
        for view in endpoints.iter().filter(|view| !view.spec.model.is_empty()) {
            let model = view.spec.model.clone();
            names.known.insert(model.clone(), Served { model, lora: None });
        }
        names
    }

    /// What a name is known to stand for.
    pub(super) fn known(&self, name: &str) -> Option<Served> {
        self.known.get(name).cloned()
    }

    /// What a name stands for; `None` where nobody serves it.
    pub(super) fn find(&self, name: &str) -> Option<Served> {
        // Engines come up after the gateway, and some say nothing of what they serve.
        let may_be_any = self.some_say_nothing || self.known.is_empty();
        let any = || may_be_any.then(|| Served { model: name.to_owned(), lora: None });
        self.known(name).or_else(any)
    }
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scope: Scope,
    pub(super) request: Request,
    pub(super) read: RequestBody,
    /// Whether its model is a name for others, of which it gets one with its place.
    is_alias: bool,
}

impl Asked {
    /// Reads a request's headers and body.
    pub(super) fn read(
        headers: &HeaderMap,
        body: &Bytes,
        find: impl FnOnce(&str) -> Option<Served>,
        is_alias: impl FnOnce(&str) -> bool,
        hold_ms: u64,
    ) -> Result<Self, Refusal> {
        let read = RequestBody::read(body, body.len());
        let is_alias = read.model.as_deref().is_some_and(is_alias);
        let served = match &read.model {
            None => Served::default(),
            Some(alias) if is_alias => Served { model: alias.clone(), lora: None },
            Some(model) => find(model).ok_or_else(|| Refusal::unknown_model(model))?,
        };
        let ours = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-"))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let said = RequestHeaders::read(ours)
            .map_err(|error| Refusal::invalid("invalid_header", error.to_string()))?;
        let mut request = Request { hold_ms, ..Request::default() };
        said.apply_to(&mut request);
        let Served { model, lora } = served;
        let scope = Scope { model, lora, ..Scope::default() };
        Ok(Self { scope, request, read, is_alias })
    }

    /// The body as the engine gets it, once the request has its place: with the model that its alias
    /// stood for, and the salt of its tenant.
    pub(super) fn body_for_engine(&self, body: &Bytes) -> Bytes {
        let model = self.is_alias.then_some(self.request.model.as_str());
        let fields = [
            ("model", model, &self.read.model_at),
            ("cache_salt", self.scope.cache_salt.as_deref(), &self.read.cache_salt_at),
        ];
        let mut edits: Vec<Edit<'_>> = fields
            .into_iter()
            .filter_map(|(field, value, at)| Some(Edit { field, value: value?, at: at.clone() }))
            .collect();
        if edits.is_empty() { body.clone() } else { edited(body, &mut edits) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(known: &[(&str, Option<&str>)], some_say_nothing: bool) -> Names {
        let served = |model: &str, lora: Option<&str>| Served {
            model: model.to_owned(),
            lora: lora.map(str::to_owned),
        };
        let known = known
            .iter()
            .map(|(model, lora)| (lora.unwrap_or(model).to_owned(), served(model, *lora)))
            .collect();
        Names { known, some_say_nothing }
    }

    fn read(names: &Names, headers: &HeaderMap, body: &'static str) -> Result<Asked, Refusal> {
        let body = Bytes::from_static(body.as_bytes());
        Asked::read(headers, &body, |name| names.find(name), |name| name == "prod", 5)
    }

    #[test]
    fn a_name_is_a_model_or_an_adapter_of_one() {
        let names = names(&[("big", None), ("big", Some("tuned"))], false);
        let asked =
            read(&names, &HeaderMap::new(), r#"{"model": "tuned", "prompt": "x"}"#).unwrap();
        assert_eq!(
            (asked.scope.model.as_str(), asked.scope.lora.as_deref()),
            ("big", Some("tuned"))
        );
        let refusal =
            read(&names, &HeaderMap::new(), r#"{"model": "other", "prompt": "x"}"#).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (404, "model_not_found"));
    }

    #[test]
    fn where_an_engine_does_not_say_what_it_serves_any_name_may_be_its() {
        for names in [names(&[("big", None)], true), names(&[], false)] {
            let asked = read(&names, &HeaderMap::new(), r#"{"model": "other"}"#).unwrap();
            assert_eq!((asked.scope.model.as_str(), asked.request.hold_ms), ("other", 5));
        }
    }

    #[test]
    fn an_alias_is_what_the_request_got_in_the_body_that_is_sent() {
        let body = Bytes::from_static(br#"{"model": "prod", "prompt": "x"}"#);
        let names = names(&[("big", None)], false);
        let mut asked =
            Asked::read(&HeaderMap::new(), &body, |it| names.find(it), |it| it == "prod", 0)
                .unwrap();
        asked.request.model = "big".to_owned();
        asked.scope.cache_salt = Some("s".to_owned());
        let sent = asked.body_for_engine(&body);
        assert_eq!(sent, &br#"{"model": "big", "prompt": "x","cache_salt":"s"}"#[..]);
    }

    #[test]
    fn headers_count_and_one_that_cannot_be_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x-slo-ttft-ms", "250".parse().unwrap());
        headers.insert("x-max-hold-ms", "0".parse().unwrap());
        let asked = read(&Names::default(), &headers, "{}").unwrap();
        assert_eq!((asked.request.slo.ttft_ms, asked.request.hold_ms), (Some(250.0), 0));
        headers.insert("x-priority", "high".parse().unwrap());
        let refusal = read(&Names::default(), &headers, "{}").unwrap_err();
        assert!(refusal.status == 400 && refusal.message.contains("x-priority"), "{refusal:?}");
    }
}
