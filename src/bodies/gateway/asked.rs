//! A client's request, read for routing.

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

    /// What a name stands for; `None` where nobody serves it.
    fn find(&self, name: &str) -> Option<Served> {
        match self.known.get(name) {
            Some(served) => Some(served.clone()),
            // Adapters may be loaded at any time, and engines come up after the gateway.
            None if self.some_say_nothing || self.known.is_empty() => {
                Some(Served { model: name.to_owned(), lora: None })
            }
            None => None,
        }
    }
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scope: Scope,
    pub(super) request: Request,
    pub(super) read: RequestBody,
}

impl Asked {
    /// Reads a request's headers and body.
    pub(super) fn read(
        headers: &HeaderMap,
        body: &Bytes,
        names: &Names,
        hold_ms: u64,
    ) -> Result<Self, Refusal> {
        let read = RequestBody::read(body, body.len());
        let served = match &read.model {
            None => Served::default(),
            Some(model) => names.find(model).ok_or_else(|| Refusal::unknown_model(model))?,
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
        Ok(Self { scope, request, read })
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
        Asked::read(headers, &Bytes::from_static(body.as_bytes()), names, 5)
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
