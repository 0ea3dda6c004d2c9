//! How a user says which endpoint is best.
//!
//! ```toml
//! profile = "mine"                          # or a built-in one: "default", "llm-d", ...
//!
//! [profiles.mine]
//! filters = ["prefix-cache-affinity-filter"]
//! scorers = [
//!   { name = "token-load-scorer", weight = 2.0, threshold_tokens = 1_000_000 },
//!   { name = "foreign", as = "my-scorer", weight = 1.0 },
//! ]
//! picker = "max-score-picker"
//! ```

use super::param::{Param, Params};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which profile schedules, and the profiles that the user wrote.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The profile in use: the name of one of `profiles`, of a built-in one, or a profile itself.
    pub profile: ProfileChoice,
    /// Profiles by name; one with the name of a built-in profile replaces it.
    pub profiles: BTreeMap<String, ProfileConfig>,
}

/// A profile by name or in place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ProfileChoice {
    /// By name.
    Named(String),
    /// In place.
    Inline(ProfileConfig),
}

impl Default for ProfileChoice {
    fn default() -> Self {
        Self::Named("default".to_owned())
    }
}

/// Filter, score, pick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileConfig {
    /// Who may be scored; applied in this order.
    #[serde(default)]
    pub filters: Vec<PluginConfig>,
    /// How good each is; the weighted scores are summed in this order.
    #[serde(default)]
    pub scorers: Vec<ScorerConfig>,
    /// Who gets it.
    #[serde(default = "PluginConfig::max_score")]
    pub picker: PluginConfig,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self { filters: Vec::new(), scorers: Vec::new(), picker: PluginConfig::max_score() }
    }
}

/// A filter or picker with its parameters: a table with `name`, or just the name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PluginConfig {
    /// Name of the plugin.
    pub name: String,
    /// Its parameters; those that are missing take their defaults.
    #[serde(flatten)]
    pub params: Params,
}

/// A scorer with its weight and parameters: a table with `name`, or just the name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScorerConfig {
    /// Name of the scorer.
    pub name: String,
    /// Factor of its scores in the sum, finite and not negative.
    pub weight: f64,
    /// Its parameters; those that are missing take their defaults.
    #[serde(flatten)]
    pub params: Params,
}

impl PluginConfig {
    /// A plugin with its default parameters.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), params: Params::new() }
    }

    /// The same with one parameter set.
    #[must_use]
    pub fn with(mut self, param: &str, value: impl Into<Param>) -> Self {
        self.params.insert(param.to_owned(), value.into());
        self
    }

    fn max_score() -> Self {
        Self::new("max-score-picker")
    }
}

impl ScorerConfig {
    /// A scorer with its default parameters.
    #[must_use]
    pub fn new(name: &str, weight: f64) -> Self {
        Self { name: name.to_owned(), weight, params: Params::new() }
    }

    /// The same with one parameter set.
    #[must_use]
    pub fn with(mut self, param: &str, value: impl Into<Param>) -> Self {
        self.params.insert(param.to_owned(), value.into());
        self
    }
}

impl<'de> Deserialize<'de> for ProfileChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrProfile;

        impl<'de> Visitor<'de> for NameOrProfile {
            type Value = ProfileChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a profile, or a profile")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ProfileChoice, E> {
                Ok(ProfileChoice::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProfileChoice, A::Error> {
                ProfileConfig::deserialize(MapAccessDeserializer::new(map))
                    .map(ProfileChoice::Inline)
            }
        }

        deserializer.deserialize_any(NameOrProfile)
    }
}

/// An entry as it is written: everything but `name` and `weight` is a parameter.
#[derive(Deserialize)]
struct Table {
    name: String,
    weight: Option<f64>,
    #[serde(flatten)]
    params: Params,
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a plugin, or a table with its `name` and parameters")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Table, E> {
        Ok(Table { name: name.to_owned(), weight: None, params: Params::new() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for PluginConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Table { name, weight, params } = deserializer.deserialize_any(NameOrTable)?;
        if weight.is_some() {
            return Err(de::Error::custom(format!(
                "{name}: only a scorer has a `weight`: remove it, or move the entry to `scorers`"
            )));
        }
        Ok(Self { name, params })
    }
}

impl<'de> Deserialize<'de> for ScorerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Table { name, weight, params } = deserializer.deserialize_any(NameOrTable)?;
        Ok(Self { name, weight: weight.unwrap_or(1.0), params })
    }
}
