//! `Explanation` and `FilterStep`: why a request goes where it goes.

use crate::endpoint::{self, Endpoint};
use crate::json;
use llmd_bodies::router::{EndpointDocument, ExplanationDocument, FilterDocument};
use numpy::PyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::fmt::Write;

#[doc = stub_doc!("Explanation")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Explanation(ExplanationDocument);

impl Explanation {
    /// Wraps how a request was placed.
    pub fn new(document: ExplanationDocument) -> Self {
        Self(document)
    }
}

#[doc = stub_doc!("FilterStep")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct FilterStep(FilterDocument);

#[pymethods]
impl FilterStep {
    #[doc = stub_doc!("FilterStep.name")]
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[doc = stub_doc!("FilterStep.removed")]
    #[getter]
    fn removed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        endpoint::tuple(py, self.0.removed.iter().cloned())
    }

    #[doc = stub_doc!("FilterStep.skipped")]
    #[getter]
    fn skipped(&self) -> bool {
        self.0.skipped
    }

    fn __repr__(&self) -> String {
        let removed: Vec<String> = self.0.removed.iter().map(name).collect();
        let skipped = if self.0.skipped { ", skipped=True" } else { "" };
        format!("FilterStep('{}', removed=[{}]{skipped})", self.0.name, removed.join(", "))
    }
}

#[pymethods]
impl Explanation {
    #[doc = stub_doc!("Explanation.profile")]
    #[getter]
    fn profile(&self) -> &str {
        &self.0.profile
    }

    #[doc = stub_doc!("Explanation.chosen")]
    #[getter]
    fn chosen(&self) -> Option<Endpoint> {
        self.0.chosen.clone().map(Endpoint::new)
    }

    #[doc = stub_doc!("Explanation.rejection")]
    #[getter]
    fn rejection(&self) -> Option<&str> {
        self.0.rejection.as_deref()
    }

    #[doc = stub_doc!("Explanation.filters")]
    #[getter]
    fn filters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let steps: PyResult<Vec<_>> =
            self.0.filters.iter().map(|step| Bound::new(py, FilterStep(step.clone()))).collect();
        PyTuple::new(py, steps?)
    }

    #[doc = stub_doc!("Explanation.candidates")]
    #[getter]
    fn candidates<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        endpoint::tuple(py, self.0.candidates.iter().cloned())
    }

    #[doc = stub_doc!("Explanation.scores")]
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let scores = PyDict::new(py);
        for column in &self.0.scores {
            scores.set_item(&column.name, PyArray1::from_slice(py, &column.values))?;
        }
        Ok(scores)
    }

    #[doc = stub_doc!("Explanation.weights")]
    #[getter]
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let weights = PyDict::new(py);
        for column in &self.0.scores {
            weights.set_item(&column.name, column.weight)?;
        }
        Ok(weights)
    }

    #[doc = stub_doc!("Explanation.totals")]
    #[getter]
    fn totals<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, &self.0.totals)
    }

    #[doc = stub_doc!("Explanation.matched_tokens")]
    #[getter]
    fn matched_tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, &self.0.matched_tokens)
    }

    #[doc = stub_doc!("Explanation.picker")]
    #[getter]
    fn picker(&self) -> &str {
        &self.0.picker
    }

    #[doc = stub_doc!("Explanation.fallback")]
    #[getter]
    fn fallback(&self) -> Option<&str> {
        self.0.fallback.as_deref()
    }

    #[doc = stub_doc!("Explanation.predicted_ttft_ms")]
    #[getter]
    fn predicted_ttft_ms(&self) -> Option<f64> {
        self.0.predicted.ttft_ms
    }

    #[doc = stub_doc!("Explanation.predicted_ttft_p90_ms")]
    #[getter]
    fn predicted_ttft_p90_ms(&self) -> Option<f64> {
        self.0.predicted.ttft_p90_ms
    }

    #[doc = stub_doc!("Explanation.predicted_tpot_ms")]
    #[getter]
    fn predicted_tpot_ms(&self) -> Option<f64> {
        self.0.predicted.tpot_ms
    }

    #[doc = stub_doc!("Explanation.predicted_tpot_p50_ms")]
    #[getter]
    fn predicted_tpot_p50_ms(&self) -> Option<f64> {
        self.0.predicted.tpot_p50_ms
    }

    #[doc = stub_doc!("Explanation.predicted_tpot_p90_ms")]
    #[getter]
    fn predicted_tpot_p90_ms(&self) -> Option<f64> {
        self.0.predicted.tpot_p90_ms
    }

    #[doc = stub_doc!("Explanation.to_dict")]
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.0)
    }

    #[doc = stub_doc!("Explanation.from_json")]
    #[staticmethod]
    fn from_json(document: &Bound<'_, PyAny>) -> PyResult<Self> {
        serde_json::from_value(json::from_python(document)?)
            .map(Self)
            .map_err(|error| PyValueError::new_err(format!("not an explanation: {error}")))
    }

    fn __repr__(&self) -> String {
        let table = Table::of(&self.0);
        let widths: Vec<usize> = (0..table.head.len())
            .map(|column| {
                let cells = table.rows.iter().map(|(_, cells)| cells[column].chars().count());
                cells.chain([table.head[column].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = table.title;
        let mut line = |mark: char, cells: &[String]| {
            text.push('\n');
            text.push(mark);
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                // Names to the left, numbers to the right.
                let (before, after) = if column == 0 { ("", &*padding) } else { (&*padding, "") };
                text.push_str(&format!(" {before}{cell}{after} "));
            }
            text.truncate(text.trim_end().len());
        };
        if !table.rows.is_empty() {
            line(' ', &table.head);
        }
        for (is_chosen, cells) in &table.rows {
            line(if *is_chosen { '>' } else { ' ' }, cells);
        }
        for note in table.notes {
            text.push('\n');
            text.push_str(&note);
        }
        text
    }

    /// The table, for a notebook.
    fn _repr_html_(&self) -> String {
        let table = Table::of(&self.0);
        let mut html = format!("<p>{}</p><table><tr>", escaped(&table.title));
        for name in &table.head {
            push(&mut html, format_args!("<th>{}</th>", escaped(name)));
        }
        html.push_str("</tr>");
        for (is_chosen, cells) in &table.rows {
            html.push_str("<tr>");
            for cell in cells {
                let cell = escaped(cell);
                match is_chosen {
                    true => push(&mut html, format_args!("<td><b>{cell}</b></td>")),
                    false => push(&mut html, format_args!("<td>{cell}</td>")),
                }
            }
            html.push_str("</tr>");
        }
        html.push_str("</table>");
        for note in table.notes {
            push(&mut html, format_args!("<p>{}</p>", escaped(&note)));
        }
        html
    }
}

/// An explanation as rows of text.
struct Table {
    title: String,
    head: Vec<String>,
    /// Whether it was chosen, and its cells.
    rows: Vec<(bool, Vec<String>)>,
    notes: Vec<String>,
}

impl Table {
    fn of(why: &ExplanationDocument) -> Self {
        let title = match (&why.chosen, &why.rejection) {
            (Some(chosen), _) => {
                format!("{} by {}, profile {}", name(chosen), why.picker, why.profile)
            }
            (None, Some(rejection)) => format!("nobody: {rejection}"),
            (None, None) => "nobody".to_owned(),
        };
        let mut head = vec!["endpoint".to_owned(), "total".to_owned(), "matched".to_owned()];
        head.extend(why.scores.iter().map(|column| format!("{} x{}", column.name, column.weight)));
        let rows = why
            .candidates
            .iter()
            .enumerate()
            .map(|(row, candidate)| {
                let is_chosen = why.chosen.as_ref().is_some_and(|it| it.id == candidate.id);
                let number = |values: &[f64]| {
                    values.get(row).map_or_else(String::new, |value| format!("{value:.3}"))
                };
                let matched = why.matched_tokens.get(row).map(u32::to_string).unwrap_or_default();
                let mut cells = vec![name(candidate), number(&why.totals), matched];
                cells.extend(why.scores.iter().map(|column| number(&column.values)));
                (is_chosen, cells)
            })
            .collect();
        let mut notes = Vec::new();
        notes.extend(expected("first token", why.predicted.ttft_ms, why.predicted.ttft_p90_ms));
        notes.extend(expected("each token", why.predicted.tpot_ms, why.predicted.tpot_p90_ms));
        for step in &why.filters {
            if step.skipped {
                notes.push(format!("{} skipped: it would have removed everybody", step.name));
            } else if !step.removed.is_empty() {
                let removed: Vec<String> = step.removed.iter().map(name).collect();
                notes.push(format!("{} removed {}", step.name, removed.join(", ")));
            }
        }
        notes.extend(why.fallback.iter().map(|reason| format!("fallback: {reason}")));
        Self { title, head, rows, notes }
    }
}

/// A predicted latency in a note, where there is one.
fn expected(what: &str, mean_ms: Option<f64>, p90_ms: Option<f64>) -> Option<String> {
    let p90 = p90_ms.map_or_else(String::new, |p90| format!(", p90 {p90:.1} ms"));
    mean_ms.map(|mean| format!("{what} expected in {mean:.1} ms{p90}"))
}

/// An endpoint in a table.
fn name(endpoint: &EndpointDocument) -> String {
    match endpoint.dp_rank {
        0 => endpoint.address.clone(),
        rank => format!("{}#{rank}", endpoint.address),
    }
}

fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = html.write_fmt(text);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
