//! Who may be scored, and where their numbers lie.

use crate::EndpointId;
use std::ops::Range;
use std::sync::Arc;

/// Endpoints in slot order, and the runs of adjacent slots that they make up: a column of the fleet
/// is read run by run instead of row by row, and a fleet without holes is one run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidates {
    pub(super) ids: Arc<[EndpointId]>,
    /// Those of `ids`, as a column.
    pub(super) generations: Box<[u32]>,
    runs: Box<[Run]>,
}

/// Candidates in adjacent slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    row: usize,
    slot: usize,
    len: usize,
}

impl Run {
    /// Their rows.
    pub(super) fn rows(&self) -> Range<usize> {
        self.row..self.row + self.len
    }

    /// Their slots.
    pub(super) fn slots(&self) -> Range<usize> {
        self.slot..self.slot + self.len
    }
}

impl Default for Candidates {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Candidates {
    /// `ids` are in slot order.
    pub(super) fn new(ids: &[EndpointId]) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for (row, id) in ids.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if run.slots().end == id.slot.index() => run.len += 1,
                _ => runs.push(Run { row, slot: id.slot.index(), len: 1 }),
            }
        }
        let generations = ids.iter().map(|id| id.generation).collect();
        Self { ids: ids.into(), generations, runs: runs.into() }
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The slots, where all are adjacent.
    pub(super) fn sole_run(&self) -> Option<Range<usize>> {
        match &*self.runs {
            [run] => Some(run.slots()),
            _ => None,
        }
    }
}
