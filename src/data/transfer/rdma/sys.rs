//! libibverbs, opened when it is first asked for: the wheel links to nothing, and a host without it
//! has no RDMA path and no error.
//!
//! The layouts are those of libibverbs' stable ABI (IBVERBS_1.1, infiniband/verbs.h of rdma-core);
//! sizes that its inline functions rely on are asserted below.
#![allow(unsafe_code)]

use libloading::Library;
use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};

pub(super) type Opaque = *mut c_void;

#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gid(pub [u8; 16]);

/// The start of a context: what the inline functions of verbs.h call through.
#[repr(C)]
pub(super) struct Context {
    device: Opaque,
    operations: [Opaque; 32],
    command_fd: c_int,
    async_fd: c_int,
}

const POLL_CQ: usize = 11;
const POST_SEND: usize = 25;
const POST_RECV: usize = 26;

#[repr(C)]
pub(super) struct CompletionQueue {
    context: *mut Context,
}

#[repr(C)]
pub(super) struct QueuePair {
    context: *mut Context,
    qp_context: Opaque,
    pd: Opaque,
    send_cq: Opaque,
    recv_cq: Opaque,
    srq: Opaque,
    handle: u32,
    pub number: u32,
}

#[repr(C)]
pub(super) struct MemoryRegion {
    context: Opaque,
    pd: Opaque,
    pub address: Opaque,
    length: usize,
    handle: u32,
    pub local_key: u32,
    pub remote_key: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Capacity {
    pub max_send: u32,
    pub max_recv: u32,
    pub max_send_pieces: u32,
    pub max_recv_pieces: u32,
    pub max_inline: u32,
}

#[repr(C)]
pub(super) struct InitAttributes {
    pub qp_context: Opaque,
    pub send_cq: *mut CompletionQueue,
    pub recv_cq: *mut CompletionQueue,
    pub srq: Opaque,
    pub capacity: Capacity,
    pub kind: u32,
    pub signal_all: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Route {
    pub gid: Gid,
    pub flow_label: u32,
    pub own_gid: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct AddressHandle {
    pub route: Route,
    pub lid: u16,
    pub service_level: u8,
    pub source_path_bits: u8,
    pub static_rate: u8,
    pub is_global: u8,
    pub port: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct QpAttributes {
    pub state: u32,
    pub current_state: u32,
    pub path_mtu: u32,
    pub migration: u32,
    pub qkey: u32,
    pub recv_psn: u32,
    pub send_psn: u32,
    pub remote_number: u32,
    pub access: u32,
    pub capacity: Capacity,
    pub address: AddressHandle,
    pub other_address: AddressHandle,
    pub pkey: u16,
    pub other_pkey: u16,
    pub drained: u8,
    pub draining: u8,
    pub max_reads: u8,
    pub max_reads_served: u8,
    pub min_rnr_timer: u8,
    pub port: u8,
    pub timeout: u8,
    pub retries: u8,
    pub rnr_retries: u8,
    pub other_port: u8,
    pub other_timeout: u8,
    pub rate_limit: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub address: u64,
    pub bytes: u32,
    pub local_key: u32,
}

#[repr(C)]
pub(super) struct SendRequest {
    pub id: u64,
    pub next: *mut SendRequest,
    pub pieces: *mut Piece,
    pub piece_count: c_int,
    pub opcode: u32,
    pub flags: u32,
    pub immediate: u32,
    pub remote_address: u64,
    pub remote_key: u32,
    pub rest: [u8; 128 - 52],
}

#[repr(C)]
pub(super) struct RecvRequest {
    pub id: u64,
    pub next: *mut RecvRequest,
    pub pieces: *mut Piece,
    pub piece_count: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct WorkCompletion {
    pub id: u64,
    pub status: u32,
    pub opcode: u32,
    pub vendor_error: u32,
    pub bytes: u32,
    pub immediate: u32,
    pub number: u32,
    pub source_number: u32,
    pub flags: u32,
    pub pkey_index: u16,
    pub source_lid: u16,
    pub service_level: u8,
    pub path_bits: u8,
}

/// As `ibv_query_port` fills it, and room for what later versions add.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PortAttributes {
    pub state: u32,
    pub max_mtu: u32,
    pub active_mtu: u32,
    pub gid_table_length: c_int,
    pub before_lid: [u8; 18],
    pub lid: u16,
    pub rest: [u8; 92],
}

const _: () = {
    assert!(size_of::<SendRequest>() == 128);
    assert!(size_of::<WorkCompletion>() == 48);
    assert!(size_of::<QpAttributes>() == 144);
    assert!(offset_of!(Context, operations) == 8);
    assert!(offset_of!(PortAttributes, lid) == 34);
};

pub(super) const QP_RELIABLE: u32 = 2;
pub(super) const STATE_INIT: u32 = 1;
pub(super) const STATE_READY_TO_RECEIVE: u32 = 2;
pub(super) const STATE_READY_TO_SEND: u32 = 3;
pub(super) const STATE_ERROR: u32 = 6;
pub(super) const ACCESS_ALL: u32 = 1 | 2 | 4;
pub(super) const OP_WRITE: u32 = 0;
pub(super) const OP_WRITE_WITH_IMMEDIATE: u32 = 1;
pub(super) const OP_READ: u32 = 4;
pub(super) const SIGNALED: u32 = 2;

/// Which fields of [`QpAttributes`] a change sets.
pub(super) mod mask {
    use std::ffi::c_int;
    pub const STATE: c_int = 1;
    pub const ACCESS: c_int = 1 << 3;
    pub const PKEY: c_int = 1 << 4;
    pub const PORT: c_int = 1 << 5;
    pub const ADDRESS: c_int = 1 << 7;
    pub const PATH_MTU: c_int = 1 << 8;
    pub const TIMEOUT: c_int = 1 << 9;
    pub const RETRIES: c_int = 1 << 10;
    pub const RNR_RETRIES: c_int = 1 << 11;
    pub const RECV_PSN: c_int = 1 << 12;
    pub const MAX_READS: c_int = 1 << 13;
    pub const MIN_RNR_TIMER: c_int = 1 << 15;
    pub const SEND_PSN: c_int = 1 << 16;
    pub const MAX_READS_SERVED: c_int = 1 << 17;
    pub const REMOTE_NUMBER: c_int = 1 << 20;
}

macro_rules! verbs {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library's functions. Calling one is as unsafe as it is in C.
        pub(super) struct Verbs {
            $(pub $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Verbs {
            /// Opens the library.
            pub fn open() -> Result<Self, String> {
                // SAFETY: libibverbs runs no code of consequence when it is loaded, and the symbols
                // have these types in its stable ABI. The library stays open as long as `Self`.
                unsafe {
                    let library = Library::new("libibverbs.so.1").map_err(|e| e.to_string())?;
                    $(let $name = *library
                        .get(concat!("ibv_", stringify!($name)))
                        .map_err(|e| e.to_string())?;)*
                    Ok(Self { $($name,)* _library: library })
                }
            }
        }
    };
}

verbs! {
    get_device_list: fn(*mut c_int) -> *mut Opaque;
    free_device_list: fn(*mut Opaque);
    get_device_name: fn(Opaque) -> *const c_char;
    open_device: fn(Opaque) -> *mut Context;
    close_device: fn(*mut Context) -> c_int;
    query_port: fn(*mut Context, u8, *mut PortAttributes) -> c_int;
    query_gid: fn(*mut Context, u8, c_int, *mut Gid) -> c_int;
    alloc_pd: fn(*mut Context) -> Opaque;
    dealloc_pd: fn(Opaque) -> c_int;
    reg_mr: fn(Opaque, Opaque, usize, c_int) -> *mut MemoryRegion;
    dereg_mr: fn(*mut MemoryRegion) -> c_int;
    create_cq: fn(*mut Context, c_int, Opaque, Opaque, c_int) -> *mut CompletionQueue;
    destroy_cq: fn(*mut CompletionQueue) -> c_int;
    create_qp: fn(Opaque, *mut InitAttributes) -> *mut QueuePair;
    destroy_qp: fn(*mut QueuePair) -> c_int;
    modify_qp: fn(*mut QueuePair, *mut QpAttributes, c_int) -> c_int;
}

/// `ibv_post_send`, which verbs.h has as an inline function.
///
/// # Safety
/// As in C: a live queue pair and a chain of requests that it may read.
pub(super) unsafe fn post_send(qp: *mut QueuePair, chain: *mut SendRequest) -> c_int {
    type Post =
        unsafe extern "C" fn(*mut QueuePair, *mut SendRequest, *mut *mut SendRequest) -> c_int;
    let mut bad = std::ptr::null_mut();
    // SAFETY: the slot holds this function in a live queue pair's context.
    unsafe {
        let post = std::mem::transmute::<Opaque, Post>((*(*qp).context).operations[POST_SEND]);
        post(qp, chain, &raw mut bad)
    }
}

/// `ibv_post_recv`.
///
/// # Safety
/// As in C.
pub(super) unsafe fn post_recv(qp: *mut QueuePair, chain: *mut RecvRequest) -> c_int {
    type Post =
        unsafe extern "C" fn(*mut QueuePair, *mut RecvRequest, *mut *mut RecvRequest) -> c_int;
    let mut bad = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        let post = std::mem::transmute::<Opaque, Post>((*(*qp).context).operations[POST_RECV]);
        post(qp, chain, &raw mut bad)
    }
}

/// `ibv_poll_cq`, for one completion.
///
/// # Safety
/// As in C: a live completion queue.
pub(super) unsafe fn poll_cq(cq: *mut CompletionQueue, into: &mut WorkCompletion) -> c_int {
    type Poll = unsafe extern "C" fn(*mut CompletionQueue, c_int, *mut WorkCompletion) -> c_int;
    // SAFETY: as above.
    unsafe {
        let poll = std::mem::transmute::<Opaque, Poll>((*(*cq).context).operations[POLL_CQ]);
        poll(cq, 1, into)
    }
}
