//! Rows that several threads write, past the caches where there are too many to stay in them.

#![allow(unsafe_code)]

use std::marker::PhantomData;

/// From here on rows are written past the caches: what is written first would be gone from them
/// before it is read, and a store that goes around them does not read its line from memory first.
const STREAMED_BYTES: usize = 32 << 20;

/// Asks for the line `ahead` bytes after a reference, which may be outside of anything: a hint never
/// faults. Processors fetch ahead by themselves, but not past a page's end.
#[inline(always)]
pub(super) fn prefetch<T>(from: &T, ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let at = std::ptr::from_ref(from).cast::<i8>().wrapping_add(ahead);
        // SAFETY: the machine has SSE, and a prefetch is no access.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, ahead);
}

/// Rows of bytes, each of which is written by one thread.
pub(super) struct ScatteredRows<'a> {
    first: *mut u8,
    row_bytes: usize,
    rows: usize,
    is_streamed: bool,
    borrowed: PhantomData<&'a mut [u8]>,
}

// SAFETY: it only lends the bytes for writing by `write`, whose callers keep rows to one thread.
unsafe impl Sync for ScatteredRows<'_> {}

impl<'a> ScatteredRows<'a> {
    /// Cuts bytes into rows of `row_bytes`, which is not 0.
    pub(super) fn new(bytes: &'a mut [u8], row_bytes: usize) -> Self {
        Self {
            first: bytes.as_mut_ptr(),
            row_bytes,
            rows: bytes.len() / row_bytes,
            is_streamed: bytes.len() >= STREAMED_BYTES,
            borrowed: PhantomData,
        }
    }

    /// Writes one row.
    ///
    /// # Safety
    ///
    /// No other thread writes the same row, and `row` is below the number of rows.
    pub(super) unsafe fn write(&self, row: usize, bytes: &[u8]) {
        debug_assert!(row < self.rows && bytes.len() == self.row_bytes);
        // SAFETY: the row is inside of the bytes that `new` borrowed for writing, by the caller's
        // word, who also keeps other threads from it.
        let row = unsafe {
            std::slice::from_raw_parts_mut(self.first.add(row * self.row_bytes), self.row_bytes)
        };
        if self.is_streamed { stream(row, bytes) } else { row.copy_from_slice(bytes) }
    }

    /// Orders this thread's writes before what it does next: streaming stores are not, by
    /// themselves, even by the end of a thread.
    pub(super) fn publish(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.is_streamed {
            // SAFETY: the machine has SSE: it is of x86-64.
            unsafe {
                std::arch::x86_64::_mm_sfence();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn stream(to: &mut [u8], from: &[u8]) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has AVX-512.
        unsafe { stream_lines(to, from) };
    } else {
        stream_quarters(to, from);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

/// Whole cache lines by one store each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn stream_lines(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_stream_si512};
    // SAFETY: any bytes are an `__m512i`.
    let (head, lines, tail) = unsafe { to.align_to_mut::<__m512i>() };
    let (first, from) = from.split_at(head.len());
    head.copy_from_slice(first);
    let (chunks, last) = from.as_chunks::<64>();
    for (line, chunk) in lines.iter_mut().zip(chunks) {
        // SAFETY: `line` is aligned and borrowed for writing, and a chunk has 64 bytes.
        unsafe { _mm512_stream_si512(line, _mm512_loadu_si512(chunk.as_ptr().cast())) };
    }
    tail.copy_from_slice(last);
}

/// Sixteen bytes a store, as every machine of x86-64 can; lines are gathered in its buffers.
#[cfg(target_arch = "x86_64")]
fn stream_quarters(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    // SAFETY: any bytes are an `__m128i`.
    let (head, quarters, tail) = unsafe { to.align_to_mut::<__m128i>() };
    let (first, from) = from.split_at(head.len());
    head.copy_from_slice(first);
    let (chunks, last) = from.as_chunks::<16>();
    for (quarter, chunk) in quarters.iter_mut().zip(chunks) {
        // SAFETY: `quarter` is aligned and borrowed for writing, and a chunk has 16 bytes.
        unsafe { _mm_stream_si128(quarter, _mm_loadu_si128(chunk.as_ptr().cast())) };
    }
    tail.copy_from_slice(last);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_rows_are_the_bytes_given_at_every_alignment() {
        let from: Vec<u8> = (0..700_u32).map(|number| (number * 7) as u8).collect();
        for start in 0..65 {
            for length in [0, 1, 15, 16, 63, 64, 65, 130, 500] {
                let mut to = vec![0; 700];
                stream(&mut to[start..][..length], &from[3..][..length]);
                assert_eq!(to[start..][..length], from[3..][..length]);
                assert!(to[..start].iter().chain(&to[start + length..]).all(|&byte| byte == 0));
                #[cfg(target_arch = "x86_64")]
                {
                    // SAFETY: the machine is of x86-64.
                    stream_quarters(&mut to[start..][..length], &from[9..][..length]);
                    assert_eq!(to[start..][..length], from[9..][..length]);
                }
            }
        }
    }
}
