//! Locks on bytes of a file: the kernel lets go of them when their holder dies, however it dies.
//!
//! So they tell who is alive, across containers too, where process numbers say nothing. They are
//! open file description locks (fcntl(2), F_OFD_SETLK): a process that opens a file twice is two
//! holders, and a forked child holds its parent's.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The locks on the bytes of one open file.
#[derive(Debug, Clone, Copy)]
pub struct ByteLocks<'a>(pub &'a File);

impl ByteLocks<'_> {
    /// Locks byte `at`; false if somebody else has it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_lock(self, at: u64) -> io::Result<bool> {
        match self.call(libc::F_OFD_SETLK, libc::F_WRLCK, at) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets go of byte `at`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn unlock(self, at: u64) -> io::Result<()> {
        self.call(libc::F_OFD_SETLK, libc::F_UNLCK, at).map(|_| ())
    }

    /// Whether another holder has byte `at`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn held_elsewhere(self, at: u64) -> io::Result<bool> {
        let found = self.call(libc::F_OFD_GETLK, libc::F_WRLCK, at)?;
        Ok(i32::from(found) != libc::F_UNLCK)
    }

    fn call(self, command: i32, kind: i32, at: u64) -> io::Result<libc::c_short> {
        // SAFETY: zeros are a valid `flock`; OFD commands ask for `l_pid` to be 0.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = at as libc::off_t;
        lock.l_len = 1;
        // SAFETY: the descriptor is open while `self.0` lives, and these commands read and write
        // one `flock`, which `lock` is.
        let result = unsafe { libc::fcntl(self.0.as_raw_fd(), command, &raw mut lock) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(lock.l_type) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_free_again_when_its_holder_has_gone() {
        let path = std::env::temp_dir().join(format!("llmd-byte-lock-{}", std::process::id()));
        let one = File::create(&path).unwrap();
        let other = File::create(&path).unwrap();

        assert!(ByteLocks(&one).try_lock(3).unwrap());
        assert!(!ByteLocks(&other).try_lock(3).unwrap());
        assert!(ByteLocks(&other).held_elsewhere(3).unwrap());
        assert!(!ByteLocks(&one).held_elsewhere(3).unwrap());
        drop(one);
        assert!(!ByteLocks(&other).held_elsewhere(3).unwrap());
        assert!(ByteLocks(&other).try_lock(3).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
