//! The fields of a payload: a mapping's items, or anything else's attributes.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple,
};

/// Something that has fields.
pub enum Fields<'a, 'py> {
    /// As most payloads are: read without a call into Python.
    Dict(&'a Bound<'py, PyDict>),
    /// Any other mapping, asked by its own `get`.
    Mapping(&'a Bound<'py, PyAny>),
    /// Anything else, such as a parsed model or a namespace.
    Attributes(&'a Bound<'py, PyAny>),
}

impl<'a, 'py> Fields<'a, 'py> {
    /// How to read `value`; `None` where it is a plain value, which has no fields.
    pub fn of(value: &'a Bound<'py, PyAny>) -> Option<Self> {
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return Some(Self::Dict(dict));
        }
        let is_plain = value.is_none()
            || value.is_instance_of::<PyString>()
            || value.is_instance_of::<PyInt>()
            || value.is_instance_of::<PyList>()
            || value.is_instance_of::<PyTuple>()
            || value.is_instance_of::<PyFloat>()
            || value.is_instance_of::<PyBytes>()
            || value.is_instance_of::<PyByteArray>();
        if is_plain {
            return None;
        }
        Some(match value.cast::<PyMapping>() {
            Ok(_) => Self::Mapping(value),
            Err(_) => Self::Attributes(value),
        })
    }

    /// The value of a field; one that is `None` is as good as absent.
    pub fn get(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = match self {
            Self::Dict(dict) => dict.get_item(name)?,
            Self::Mapping(mapping) => {
                Some(mapping.call_method1(intern!(mapping.py(), "get"), (name,))?)
            }
            Self::Attributes(object) => Some(attribute(object, name)?),
        };
        Ok(found.filter(|value| !value.is_none()))
    }
}

/// An attribute, or `None`.
///
/// NOTE(perf): by the built-in `getattr` with a default, which raises nothing where there is none.
/// The C interface of Python 3.10 has no such call, and would make an exception to throw away.
pub fn attribute<'py>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    static GETATTR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let getattr = GETATTR.import(py, "builtins", "getattr")?;
    getattr.call1((object, name, py.None()))
}
