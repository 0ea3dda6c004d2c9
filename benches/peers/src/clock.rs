//! CPU time, and the cores that it is spent on. The machine is shared, so throughput is counted
//! per CPU-second and never by the wall clock.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Wake;

/// CPU seconds of the calling thread.
pub fn thread_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// CPU seconds that `work` costs the calling thread.
pub fn cpu_s_of(work: impl FnOnce()) -> f64 {
    let start = thread_cpu_s();
    work();
    thread_cpu_s() - start
}

/// The CPU time of whichever thread rings it, at that moment.
///
/// As a waker it tells how far a rival's own thread has got without any hand-over between threads
/// inside the measurement: a future that the thread completes wakes it there and then.
#[derive(Default)]
pub struct Bell {
    rung_at_cpu_s: Mutex<Option<f64>>,
    rung: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        let at = thread_cpu_s();
        *self.rung_at_cpu_s.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.rung.notify_all();
    }

    /// Waits until it is rung; the ringing thread's CPU seconds then.
    pub fn wait(&self) -> f64 {
        let mut at = self.rung_at_cpu_s.lock().unwrap();
        loop {
            if let Some(at) = *at {
                return at;
            }
            at = self.rung.wait(at).unwrap();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect()
}

/// Keeps the calling thread, and those that it starts, on these cores.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).unwrap();
}
