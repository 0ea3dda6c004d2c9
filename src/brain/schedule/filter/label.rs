//! `label-selector-filter`: the endpoints whose labels match.
//!
//! Source: llm-d's `label-selector-filter`, Kubernetes label selectors. Formula: every entry of
//! `match_labels` equals the endpoint's label, and every entry of `match_expressions` holds:
//! `in` (the label is one of the values), `not-in` (it is none of them, or missing), `exists`,
//! `does-not-exist`.
//!
//! Inputs: the endpoint's labels. Defaults: none of either, which keeps everybody.
//! Limits: hard, as in llm-d; compare with `required_labels` of a request, which asks the same for
//! one request.

use super::Filter;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;
use std::collections::BTreeMap;

pub(super) const PLUGIN: Plugin<dyn Filter> = Plugin {
    name: "label-selector-filter",
    build: |params| {
        let selector: LabelSelector = registry::read(params)?;
        for expression in &selector.match_expressions {
            expression.validate()?;
        }
        Ok(Box::new(selector))
    },
};

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct LabelSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Expression {
    fn validate(&self) -> Result<(), String> {
        let wants_values = matches!(self.operator, Operator::In | Operator::NotIn);
        if wants_values == self.values.is_empty() {
            let needs = if wants_values { "at least one value" } else { "no values" };
            return Err(format!(
                "`match_expressions` for label {:?}: the operator takes {needs}",
                self.key
            ));
        }
        Ok(())
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let listed = label.is_some_and(|label| self.values.contains(label));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

impl LabelSelector {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }
}

impl Filter for LabelSelector {
    fn filter(&self, cx: &Context<'_>, _rng: &mut Rng, keep: &mut [bool]) {
        for (keep, spec) in keep.iter_mut().zip(cx.specs()) {
            *keep = spec.is_some_and(|spec| self.selects(&spec.labels));
        }
    }

    fn is_hard(&self) -> bool {
        true
    }
}
