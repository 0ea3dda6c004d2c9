//! What can be wrong with a configuration, and why a request has no candidate.

use super::registry::Family;

/// A configuration that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// No profile has this name.
    #[error("profile {name:?} is unknown: write it under `profiles`, or use one of {}", known.join(", "))]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// The user's profiles and the built-in ones.
        known: Vec<String>,
    },
    /// No plugin of the family has this name.
    #[error("profile {profile:?}: {family} {name:?} is unknown: use one of {}", known.join(", "))]
    UnknownPlugin {
        /// In which profile.
        profile: String,
        /// Filter, scorer or picker.
        family: Family,
        /// What was asked for.
        name: String,
        /// Every plugin of the family.
        known: Vec<&'static str>,
    },
    /// A parameter that the plugin does not have, or with a value that it cannot take.
    #[error("profile {profile:?}: {family} {name}: {reason}")]
    Params {
        /// In which profile.
        profile: String,
        /// Filter, scorer or picker.
        family: Family,
        /// Of which plugin.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A weight that is negative or not a number.
    #[error(
        "profile {profile:?}: scorer {name}: weight is {weight}: use a finite number, 0 or more"
    )]
    Weight {
        /// In which profile.
        profile: String,
        /// Of which scorer.
        name: String,
        /// What it was.
        weight: f64,
    },
    /// Two foreign scorers whose columns could not be told apart.
    #[error("profile {profile:?}: two foreign scorers are called {name:?}: give each its own `as`")]
    DuplicateForeign {
        /// In which profile.
        profile: String,
        /// The name that both have.
        name: String,
    },
    /// More plugins than any profile needs.
    #[error("profile {profile:?} has {count} plugins, more than the limit of {limit}")]
    TooManyPlugins {
        /// Which profile.
        profile: String,
        /// How many it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
}

/// Why nobody can be given a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCandidate {
    /// There is nobody.
    #[error("no endpoint in the fleet: add one first")]
    EmptyFleet,
    /// The hard filters removed everybody.
    #[error("{0}")]
    Excluded(Exclusions),
}

/// How many endpoints each hard filter removed; each endpoint is counted once, by the first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exclusions {
    /// Endpoints in the fleet.
    pub endpoints: u32,
    /// Cordoned, draining or unreachable.
    pub not_ready: u32,
    /// Serving another model.
    pub other_model: u32,
    /// Not among those that the request allows.
    pub not_allowed: u32,
    /// Without a label that the request requires.
    pub without_label: u32,
    /// Of a role that does not serve the request, or removed by another hard filter of the profile.
    pub by_profile: Vec<(String, u32)>,
}

impl std::fmt::Display for Exclusions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "none of {} endpoints can take the request:", self.endpoints)?;
        let reasons = [
            (self.not_ready, "not ready (cordoned, draining or unreachable)"),
            (self.other_model, "serving another model"),
            (self.not_allowed, "not among the endpoints it allows"),
            (self.without_label, "without a label it requires"),
        ];
        let mut separator = " ";
        for (count, reason) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        for (filter, count) in &self.by_profile {
            write!(f, "{separator}{count} removed by {filter}")?;
            separator = ", ";
        }
        Ok(())
    }
}
