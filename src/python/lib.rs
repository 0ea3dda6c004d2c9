//! Python bindings: convert, call, convert back.

use pyo3::prelude::*;

/// The native module.
#[pymodule]
fn _core(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
