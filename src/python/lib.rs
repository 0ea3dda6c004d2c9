//! Python bindings: convert, call, convert back.

mod errors;
mod json;
mod prompt;
mod tokens;

use pyo3::prelude::*;

/// The docstring of a name in `python/llmd_sched/_core.pyi`.
macro_rules! stub_doc {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".txt"))
    };
}

#[doc = stub_doc!("module")]
#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::prompt::probe;
    #[pymodule_export]
    use crate::prompt::probe_json;
}
