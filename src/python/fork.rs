//! The hooks of `os.register_at_fork`.

use llmd_bodies::router::fork;
use pyo3::prelude::*;

/// Writes down what a child needs of each router.
#[pyfunction]
pub fn _before_fork() {
    fork::before();
}

/// Leaves the parent's routers alone in the child, and goes on in the parent.
#[pyfunction]
pub fn _after_fork(in_child: bool) {
    if in_child {
        fork::after_in_child();
    } else {
        fork::after_in_parent();
    }
}

/// Has Python call the hooks.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let after = module.getattr("_after_fork")?;
    let partial = py.import("functools")?.getattr("partial")?;
    let hooks = pyo3::types::PyDict::new(py);
    hooks.set_item("before", module.getattr("_before_fork")?)?;
    hooks.set_item("after_in_parent", partial.call1((&after, false))?)?;
    hooks.set_item("after_in_child", partial.call1((&after, true))?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&hooks))?;
    Ok(())
}
