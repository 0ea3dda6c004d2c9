//! Why a choice was made, as it is kept: numbers in a row, names and candidates shared.
//!
//! Every decision explains itself, few are asked to. So what is kept is what cannot be had later
//! (the scores, who was removed, what was matched), in one buffer where nothing unusual happened;
//! [`Reasons::explanation`] makes the readable form of it.

use super::decision::{Explanation, FilterStep, ScoreColumn};
use super::rows::Rows;
use crate::EndpointId;
use crate::lanes::{greatest, vectorised};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

/// Matches that are kept one by one; more of them are kept as a column.
const FEW_MATCHED: usize = 4;

/// The names of a profile and of its plugins.
#[derive(Debug, PartialEq, Default)]
pub(super) struct ProfileNames {
    pub(super) profile: String,
    pub(super) filters: Vec<String>,
    /// With their weights.
    pub(super) scorers: Vec<(String, f64)>,
    pub(super) picker: String,
}

/// A filter that changed something, or would have removed everybody.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Narrowed {
    /// Which of the profile's.
    pub(super) filter: usize,
    /// Whom it removed; nobody where it was skipped.
    pub(super) removed: Vec<EndpointId>,
}

/// Why a choice was made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(into = "Explanation", from = "Explanation")]
pub struct Reasons {
    names: Arc<ProfileNames>,
    candidates: Arc<[EndpointId]>,
    /// Column after column: the matched tokens, unless `few_matched` has them all, then scores in
    /// the order of the profile, then of `unlisted`.
    columns: Vec<f64>,
    /// Rows and matched tokens of those that match anything, if they are few.
    few_matched: Option<SmallVec<[(u32, u32); FEW_MATCHED]>>,
    narrowed: Vec<Narrowed>,
    /// Foreign scorers that brought their weight.
    unlisted: Vec<(String, f64)>,
    fallback: Option<Box<str>>,
}

impl Reasons {
    pub(super) fn new(names: &Arc<ProfileNames>) -> Self {
        // NOTE(perf): `..Self::default()` would make, and drop, names of its own.
        Self {
            names: Arc::clone(names),
            candidates: Arc::default(),
            columns: Vec::new(),
            few_matched: Some(SmallVec::new()),
            narrowed: Vec::new(),
            unlisted: Vec::new(),
            fallback: None,
        }
    }

    pub(super) fn narrowed(&mut self, filter: usize, removed: Vec<EndpointId>) {
        self.narrowed.push(Narrowed { filter, removed });
    }

    /// Names and counts of those removed so far, by filter.
    pub(super) fn removed(&self) -> impl Iterator<Item = (&str, usize)> {
        let counted = |step: &Narrowed| (step.filter, step.removed.len());
        let steps = self.narrowed.iter().map(counted).filter(|&(_, removed)| removed > 0);
        steps.map(|(filter, removed)| (self.names.filters[filter].as_str(), removed))
    }

    /// The candidates that are scored, and what they match.
    pub(super) fn scored(&mut self, rows: &Rows) {
        self.candidates = rows.shared_ids();
        let scorers = self.names.scorers.len();
        let mut few = SmallVec::new();
        if rows.matching() <= FEW_MATCHED {
            self.columns.reserve_exact(rows.len() * scorers);
            few.extend(rows.matched().map(|it| (it.row as u32, it.tokens as u32)));
            self.few_matched = Some(few);
        } else {
            self.columns.reserve_exact(rows.len() * (1 + scorers));
            self.columns.extend_from_slice(rows.matched_tokens());
            self.few_matched = None;
        }
    }

    /// One more column, of zeros.
    pub(super) fn next_column(&mut self) -> &mut [f64] {
        let start = self.columns.len();
        self.columns.resize(start + self.candidates.len(), 0.0);
        &mut self.columns[start..]
    }

    pub(super) fn unlisted(&mut self, name: &str, weight: f64) {
        self.unlisted.push((name.to_owned(), weight));
    }

    pub(super) fn fell_back(&mut self, reason: &str) {
        self.fallback = Some(match self.fallback.take() {
            Some(reasons) => format!("{reasons}; {reason}").into(),
            None => reason.into(),
        });
    }

    /// Why the profile was not followed, where it was not.
    #[must_use]
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Who was scored, in slot order.
    #[must_use]
    pub fn candidates(&self) -> &[EndpointId] {
        &self.candidates
    }

    /// The most matched tokens of any candidate.
    #[must_use]
    pub fn best_matched_tokens(&self) -> u32 {
        if let Some(few) = &self.few_matched {
            return few.iter().map(|&(_, tokens)| tokens).max().unwrap_or_default();
        }
        let matched = self.columns.get(..self.candidates.len()).unwrap_or_default();
        vectorised(
            #[inline(always)]
            || greatest(matched).max(0.0) as u32,
        )
    }

    /// What each scorer of the profile gave one candidate; nothing where it was none.
    #[must_use]
    pub fn row(&self, endpoint: EndpointId) -> ScoreRow {
        let rows = self.candidates.len();
        let first = usize::from(self.few_matched.is_none());
        let columns = first..first + self.names.scorers.len();
        let values = match self.candidates.binary_search(&endpoint) {
            Ok(row) => columns.map_while(|at| self.columns.get(at * rows + row).copied()).collect(),
            Err(_) => SmallVec::new(),
        };
        ScoreRow { names: Arc::clone(&self.names), values }
    }

    /// About how many bytes this holds.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.columns)
    }

    fn matched_tokens(&self) -> Vec<u32> {
        let rows = self.candidates.len();
        let Some(few) = &self.few_matched else {
            let matched = self.columns.get(..rows).unwrap_or_default();
            return matched.iter().map(|&tokens| tokens as u32).collect();
        };
        let mut matched = vec![0; rows];
        for &(row, tokens) in few {
            matched[row as usize] = tokens;
        }
        matched
    }

    /// All of it, to be read.
    #[must_use]
    pub fn explanation(&self) -> Explanation {
        let rows = self.candidates.len();
        let names = self.names.scorers.iter().chain(&self.unlisted);
        let first = usize::from(self.few_matched.is_none());
        let scores: Vec<ScoreColumn> = (first..)
            .zip(names)
            .filter_map(|(at, (name, weight))| {
                let values = self.columns.get(at * rows..(at + 1) * rows)?.to_vec();
                Some(ScoreColumn { name: name.clone(), weight: *weight, values })
            })
            .collect();
        // As the scheduler summed them.
        let mut totals = Vec::with_capacity(rows);
        for column in &scores {
            add_weighted(column.weight, &column.values, &mut totals);
        }
        totals.resize(rows, 0.0);
        let step = |(filter, name): (usize, &String)| {
            let narrowed = self.narrowed.iter().find(|step| step.filter == filter);
            let removed = narrowed.map_or_else(Vec::new, |step| step.removed.clone());
            let skipped = narrowed.is_some() && removed.is_empty();
            FilterStep { name: name.clone(), removed, skipped }
        };
        Explanation {
            profile: self.names.profile.clone(),
            filters: self.names.filters.iter().enumerate().map(step).collect(),
            candidates: self.candidates.to_vec(),
            scores,
            totals,
            matched_tokens: self.matched_tokens(),
            picker: self.names.picker.clone(),
            fallback: self.fallback.as_deref().map(str::to_owned),
        }
    }
}

/// What each scorer gave one candidate: all of a decision that is kept where many are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScoreRow {
    names: Arc<ProfileNames>,
    values: SmallVec<[f64; 8]>,
}

impl ScoreRow {
    /// Name of the profile.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.names.profile
    }

    /// Name, weight and score of each scorer, in the order of the profile.
    pub fn scores(&self) -> impl Iterator<Item = (&str, f64, f64)> {
        let named = self.names.scorers.iter().zip(&self.values);
        named.map(|((name, weight), value)| (name.as_str(), *weight, *value))
    }
}

/// Adds a column of scores to the sums, which the first begins.
#[inline(always)]
pub(super) fn add_weighted(weight: f64, scores: &[f64], totals: &mut Vec<f64>) {
    if totals.is_empty() {
        totals.extend(scores.iter().map(|score| weight * score));
        return;
    }
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score;
    }
}

impl From<Reasons> for Explanation {
    fn from(reasons: Reasons) -> Self {
        reasons.explanation()
    }
}

impl From<Explanation> for Reasons {
    fn from(why: Explanation) -> Self {
        let narrowed = why.filters.iter().enumerate();
        let narrowed = narrowed.filter(|(_, step)| step.skipped || !step.removed.is_empty());
        // As it was kept: see `scored`.
        let matched = why.matched_tokens.iter().zip(0..).filter(|&(&tokens, _)| tokens > 0);
        let matched: SmallVec<[(u32, u32); FEW_MATCHED]> =
            matched.map(|(&tokens, row)| (row, tokens)).collect();
        let few_matched = (matched.len() <= FEW_MATCHED).then_some(matched);
        let column = match few_matched {
            Some(_) => &[][..],
            None => &why.matched_tokens,
        };
        let column: Vec<f64> = column.iter().map(|&tokens| tokens.into()).collect();
        let scores = why.scores.iter().flat_map(|column| &column.values).copied();
        Self {
            candidates: why.candidates.into(),
            columns: column.into_iter().chain(scores).collect(),
            few_matched,
            narrowed: narrowed
                .map(|(filter, step)| Narrowed { filter, removed: step.removed.clone() })
                .collect(),
            names: Arc::new(ProfileNames {
                profile: why.profile,
                filters: why.filters.into_iter().map(|step| step.name).collect(),
                scorers: why.scores.into_iter().map(|it| (it.name, it.weight)).collect(),
                picker: why.picker,
            }),
            unlisted: Vec::new(),
            fallback: why.fallback.map(String::into_boxed_str),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    fn id(slot: u32) -> EndpointId {
        EndpointId { slot: Slot(slot), generation: 1 }
    }

    #[test]
    fn what_is_kept_and_what_is_read_say_the_same() {
        let names = ProfileNames {
            profile: "mine".into(),
            filters: vec!["all".into(), "some".into(), "none".into()],
            scorers: vec![("a".into(), 2.0)],
            picker: "max-score-picker".into(),
        };
        let mut reasons = Reasons::new(&Arc::new(names));
        reasons.narrowed(0, Vec::new());
        reasons.narrowed(1, vec![id(3)]);
        reasons.scored(&Rows::for_test(&[id(0), id(1)], &[0.0, 32.0]));
        reasons.next_column().copy_from_slice(&[0.25, 1.0]);
        reasons.unlisted("b", 1.0);
        reasons.next_column().copy_from_slice(&[1.0, 0.0]);
        reasons.fell_back("one");
        reasons.fell_back("two");

        let why = reasons.explanation();

        let step = |name: &str, removed: &[EndpointId], skipped| FilterStep {
            name: name.into(),
            removed: removed.to_vec(),
            skipped,
        };
        assert_eq!(
            why.filters,
            [step("all", &[], true), step("some", &[id(3)], false), step("none", &[], false)]
        );
        assert_eq!(
            (why.totals.as_slice(), why.matched_tokens.as_slice()),
            (&[1.5, 2.0][..], &[0, 32][..])
        );
        assert_eq!(
            why.scores[1],
            ScoreColumn { name: "b".into(), weight: 1.0, values: vec![1.0, 0.0] }
        );
        assert_eq!(why.fallback.as_deref(), Some("one; two"));
        let row = reasons.row(id(1));
        assert_eq!(
            (row.profile(), row.scores().collect::<Vec<_>>()),
            ("mine", vec![("a", 2.0, 1.0)])
        );
        assert_eq!(reasons.row(id(3)).scores().count(), 0);
        assert_eq!(Reasons::from(why.clone()).explanation(), why);
        let written = serde_json::to_string(&reasons).unwrap();
        assert_eq!(serde_json::from_str::<Reasons>(&written).unwrap().explanation(), why);
    }
}
