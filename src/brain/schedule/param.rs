//! A plugin's parameters between the configuration file and the plugin that reads them.
//!
//! The configuration is read once, from TOML, YAML or a Python dict, before it is known which
//! plugin a table belongs to; so parameters travel as [`Param`] and each plugin reads its own
//! struct from them ([`read`]), with `deny_unknown_fields`.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Parameters by name, in the order of their names.
pub type Params = BTreeMap<String, Param>;

/// One value of a parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Param {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Param>),
    /// A table.
    Table(Params),
}

impl From<bool> for Param {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Param {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Param {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// Reads a plugin's own struct from its parameters.
///
/// # Errors
/// What serde says of the first field that is unknown, missing or of the wrong type; it names the
/// field and, where it is unknown, lists those that are known.
pub fn read<T: DeserializeOwned>(params: &Params) -> Result<T, de::value::Error> {
    T::deserialize(MapDeserializer::new(params.iter().map(|(k, v)| (k.as_str(), v))))
}

impl<'de> Deserialize<'de> for Param {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParamVisitor)
    }
}

struct ParamVisitor;

impl<'de> Visitor<'de> for ParamVisitor {
    type Value = Param;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a boolean, number, string, list or table")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Param, E> {
        Ok(Param::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Param, E> {
        Ok(Param::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Param, E> {
        i64::try_from(value)
            .map(Param::Integer)
            .map_err(|_| E::custom(format!("{value} is too large: at most {}", i64::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Param, E> {
        Ok(Param::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Param, E> {
        Ok(Param::Text(value.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Param, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Param::List(list))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Param, A::Error> {
        let mut table = Params::new();
        while let Some((key, value)) = map.next_entry()? {
            table.insert(key, value);
        }
        Ok(Param::Table(table))
    }
}

impl<'de> IntoDeserializer<'de, de::value::Error> for &'de Param {
    type Deserializer = ParamDeserializer<'de>;

    fn into_deserializer(self) -> ParamDeserializer<'de> {
        ParamDeserializer(self)
    }
}

/// Feeds a [`Param`] to any type.
pub struct ParamDeserializer<'de>(&'de Param);

impl<'de> Deserializer<'de> for ParamDeserializer<'de> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Param::Bool(value) => visitor.visit_bool(*value),
            Param::Integer(value) => visitor.visit_i64(*value),
            Param::Float(value) => visitor.visit_f64(*value),
            Param::Text(value) => visitor.visit_borrowed_str(value),
            Param::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter())),
            Param::Table(table) => {
                visitor.visit_map(MapDeserializer::new(table.iter().map(|(k, v)| (k.as_str(), v))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Param::Text(value) => {
                let variant: de::value::StrDeserializer<'_, Self::Error> =
                    value.as_str().into_deserializer();
                variant.deserialize_enum(name, variants, visitor)
            }
            _ => Err(de::Error::custom(format!("expected one of {}", variants.join(", ")))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
