//! Python's mappings, sequences and scalars as JSON values, and back.

use crate::errors::ConfigError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyNone, PySequence, PyString,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};

/// Deepest nesting that is followed: a container that holds itself is refused, not walked.
const MAX_DEPTH: usize = 64;

/// A JSON value of a Python one.
///
/// # Errors
/// `TypeError` for what JSON has no form of, `ValueError` for numbers that are not finite and for
/// a nesting too deep; each names the place (`schedule.profiles[0]`).
pub fn from_python(object: &Bound<'_, PyAny>) -> PyResult<Value> {
    convert(object, &mut Vec::new())
}

/// Settings of what `what` names, from a Python mapping.
///
/// # Errors
/// `ConfigError` names what and which.
pub fn settings<T: DeserializeOwned>(what: &str, given: &Bound<'_, PyAny>) -> PyResult<T> {
    let named = |why: &dyn std::fmt::Display| ConfigError::new_err(format!("{what}: {why}"));
    let value = from_python(given).map_err(|error| named(&error.value(given.py())))?;
    serde_json::from_value(value).map_err(|error| named(&error))
}

/// The steps from the root to a value.
enum Step {
    Key(String),
    Item(usize),
}

fn convert(object: &Bound<'_, PyAny>, path: &mut Vec<Step>) -> PyResult<Value> {
    if path.len() > MAX_DEPTH {
        return Err(PyValueError::new_err(format!(
            "{} is nested more than {MAX_DEPTH} deep: does it hold itself?",
            shown(path)
        )));
    }
    if object.is_instance_of::<PyNone>() {
        return Ok(Value::Null);
    }
    if object.is_instance_of::<PyBool>() {
        return Ok(Value::Bool(object.extract()?));
    }
    if object.is_instance_of::<PyString>() {
        return Ok(Value::String(object.extract()?));
    }
    if object.is_instance_of::<PyFloat>() {
        return number(object.extract()?, path);
    }
    if object.is_instance_of::<PyInt>() {
        return integer(object, path);
    }
    if let Ok(mapping) = object.cast::<PyMapping>() {
        let mut map = Map::new();
        for pair in mapping.items()?.iter() {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            let Ok(key) = key.extract::<String>() else {
                return Err(PyTypeError::new_err(format!(
                    "{} has the key {key}: keys are strings",
                    shown(path)
                )));
            };
            path.push(Step::Key(key.clone()));
            map.insert(key, convert(&value, path)?);
            path.pop();
        }
        return Ok(Value::Object(map));
    }
    if let Ok(sequence) = object.cast::<PySequence>() {
        let mut items = Vec::new();
        for (index, item) in sequence.try_iter()?.enumerate() {
            path.push(Step::Item(index));
            items.push(convert(&item?, path)?);
            path.pop();
        }
        return Ok(Value::Array(items));
    }
    // Scalars of numpy say what they are by these methods.
    if object.call_method0("__index__").is_ok() {
        return integer(&object.call_method0("__index__")?, path);
    }
    if let Ok(float) = object.extract::<f64>() {
        return number(float, path);
    }
    Err(PyTypeError::new_err(format!(
        "{} is of type {}: use a mapping, a sequence, a string, a number, a bool or None",
        shown(path),
        object.get_type().name()?
    )))
}

fn number(value: f64, path: &[Step]) -> PyResult<Value> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| {
        PyValueError::new_err(format!("{} is {value}: numbers must be finite", shown(path)))
    })
}

fn integer(object: &Bound<'_, PyAny>, path: &[Step]) -> PyResult<Value> {
    if let Ok(value) = object.extract::<i64>() {
        return Ok(Value::from(value));
    }
    object.extract::<u64>().map(Value::from).map_err(|_| {
        PyValueError::new_err(format!("{} is {object}: it does not fit 64 bits", shown(path)))
    })
}

fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "the value".to_owned() } else { text }
}

/// The Python value of a JSON one.
///
/// # Errors
/// Where Python has no memory for it.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
            (Some(value), _, _) => value.into_pyobject(py)?.into_any(),
            (_, Some(value), _) => value.into_pyobject(py)?.into_any(),
            (_, _, value) => PyFloat::new(py, value.unwrap_or(f64::NAN)).into_any(),
        },
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(map) => {
            let dict = PyDict::new(py);
            for (key, item) in map {
                dict.set_item(key, to_python(py, item)?)?;
            }
            dict.into_any()
        }
    })
}

/// Plain Python values of a document.
///
/// # Errors
/// As [`to_python`].
pub fn document<'py>(py: Python<'py>, document: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let value =
        serde_json::to_value(document).map_err(|error| PyValueError::new_err(error.to_string()))?;
    to_python(py, &value)
}
