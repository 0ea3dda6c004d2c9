//! Live bytes, counted where they are allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts only while it is asked to: a shared counter on every allocation would slow down the
/// rivals, who allocate in lookups.
static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

/// What `work` makes, and by how much the allocated bytes of all threads grew meanwhile. It must
/// not free what was allocated before.
pub fn live_bytes_of<T>(work: impl FnOnce() -> T) -> (T, u64) {
    LIVE_BYTES.store(0, Relaxed);
    IS_COUNTING.store(true, Relaxed);
    let made = work();
    IS_COUNTING.store(false, Relaxed);
    (made, LIVE_BYTES.load(Relaxed).try_into().unwrap())
}

struct Counting;

fn count(grown: usize, shrunk: usize) {
    if IS_COUNTING.load(Relaxed) {
        LIVE_BYTES.fetch_add(grown as i64 - shrunk as i64, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the caller's own arguments, for which the
// caller has given the guarantees that it asks for; counting neither allocates nor unwinds.
#[expect(unsafe_code, reason = "the interface of global allocators")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}
