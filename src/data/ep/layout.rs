//! Which row of the experts' input each choice of each token gets.

use super::EpError;

/// The row of a choice of no expert.
pub const DROPPED: u32 = u32::MAX;

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// An expert's number as routers write it: `i64` as torch's `topk` does, or `i32`; -1 is none.
pub trait ExpertId: sealed::Sealed + Copy + Into<i64> {}
impl ExpertId for i32 {}
impl ExpertId for i64 {}

/// A counting sort of (token, choice) by expert. Rows of an expert are in the order of tokens.
///
/// Keep one and compute it anew each step: its memory is reused.
///
/// ```
/// use llmd_data::ep::{DROPPED, Layout};
///
/// let mut layout = Layout::default();
/// layout.compute(&[2_i64, 0, 2, -1], 2, 3)?;
/// assert_eq!(layout.counts(), [1, 0, 2]);
/// assert_eq!(layout.offsets(), [0, 1, 1, 3]);
/// assert_eq!(layout.row_of_slot(), [1, 0, 2, DROPPED]);
/// # Ok::<(), llmd_data::ep::EpError>(())
/// ```
#[derive(Debug, Default, Clone)]
pub struct Layout {
    top_k: usize,
    counts: Vec<u32>,
    offsets: Vec<u32>,
    row_of_slot: Vec<u32>,
    /// The next row of each expert, and before them that of no expert.
    cursors: Vec<u32>,
}

impl Layout {
    /// Lays out `ids`, `top_k` for each token, over `experts` experts.
    ///
    /// # Errors
    ///
    /// For an id of no expert, and for ids that are not `top_k` a token. The layout is then empty.
    pub fn compute<Id: ExpertId>(
        &mut self,
        ids: &[Id],
        top_k: usize,
        experts: usize,
    ) -> Result<(), EpError> {
        self.clear();
        if i32::try_from(ids.len()).is_err() {
            return Err(EpError::TooMany { ids: ids.len() });
        }
        if !(ids.is_empty() || top_k > 0 && ids.len().is_multiple_of(top_k)) {
            return Err(EpError::NotWholeTokens { ids: ids.len(), top_k });
        }
        self.count(ids, experts).map_err(|slot| EpError::NoSuchExpert {
            token: slot / top_k,
            id: ids[slot].into(),
            experts,
        })?;
        self.top_k = top_k;
        self.counts.extend_from_slice(&self.cursors[1..]);
        self.offsets.push(0);
        let mut rows = 0;
        for cursor in &mut self.cursors[1..] {
            let count = *cursor;
            *cursor = rows;
            rows += count;
            self.offsets.push(rows);
        }
        let cursors = self.cursors.as_mut_slice();
        self.row_of_slot.extend(ids.iter().map(|&id| {
            // NOTE(perf): without this test for -1, dropped choices would need rows of their own.
            let expert = (id.into() + 1) as usize;
            let row = cursors[expert];
            let kept = expert != 0;
            cursors[expert] = row + u32::from(kept);
            if kept { row } else { DROPPED }
        }));
        Ok(())
    }

    /// Counts ids into `cursors`, shifted by one for -1; or the first slot whose id is no expert's.
    fn count<Id: ExpertId>(&mut self, ids: &[Id], experts: usize) -> Result<(), usize> {
        self.cursors.resize(experts + 1, 0);
        let cursors = self.cursors.as_mut_slice();
        for (slot, &id) in ids.iter().enumerate() {
            let expert = id.into().wrapping_add(1) as u64;
            let Some(count) = usize::try_from(expert).ok().and_then(|at| cursors.get_mut(at))
            else {
                return Err(slot);
            };
            *count += 1;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.top_k = 0;
        self.counts.clear();
        self.offsets.clear();
        self.row_of_slot.clear();
        self.cursors.clear();
    }

    /// How many rows each expert has.
    #[must_use]
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// The first row of each expert, and after them the number of all rows.
    #[must_use]
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The row of each choice of each token, [`DROPPED`] where the choice was -1. No two choices
    /// have the same row, and each row up to [`Layout::rows`] is some choice's.
    #[must_use]
    pub fn row_of_slot(&self) -> &[u32] {
        &self.row_of_slot
    }

    /// How many rows all experts have together.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.last().map_or(0, |&rows| rows as usize)
    }

    /// How many tokens were laid out.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.row_of_slot.len().checked_div(self.top_k).unwrap_or(0)
    }

    /// Choices a token.
    #[must_use]
    pub fn top_k(&self) -> usize {
        self.top_k
    }

    /// The rows of a token's choices.
    #[inline]
    pub(super) fn rows_of(&self, token: usize) -> &[u32] {
        &self.row_of_slot[token * self.top_k..][..self.top_k]
    }
}
