//! Python's values as JSON that keeps the order of keys and the kind of numbers, which templates print.

use llmd_bodies::tokenize::{Json, Object};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 64;

/// A JSON value of a Python one; parsed models say what they were given.
///
/// # Errors
/// `TypeError` for what JSON has no form of, `ValueError` for what is nested too deep or does not fit.
pub fn from_python(object: &Bound<'_, PyAny>) -> PyResult<Json> {
    convert(object, 0)
}

/// The fields of a mapping.
///
/// # Errors
/// As [`from_python`].
pub fn fields(mapping: &Bound<'_, PyDict>) -> PyResult<Object> {
    mapping.iter().map(|(name, value)| Ok((name.extract()?, convert(&value, 0)?))).collect()
}

fn convert(object: &Bound<'_, PyAny>, depth: usize) -> PyResult<Json> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!("it is nested more than {MAX_DEPTH} deep")));
    }
    if let Ok(text) = object.cast::<PyString>() {
        return Ok(Json::String(text.to_str()?.to_owned()));
    }
    if let Ok(dict) = object.cast::<PyDict>() {
        let pairs = dict.iter().map(|(name, value)| {
            Ok((name.cast::<PyString>()?.to_str()?.to_owned(), convert(&value, depth + 1)?))
        });
        return pairs.collect::<PyResult<Object>>().map(Json::Object);
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        let items = object.try_iter()?.map(|item| convert(&item?, depth + 1));
        return items.collect::<PyResult<Vec<Json>>>().map(Json::Array);
    }
    if object.is_none() {
        return Ok(Json::Null);
    }
    if object.is_instance_of::<PyBool>() {
        return Ok(Json::Bool(object.extract()?));
    }
    if object.is_instance_of::<PyInt>() {
        return Ok(Json::Int(object.extract::<i64>()?.into()));
    }
    if object.is_instance_of::<PyFloat>() {
        return Ok(Json::Float(object.extract()?));
    }
    if let Ok(mapping) = object.cast::<PyMapping>() {
        let mut made = Object::new();
        for pair in mapping.items()?.iter() {
            let (name, value): (String, Bound<'_, PyAny>) = pair.extract()?;
            made.insert(name, convert(&value, depth + 1)?);
        }
        return Ok(Json::Object(made));
    }
    let py = object.py();
    if let Ok(dump) = object.getattr(intern!(py, "model_dump")) {
        let unset = PyDict::new(py);
        unset.set_item(intern!(py, "exclude_unset"), true)?;
        return convert(&dump.call((), Some(&unset))?, depth + 1);
    }
    let kind = object.get_type();
    Err(PyTypeError::new_err(format!("{} is not JSON", kind.name()?)))
}
