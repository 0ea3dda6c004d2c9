//! Rust's errors as the exceptions of `llmd_sched._errors`.

use llmd_bodies::router::{LearnedError as learned, RouterError, SnapshotError as snapshot};
use llmd_bodies::telemetry::decision_log::LogError;
use llmd_brain::brain::{BrainError, RejectReason, Rejected};
use llmd_brain::fleet::FleetError;
use llmd_brain::prompt;
use pyo3::exceptions::PyOSError;
use pyo3::{PyErr, import_exception};
use std::io;
use std::path::Path;

import_exception!(llmd_sched._errors, ConfigError);
import_exception!(llmd_sched._errors, EndpointError);
import_exception!(llmd_sched._errors, EngineError);
import_exception!(llmd_sched._errors, KvTimeoutError);
import_exception!(llmd_sched._errors, NoEndpointError);
import_exception!(llmd_sched._errors, NotExactError);
import_exception!(llmd_sched._errors, PeerError);
import_exception!(llmd_sched._errors, PromptError);
import_exception!(llmd_sched._errors, ReplayError);
import_exception!(llmd_sched._errors, RouterClosedError);
import_exception!(llmd_sched._errors, ScoreError);
import_exception!(llmd_sched._errors, SnapshotError);
import_exception!(llmd_sched._errors, UnknownEndpointError);
import_exception!(llmd_sched._errors, WorkloadError);

/// What a router refused, for Python.
pub fn router(error: RouterError) -> PyErr {
    let message = error.to_string();
    match error {
        RouterError::Closed => RouterClosedError::new_err(message),
        RouterError::Prompt(_) | RouterError::OnePrompt => PromptError::new_err(message),
        RouterError::Rejected(it) => rejected(&it),
        RouterError::UnknownEndpoint(_)
        | RouterError::AmbiguousAddress { .. }
        | RouterError::Brain(BrainError::Fleet(FleetError::Unknown(_))) => {
            UnknownEndpointError::new_err(message)
        }
        RouterError::Peers(_)
        | RouterError::Brain(BrainError::Fleet(
            FleetError::TooManyPeers(_) | FleetError::RouterName { .. },
        )) => PeerError::new_err(message),
        RouterError::NoKvEvents(_)
        | RouterError::KvAddress(_)
        | RouterError::Brain(BrainError::Fleet(_)) => EndpointError::new_err(message),
        RouterError::Discovery(_) => EngineError::new_err(message),
        RouterError::Config(_) | RouterError::Brain(_) => ConfigError::new_err(message),
        RouterError::Snapshot { source: snapshot::Io(source), .. }
        | RouterError::Learned { source: learned::Io(source), .. }
        | RouterError::Record { source, .. }
        | RouterError::Listen { source, .. }
        | RouterError::Runtime(source) => os(&source, message),
        RouterError::Snapshot { .. } | RouterError::Learned { .. } => {
            SnapshotError::new_err(message)
        }
    }
}

/// Nobody can serve a request.
pub fn rejected(it: &Rejected) -> PyErr {
    let word = match it.why {
        RejectReason::EmptyFleet => "empty-fleet",
        RejectReason::NoCandidate(_) => "no-candidate",
        RejectReason::NoRoom => "no-room",
        RejectReason::HoldExpired(_) => "hold-expired",
        RejectReason::NotBooked(_) => "not-booked",
        RejectReason::NotHeld(_) => "not-held",
        RejectReason::Saturated => "saturated",
        RejectReason::DeadlinePassed(_) => "deadline-passed",
        RejectReason::Shed(_) => "shed",
    };
    NoEndpointError::new_err((it.to_string(), word, it.retry_after_ms))
}

/// A prompt that cannot be.
pub fn prompt(error: &prompt::PromptError) -> PyErr {
    PromptError::new_err(error.to_string())
}

/// A decision log that cannot be read, or has nothing to simulate.
pub fn log(path: &Path, error: LogError) -> PyErr {
    let message = format!("{}: {error}", path.display());
    match error {
        LogError::Io(source) => os(&source, message),
        LogError::Workload(_) => WorkloadError::new_err(message),
        _ => ReplayError::new_err(message),
    }
}

/// What the system refused: the subclass of `OSError` that its number means.
pub fn os(error: &io::Error, message: String) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, message)),
        None => PyOSError::new_err(message),
    }
}
