//! Copies of blocks, past the caches where they are too large for them.
//!
//! A plain copy first reads the lines that it is about to overwrite; streaming stores do not, and
//! leave the cache to whoever computes.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// Shortest run that streaming stores are used for: below, the caller is likely to read the bytes.
pub const MIN_STREAMED_RUN_BYTES: usize = 4 << 10;

/// From how many bytes on a copy of many blocks goes past the caches: a quarter of the last-level
/// cache. A fixed 8 MB lost 40 % on 34 MB that a cache of 260 MB kept.
pub fn streamed_from_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let size = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size");
        let kilobytes = size.ok().and_then(|size| size.trim().strip_suffix('K')?.parse().ok());
        (kilobytes.unwrap_or(32 << 10) << 10) / 4
    })
}

/// Copies `bytes` from `from` to `to`; with `streamed`, past the caches. Streamed bytes are ordered
/// before later stores by [`order_streamed`] only.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `bytes` bytes, and they do not overlap. Others
/// may write to `from` meanwhile, which makes the copy's content undefined, and nothing else: it is
/// never looked at as anything but bytes.
pub unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, streamed: bool) {
    #[cfg(target_arch = "x86_64")]
    if streamed && bytes >= MIN_STREAMED_RUN_BYTES && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, and the caller promised the rest.
        return unsafe { x86::stream(from, to, bytes) };
    }
    let _ = streamed;
    // SAFETY: the caller promised it.
    unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
}

/// Puts streamed bytes before whatever is stored next.
pub fn order_streamed() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};

    const LANE_BYTES: usize = 32;
    const STEP_BYTES: usize = 4 * LANE_BYTES;

    /// # Safety
    /// As [`super::copy`], on a processor with AVX; `bytes` is at least one step.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn stream(mut from: *const u8, mut to: *mut u8, mut bytes: usize) {
        // Streaming stores want aligned addresses: a plain copy up to the first.
        let head = to.align_offset(LANE_BYTES).min(bytes);
        // SAFETY: head, steps and tail lie one behind the other within `bytes`, and each store is
        // to an aligned address, for `to` is aligned after the head and moves by whole lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(from, to, head);
            from = from.add(head);
            to = to.add(head);
            bytes -= head;
            while bytes >= STEP_BYTES {
                let source = from.cast::<__m256i>();
                let target = to.cast::<__m256i>();
                let lanes = [
                    _mm256_loadu_si256(source),
                    _mm256_loadu_si256(source.add(1)),
                    _mm256_loadu_si256(source.add(2)),
                    _mm256_loadu_si256(source.add(3)),
                ];
                _mm256_stream_si256(target, lanes[0]);
                _mm256_stream_si256(target.add(1), lanes[1]);
                _mm256_stream_si256(target.add(2), lanes[2]);
                _mm256_stream_si256(target.add(3), lanes[3]);
                from = from.add(STEP_BYTES);
                to = to.add(STEP_BYTES);
                bytes -= STEP_BYTES;
            }
            std::ptr::copy_nonoverlapping(from, to, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_copies_are_copies_at_every_alignment() {
        let source: Vec<u8> = (0..20_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for shift in [0, 1, 15, 31, 32, 33] {
            for bytes in [0, 1, 4095, 4096, 4097, 4096 + 127, 9000] {
                let mut target = vec![0u8; 20_000];
                // SAFETY: both ranges lie within their vectors, which are distinct.
                unsafe {
                    copy(
                        source.as_ptr().add(shift * 3),
                        target.as_mut_ptr().add(shift),
                        bytes,
                        true,
                    );
                }
                order_streamed();
                assert_eq!(target[shift..shift + bytes], source[shift * 3..shift * 3 + bytes]);
                assert!(target[..shift].iter().chain(&target[shift + bytes..]).all(|&b| b == 0));
            }
        }
    }
}
