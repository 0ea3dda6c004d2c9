//! Futures that are waited for so long and no longer.

/// A future with an end.
pub(super) trait Within: Future + Sized {
    /// What it comes to; `None` where it takes longer.
    async fn await_within(self, timeout: std::time::Duration) -> Option<Self::Output> {
        tokio::time::timeout(timeout, self).await.ok()
    }
}

impl<F: Future> Within for F {}
