//! The memory that the shared suite moves here: of a device.

use crate::fake;
use llmd_data::transfer::PathKind;
use llmd_data::transfer::cuda_ipc::DeviceMemory;
use std::sync::atomic::{AtomicU32, Ordering};

/// The suite runs on each.
pub fn paths() -> Vec<PathKind> {
    vec![PathKind::CudaIpc]
}

pub type Backing = DeviceMemory;

/// On one of two devices by turns: the two ends of a pair are on unlike ones.
pub fn backing(bytes: usize) -> Backing {
    static TURN: AtomicU32 = AtomicU32::new(0);
    let device = fake::device(TURN.fetch_add(1, Ordering::Relaxed) % 2);
    DeviceMemory::allocate(&device, bytes).unwrap()
}

pub fn put(memory: &Backing, offset: usize, bytes: &[u8]) {
    memory.write(offset, bytes).unwrap();
}

pub fn get(memory: &Backing, offset: usize, bytes: &mut [u8]) {
    memory.read(offset, bytes).unwrap();
}
