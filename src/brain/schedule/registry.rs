//! How a name in the configuration becomes a plugin.

use super::param::{self, Params};
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::RangeInclusive;

/// The three kinds of plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Decides who may be scored.
    Filter,
    /// Says how good a candidate is.
    Scorer,
    /// Decides who gets the request.
    Picker,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Scorer => "scorer",
            Self::Picker => "picker",
        })
    }
}

/// A plugin as its family lists it. `T` is the family's trait.
pub struct Plugin<T: ?Sized> {
    /// Its name in a profile.
    pub name: &'static str,
    /// Builds it from its parameters; an error says which one is wrong and what would be right.
    pub build: fn(&Params) -> Result<Box<T>, String>,
}

/// Reads a plugin's own struct from its parameters.
pub(super) fn read<T: DeserializeOwned>(params: &Params) -> Result<T, String> {
    param::read(params).map_err(|error| error.to_string())
}

/// Refuses a parameter outside of its range, or not a number.
pub(super) fn in_range(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    let (low, high) = (range.start(), range.end());
    Err(if *high < f64::MAX {
        format!("`{name}` is {value}: use {low} to {high}")
    } else {
        format!("`{name}` is {value}: use a finite number, {low} or more")
    })
}

/// The range of a share.
pub(super) const SHARE: RangeInclusive<f64> = 0.0..=1.0;
/// The range of an amount.
pub(super) const AMOUNT: RangeInclusive<f64> = 0.0..=f64::MAX;
