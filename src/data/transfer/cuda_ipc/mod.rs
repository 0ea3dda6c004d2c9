//! CUDA IPC: memory of devices, between processes of one host, through the CUDA driver.
//!
//! The owner's handle travels with its region's descriptor; whoever reads or writes opens it on its
//! own device and copies on a stream of its own. Either end may also be host memory, which stages
//! blocks of a device. Epochs and grants are the shared memory path's, over the same kind of socket.
//!
//! The driver is loaded when a device is first asked for. Where there is none, that is an error
//! that says so, and every other path works.
//!
//! This path has run on the fake driver in `tests/fakes/fake_cuda` alone: never on a device.

mod device;
mod driver;
mod handle;
mod memory;
pub(super) mod path;
mod remote;
mod stream;
mod worker;

pub use device::Device;
pub use driver::devices;
pub use memory::DeviceMemory;
pub use stream::{Event, Stream};
