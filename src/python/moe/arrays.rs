//! Loads and maps as numpy has them.

use super::cannot_be;
use crate::errors::ConfigError;
use llmd_brain::moe::{EMPTY, ExpertLoad};
use numpy::{
    Element, PyArray2, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// Tokens of `layers x experts`.
pub fn load(given: &Bound<'_, PyAny>) -> PyResult<ExpertLoad> {
    let (shape, tokens) = matrix::<f64>("load", given, b"iuf", "float64")?;
    ExpertLoad::new(shape[0], shape[1], tokens).map_err(|error| cannot_be(&error))
}

/// Logical experts of `layers x slots`; -1 is an empty slot.
pub fn slots(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u32>>> {
    let (shape, ids) = matrix::<i64>(name, given, b"iu", "int64")?;
    let expert = |id: &i64| match *id {
        -1 => Ok(EMPTY),
        id => u32::try_from(id).map_err(|_| {
            ConfigError::new_err(format!("{name} holds {id}: give logical experts, or -1 for none"))
        }),
    };
    ids.chunks_exact(shape[1].max(1)).map(|layer| layer.iter().map(expert).collect()).collect()
}

fn matrix<T: Element + Copy>(
    name: &str,
    given: &Bound<'_, PyAny>,
    kinds: &[u8],
    dtype: &str,
) -> PyResult<([usize; 2], Vec<T>)> {
    let bad = |what: &str| {
        ConfigError::new_err(format!("{name} is {what}: give a two-dimensional array of numbers"))
    };
    let array = given.py().import("numpy")?.call_method1("ascontiguousarray", (given,))?;
    let untyped = array.cast::<PyUntypedArray>().map_err(|_| bad("no array"))?;
    if !kinds.contains(&untyped.dtype().kind()) {
        return Err(bad(&format!("of dtype {}", untyped.dtype())));
    }
    let typed = array.call_method1("astype", (dtype,))?;
    let shape = untyped.shape();
    let typed = typed.cast::<PyArray2<T>>().map_err(|_| bad(&format!("of shape {shape:?}")))?;
    Ok(([shape[0], shape[1]], typed.to_vec()?))
}
