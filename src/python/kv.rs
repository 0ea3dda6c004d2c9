//! `KvPosition`: how far an engine's KV events have been followed.

use llmd_bodies::router;
use pyo3::prelude::*;

#[doc = stub_doc!("KvPosition")]
#[pyclass(module = "llmd_sched", frozen, eq)]
#[derive(PartialEq)]
pub struct KvPosition(router::KvPosition);

impl KvPosition {
    /// Wraps a position.
    pub fn new(position: router::KvPosition) -> Self {
        Self(position)
    }
}

#[pymethods]
impl KvPosition {
    #[doc = stub_doc!("KvPosition.sequence")]
    #[getter]
    fn sequence(&self) -> Option<u64> {
        self.0.sequence
    }

    #[doc = stub_doc!("KvPosition.connected")]
    #[getter]
    fn connected(&self) -> bool {
        self.0.connected
    }

    #[doc = stub_doc!("KvPosition.settled")]
    #[getter]
    fn settled(&self) -> bool {
        self.0.settled
    }

    #[doc = stub_doc!("KvPosition.last_error")]
    #[getter]
    fn last_error(&self) -> Option<&str> {
        self.0.last_error.as_deref()
    }

    #[doc = stub_doc!("KvPosition.batches")]
    #[getter]
    fn batches(&self) -> u64 {
        self.0.batches
    }

    #[doc = stub_doc!("KvPosition.gaps")]
    #[getter]
    fn gaps(&self) -> u64 {
        self.0.gaps
    }

    #[doc = stub_doc!("KvPosition.replays")]
    #[getter]
    fn replays(&self) -> u64 {
        self.0.replays
    }

    #[doc = stub_doc!("KvPosition.restarts")]
    #[getter]
    fn restarts(&self) -> u64 {
        self.0.restarts
    }

    #[doc = stub_doc!("KvPosition.losses")]
    #[getter]
    fn losses(&self) -> u64 {
        self.0.losses
    }

    #[doc = stub_doc!("KvPosition.bad_messages")]
    #[getter]
    fn bad_messages(&self) -> u64 {
        self.0.bad_messages
    }

    pub fn __repr__(&self) -> String {
        let Self(it) = self;
        let sequence = it.sequence.map_or_else(|| "None".to_owned(), |number| number.to_string());
        let truth = |value| if value { "True" } else { "False" };
        format!(
            "KvPosition(sequence={sequence}, connected={}, settled={}, batches={}, gaps={}, \
             replays={}, restarts={}, losses={}, bad_messages={})",
            truth(it.connected),
            truth(it.settled),
            it.batches,
            it.gaps,
            it.replays,
            it.restarts,
            it.losses,
            it.bad_messages
        )
    }
}
