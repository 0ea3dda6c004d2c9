//! A profile whose plugins have been built.

use super::config::ProfileConfig;
use super::filter::{FILTERS, Filter};
use super::param::Params;
use super::picker::{PICKERS, Picker};
use super::reasons::ProfileNames;
use super::registry::{Family, Plugin};
use super::scorer::{SCORERS, Scorer};
use super::{PluginConfig, ScheduleError};
use std::sync::Arc;

/// Most plugins in one profile; bounds what one decision costs.
const MAX_PLUGINS: usize = 64;

pub(super) struct WeightedScorer {
    /// What the explanation calls it: the plugin's name, or a foreign scorer's own.
    pub name: String,
    pub weight: f64,
    pub scorer: Box<dyn Scorer>,
}

pub(super) struct Profile {
    pub names: Arc<ProfileNames>,
    pub filters: Vec<Box<dyn Filter>>,
    pub scorers: Vec<WeightedScorer>,
    pub picker: Box<dyn Picker>,
    /// Whether endpoints of any role may reach the filters.
    pub any_role: bool,
}

impl Profile {
    pub(super) fn compile(name: &str, config: &ProfileConfig) -> Result<Self, ScheduleError> {
        let count = config.filters.len() + config.scorers.len() + 1;
        if count > MAX_PLUGINS {
            let profile = name.to_owned();
            return Err(ScheduleError::TooManyPlugins { profile, count, limit: MAX_PLUGINS });
        }
        let mut filters: Vec<Box<dyn Filter>> = Vec::new();
        for PluginConfig { name: plugin, params } in &config.filters {
            filters.push(build(FILTERS, Family::Filter, name, plugin, params)?);
        }
        let mut scorers: Vec<WeightedScorer> = Vec::new();
        for entry in &config.scorers {
            if !is_weight(entry.weight) {
                return Err(ScheduleError::Weight {
                    profile: name.to_owned(),
                    name: entry.name.clone(),
                    weight: entry.weight,
                });
            }
            let scorer = build(SCORERS, Family::Scorer, name, &entry.name, &entry.params)?;
            let foreign = scorer.foreign_name();
            if foreign.is_some_and(|foreign| is_taken(&scorers, foreign)) {
                return Err(ScheduleError::DuplicateForeign {
                    profile: name.to_owned(),
                    name: foreign.unwrap_or_default().to_owned(),
                });
            }
            let known_as = foreign.unwrap_or(&entry.name).to_owned();
            scorers.push(WeightedScorer { name: known_as, weight: entry.weight, scorer });
        }
        let PluginConfig { name: picker_name, params } = &config.picker;
        let picker = build(PICKERS, Family::Picker, name, picker_name, params)?;
        let any_role = filters.iter().any(|filter| filter.selects_role());
        let weighted = |entry: &WeightedScorer| (entry.name.clone(), entry.weight);
        let names = ProfileNames {
            profile: name.to_owned(),
            filters: config.filters.iter().map(|filter| filter.name.clone()).collect(),
            scorers: scorers.iter().map(weighted).collect(),
            picker: picker_name.clone(),
        };
        Ok(Self { names: Arc::new(names), filters, scorers, picker, any_role })
    }
}

/// Whether a number can be a scorer's weight.
pub(super) fn is_weight(weight: f64) -> bool {
    weight >= 0.0 && weight.is_finite()
}

fn is_taken(scorers: &[WeightedScorer], foreign: &str) -> bool {
    scorers.iter().any(|entry| entry.scorer.foreign_name() == Some(foreign))
}

fn build<T: ?Sized>(
    plugins: &'static [Plugin<T>],
    family: Family,
    profile: &str,
    name: &str,
    params: &Params,
) -> Result<Box<T>, ScheduleError> {
    let Some(plugin) = plugins.iter().find(|plugin| plugin.name == name) else {
        return Err(ScheduleError::UnknownPlugin {
            profile: profile.to_owned(),
            family,
            name: name.to_owned(),
            known: plugins.iter().map(|plugin| plugin.name).collect(),
        });
    };
    (plugin.build)(params).map_err(|reason| ScheduleError::Params {
        profile: profile.to_owned(),
        family,
        name: name.to_owned(),
        reason,
    })
}
