//! Tokens to the rows of their experts.

#![allow(unsafe_code)]

use super::error::check_matrix;
use super::streaming::ScatteredRows;
use super::{DROPPED, EpError, Layout, threads};
use std::num::NonZeroUsize;

/// Copies each token to the rows of its choices: `rows` is what the layout's experts read, expert
/// after expert. Columns are of any plain type: activations, FP8 codes, scales.
///
/// Tokens are walked, not rows: each is read from memory once and written `top_k` times.
///
/// ```
/// use llmd_data::ep::{Layout, permute};
///
/// let mut layout = Layout::default();
/// layout.compute(&[1_i32, 0, 1, -1], 2, 2)?;
/// let mut rows = [0_u16; 6];
/// permute(&layout, &[10_u16, 11, 20, 21], 2, &mut rows, std::num::NonZero::<usize>::MIN)?;
/// assert_eq!(rows, [10, 11, 10, 11, 20, 21]);
/// # Ok::<(), llmd_data::ep::EpError>(())
/// ```
///
/// # Errors
///
/// Where `tokens` is not the layout's tokens x `columns`, or `rows` not its rows x `columns`.
pub fn permute<T: bytemuck::Pod + Send + Sync>(
    layout: &Layout,
    tokens: &[T],
    columns: usize,
    rows: &mut [T],
    threads: NonZeroUsize,
) -> Result<(), EpError> {
    check_matrix("tokens", tokens, layout.tokens(), columns)?;
    check_matrix("rows", rows, layout.rows(), columns)?;
    if columns == 0 {
        return Ok(());
    }
    let row_bytes = columns * size_of::<T>();
    let rows = ScatteredRows::new(bytemuck::cast_slice_mut(rows), row_bytes);
    let tokens_a_part = threads::tokens_a_part(layout.tokens(), threads);
    let parts = tokens.chunks(tokens_a_part * columns).enumerate();
    threads::each(parts, |(part, tokens)| {
        for (number, token) in tokens.chunks_exact(columns).enumerate() {
            for &row in layout.rows_of(part * tokens_a_part + number) {
                if row != DROPPED {
                    // SAFETY: a layout gives no row to two choices, and each choice is one token's,
                    // which one thread copies: nobody else writes this row. It is below
                    // `layout.rows()`, which `rows` was checked to have.
                    unsafe { rows.write(row as usize, bytemuck::cast_slice(token)) };
                }
            }
        }
        rows.publish();
    });
    Ok(())
}
