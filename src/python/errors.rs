//! Rust's errors as the exceptions of `llmd_sched._errors`.



use pyo3::{PyErr, import_exception};

import_exception!(llmd_sched._errors, ConfigError);
import_exception!(llmd_sched._errors, EndpointError);
import_exception!(llmd_sched._errors, EngineError);
import_exception!(llmd_sched._errors, KvTimeoutError);
import_exception!(llmd_sched._errors, LlmdError);
import_exception!(llmd_sched._errors, NoEndpointError);
import_exception!(llmd_sched._errors, PromptError);
import_exception!(llmd_sched._errors, ReplayError);
import_exception!(llmd_sched._errors, RouterClosedError);
import_exception!(llmd_sched._errors, ScoreError);
import_exception!(llmd_sched._errors, UnknownEndpointError);
