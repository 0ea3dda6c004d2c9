//! What can be registered.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Where memory is, which says who can reach it.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In this process alone.
    Private,
    /// In a file that other processes of this host can map from its start.
    Shared(BorrowedFd<'a>),
    /// On a device; `handle` is what its path sends to peers so that they can reach it.
    Device {
        /// The device's number.
        device: u32,
        /// For the path's eyes.
        handle: &'a [u8],
    },
}

/// A range of memory that stays where it is for as long as the value lives.
///
/// # Safety
/// `[start, start + length_bytes)` is one allocation, valid for reads and writes (by the processor,
/// or by the device where [`Place::Device`] says so) until the value is dropped, and no Rust
/// reference to its bytes exists while it is registered: peers write to it at any time. A file in
/// [`Place::Shared`] holds the same bytes from its offset 0.
pub unsafe trait Memory: Send + Sync {
    /// Its first byte.
    fn start(&self) -> NonNull<u8>;
    /// Its length.
    fn length_bytes(&self) -> usize;
    /// Where it is.
    fn place(&self) -> Place<'_>;
}

// SAFETY: an `Arc` keeps the value, and so its memory, alive.
unsafe impl<M: Memory + ?Sized> Memory for std::sync::Arc<M> {
    fn start(&self) -> NonNull<u8> {
        (**self).start()
    }

    fn length_bytes(&self) -> usize {
        (**self).length_bytes()
    }

    fn place(&self) -> Place<'_> {
        (**self).place()
    }
}
