//! Activations as FP8 with a scale for every group of 128 columns of a row, and back.
//!
//! The rule is DeepSeek-V3's (its report, section 3.3, and DeepEP's tests): a group's scale is its
//! largest magnitude, at least 1e-4, over 448; codes are the values times 448 over that magnitude.

use super::e4m3::{e4m3_from_f32, f32_from_e4m3};
use super::error::check_matrix;
use super::streaming::prefetch;
use super::vectors::vectorised;
use super::{Element, EpError, threads};
use std::num::NonZeroUsize;

/// Columns that share a scale.
pub const GROUP: usize = 128;
/// The largest number of the format.
const LARGEST: f32 = 448.0;
/// Groups of smaller numbers are scaled as if this was the largest: no division by zero.
const LEAST_MAGNITUDE: f32 = 1e-4;

/// NOTE(perf): a third of the time of large matrices; half as far and twice as far are the same.
const AHEAD_BYTES: usize = 2048;

/// How many scales rows of `columns` have: one for each group, of which the last may be shorter.
#[must_use]
pub const fn scales_len(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

/// Quantises `values`, a matrix with rows of `columns`, to `codes` of the same shape and `scales`,
/// [`scales_len`] a row.
///
/// ```
/// use llmd_data::ep::{dequantise, quantise};
///
/// let one = std::num::NonZero::<usize>::MIN;
/// let (mut codes, mut scales, mut back) = ([0; 3], [0.0; 1], [0.0_f32; 3]);
/// quantise(&[0.5_f32, -7.0, 3.25], 3, &mut codes, &mut scales, one)?;
/// assert_eq!(scales, [7.0 / 448.0]);
/// dequantise(&codes, &scales, 3, &mut back, one)?;
/// assert_eq!(back, [0.5, -7.0, 3.25]);
/// # Ok::<(), llmd_data::ep::EpError>(())
/// ```
///
/// # Errors
///
/// Where the lengths are not those of one shape.
pub fn quantise<T: Element>(
    values: &[T],
    columns: usize,
    codes: &mut [u8],
    scales: &mut [f32],
    threads: NonZeroUsize,
) -> Result<(), EpError> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    check_matrix("values", values, rows, columns)?;
    check_matrix("codes", codes, rows, columns)?;
    check_matrix("scales", scales, rows, scales_len(columns))?;
    if values.is_empty() {
        return Ok(());
    }
    let rows_a_part = threads::tokens_a_part(rows, threads);
    let parts = values
        .chunks(rows_a_part * columns)
        .zip(codes.chunks_mut(rows_a_part * columns))
        .zip(scales.chunks_mut(rows_a_part * scales_len(columns)));
    threads::each(parts, |((values, codes), scales)| {
        vectorised(
            #[inline(always)]
            || quantise_rows(values, columns, codes, scales),
        );
    });
    Ok(())
}

#[inline(always)]
fn quantise_rows<T: Element>(values: &[T], columns: usize, codes: &mut [u8], scales: &mut [f32]) {
    let rows = values.chunks_exact(columns).zip(codes.chunks_exact_mut(columns));
    for ((values, codes), scales) in rows.zip(scales.chunks_exact_mut(scales_len(columns))) {
        let (groups, rest) = values.as_chunks::<GROUP>();
        let (code_groups, code_rest) = codes.as_chunks_mut::<GROUP>();
        for ((group, codes), scale) in groups.iter().zip(code_groups).zip(&mut *scales) {
            for line in (0..size_of_val(group)).step_by(64) {
                prefetch(group, AHEAD_BYTES + line);
            }
            prefetch(codes, AHEAD_BYTES / 2);
            prefetch(codes, AHEAD_BYTES / 2 + 64);
            *scale = quantise_group(group, codes);
        }
        if let (Some(scale), false) = (scales.last_mut(), rest.is_empty()) {
            *scale = quantise_group(rest, code_rest);
        }
    }
}

#[inline(always)]
fn quantise_group<T: Element>(values: &[T], codes: &mut [u8]) -> f32 {
    let largest = T::largest(values).max(LEAST_MAGNITUDE);
    // Not 448 / largest: torch makes a reciprocal of such a quotient, and so of DeepEP's.
    let factor = (1.0 / largest) * LARGEST;
    if largest.is_finite() {
        T::small_codes(values, factor, codes);
    } else {
        for (code, value) in codes.iter_mut().zip(values) {
            *code = e4m3_from_f32(value.widen() * factor);
        }
    }
    largest / LARGEST
}

/// Makes of codes and scales numbers again, each rounded to the format once.
///
/// # Errors
///
/// Where the lengths are not those of one shape.
pub fn dequantise<T: Element>(
    codes: &[u8],
    scales: &[f32],
    columns: usize,
    values: &mut [T],
    threads: NonZeroUsize,
) -> Result<(), EpError> {
    let rows = codes.len().checked_div(columns).unwrap_or(0);
    check_matrix("codes", codes, rows, columns)?;
    check_matrix("scales", scales, rows, scales_len(columns))?;
    check_matrix("values", values, rows, columns)?;
    if codes.is_empty() {
        return Ok(());
    }
    let rows_a_part = threads::tokens_a_part(rows, threads);
    let parts = values
        .chunks_mut(rows_a_part * columns)
        .zip(codes.chunks(rows_a_part * columns))
        .zip(scales.chunks(rows_a_part * scales_len(columns)));
    threads::each(parts, |((values, codes), scales)| {
        vectorised(
            #[inline(always)]
            || {
                let rows = values.chunks_exact_mut(columns).zip(codes.chunks_exact(columns));
                for ((values, codes), scales) in rows.zip(scales.chunks_exact(scales_len(columns)))
                {
                    let groups = values.chunks_mut(GROUP).zip(codes.chunks(GROUP)).zip(scales);
                    for ((values, codes), &scale) in groups {
                        for (value, &code) in values.iter_mut().zip(codes) {
                            *value = T::narrow(f32_from_e4m3(code) * scale);
                        }
                    }
                }
            },
        );
    });
    Ok(())
}
