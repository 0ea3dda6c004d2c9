//! Work on tokens, shared out among threads.

use std::num::NonZeroUsize;
use std::thread;

/// Fewer tokens than these are not worth the start of a thread, tens of microseconds.
const TOKENS_A_THREAD: usize = 64;

/// How many tokens each thread takes: at least one, so that they can be cut into chunks.
pub(super) fn tokens_a_part(tokens: usize, threads: NonZeroUsize) -> usize {
    let parts = threads.get().min(tokens.div_ceil(TOKENS_A_THREAD)).max(1);
    tokens.div_ceil(parts).max(1)
}

/// Does each part of the work on a thread, the first on this one.
pub(super) fn each<Part: Send>(parts: impl IntoIterator<Item = Part>, work: impl Fn(Part) + Sync) {
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return };
    let work = &work;
    thread::scope(|scope| {
        for part in parts {
            scope.spawn(move || work(part));
        }
        work(first);
    });
}
