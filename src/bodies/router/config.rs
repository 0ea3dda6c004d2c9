//! The settings of a router, from a TOML, YAML or JSON file or from a tree of values, by one path.

use super::observers::ObserveConfig;
use llmd_brain::aliases::Aliases;
use llmd_brain::brain::BrainConfig;
use llmd_brain::fleet::FleetConfig;
use llmd_brain::flow::FlowConfig;
use llmd_brain::index::IndexConfig;
use llmd_brain::predict::PredictConfig;
use llmd_brain::schedule::ScheduleConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Settings of a router: those of its brain, and those of the body around it. Unknown keys are
/// errors; every key has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// Tokens a block key stands for. Best the engines' own block size, or a divisor of it.
    pub block_size: u32,
    /// Seeds every random choice: equal seeds and inputs give equal decisions.
    pub seed: u64,
    /// Bounds of the KV index.
    pub index: IndexConfig,
    /// Bounds and ages of the fleet.
    pub fleet: FleetConfig,
    /// Latency models.
    pub predict: PredictConfig,
    /// Filters, scorers and pickers.
    pub schedule: ScheduleConfig,
    /// Holding of requests that have no place yet.
    pub flow: FlowConfig,
    /// Models that stand for others, by weight.
    pub aliases: Aliases,
    /// How engines are followed.
    pub observe: ObserveConfig,
    /// A new file that gets the decision log.
    pub record: Option<PathBuf>,
    /// A file of learned latency models, taken up at the start where it is there.
    pub predictor: Option<PathBuf>,
}

impl Default for RouterConfig {
    fn default() -> Self {
        let BrainConfig { block_size, seed, index, fleet, predict, schedule, flow } =
            BrainConfig::default();
        Self {
            block_size,
            seed,
            index,
            fleet,
            predict,
            schedule,
            flow,
            aliases: Aliases::default(),
            observe: ObserveConfig::default(),
            record: None,
            predictor: None,
        }
    }
}

impl RouterConfig {
    /// The settings in a tree of values, such as a parsed JSON document.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the key.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        from_value(value)
    }

    /// What the brain needs of them.
    #[must_use]
    pub fn brain(&self) -> BrainConfig {
        BrainConfig {
            block_size: self.block_size,
            seed: self.seed,
            index: self.index.clone(),
            fleet: self.fleet.clone(),
            predict: self.predict.clone(),
            schedule: self.schedule.clone(),
            flow: self.flow.clone(),
        }
    }
}

/// Why a configuration cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path:?} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("configuration {path:?} has {bytes} bytes, more than the limit of {MAX_FILE_BYTES}")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How large it is.
        bytes: u64,
    },
    /// The name of the file does not say how it is written.
    #[error("configuration {0:?}: the name must end in .toml, .yaml, .yml or .json")]
    Format(PathBuf),
    /// The file is not what its name says.
    #[error("configuration {path:?} is not {format}: {reason}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        format: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// A key is unknown, or has a value that it cannot take.
    #[error("configuration: {place}{reason}")]
    Value {
        /// `path.of.the.key: `, or nothing at the top.
        place: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// The tree of values in a file, by its extension.
///
/// # Errors
/// Every [`ConfigError`] but [`ConfigError::Value`].
pub fn read_file(path: &Path) -> Result<Value, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let format = match extension {
        "toml" => "TOML",
        "yaml" | "yml" => "YAML",
        "json" => "JSON",
        _ => return Err(ConfigError::Format(path.to_owned())),
    };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let parsed = match format {
        "TOML" => toml::from_str(&text).map_err(|error| error.to_string()),
        "YAML" => serde_norway::from_str(&text).map_err(|error| error.to_string()),
        _ => serde_json::from_str(&text).map_err(|error| error.to_string()),
    };
    match parsed {
        // An empty YAML document.
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value) => Ok(value),
        Err(reason) => Err(ConfigError::Syntax { path: path.to_owned(), format, reason }),
    }
}

/// Settings of any kind in a tree of values.
///
/// # Errors
/// [`ConfigError::Value`], naming the key.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ConfigError> {
    // A struct can be read from a list too, by position; nobody means that.
    if !value.is_object() {
        let reason = format!("invalid type: {value}, expected a table");
        return Err(ConfigError::Value { place: String::new(), reason });
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        ConfigError::Value { place, reason: error.into_inner().to_string() }
    })
}

/// Puts `value` at `path`, over what the tree says there; tables on the way are made.
///
/// # Errors
/// [`ConfigError::Value`] where something on the way is not a table.
pub fn overlay(tree: &mut Value, path: &[&str], value: Value) -> Result<(), ConfigError> {
    let mut at = tree;
    for (depth, key) in path.iter().enumerate() {
        let place =
            if depth == 0 { String::new() } else { format!("{}: ", path[..depth].join(".")) };
        let Value::Object(table) = at else {
            let reason = format!("invalid type: {at}, expected a table");
            return Err(ConfigError::Value { place, reason });
        };
        let empty = if depth + 1 == path.len() { Value::Null } else { Value::Object(Map::new()) };
        at = table.entry(*key).or_insert(empty);
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_known_ones() {
        let error = RouterConfig::from_value(json!({"index": {"max_blocks": 1}})).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("index.max_blocks: unknown field `max_blocks`"), "{message}");
        assert!(message.contains("`max_bytes`"), "{message}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let error = RouterConfig::from_value(json!({"block_size": "big"})).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("block_size: invalid type: string \"big\""), "{message}");
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(RouterConfig::from_value(json!({})).unwrap(), RouterConfig::default());
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = RouterConfig { block_size: 64, seed: 9, ..RouterConfig::default() };
        let value = serde_json::to_value(&config).unwrap();
        assert_eq!(RouterConfig::from_value(value).unwrap(), config);
    }

    #[test]
    fn an_overlay_makes_the_tables_on_its_way_and_replaces_what_is_there() {
        let mut tree = json!({"seed": 1});
        overlay(&mut tree, &["seed"], json!(2)).unwrap();
        overlay(&mut tree, &["schedule", "profile"], json!("mine")).unwrap();
        assert_eq!(tree, json!({"seed": 2, "schedule": {"profile": "mine"}}));
        let error = overlay(&mut tree, &["seed", "deeper"], json!(3)).unwrap_err();
        assert!(error.to_string().contains("seed: invalid type: 2, expected a table"), "{error}");
    }
}
