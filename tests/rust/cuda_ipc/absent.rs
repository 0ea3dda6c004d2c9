//! Machines without a driver or a device, and hosts that touch what is a device's.

use crate::child::{Process, heard, say};
use crate::fake;
use llmd_data::transfer::cuda_ipc::{DeviceMemory, devices};
use llmd_data::transfer::{Agent, AgentConfig, Memory, PathKind};

/// Says what this process sees of CUDA, and which paths two agents have.
pub fn prober() {
    for asked in heard() {
        match asked.as_str() {
            "load" => {
                fake::load();
                say("loaded");
            }
            "devices" => say(&format!("{:?}", devices().map_err(|error| error.to_string()))),
            "paths" => {
                let agent = Agent::new(AgentConfig::default()).unwrap();
                let peer = agent.connect(agent.address()).unwrap();
                let absent = peer.absent().iter().find(|(kind, _)| *kind == PathKind::CudaIpc);
                say(&format!("{:?} {:?}", peer.paths(), absent.map(|(_, why)| why)));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn without_a_driver_there_is_an_error_and_every_other_path() {
    let mut process = Process::start("prober", &[]);
    let devices = process.ask("devices");
    if devices.starts_with("Ok") {
        // A machine that has a driver: what this test is about cannot be shown here.
        return;
    }
    assert!(devices.contains("libcuda.so.1 cannot be loaded"), "{devices}");
    let paths = process.ask("paths");
    assert!(paths.contains("Shm") && paths.contains("Tcp"), "{paths}");
    assert!(paths.contains("install NVIDIA's driver"), "{paths}");
}

#[test]
fn without_a_device_the_driver_says_so() {
    let mut process = Process::start("prober", &[("FAKE_CUDA_DEVICES", "0")]);
    process.ask("load");
    let devices = process.ask("devices");
    assert!(devices.contains("CUDA_ERROR_NO_DEVICE"), "{devices}");
    assert!(process.ask("paths").contains("CUDA_ERROR_NO_DEVICE"));
}

#[test]
fn a_driver_that_is_too_old_is_refused() {
    let mut process = Process::start("prober", &[("FAKE_CUDA_VERSION", "11080")]);
    process.ask("load");
    let devices = process.ask("devices");
    assert!(devices.contains("of CUDA 11.8"), "{devices}");
}

/// Reads device memory as a host must not.
pub fn trespasser() {
    let memory = DeviceMemory::allocate(&fake::device(0), 4096).unwrap();
    memory.write(0, &[1; 4096]).unwrap();
    say("here");
    for _ in heard() {
        // SAFETY: none: the process is to be killed for it.
        let byte = unsafe { memory.start().as_ptr().read_volatile() };
        say(&format!("read {byte}"));
    }
}

#[test]
fn a_host_that_reads_device_memory_itself_is_killed() {
    const SIGSEGV: i32 = 11;
    let mut process = Process::start("trespasser", &[]);
    assert_eq!(process.hear(), "here");
    process.tell("go");
    assert_eq!(process.signal(), Some(SIGSEGV));
}
