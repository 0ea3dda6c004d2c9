//! Names of models that stand for others: which one a request gets.
//!
//! An operator names a model that no engine serves (`prod`) and says by what share each of its versions
//! gets the requests. Who asks decides, by the hash of a session or of a prompt: every router comes to the
//! same answer without asking another, and a session stays on its side.
//!
//! Weighted rendezvous hashing (Thaler & Ravishankar 1998; weights as in Schindelhauer & Schomaker 2005,
//! the logarithmic method): each side draws `u` in (0, 1) from the hash of itself and of who asks, and the
//! largest `weight / -ln u` wins, which is side `i` with probability `weight_i / sum`. A side whose weight
//! grows takes sessions from the others, and nobody moves between those; a side that nobody serves leaves
//! its sessions to the others, and gets the same ones back.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The sides of each alias, with their weights; of any sum.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Sides", into = "Sides")]
pub struct Aliases {
    sides: Sides,
}

type Sides = BTreeMap<String, BTreeMap<String, f64>>;

/// Aliases that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AliasError {
    /// The empty name stands for any model already.
    #[error("an alias or a model of it has no name: give it one")]
    NoName,
    /// A weight is no share of anything.
    #[error("alias {alias:?} gives {model:?} the weight {weight}: give 0 or more")]
    Weight {
        /// Whose.
        alias: String,
        /// Which side.
        model: String,
        /// How much.
        weight: f64,
    },
    /// Nobody would get its requests.
    #[error("alias {0:?} has no model with a weight above 0: give it one")]
    NoModel(String),
    /// An alias of an alias, which is not followed.
    #[error("alias {alias:?} names {model:?}, which is an alias too: name the models themselves")]
    OfAlias {
        /// Which one.
        alias: String,
        /// What it names.
        model: String,
    },
}

impl TryFrom<Sides> for Aliases {
    type Error = AliasError;

    fn try_from(sides: Sides) -> Result<Self, AliasError> {
        for (alias, models) in &sides {
            if alias.is_empty() || models.contains_key("") {
                return Err(AliasError::NoName);
            }
            for (model, &weight) in models {
                let alias = || alias.clone();
                if !(weight.is_finite() && weight >= 0.0) {
                    return Err(AliasError::Weight {
                        alias: alias(),
                        model: model.clone(),
                        weight,
                    });
                }
                if sides.contains_key(model) {
                    return Err(AliasError::OfAlias { alias: alias(), model: model.clone() });
                }
            }
            if models.values().all(|&weight| weight == 0.0) {
                return Err(AliasError::NoModel(alias.clone()));
            }
        }
        Ok(Self { sides })
    }
}

impl From<Aliases> for Sides {
    fn from(aliases: Aliases) -> Self {
        aliases.sides
    }
}

impl Aliases {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sides.is_empty()
    }

    /// Every alias with each of its models.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sides.iter().flat_map(|(alias, models)| {
            models.keys().map(move |model| (alias.as_str(), model.as_str()))
        })
    }

    /// The model that whoever has the hash `who` gets for a name; `None` where it is no alias. Where
    /// somebody is said to serve one of its models, one of those.
    #[must_use]
    pub fn model(&self, name: &str, who: u64, is_served: impl Fn(&str) -> bool) -> Option<&str> {
        let models = self.sides.get(name)?;
        let best = |served_alone: bool| {
            let mut best: Option<(f64, &str)> = None;
            for (model, &weight) in models {
                if weight == 0.0 || (served_alone && !is_served(model)) {
                    continue;
                }
                let score = weight / -libm::log(share(xxh3_64_with_seed(model.as_bytes(), who)));
                if best.is_none_or(|(most, _)| score > most) {
                    best = Some((score, model));
                }
            }
            best.map(|(_, model)| model)
        };
        best(true).or_else(|| best(false))
    }
}

/// A hash as a number between 0 and 1, neither of which it is.
fn share(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aliases(sides: &[(&str, f64)]) -> Aliases {
        let models = sides.iter().map(|&(model, weight)| (model.to_owned(), weight)).collect();
        Aliases::try_from(Sides::from([("prod".to_owned(), models)])).unwrap()
    }

    fn side(aliases: &Aliases, who: u64) -> &str {
        aliases.model("prod", who, |_| true).unwrap()
    }

    /// Hashes of as many sessions.
    fn sessions(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|it| xxhash_rust::xxh3::xxh3_64(&it.to_le_bytes()))
    }

    #[test]
    fn a_name_that_is_no_alias_stays_what_it_is() {
        assert_eq!(aliases(&[("a", 1.0)]).model("a", 1, |_| true), None);
        assert_eq!(Aliases::default().model("prod", 1, |_| true), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let read = |json: &str| serde_json::from_str::<Aliases>(json).unwrap_err().to_string();
        assert!(read(r#"{"prod": {"a": -1}}"#).contains("gives \"a\" the weight -1"));
        assert!(read(r#"{"prod": {"a": 0}}"#).contains("no model with a weight above 0"));
        assert!(read(r#"{"prod": {}}"#).contains("no model with a weight above 0"));
        assert!(read(r#"{"": {"a": 1}}"#).contains("has no name"));
        assert!(read(r#"{"p": {"q": 1}, "q": {"a": 1}}"#).contains("which is an alias too"));
    }

    proptest! {
        #[test]
        fn shares_are_those_of_the_weights(a in 1u32..100, b in 0u32..100, c in 0u32..100) {
            let weights = [("a", a), ("b", b), ("c", c)].map(|(it, weight)| (it, f64::from(weight)));
            let aliases = aliases(&weights);
            let count = 4_000;
            let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
            for (model, weight) in weights {
                let got = sessions(count).filter(|&who| side(&aliases, who) == model).count() as f64;
                let expected = weight / total;
                // Five standard deviations.
                let slack = 5.0 * (expected * (1.0 - expected) / count as f64).sqrt() + 1e-9;
                prop_assert!((got / count as f64 - expected).abs() <= slack, "{model}: {got}");
            }
        }

        #[test]
        fn a_side_that_grows_takes_from_the_others_alone(
            a in 0.1f64..10.0, b in 0.1f64..10.0, c in 0.0f64..10.0, more in 0.0f64..10.0,
        ) {
            let before = aliases(&[("a", a), ("b", b), ("c", c)]);
            let after = aliases(&[("a", a), ("b", b), ("c", c + more)]);
            for who in sessions(300) {
                let (was, is) = (side(&before, who), side(&after, who));
                prop_assert!(was == is || is == "c", "{was} -> {is}");
            }
        }

        #[test]
        fn a_side_that_nobody_serves_leaves_its_own_to_the_others(a in 0.1f64..9.0, b in 0.1f64..9.0) {
            let aliases = aliases(&[("a", a), ("b", b), ("c", 1.0)]);
            for who in sessions(300) {
                let is = aliases.model("prod", who, |model| model != "c").unwrap();
                prop_assert!(is != "c");
                prop_assert!(side(&aliases, who) == is || side(&aliases, who) == "c");
                // Where nobody is there, it is the one that it would be.
                prop_assert_eq!(aliases.model("prod", who, |_| false), Some(side(&aliases, who)));
            }
        }
    }
}
