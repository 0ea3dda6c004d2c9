//! The memory that the suite moves, and the paths that move it: segments of this host.
#![allow(unsafe_code)]

use crate::random::survives;
use llmd_data::transfer::{Memory, PathKind, Segment};

pub const PATHS: &[PathKind] = &[PathKind::Shm, PathKind::Tcp];

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

#[test]
fn random_transfers_survive_faults_by_shm() {
    survives(PathKind::Shm);
}

#[test]
fn random_transfers_survive_faults_by_tcp() {
    survives(PathKind::Tcp);
}
