//! The memory that the suite moves, and the paths that move it: segments of this host.
#![allow(unsafe_code)]

use llmd_data::transfer::{Memory, PathKind, Segment};

/// The paths that this machine has: the suite runs on each. RDMA wants a device; where
/// `LLMD_RDMA_DEVICE` says that there is one, its absence is a failure.
pub fn paths() -> Vec<PathKind> {
    let mut paths = vec![PathKind::Shm, PathKind::Tcp];
    let is_required = std::env::var_os("LLMD_RDMA_DEVICE").is_some();
    match llmd_data::transfer::rdma::absent() {
        // Under an emulated processor only what is special there.
        None => paths = vec![PathKind::Rdma],
        Some(why) => assert!(!is_required, "LLMD_RDMA_DEVICE is set, but: {why}"),
    }
    paths
}

/// What regions are made of.
pub type Backing = Segment;

pub fn backing(bytes: usize) -> Backing {
    Segment::new(bytes).unwrap()
}

pub fn put(memory: &Backing, offset: usize, bytes: &[u8]) {
    assert!(offset + bytes.len() <= memory.length_bytes());
    // SAFETY: within the segment, which lives.
    unsafe {
        let to = memory.start().as_ptr().add(offset);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
    }
}

pub fn get(memory: &Backing, offset: usize, bytes: &mut [u8]) {
    assert!(offset + bytes.len() <= memory.length_bytes());
    // SAFETY: as above.
    unsafe {
        let from = memory.start().as_ptr().add(offset);
        std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len());
    }
}
