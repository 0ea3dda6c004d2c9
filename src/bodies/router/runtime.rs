//! The router's threads: none until something needs one.

use super::LiveRouter;
use super::error::RouterError;
use llmd_brain::Time;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

/// Enough for a thousand subscriptions: events are decoded and applied in microseconds.
const WORKER_THREADS: usize = 2;
/// Longest time without a tick. Leases and beliefs that a later request brought forward end at
/// most this much too late; held requests hurry the timer.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The runtime, once it is there.
#[derive(Default)]
pub(super) struct Threads {
    runtime: Mutex<State>,
    keeps_time: AtomicBool,
    hurry: Arc<Notify>,
}

#[derive(Default)]
enum State {
    #[default]
    Unneeded,
    Running(Runtime),
    Stopped,
}

impl Threads {
    /// Where tasks are spawned; starts the threads the first time.
    pub(super) fn handle(&self) -> Result<Handle, RouterError> {
        let mut state = self.runtime.lock();
        if let State::Unneeded = *state {
            let runtime = Builder::new_multi_thread()
                .worker_threads(WORKER_THREADS)
                .thread_name("llmd-router")
                .enable_all()
                .build()
                .map_err(RouterError::Runtime)?;
            *state = State::Running(runtime);
        }
        match &*state {
            State::Running(runtime) => Ok(runtime.handle().clone()),
            _ => Err(RouterError::Closed),
        }
    }

    /// Ends all tasks, without waiting for them.
    pub(super) fn stop(&self) {
        let state = std::mem::replace(&mut *self.runtime.lock(), State::Stopped);
        if let State::Running(runtime) = state {
            runtime.shutdown_background();
        }
    }
}

impl LiveRouter {
    /// Where tasks of this router run; starts its threads the first time.
    ///
    /// # Errors
    /// [`RouterError::Runtime`], [`RouterError::Closed`].
    pub fn runtime(&self) -> Result<Handle, RouterError> {
        self.threads.handle()
    }

    /// Waits on this thread for what a future of the runtime comes to. The threads may be stopped
    /// meanwhile: `block_on` would panic then.
    ///
    /// # Errors
    /// [`RouterError::Runtime`], [`RouterError::Closed`].
    pub(super) fn wait_on<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RouterError> {
        let (tell, told) = mpsc::channel();
        self.runtime()?.spawn(async move { drop(tell.send(future.await)) });
        told.recv().map_err(|mpsc::RecvError| RouterError::Closed)
    }

    /// Sees to it that the brain gets its ticks from the first request on.
    pub(super) fn keep_time(self: &Arc<Self>) -> Result<(), RouterError> {
        if self.threads.keeps_time.load(Relaxed) || self.threads.keeps_time.swap(true, Relaxed) {
            return Ok(());
        }
        let hurry = Arc::clone(&self.threads.hurry);
        self.runtime()?.spawn(tick(Arc::downgrade(self), hurry));
        Ok(())
    }

    /// The brain's next deadline may have come nearer.
    pub(super) fn hurry(&self) {
        self.threads.hurry.notify_one();
    }
}

/// Ticks until the router is gone.
async fn tick(router: Weak<LiveRouter>, hurry: Arc<Notify>) {
    loop {
        let deadline = {
            let Some(router) = router.upgrade() else { return };
            let now = router.now();
            let actions = router.brain.tick(now);
            router.carry_out(&actions);
            let latest = now + LONGEST_SLEEP;
            let next = router.brain.next_wakeup().unwrap_or(Time::MAX);
            router.clock.instant_of(next.min(latest))
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => {}
            () = hurry.notified() => {}
        }
    }
}
