//! Rows as columns: one copy, into arrays that Python owns.

use llmd_brain::engine::Counters;
use llmd_brain::sim::{Fate, Row};
use numpy::{Element, IntoPyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Numbers of fates, in the order of `llmd_sched.sim.FATES`.
fn number(fate: Fate) -> u8 {
    match fate {
        Fate::Served => 0,
        Fate::Rejected => 1,
        Fate::Refused => 2,
        Fate::Unserved => 3,
    }
}

fn set<R, T: Element>(
    columns: &Bound<'_, PyDict>,
    name: &str,
    rows: &[R],
    of: impl Fn(&R) -> T,
) -> PyResult<()> {
    let column: Vec<T> = rows.iter().map(of).collect();
    columns.set_item(name, column.into_pyarray(columns.py()))
}

/// A column for each field of a row, and for what rows say of themselves.
pub fn of<'py>(py: Python<'py>, rows: &[Row]) -> PyResult<Bound<'py, PyDict>> {
    let columns = PyDict::new(py);
    let it = &columns;
    set(it, "prompt", rows, |row| row.prompt)?;
    set(it, "session", rows, |row| row.session)?;
    set(it, "is_counted", rows, |row| row.is_counted)?;
    set(it, "fate", rows, |row| number(row.fate))?;
    // Nobody, `u32::MAX`, is -1.
    set(it, "engine", rows, |row| row.engine as i32)?;
    set(it, "arrived_ms", rows, |row| row.arrived_ms)?;
    set(it, "sent_ms", rows, |row| row.sent_ms)?;
    set(it, "first_token_ms", rows, |row| row.first_token_ms)?;
    set(it, "finished_ms", rows, |row| row.finished_ms)?;
    set(it, "ttft_ms", rows, Row::ttft_ms)?;
    set(it, "tpot_ms", rows, Row::tpot_ms)?;
    set(it, "ttft_limit_ms", rows, |row| row.ttft_limit_ms)?;
    set(it, "tpot_limit_ms", rows, |row| row.tpot_limit_ms)?;
    set(it, "is_in_slo", rows, Row::is_in_slo)?;
    set(it, "prompt_tokens", rows, |row| row.prompt_tokens)?;
    set(it, "output_tokens", rows, |row| row.output_tokens)?;
    set(it, "hit_tokens", rows, |row| row.hit_tokens)?;
    set(it, "host_hit_tokens", rows, |row| row.host_hit_tokens)?;
    set(it, "matched_tokens", rows, |row| row.matched_tokens)?;
    set(it, "retries", rows, |row| row.retries)?;
    set(it, "tenant", rows, |row| row.tenant)?;
    let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
    set(it, "predicted_ttft_ms", rows, |row| known(row.predicted.ttft_ms))?;
    set(it, "predicted_ttft_p90_ms", rows, |row| known(row.predicted.ttft_p90_ms))?;
    set(it, "predicted_tpot_ms", rows, |row| known(row.predicted.tpot_ms))?;
    set(it, "predicted_tpot_p50_ms", rows, |row| known(row.predicted.tpot_p50_ms))?;
    set(it, "predicted_tpot_p90_ms", rows, |row| known(row.predicted.tpot_p90_ms))?;
    Ok(columns)
}

/// A column for each counter, a row for each engine.
pub fn engines<'py>(py: Python<'py>, engines: &[Counters]) -> PyResult<Bound<'py, PyDict>> {
    let columns = PyDict::new(py);
    let it = &columns;
    set(it, "steps", engines, |of| of.steps)?;
    set(it, "finished_requests", engines, |of| of.finished_requests)?;
    set(it, "preemptions", engines, |of| of.preemptions)?;
    set(it, "prefix_queries_tokens", engines, |of| of.prefix_queries_tokens)?;
    set(it, "prefix_hits_tokens", engines, |of| of.prefix_hits_tokens)?;
    set(it, "host_hits_tokens", engines, |of| of.host_hits_tokens)?;
    set(it, "prompt_tokens", engines, |of| of.prompt_tokens)?;
    set(it, "generated_tokens", engines, |of| of.generated_tokens)?;
    Ok(columns)
}
