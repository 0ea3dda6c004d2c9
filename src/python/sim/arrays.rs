//! Numbers of a workload as numpy has them, converted with a range check.

use crate::errors::WorkloadError;
use llmd_brain::BlockKey;
use numpy::{
    Element, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// Milliseconds, finite and not negative.
pub fn milliseconds(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let values: Vec<f64> = column(name, given, b"iuf", "float64")?;
    match values.iter().position(|at| !at.is_finite() || *at < 0.0) {
        Some(row) => Err(WorkloadError::new_err(format!(
            "{name}[{row}] is {}: give finite milliseconds, 0 or more",
            values[row]
        ))),
        None => Ok(values),
    }
}

/// Lengths, each 1 to 4294967295.
pub fn lengths(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let values: Vec<i64> = column(name, given, b"iu", "int64")?;
    let narrow = |(row, &value): (usize, &i64)| {
        u32::try_from(value).ok().filter(|&tokens| tokens > 0).ok_or_else(|| {
            WorkloadError::new_err(format!("{name}[{row}] is {value}: give 1 to {}", u32::MAX))
        })
    };
    values.iter().enumerate().map(narrow).collect()
}

/// Keys: any integers of 64 bits.
pub fn keys(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<BlockKey>> {
    let values: Vec<u64> = column(name, given, b"iu", "uint64")?;
    Ok(values.into_iter().map(BlockKey).collect())
}

/// Where each part begins, and the end: from 0 to `end`, ascending.
pub fn offsets(name: &str, given: &Bound<'_, PyAny>, end: usize) -> PyResult<Vec<usize>> {
    let values: Vec<i64> = column(name, given, b"iu", "int64")?;
    let ascends = values.windows(2).all(|pair| pair[0] <= pair[1]);
    if values.first() != Some(&0) || values.last() != Some(&(end as i64)) || !ascends {
        return Err(WorkloadError::new_err(format!(
            "{name}: give where each part begins and the end, ascending from 0 to {end}"
        )));
    }
    Ok(values.into_iter().map(|at| at as usize).collect())
}

/// One-dimensional numbers of a kind, by numpy.
fn column<T: Element + Copy>(
    name: &str,
    given: &Bound<'_, PyAny>,
    kinds: &[u8],
    dtype: &str,
) -> PyResult<Vec<T>> {
    let bad = |what: &str| {
        WorkloadError::new_err(format!("{name} is {what}: give a one-dimensional array of numbers"))
    };
    let array = given.py().import("numpy")?.call_method1("asarray", (given,))?;
    let untyped = array.cast::<PyUntypedArray>().map_err(|_| bad("no array"))?;
    // An empty list has no kind of its own: numpy takes it for floats.
    if !kinds.contains(&untyped.dtype().kind()) && untyped.len() > 0 {
        return Err(bad(&format!("of dtype {}", untyped.dtype())));
    }
    let typed = array.call_method1("astype", (dtype,))?;
    let typed =
        typed.cast::<PyArray1<T>>().map_err(|_| bad(&format!("of shape {:?}", untyped.shape())))?;
    Ok(typed.to_vec()?)
}
