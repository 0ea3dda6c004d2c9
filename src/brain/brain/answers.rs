//! Where a turn's index answers come from: the index itself, or a log of what it answered.

use super::SparseMatches;
use crate::index::{Matches, Residency};
use crate::schedule::Request;
use crate::{BlockKey, EndpointId, Time};

/// The index as a turn sees it.
pub(super) struct IndexAnswers<'a> {
    source: Source<'a>,
    scratch: Matches,
    remember: bool,
    asked: Vec<SparseMatches>,
}

enum Source<'a> {
    /// Asks the index; the first question has been answered already where `given`.
    Index { index: &'a Residency, given: Option<&'a Matches> },
    /// Repeats what was answered then. The index is neither read nor written.
    Log(std::slice::Iter<'a, SparseMatches>),
}

impl<'a> IndexAnswers<'a> {
    /// From the index.
    pub(super) fn live(index: &'a Residency) -> Self {
        Self::from(Source::Index { index, given: None })
    }

    /// From the index, whose first answer the caller has fetched without the brain's mutex.
    pub(super) fn given(index: &'a Residency, matches: &'a Matches) -> Self {
        Self::from(Source::Index { index, given: Some(matches) })
    }

    /// From a log.
    pub(super) fn recorded(matches: &'a [SparseMatches]) -> Self {
        Self::from(Source::Log(matches.iter()))
    }

    fn from(source: Source<'a>) -> Self {
        Self { source, scratch: Matches::new(), remember: false, asked: Vec::new() }
    }

    /// Whether answers are kept for the log.
    pub(super) fn remember(&mut self, remember: bool) {
        self.remember = remember;
    }

    /// Matched blocks of every endpoint.
    pub(super) fn matches(&mut self, now: Time, keys: &[BlockKey]) -> &Matches {
        let answer = match &mut self.source {
            Source::Index { index, given } => match given.take() {
                Some(given) => given,
                None => {
                    index.matches(now, keys, &mut self.scratch);
                    &self.scratch
                }
            },
            Source::Log(then) => {
                then.next().unwrap_or(&SparseMatches::default()).expand(&mut self.scratch);
                &self.scratch
            }
        };
        if self.remember {
            self.asked.push(SparseMatches::from(answer));
        }
        answer
    }

    /// Tells the index that a prompt was sent to an endpoint.
    pub(super) fn book(
        &self,
        now: Time,
        endpoint: EndpointId,
        request: &Request,
        keys: &[BlockKey],
    ) {
        match self.index() {
            Some(index) if request.is_text => index.book_text(now, endpoint, keys),
            Some(index) => index.book(now, endpoint, keys),
            None => {}
        }
    }

    /// The index to write to; none in a replay.
    pub(super) fn index(&self) -> Option<&'a Residency> {
        match &self.source {
            Source::Index { index, .. } => Some(index),
            Source::Log(_) => None,
        }
    }

    /// What was answered in this turn.
    pub(super) fn take_asked(&mut self) -> Vec<SparseMatches> {
        std::mem::take(&mut self.asked)
    }
}
