//! What a `Router` does with requests.

use crate::batch::Batch;
use crate::decision::Decision;
use crate::errors::{self, PromptError};
use crate::explanation::Explanation;
use crate::given::{Given, Prompt};
use crate::matches::Matches;
use crate::options::{self, Options};
use crate::prompt_keys::PromptKeys;
use crate::router::Router;
use crate::tokens::Tokens;
use crate::waiting;
use llmd_bodies::router::{ExplainRequest, LiveRouter, Placement, RouterError, Scratch};
use llmd_brain::schedule::Request;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's buffers. A call from within a call (a scorer that routes) gets new ones.
pub fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        Err(_) => work(&mut Scratch::default()),
    })
}

/// Finds who is `allowed`.
pub fn resolve(live: &LiveRouter, told: &mut Options) -> PyResult<()> {
    if let Some(names) = told.allowed.take() {
        let found: Result<_, RouterError> = names.iter().map(|name| live.find(name)).collect();
        told.request.allowed = Some(found.map_err(errors::router)?);
    }
    Ok(())
}

/// Reads options and keys of a request.
pub fn prepare(
    live: &LiveRouter,
    given: &Given<'_, Prompt<'_>>,
    options: Option<&Bound<'_, PyDict>>,
    scratch: &mut Scratch,
) -> PyResult<Request> {
    let mut told = Options::read(options)?;
    resolve(live, &mut told)?;
    given.read(live, &told.scope, &mut told.request, scratch)?;
    Ok(told.request)
}

impl Router {
    /// Places a request, by the scorers too, or holds it.
    fn place(
        &self,
        py: Python<'_>,
        live: &Arc<LiveRouter>,
        request: &Request,
        scratch: &mut Scratch,
    ) -> PyResult<Placement> {
        if self.scorers.is_empty() {
            return live.place(request, &[], scratch).map_err(errors::router);
        }
        self.place_scored(py, live, request, scratch)
    }

    /// Places a request, or waits until it has a place.
    pub fn decide(
        &self,
        py: Python<'_>,
        live: Arc<LiveRouter>,
        request: &Request,
        scratch: &mut Scratch,
    ) -> PyResult<Decision> {
        let placed = match self.place(py, &live, request, scratch)? {
            Placement::Placed(placed) => placed,
            Placement::Held(ticket) => waiting::wait(py, &live, ticket)?,
        };
        Ok(Decision::new(live, placed, request.prompt_tokens))
    }
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.route")]
    #[pyo3(signature = (tokens=None, *, text=None, **options))]
    fn route(
        &self,
        py: Python<'_>,
        tokens: Option<Prompt<'_>>,
        text: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Decision> {
        let live = self.live()?;
        with_scratch(|scratch| {
            let given = Given::one(tokens.as_ref(), text)?;
            let request = prepare(&live, &given, options, scratch)?;
            self.decide(py, live, &request, scratch)
        })
    }

    #[doc = stub_doc!("Router.route_async")]
    #[pyo3(signature = (tokens=None, *, text=None, **options))]
    fn route_async<'py>(
        &self,
        py: Python<'py>,
        tokens: Option<Prompt<'py>>,
        text: Option<&str>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        // Before anything is booked: it raises where no event loop runs.
        let future = waiting::future(py)?;
        let live = self.live()?;
        with_scratch(|scratch| {
            let given = Given::one(tokens.as_ref(), text)?;
            let request = prepare(&live, &given, options, scratch)?;
            match self.place(py, &live, &request, scratch)? {
                Placement::Placed(placed) => {
                    let decision = Decision::new(live, placed, request.prompt_tokens);
                    future.call_method1("set_result", (decision,))?;
                }
                Placement::Held(ticket) => {
                    waiting::await_on(&future, &live, ticket, request.prompt_tokens)?;
                }
            }
            Ok(future)
        })
    }

    #[doc = stub_doc!("Router.acquire")]
    #[pyo3(signature = (tokens=None, *, text=None, **options))]
    fn acquire<'py>(
        slf: Bound<'py, Self>,
        tokens: Option<Bound<'py, PyAny>>,
        text: Option<Bound<'py, PyAny>>,
        options: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let options = options.unwrap_or_else(|| PyDict::new(py));
        py.import("llmd_sched._acquire")?.call_method1("acquire", (slf, tokens, text, options))
    }

    #[doc = stub_doc!("Router.route_many")]
    #[pyo3(signature = (prompts, offsets=None, **options))]
    fn route_many<'py>(
        &self,
        py: Python<'py>,
        prompts: &Bound<'py, PyAny>,
        offsets: Option<Bound<'py, PyAny>>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Vec<Decision>> {
        let live = self.live()?;
        let batch = Batch::of(prompts, offsets)?;
        let mut told = Options::read(options)?;
        resolve(&live, &mut told)?;
        let Options { scope, mut request, .. } = told;
        let mut decisions = Vec::with_capacity(batch.len());
        for position in 0..batch.len() {
            let routed = with_scratch(|scratch| {
                batch.read(position, &live, &scope, &mut request, scratch)?;
                self.decide(py, Arc::clone(&live), &request, scratch)
            });
            match routed {
                Ok(decision) => decisions.push(decision),
                Err(error) => {
                    decisions.iter().map(Decision::tell_cancelled).for_each(drop);
                    return Err(at_position(py, position, error));
                }
            }
        }
        Ok(decisions)
    }

    #[doc = stub_doc!("Router.prompt_keys")]
    #[pyo3(signature = (tokens=None, **options))]
    fn prompt_keys(
        &self,
        tokens: Option<Tokens<'_>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PromptKeys> {
        let mut scope = options::scope(options)?;
        let (model, items) = (scope.model.clone(), std::mem::take(&mut scope.multimodal));
        let mut prompt =
            self.live()?.growing_prompt(scope).map_err(|error| errors::prompt(&error))?;
        let tokens = tokens.as_ref().map_or(&[][..], Tokens::as_slice);
        prompt.extend(tokens, &items).map_err(|error| errors::prompt(&error))?;
        Ok(PromptKeys::new(prompt, model))
    }

    #[doc = stub_doc!("Router.first_token")]
    fn first_token(&self, decision: &Decision) -> bool {
        decision.tell_first_token()
    }

    #[doc = stub_doc!("Router.progress")]
    fn progress(&self, decision: &Decision, output_tokens: u32) -> bool {
        decision.tell_progress(output_tokens)
    }

    #[doc = stub_doc!("Router.finish")]
    #[pyo3(signature = (decision, output_tokens=None))]
    fn finish(&self, decision: &Decision, output_tokens: Option<u32>) -> bool {
        decision.tell_finished(output_tokens)
    }

    #[doc = stub_doc!("Router.cancel")]
    fn cancel(&self, decision: &Decision) -> bool {
        decision.tell_cancelled()
    }

    #[doc = stub_doc!("Router.match")]
    #[pyo3(name = "match", signature = (tokens=None, *, text=None, **options))]
    fn matches(
        &self,
        tokens: Option<Prompt<'_>>,
        text: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Matches> {
        let live = self.live()?;
        let scope = options::scope(options)?;
        with_scratch(|scratch| {
            let given = Given::one(tokens.as_ref(), text)?;
            given.read(&live, &scope, &mut Request::default(), scratch)?;
            live.brain().matches(live.now(), &scratch.keys, &mut scratch.matches);
            Ok(Matches::of(&live, &scratch.matches))
        })
    }

    #[doc = stub_doc!("Router.explain")]
    #[pyo3(signature = (tokens=None, *, text=None, **options))]
    fn explain(
        &self,
        py: Python<'_>,
        tokens: Option<Prompt<'_>>,
        text: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Explanation> {
        let live = self.live()?;
        with_scratch(|scratch| {
            let given = Given::one(tokens.as_ref(), text)?;
            let request = prepare(&live, &given, options, scratch)?;
            let foreign = self.foreign_scores(py, &live, &request, scratch)?;
            Ok(Explanation::new(live.explanation(&request, &foreign, scratch)))
        })
    }
}

#[doc = stub_doc!("explain_body")]
#[pyfunction]
#[pyo3(signature = (tokens=None, *, text=None, **options))]
pub fn explain_body<'py>(
    py: Python<'py>,
    tokens: Option<Tokens<'py>>,
    text: Option<&str>,
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let Options { scope, request, allowed } = Options::read(options)?;
    let (tokens, text) = match Given::one(tokens.as_ref(), text)? {
        Given::Prompt(tokens) => (Some(tokens.as_slice().to_vec()), None),
        Given::Text(text) => (None, Some(text.to_owned())),
    };
    let asked = ExplainRequest {
        tokens,
        text,
        model: scope.model,
        lora: scope.lora,
        cache_salt: scope.cache_salt,
        multimodal: scope.multimodal,
        session_id: request.session_id,
        priority: request.priority,
        slo: request.slo,
        max_output_tokens: request.max_output_tokens,
        expected_output_tokens: request.expected_output_tokens,
        allowed: allowed.map(|names| names.iter().map(ToString::to_string).collect()),
        required_labels: request.required_labels,
        origin: request.origin,
    };
    let body =
        serde_json::to_vec(&asked).map_err(|error| PromptError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &body))
}

/// The same exception with the prompt's position before its message.
fn at_position(py: Python<'_>, position: usize, error: PyErr) -> PyErr {
    let value = error.value(py);
    let message = format!("prompt {position}: {value}");
    let same = match (value.getattr("reason"), value.getattr("retry_after_ms")) {
        (Ok(reason), Ok(after_ms)) => value.get_type().call1((message, reason, after_ms)),
        _ => value.get_type().call1((message,)),
    };
    match same {
        Ok(same) => {
            let renamed = PyErr::from_value(same);
            renamed.set_cause(py, Some(error));
            renamed
        }
        Err(_) => error,
    }
}
