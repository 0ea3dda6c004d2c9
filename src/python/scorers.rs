//! Scorers written in Python, and routing by their scores.
//!
//! They run between `features()` and `commit()` of the brain, with none of its locks held. Where
//! the fleet changed meanwhile they run once more; then whatever still fits is taken.

use crate::decision::Decision;
use crate::errors::{self, ConfigError, ScoreError};
use crate::features::Features;
use crate::given::{Given, Prompt};
use crate::request::{prepare, with_scratch};
use crate::router::Router;
use crate::waiting;
use llmd_bodies::router::{LiveRouter, Placement, RouterError, Scratch};
use llmd_brain::EndpointId;
use llmd_brain::schedule::{ForeignScore, Request, builtin_scorers};
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use parking_lot::RwLock;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

struct Scorer {
    name: String,
    weight: f64,
    callable: Py<PyAny>,
    has_failed: AtomicBool,
}

impl Scorer {
    /// Tells Python's log of a failure, the first time: a scorer that fails, fails for every
    /// request.
    fn warn(&self, py: Python<'_>, error: &PyErr) {
        if self.has_failed.swap(true, Relaxed) {
            return;
        }
        let message = format!(
            "scorer {:?} failed, and requests are routed without it; further failures are only \
             counted: {error}",
            self.name
        );
        let told = py
            .import("logging")
            .and_then(|logging| logging.call_method1("getLogger", ("llmd_sched",)))
            .and_then(|logger| logger.call_method1("warning", (message,)));
        if let Err(error) = told {
            error.write_unraisable(py, None);
        }
    }
}

/// A router's scorers. Locked only with the GIL held, and never while one runs.
#[derive(Default)]
pub struct Scorers {
    scorers: RwLock<Vec<Arc<Scorer>>>,
}

impl Scorers {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.scorers.read().is_empty()
    }

    /// Shows the garbage collector what is held.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // A lock that is taken just now belongs to somebody who holds the callables as well.
        let Some(scorers) = self.scorers.try_read() else { return Ok(()) };
        scorers.iter().try_for_each(|scorer| visit.call(&scorer.callable))
    }

    /// Lets go of all of them.
    pub fn clear(&self) {
        let scorers = std::mem::take(&mut *self.scorers.write());
        drop(scorers);
    }

    fn set(&self, scorer: Scorer) {
        let mut scorers = self.scorers.write();
        match scorers.iter_mut().find(|other| other.name == scorer.name) {
            Some(other) => *other = Arc::new(scorer),
            None => scorers.push(Arc::new(scorer)),
        }
    }

    /// What a scorer of this name would weigh.
    fn weight(&self, name: &str) -> Option<f64> {
        self.scorers.read().iter().find(|scorer| scorer.name == name).map(|scorer| scorer.weight)
    }

    fn all(&self) -> Vec<Arc<Scorer>> {
        self.scorers.read().clone()
    }
}

impl Router {
    /// Places a request by its scorers' scores too.
    pub(crate) fn place_scored(
        &self,
        py: Python<'_>,
        live: &Arc<LiveRouter>,
        request: &Request,
        scratch: &mut Scratch,
    ) -> PyResult<Placement> {
        for may_retry in [true, false] {
            let (version, features) = match live.features(request, scratch) {
                Ok(features) => features,
                // Nobody to score; the request may still be held.
                Err(RouterError::Rejected(_)) => break,
                Err(error) => return Err(errors::router(error)),
            };
            let features = Features::new(
                Arc::clone(live),
                (version, features),
                request.clone(),
                scratch.keys.clone(),
            );
            let foreign = self.run_scorers(py, live, features)?;
            if may_retry {
                let committed =
                    live.commit(request, &foreign, scratch, version).map_err(errors::router)?;
                if let Some(placement) = committed {
                    return Ok(placement);
                }
            } else {
                return live.place(request, &foreign, scratch).map_err(errors::router);
            }
        }
        live.place(request, &[], scratch).map_err(errors::router)
    }

    /// What the scorers say of a request now; nothing where there is none or nobody to score.
    pub(crate) fn foreign_scores(
        &self,
        py: Python<'_>,
        live: &Arc<LiveRouter>,
        request: &Request,
        scratch: &mut Scratch,
    ) -> PyResult<Vec<ForeignScore>> {
        if self.scorers.is_empty() {
            return Ok(Vec::new());
        }
        match live.features(request, scratch) {
            Ok(features) => {
                let (router, keys) = (Arc::clone(live), scratch.keys.clone());
                let features = Features::new(router, features, request.clone(), keys);
                self.run_scorers(py, live, features)
            }
            Err(RouterError::Rejected(_)) => Ok(Vec::new()),
            Err(error) => Err(errors::router(error)),
        }
    }

    /// One column a scorer; one without values where it failed, which the brain tells.
    fn run_scorers(
        &self,
        py: Python<'_>,
        live: &LiveRouter,
        features: Features,
    ) -> PyResult<Vec<ForeignScore>> {
        let candidates = features.ids().to_vec();
        let features = Bound::new(py, features)?;
        let mut columns = Vec::new();
        for scorer in self.scorers.all() {
            let values = scorer
                .callable
                .bind(py)
                .call1((&features,))
                .and_then(|scores| column(&scorer.name, &scores, candidates.len()));
            let values = match values {
                Ok(values) => values,
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                    live.count_scorer_failure();
                    scorer.warn(py, &error);
                    Vec::new()
                }
                // Ctrl-C and the like are the caller's.
                Err(error) => return Err(error),
            };
            columns.push(ForeignScore {
                name: scorer.name.clone(),
                weight: Some(scorer.weight),
                candidates: candidates.clone(),
                values,
            });
        }
        Ok(columns)
    }
}

/// Scores as numbers, one a candidate.
fn column(name: &str, scores: &Bound<'_, PyAny>, candidates: usize) -> PyResult<Vec<f64>> {
    let numpy = scores.py().import("numpy")?;
    let array = numpy
        .call_method1("ascontiguousarray", (scores, "float64"))
        .map_err(|error| ScoreError::new_err(format!("scores of {name:?}: {error}")))?;
    let array = array.cast::<PyArray1<f64>>().map_err(|_| {
        ScoreError::new_err(format!("scores of {name:?} have more than one dimension"))
    })?;
    if array.len() != candidates {
        return Err(ScoreError::new_err(format!(
            "scores of {name:?}: {} for {candidates} candidates: give one each, in order",
            array.len()
        )));
    }
    array.to_vec().map_err(|error| ScoreError::new_err(format!("scores of {name:?}: {error}")))
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.add_scorer")]
    #[pyo3(signature = (name, scorer, *, weight=1.0))]
    fn add_scorer(&self, name: String, scorer: Bound<'_, PyAny>, weight: f64) -> PyResult<()> {
        if name.is_empty() {
            return Err(ConfigError::new_err("a scorer's name is empty: give it one"));
        }
        if builtin_scorers().any(|builtin| builtin == name) {
            return Err(ConfigError::new_err(format!(
                "scorer {name:?}: a built-in scorer has that name: give it another"
            )));
        }
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(ConfigError::new_err(format!(
                "scorer {name:?}: weight is {weight}: use a finite number, 0 or more"
            )));
        }
        if !scorer.is_callable() {
            return Err(PyTypeError::new_err(format!(
                "scorer {name:?} is of type {}: give a callable",
                scorer.get_type().name()?
            )));
        }
        self.scorers.set(Scorer {
            name,
            weight,
            callable: scorer.unbind(),
            has_failed: AtomicBool::new(false),
        });
        Ok(())
    }

    #[doc = stub_doc!("Router.features")]
    #[pyo3(signature = (tokens=None, *, text=None, **options))]
    fn features(
        &self,
        tokens: Option<Prompt<'_>>,
        text: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Features> {
        let live = self.live()?;
        with_scratch(|scratch| {
            let given = Given::one(tokens.as_ref(), text)?;
            let request = prepare(&live, &given, options, scratch)?;
            let features = live.features(&request, scratch).map_err(errors::router)?;
            Ok(Features::new(live, features, request, scratch.keys.clone()))
        })
    }

    #[doc = stub_doc!("Router.commit")]
    fn commit(
        &self,
        py: Python<'_>,
        features: &Features,
        scores: &Bound<'_, PyMapping>,
    ) -> PyResult<Decision> {
        let live = self.live()?;
        let given: Vec<EndpointId> = features.ids().to_vec();
        let mut foreign = Vec::new();
        for pair in scores.items()?.iter() {
            let (name, values): (String, Bound<'_, PyAny>) = pair.extract()?;
            let values = column(&name, &values, given.len())?;
            let weight = self.scorers.weight(&name);
            foreign.push(ForeignScore { name, weight, candidates: given.clone(), values });
        }
        let request = features.request();
        with_scratch(|scratch| {
            scratch.keys.clear();
            scratch.keys.extend_from_slice(features.keys());
            let placed = match live.place(request, &foreign, scratch).map_err(errors::router)? {
                Placement::Placed(placed) => placed,
                Placement::Held(ticket) => waiting::wait(py, &live, ticket)?,
            };
            Ok(Decision::new(live, placed, request.prompt_tokens))
        })
    }
}
