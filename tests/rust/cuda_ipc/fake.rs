//! The fake driver, loaded before anybody asks for the real one.

use llmd_data::transfer::cuda_ipc::Device;
use std::sync::{Arc, LazyLock};

/// Whoever loads `libcuda.so.1` later gets the library of that name which is loaded already.
static DRIVER: LazyLock<libloading::os::unix::Library> = LazyLock::new(|| {
    let path = crate::built::fakes().join("libcuda.so.1");
    // SAFETY: its initialisers only fill its tables.
    let driver = unsafe { libloading::os::unix::Library::new(path) }.unwrap();
    // SAFETY: this is its signature. A host that touches device memory is killed from here on.
    unsafe { driver.get::<extern "C" fn()>(b"fake_cuda_guard\0").unwrap()() };
    driver
});

pub fn load() {
    LazyLock::force(&DRIVER);
}

/// A device of the fake driver.
pub fn device(ordinal: u32) -> Arc<Device> {
    load();
    Device::open(ordinal).unwrap()
}
