//! JSON as a client wrote it: the order of keys and the kind of each number, which templates print.

use indexmap::IndexMap;
use minijinja::Value;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Fields in the order in which they were written. Of one that comes twice the last value counts, at the
/// place of the first, as in Python.
pub type Object = IndexMap<String, Json>;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction and exponent.
    Int(i128),
    /// Any other number, which is finite.
    Float(f64),
    /// Text.
    String(String),
    /// A list.
    Array(Vec<Json>),
    /// Fields.
    Object(Object),
}

impl Json {
    /// Reads text.
    ///
    /// # Errors
    /// Text that is no JSON, and numbers that Python would read as something that is none of these.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Text, where it is some.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// What it is, in words for an error.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::String(_) => "text",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// The same for a template.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::from(()),
            Self::Bool(it) => Value::from(it),
            Self::Int(it) => Value::from(it),
            Self::Float(it) => Value::from(it),
            Self::String(it) => Value::from(it),
            Self::Array(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(fields) => {
                Value::from_pairs(fields.into_iter().map(|(name, it)| (name, it.into_value())))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Json, E> {
        Ok(Json::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Json, E> {
        Ok(Json::Int(it.into()))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Json, E> {
        Ok(Json::Int(it.into()))
    }

    /// `-0` comes here as well as `-0.0`, and a whole number of more than 64 bits as the nearest float:
    /// what cannot be told apart any more is refused.
    fn visit_f64<E: Error>(self, it: f64) -> Result<Json, E> {
        let is_clear = it.abs() < 9.2e18 && (it != 0.0 || it.is_sign_positive());
        if !is_clear && it.fract() == 0.0 {
            return Err(E::custom(format_args!("the number {it:?} may have been a whole number")));
        }
        Ok(Json::Float(it))
    }

    fn visit_str<E>(self, it: &str) -> Result<Json, E> {
        Ok(Json::String(it.to_owned()))
    }

    fn visit_string<E>(self, it: String) -> Result<Json, E> {
        Ok(Json::String(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Object::new();
        while let Some((name, it)) = map.next_entry()? {
            fields.insert(name, it);
        }
        Ok(Json::Object(fields))
    }
}
