//! A mutex in shared memory that says when its holder died with it.
//!
//! POSIX's robust mutex (pthread_mutexattr_setrobust(3)): the kernel marks it when a thread dies
//! holding it, the next to lock it is told so, and mends what it guards. A wait has a bound: the
//! holder may be stopped rather than dead.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::io;
use std::time::Duration;

/// The mutex. It lies in shared memory, where [`RobustMutex::start`] made it.
#[repr(C, align(64))]
pub struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is a mutex that may be used from all threads of all processes that map it; its only
// field is handed to libpthread's functions and touched by nothing else.
unsafe impl Sync for RobustMutex {}

/// How a mutex was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is ours, and whoever had it before left it in order.
    Clean,
    /// It is ours, and whoever had it died: [`RobustMutex::mended`] must follow, or nobody enters
    /// it again.
    Bereft,
    /// It is not ours: somebody kept it all the time, or left it unmended.
    Refused,
}

impl RobustMutex {
    /// Makes a mutex at `place`.
    ///
    /// # Errors
    /// The operating system's, where it has no such mutexes.
    ///
    /// # Safety
    /// `place` is valid, aligned shared memory, and nobody else uses it meanwhile.
    pub unsafe fn start(place: *mut Self) -> io::Result<()> {
        let done = |code| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
        let mut attributes = std::mem::MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: `attributes` is initialised by the first call before the others read it, and
        // `place` is valid by this function's contract; a `RobustMutex` begins with its mutex.
        unsafe {
            done(libc::pthread_mutexattr_init(attributes))?;
            let shared = libc::PTHREAD_PROCESS_SHARED;
            done(libc::pthread_mutexattr_setpshared(attributes, shared))?;
            done(libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST))?;
            done(libc::pthread_mutex_init(place.cast(), attributes))?;
            done(libc::pthread_mutexattr_destroy(attributes))
        }
    }

    /// Takes it, waiting `patience` at most.
    #[must_use]
    pub fn enter(&self, patience: Duration) -> Entry {
        // SAFETY: `start` initialised the mutex before anybody got a reference to it.
        let mut code = unsafe { libc::pthread_mutex_trylock(self.0.get()) };
        if code == libc::EBUSY {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            let nanoseconds = now.tv_nsec as u128 + patience.as_nanos();
            let until = libc::timespec {
                tv_sec: now.tv_sec + (nanoseconds / 1_000_000_000) as i64,
                tv_nsec: (nanoseconds % 1_000_000_000) as i64,
            };
            // SAFETY: as above, and `until` is a valid time.
            code = unsafe { libc::pthread_mutex_timedlock(self.0.get(), &raw const until) };
        }
        match code {
            0 => Entry::Clean,
            libc::EOWNERDEAD => Entry::Bereft,
            _ => Entry::Refused,
        }
    }

    /// Says that what it guards is in order again. Only whoever has entered it may call this.
    pub fn mended(&self) {
        // SAFETY: initialised by `start`; if it was not bereft, this changes nothing (EINVAL).
        unsafe { libc::pthread_mutex_consistent(self.0.get()) };
    }

    /// Gives it back. Only whoever has entered it may call this.
    pub fn leave(&self) {
        // SAFETY: initialised by `start`. A robust mutex checks that its caller holds it (EPERM).
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}
