//! `GET /v1/models`: what the engines of the fleet serve, as they said when they joined, so that an
//! engine which is down now does not take the list with it; and the names that stand for those.

use super::Gateway;
use super::body::AnswerBody;
use super::refusal::json;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The list.
pub(super) fn list(gateway: &Gateway) -> Response<AnswerBody> {
    let mut cards: BTreeMap<String, Value> = BTreeMap::new();
    for view in gateway.live.endpoints() {
        let spec = view.spec;
        for lora in spec.loras {
            let card = card(&lora, Some(&spec.model), None);
            cards.entry(lora).or_insert(card);
        }
        if !spec.model.is_empty() {
            let longest = Some(spec.capacity.max_model_len).filter(|&it| it > 0);
            let card = card(&spec.model, None, longest);
            cards.insert(spec.model, card);
        }
    }
    for alias in gateway.live.aliases() {
        let card = card(alias, None, None);
        cards.entry(alias.to_owned()).or_insert(card);
    }
    let data: Vec<Value> = cards.into_values().collect();
    json(StatusCode::OK, json!({ "object": "list", "data": data }).to_string())
}

fn card(name: &str, parent: Option<&str>, max_model_len: Option<u32>) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "llmd-sched",
        "root": parent.unwrap_or(name),
        "parent": parent,
        "max_model_len": max_model_len,
    })
}
