//! The card: opened once an agent, with its port, its address, and memory registered with it.
#![allow(unsafe_code)]

use super::sys::{ACCESS_ALL, Context, Gid, MemoryRegion, Opaque, PortAttributes, Verbs};
use crate::transfer::{Memory, Place, TransferError};
use std::ffi::CStr;
use std::sync::Arc;

const PORT_ACTIVE: u32 = 4;
/// Ports and addresses that are looked at.
const MAX_PORTS: u8 = 4;
const MAX_GIDS: i32 = 256;

/// An open device with an active port.
pub(in crate::transfer) struct Device {
    pub(super) verbs: Verbs,
    pub(super) name: String,
    pub(super) port: u8,
    pub(super) mtu: u32,
    pub(super) lid: u16,
    pub(super) gid_index: u8,
    pub(super) gid: Gid,
    pub(super) context: *mut Context,
    pub(super) domain: Opaque,
}

// SAFETY: libibverbs locks what its objects share; the pointers are valid until drop.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The first device with an active port; otherwise what is missing.
    pub fn open() -> Result<Arc<Self>, String> {
        let verbs = Verbs::open().map_err(|error| format!("no libibverbs: {error}"))?;
        let mut count = 0;
        // SAFETY: fills `count`; the list is freed below.
        let list = unsafe { (verbs.get_device_list)(&raw mut count) };
        if list.is_null() || count == 0 {
            return Err("there is no RDMA device".into());
        }
        let mut why = "no port of an RDMA device is active".to_owned();
        let mut found = None;
        for i in 0..count as usize {
            // SAFETY: the list has `count` devices, with names, and stays until it is freed.
            let opened = unsafe {
                let device = *list.add(i);
                let name = CStr::from_ptr((verbs.get_device_name)(device));
                let context = (verbs.open_device)(device);
                (name.to_string_lossy().into_owned(), context)
            };
            if opened.1.is_null() {
                why = format!("{} cannot be opened: {}", opened.0, std::io::Error::last_os_error());
                continue;
            }
            if let Some(port) = active_port(&verbs, opened.1, &opened.0) {
                found = Some((opened, port));
                break;
            }
            // SAFETY: opened above, used by nobody.
            unsafe { (verbs.close_device)(opened.1) };
        }
        // SAFETY: from `get_device_list`; devices that were opened stay.
        unsafe { (verbs.free_device_list)(list) };
        let ((name, context), (port, attributes, gid_index, gid)) = found.ok_or(why)?;
        // SAFETY: an open context.
        let domain = unsafe { (verbs.alloc_pd)(context) };
        if domain.is_null() {
            // SAFETY: as above.
            unsafe { (verbs.close_device)(context) };
            return Err(format!("{name} has no protection domain left"));
        }
        let (mtu, lid) = (attributes.active_mtu, attributes.lid);
        Ok(Arc::new(Self { verbs, name, port, mtu, lid, gid_index, gid, context, domain }))
    }

    /// The last system error, as this device's.
    pub fn failed(&self, doing: &str) -> TransferError {
        let what = format!("{doing}: {}", std::io::Error::last_os_error());
        TransferError::Device { device: self.name.clone(), what }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: whatever was made of them holds an `Arc` of the device, so nothing is left.
        unsafe {
            (self.verbs.dealloc_pd)(self.domain);
            (self.verbs.close_device)(self.context);
        }
    }
}

type Port = (u8, PortAttributes, u8, Gid);

fn active_port(verbs: &Verbs, context: *mut Context, device: &str) -> Option<Port> {
    (1..=MAX_PORTS).find_map(|port| {
        // SAFETY: plain numbers and bytes; zeroes are valid.
        let mut attributes: PortAttributes = unsafe { std::mem::zeroed() };
        // SAFETY: an open context; the buffer is longer than any version's attributes.
        let asked = unsafe { (verbs.query_port)(context, port, &raw mut attributes) };
        if asked != 0 || attributes.state != PORT_ACTIVE {
            return None;
        }
        let gids = (0..attributes.gid_table_length.min(MAX_GIDS)).filter_map(|index| {
            let mut gid = Gid::default();
            // SAFETY: as above.
            let asked = unsafe { (verbs.query_gid)(context, port, index, &raw mut gid) };
            (asked == 0 && gid != Gid::default())
                .then(|| (rank(device, port, index, gid), index, gid))
        });
        let (_, index, gid) = gids.max_by_key(|&(rank, index, _)| (rank, -index))?;
        Some((port, attributes, index as u8, gid))
    })
}

/// Routable addresses are better: RoCE v2 crosses routers, and IPv4 is what hosts agree on.
fn rank(device: &str, port: u8, index: i32, gid: Gid) -> u8 {
    let kind = format!("/sys/class/infiniband/{device}/ports/{port}/gid_attrs/types/{index}");
    let v2 = std::fs::read_to_string(kind).is_ok_and(|kind| kind.trim() == "RoCE v2");
    let ipv4 = gid.0[..10] == [0; 10] && gid.0[10..12] == [0xff; 2];
    u8::from(v2) * 2 + u8::from(ipv4)
}

/// Memory that the card may read and write. Kept by the region: registering pins every page, which
/// costs more than most transfers.
pub(super) struct Registration {
    device: Arc<Device>,
    region: *mut MemoryRegion,
}

// SAFETY: as for the device.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl Registration {
    pub fn new(device: &Arc<Device>, memory: &dyn Memory) -> Result<Self, TransferError> {
        if let Place::Device { .. } = memory.place() {
            let what = "a device's memory is not registered with it".into();
            return Err(TransferError::Device { device: device.name.clone(), what });
        }
        let (start, length) = (memory.start().as_ptr().cast(), memory.length_bytes());
        // SAFETY: the memory is valid until it is dropped, and the region drops its registrations
        // before its memory.
        let region =
            unsafe { (device.verbs.reg_mr)(device.domain, start, length, ACCESS_ALL as i32) };
        if region.is_null() {
            return Err(device.failed("registering memory (is RLIMIT_MEMLOCK too low?)"));
        }
        Ok(Self { device: device.clone(), region })
    }

    /// The key for requests of this side.
    pub fn local_key(&self) -> u32 {
        // SAFETY: valid until drop.
        unsafe { (*self.region).local_key }
    }

    /// The key for requests of peers.
    pub fn remote_key(&self) -> u32 {
        // SAFETY: valid until drop.
        unsafe { (*self.region).remote_key }
    }

    /// Where the memory starts, in requests of either side.
    pub fn address(&self) -> u64 {
        // SAFETY: valid until drop.
        unsafe { (*self.region).address as u64 }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered above, once. From here on the card refuses the keys.
        unsafe { (self.device.verbs.dereg_mr)(self.region) };
    }
}
