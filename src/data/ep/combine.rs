//! What the experts made of tokens, back to the tokens, summed by weight.

use super::error::check_matrix;
use super::streaming::prefetch;
use super::vectors::vectorised;
use super::{DROPPED, Element, EpError, Layout, threads};
use std::num::NonZeroUsize;

/// Columns that are summed at once: accumulators that fit in the registers of AVX2 and AVX-512.
const LANES: usize = 64;

/// NOTE(perf): a sixth of the time; half as far and twice as far gain less.
const AHEAD_BYTES: usize = 1024;

/// Sums the rows of each token's choices, each times its weight, into `tokens`.
///
/// The sum is of f32, from 0, in the order of choices, each step a fused multiply-add, and rounded
/// to the format once: the same bits on every machine, with any number of threads. A token without
/// a choice becomes zeros.
///
/// ```
/// use llmd_data::ep::{Layout, combine};
///
/// let mut layout = Layout::default();
/// layout.compute(&[1_i32, 0, 1, -1], 2, 2)?;
/// let mut tokens = [0.0_f32; 2];
/// combine(&layout, &[8.0, 1.0, 3.0], &[0.5, 0.25, 2.0, 9.0], 1, &mut tokens, std::num::NonZero::<usize>::MIN)?;
/// assert_eq!(tokens, [0.5 * 1.0 + 0.25 * 8.0, 2.0 * 3.0]);
/// # Ok::<(), llmd_data::ep::EpError>(())
/// ```
///
/// # Errors
///
/// Where `rows` is not the layout's rows x `columns`, `tokens` not its tokens x `columns`, or there
/// is not one weight for each choice.
pub fn combine<T: Element>(
    layout: &Layout,
    rows: &[T],
    weights: &[f32],
    columns: usize,
    tokens: &mut [T],
    threads: NonZeroUsize,
) -> Result<(), EpError> {
    check_matrix("rows", rows, layout.rows(), columns)?;
    check_matrix("weights", weights, layout.tokens(), layout.top_k())?;
    check_matrix("tokens", tokens, layout.tokens(), columns)?;
    if columns == 0 {
        return Ok(());
    }
    let tokens_a_part = threads::tokens_a_part(layout.tokens(), threads);
    let parts = tokens.chunks_mut(tokens_a_part * columns).enumerate();
    threads::each(parts, |(part, tokens)| {
        let mut terms = Vec::with_capacity(layout.top_k());
        for (number, token) in tokens.chunks_exact_mut(columns).enumerate() {
            let number = part * tokens_a_part + number;
            let weights = &weights[number * layout.top_k()..][..layout.top_k()];
            terms.clear();
            for (&row, &weight) in layout.rows_of(number).iter().zip(weights) {
                if row != DROPPED {
                    terms.push((weight, &rows[row as usize * columns..][..columns]));
                }
            }
            vectorised(
                #[inline(always)]
                || weighted_sum(&terms, token),
            );
        }
    });
    Ok(())
}

/// NOTE(perf): all choices over a few columns, with sums in registers. Choice after choice over the
/// whole row keeps the sums in the L1 cache and took a third longer.
#[inline(always)]
fn weighted_sum<T: Element>(terms: &[(f32, &[T])], token: &mut [T]) {
    let (chunks, rest) = token.as_chunks_mut::<LANES>();
    let whole = chunks.len() * LANES;
    for (number, chunk) in chunks.iter_mut().enumerate() {
        let mut sums = [0.0_f32; LANES];
        for &(weight, row) in terms {
            let Some(values) = row[number * LANES..].first_chunk::<LANES>() else { continue };
            for line in (0..size_of_val(values)).step_by(64) {
                prefetch(values, AHEAD_BYTES + line);
            }
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = value.widen().mul_add(weight, *sum);
            }
        }
        for (out, sum) in chunk.iter_mut().zip(sums) {
            *out = T::narrow(sum);
        }
    }
    for (column, out) in rest.iter_mut().enumerate() {
        let sum = terms
            .iter()
            .fold(0.0_f32, |sum, &(weight, row)| row[whole + column].widen().mul_add(weight, sum));
        *out = T::narrow(sum);
    }
}
