//! Running another process one instruction at a time (ptrace(2)).

use std::process::Child;

/// In the victim: from here on it is stepped.
pub fn be_traced() {
    // SAFETY: neither call touches memory.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0), 0);
        libc::raise(libc::SIGSTOP);
    }
}

/// Lets `victim` execute up to `instructions` after it asked to be traced, and says how many it
/// did before it ended by itself.
pub fn step(victim: &Child, instructions: u64) -> u64 {
    let pid = victim.id() as libc::pid_t;
    let mut status = 0;
    // SAFETY: `status` is a valid place, and `pid` a child that asked to be traced by us.
    unsafe {
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        assert!(libc::WIFSTOPPED(status), "the victim waits to be stepped");
        for done in 0..instructions {
            assert_eq!(libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0), 0);
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            if !libc::WIFSTOPPED(status) {
                return done;
            }
        }
    }
    instructions
}

/// Sends `signal` to `victim`.
pub fn signal(victim: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so the number is still its own.
    unsafe { libc::kill(victim.id() as libc::pid_t, signal) };
}
