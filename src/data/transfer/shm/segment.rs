//! Memory in a file without a name, which another process can map once it is handed the file.
//!
//! A memfd, sealed against shrinking: who maps a file that its owner then truncates dies by SIGBUS,
//! so a peer maps only files that carry that seal.
#![allow(unsafe_code)]

use crate::transfer::{Memory, Place, TransferError};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// A mapped memfd, zeroed when made.
pub struct Segment {
    start: NonNull<u8>,
    length_bytes: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to the value and not to a thread; its bytes are only reached through
// raw pointers and atomics.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// A new segment of `length_bytes`, which are not touched yet.
    pub fn new(length_bytes: usize) -> Result<Self, TransferError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("llmd-segment", flags)
            .map_err(|e| TransferError::os("memfd_create", e))?;
        rustix::fs::ftruncate(&file, length_bytes as u64)
            .map_err(|e| TransferError::os("giving a segment its size", e))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)
            .map_err(|e| TransferError::os("sealing a segment", e))?;
        Self::map(file, length_bytes, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps a peer's segment: refused unless it is sealed and as long as the peer says.
    pub(super) fn attach(
        file: OwnedFd,
        length_bytes: usize,
        writable: bool,
    ) -> Result<Self, TransferError> {
        let seals = rustix::fs::fcntl_get_seals(&file)
            .map_err(|e| TransferError::os("reading the seals of a peer's segment", e))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(TransferError::os(
                "attaching a segment",
                "it can shrink under its readers",
            ));
        }
        let stat = rustix::fs::fstat(&file)
            .map_err(|e| TransferError::os("reading the size of a peer's segment", e))?;
        if u64::try_from(stat.st_size) != Ok(length_bytes as u64) {
            let why = format!("the peer says {length_bytes} bytes, it has {}", stat.st_size);
            return Err(TransferError::os("attaching a segment", why));
        }
        let write = if writable { ProtFlags::WRITE } else { ProtFlags::empty() };
        Self::map(file, length_bytes, ProtFlags::READ | write)
    }

    fn map(file: OwnedFd, length_bytes: usize, access: ProtFlags) -> Result<Self, TransferError> {
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length_bytes, access, MapFlags::SHARED, &file, 0)
        };
        let start = start.map_err(|e| TransferError::os("mapping a segment", e))?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| TransferError::os("mapping a segment", "the kernel gave address 0"))?;
        Ok(Self { start, length_bytes, file })
    }

    /// The file, for a peer.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The segment as atomic words.
    pub(in crate::transfer) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and is nowhere seen as
        // anything but atomics: segments of words are not handed out as `Memory`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length_bytes / 8) }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({} bytes)", self.length_bytes)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own mapping, and nothing borrows it any more. An error
        // would leak the mapping, which is all that could be done about it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length_bytes) };
    }
}

// SAFETY: the mapping lives until drop, at one address; no references to its bytes are made.
unsafe impl Memory for Segment {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn length_bytes(&self) -> usize {
        self.length_bytes
    }

    fn place(&self) -> Place<'_> {
        Place::Shared(self.file())
    }
}
