//! `foreign`: scores that code outside the brain gave, a Python callable for instance.
//!
//! Formula: the value given for the candidate, clamped to `[0, 1]`.
//!
//! Inputs: the scores that came with the request. Parameters: `as`, the name under which they come.
//! Limits: scores are given for the candidates that were known before the profile's filters ran;
//! where one of those that remain has none (it joined since), or there are no scores at all (the
//! callable failed), the whole column is neutral, which is counted and said in the explanation.

use super::{Degraded, Scorer};
use crate::schedule::ForeignScore;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "foreign",
    build: |params| {
        let scorer: Foreign = registry::read(params)?;
        if scorer.name.is_empty() {
            return Err("`as` is empty: give the scorer a name".to_owned());
        }
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreign {
    #[serde(rename = "as")]
    name: String,
}

/// The scores given for the candidates that remain.
pub(in crate::schedule) fn column(
    given: &ForeignScore,
    cx: &Context<'_>,
    out: &mut [f64],
) -> Result<(), Degraded> {
    let name = &given.name;
    if given.values.len() != given.candidates.len() {
        let (values, candidates) = (given.values.len(), given.candidates.len());
        return Err(format!(
            "foreign scorer {name:?} gave {values} scores for {candidates} candidates"
        ));
    }
    // Both lists are in slot order.
    let mut scores = given.candidates.iter().zip(&given.values);
    for (out, id) in out.iter_mut().zip(cx.ids()) {
        let Some((_, &score)) = scores.find(|(candidate, _)| *candidate == id) else {
            return Err(format!(
                "foreign scorer {name:?} gave no score for {id}: the candidates changed"
            ));
        };
        *out = score;
    }
    Ok(())
}

impl Scorer for Foreign {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        match cx.foreign.iter().find(|scores| scores.name == self.name) {
            Some(given) => column(given, cx, out),
            None => Err(format!("foreign scorer {:?} gave no scores", self.name)),
        }
    }

    fn foreign_name(&self) -> Option<&str> {
        Some(&self.name)
    }
}
