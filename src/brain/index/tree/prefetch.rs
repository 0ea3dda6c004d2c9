//! Telling the processor what will be read soon.
//!
//! A lock and its release wait for the loads before them, so what is looked up under one lock after
//! another misses the cache one at a time. Lines that are asked for before the first lock come
//! together.

/// Starts to bring the cache line at an address in. The address need not be anything's.
#[inline]
pub(super) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch, of whatever address, neither faults nor changes anything but caches.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address; // Others have no stable way to say it.
}
