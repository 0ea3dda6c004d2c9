//! Device memory, streams and events by themselves.

use crate::fake::device;
use llmd_data::transfer::cuda_ipc::{Device, DeviceMemory, Event, Stream, devices};
use llmd_data::transfer::{Memory, Place, TransferError};

#[test]
fn bytes_written_are_read_and_ranges_are_checked() {
    let memory = DeviceMemory::allocate(&device(1), 1000).unwrap();
    assert_eq!((memory.length_bytes(), memory.device().ordinal()), (1000, 1));
    assert!(matches!(memory.place(), Place::Device { device: 1, .. }));
    memory.write(990, &[7; 10]).unwrap();
    let mut bytes = [0; 10];
    memory.read(990, &mut bytes).unwrap();
    assert_eq!(bytes, [7; 10]);
    let wrong = memory.read(991, &mut bytes).unwrap_err();
    assert!(
        matches!(wrong, TransferError::OutOfRange { offset: 991, length: 1000, .. }),
        "{wrong}"
    );
    assert!(memory.write(usize::MAX, &[0]).is_err());
}

#[test]
fn a_reader_waits_for_what_writes() {
    let memory = DeviceMemory::allocate(&device(0), 64).unwrap();
    memory.write(0, &[1; 64]).unwrap();
    let stream = Stream::new(memory.device()).unwrap();
    // SAFETY: the bytes are a constant.
    unsafe { memory.write_on(&stream, 0, &[2; 64]).unwrap() };
    let event = Event::new(memory.device()).unwrap();
    event.record(&stream).unwrap();
    assert!(!event.is_done().unwrap(), "work is done when somebody waits for it");
    // Reading waits for the event behind the write, and with it for the write.
    let mut bytes = [0; 64];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 64]);
    event.synchronize().unwrap();
    assert!(event.is_done().unwrap());
}

#[test]
fn a_range_of_somebody_elses_allocation_can_be_adopted() {
    let whole = DeviceMemory::allocate(&device(0), 4096).unwrap();
    whole.write(1024, &[9; 512]).unwrap();
    // SAFETY: half of the allocation above, which outlives it.
    let part = unsafe { DeviceMemory::adopt(whole.device(), whole.address() + 1024, 512) }.unwrap();
    let mut bytes = [0; 512];
    part.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [9; 512]);
    // SAFETY: refused.
    let wrong = unsafe { DeviceMemory::adopt(whole.device(), 64, 512) }.unwrap_err();
    assert!(wrong.to_string().contains("NOT_FOUND"), "{wrong}");
}

#[test]
fn devices_are_counted_and_others_refused() {
    device(0);
    assert_eq!(devices(), Ok(2));
    let wrong = Device::open(2).unwrap_err();
    assert_eq!(wrong.to_string(), "CUDA device 2: there are 2: give a number below that");
    let wrong = DeviceMemory::allocate(&device(0), 0).unwrap_err();
    assert!(wrong.to_string().contains("allocating"), "{wrong}");
}
