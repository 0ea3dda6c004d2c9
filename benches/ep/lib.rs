//! `llmd_data::ep` behind C's calling convention, for `bench.py` beside it.

#![allow(unsafe_code)]

use half::{bf16, f16};
use llmd_data::ep::{Element, EpError, Layout};
use std::num::NonZeroUsize;
use std::slice::{from_raw_parts, from_raw_parts_mut};

fn code(result: &Result<(), EpError>) -> i32 {
    if let Err(error) = result {
        eprintln!("{error}");
    }
    i32::from(result.is_err())
}

fn threads(threads: usize) -> NonZeroUsize {
    NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN)
}

/// An empty layout, which is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn ep_layout() -> *mut Layout {
    Box::leak(Box::default())
}

/// Lays out `slots` ids.
///
/// # Safety
///
/// `layout` is of `ep_layout` and in nobody's use; there are `slots` ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_compute(
    layout: *mut Layout,
    ids: *const i64,
    slots: usize,
    top_k: usize,
    experts: usize,
) -> i32 {
    // SAFETY: by the caller's word.
    let (layout, ids) = unsafe { (&mut *layout, from_raw_parts(ids, slots)) };
    code(&layout.compute(ids, top_k, experts))
}

/// Copies the row of each slot to `rows`.
///
/// # Safety
///
/// `layout` is of `ep_layout`; `rows` has room for its slots.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_rows_of_slots(layout: *const Layout, rows: *mut u32) {
    // SAFETY: by the caller's word.
    unsafe {
        let given = (*layout).row_of_slot();
        from_raw_parts_mut(rows, given.len()).copy_from_slice(given);
    }
}

/// Permutes tokens of `columns` numbers of 16 bits.
///
/// # Safety
///
/// `layout` is of `ep_layout`; the matrices have its tokens and rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_permute(
    layout: *const Layout,
    tokens: *const u16,
    columns: usize,
    rows: *mut u16,
    thread_count: usize,
) -> i32 {
    // SAFETY: by the caller's word.
    unsafe {
        let layout = &*layout;
        let tokens = from_raw_parts(tokens, layout.tokens() * columns);
        let rows = from_raw_parts_mut(rows, layout.rows() * columns);
        code(&llmd_data::ep::permute(layout, tokens, columns, rows, threads(thread_count)))
    }
}

/// Combines rows of bf16.
///
/// # Safety
///
/// `layout` is of `ep_layout`; the matrices have its rows, slots and tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_combine(
    layout: *const Layout,
    rows: *const bf16,
    weights: *const f32,
    columns: usize,
    tokens: *mut bf16,
    thread_count: usize,
) -> i32 {
    // SAFETY: by the caller's word.
    unsafe {
        let layout = &*layout;
        let rows = from_raw_parts(rows, layout.rows() * columns);
        let weights = from_raw_parts(weights, layout.tokens() * layout.top_k());
        let tokens = from_raw_parts_mut(tokens, layout.tokens() * columns);
        code(&llmd_data::ep::combine(layout, rows, weights, columns, tokens, threads(thread_count)))
    }
}

unsafe fn quantise<T: Element>(
    values: *const T,
    rows: usize,
    columns: usize,
    codes: *mut u8,
    scales: *mut f32,
    thread_count: usize,
) -> i32 {
    // SAFETY: by the caller's word.
    unsafe {
        let values = from_raw_parts(values, rows * columns);
        let codes = from_raw_parts_mut(codes, rows * columns);
        let scales = from_raw_parts_mut(scales, rows * llmd_data::ep::scales_len(columns));
        code(&llmd_data::ep::quantise(values, columns, codes, scales, threads(thread_count)))
    }
}

/// Quantises a matrix; `format` is 0 for bf16, 1 for f16, 2 for f32.
///
/// # Safety
///
/// `values` and `codes` have `rows` x `columns` elements, `scales` one for each group of a row.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_quantise(
    format: u32,
    values: *const u8,
    rows: usize,
    columns: usize,
    codes: *mut u8,
    scales: *mut f32,
    thread_count: usize,
) -> i32 {
    // SAFETY: by the caller's word.
    unsafe {
        match format {
            0 => quantise::<bf16>(values.cast(), rows, columns, codes, scales, thread_count),
            1 => quantise::<f16>(values.cast(), rows, columns, codes, scales, thread_count),
            _ => quantise::<f32>(values.cast(), rows, columns, codes, scales, thread_count),
        }
    }
}

/// Converts f32 to E4M3, one by one.
///
/// # Safety
///
/// `values` and `codes` have `length` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ep_e4m3(values: *const f32, length: usize, codes: *mut u8) {
    // SAFETY: by the caller's word.
    let (values, codes) =
        unsafe { (from_raw_parts(values, length), from_raw_parts_mut(codes, length)) };
    for (code, &value) in codes.iter_mut().zip(values) {
        *code = llmd_data::ep::e4m3_from_f32(value);
    }
}
