//! A reliable connection between two cards, and the queue of what it completed.
#![allow(unsafe_code)]

use super::address::Address;
use super::device::Device;
use super::sys::{
    ACCESS_ALL, AddressHandle, Capacity, CompletionQueue, InitAttributes, OP_READ, OP_WRITE,
    OP_WRITE_WITH_IMMEDIATE, Piece, QP_RELIABLE, QpAttributes, QueuePair, RecvRequest, Route,
    SIGNALED, STATE_ERROR, STATE_INIT, STATE_READY_TO_RECEIVE, STATE_READY_TO_SEND, SendRequest,
    WorkCompletion, mask, poll_cq, post_recv, post_send,
};
use crate::transfer::{Op, TransferError};
use parking_lot::Mutex;
use std::ptr::null_mut;
use std::sync::Arc;

/// Requests that may wait in the card.
pub(super) const MAX_REQUESTS: usize = 512;
/// Immediates that may wait for [`Connection::immediate`].
const MAX_IMMEDIATES: u32 = 128;
/// Reads that a side has under way, of what it serves: every card has these.
const MAX_READS: u8 = 4;
/// 4.096 us * 2^14, seven times, before a silent peer is an error: half a second.
const TIMEOUT: u8 = 14;
const RETRIES: u8 = 7;

/// One request: a contiguous run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub local_address: u64,
    pub local_key: u32,
    pub remote_address: u64,
    pub remote_key: u32,
    pub bytes: u32,
}

/// What the card said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completed {
    /// The number of the chain that it belongs to.
    pub chain: u64,
    /// Whether it is the chain's last: nothing of the chain is touched any more.
    pub last: bool,
    /// The card's code for what went wrong; 0 is nothing.
    pub status: u32,
}

/// A queue pair with a completion queue for either direction.
pub(super) struct Connection {
    device: Arc<Device>,
    sent: *mut CompletionQueue,
    received: *mut CompletionQueue,
    /// Null once it is given up. Locked while it is used.
    pair: Mutex<*mut QueuePair>,
    first: u32,
    /// Immediates that came and were not asked for yet.
    immediates: Mutex<Vec<u32>>,
}

// SAFETY: libibverbs locks queues; the pointers are valid until drop.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

impl Connection {
    pub fn new(device: Arc<Device>) -> Result<Self, TransferError> {
        let first = u32::from_le_bytes(crate::transfer::wire::auth::random()?) & 0xff_ffff;
        let mut made = Self {
            sent: null_mut(),
            received: null_mut(),
            pair: Mutex::new(null_mut()),
            device,
            first,
            immediates: Mutex::default(),
        };
        let verbs = &made.device.verbs;
        let context = made.device.context;
        // SAFETY: an open context; null for what is not used.
        let queue =
            |length| unsafe { (verbs.create_cq)(context, length, null_mut(), null_mut(), 0) };
        made.sent = queue(2 * MAX_REQUESTS as i32);
        made.received = queue(2 * MAX_IMMEDIATES as i32);
        if made.sent.is_null() || made.received.is_null() {
            return Err(made.device.failed("making a completion queue"));
        }
        let mut attributes = InitAttributes {
            qp_context: null_mut(),
            send_cq: made.sent,
            recv_cq: made.received,
            srq: null_mut(),
            capacity: Capacity {
                max_send: MAX_REQUESTS as u32,
                max_recv: MAX_IMMEDIATES,
                max_send_pieces: 1,
                max_recv_pieces: 1,
                max_inline: 0,
            },
            kind: QP_RELIABLE,
            signal_all: 0,
        };
        // SAFETY: live queues of one context, in its domain.
        let pair = unsafe { (verbs.create_qp)(made.device.domain, &raw mut attributes) };
        *made.pair.lock() = pair;
        if pair.is_null() {
            return Err(made.device.failed("making a queue pair"));
        }
        let init = QpAttributes {
            state: STATE_INIT,
            port: made.device.port,
            access: ACCESS_ALL,
            ..QpAttributes::default()
        };
        made.modify(init, mask::STATE | mask::PKEY | mask::PORT | mask::ACCESS)?;
        Ok(made)
    }

    fn modify(&self, mut attributes: QpAttributes, which: i32) -> Result<(), TransferError> {
        let pair = self.pair.lock();
        if pair.is_null() {
            return Err(self.given_up());
        }
        // SAFETY: a live queue pair.
        let code = unsafe { (self.device.verbs.modify_qp)(*pair, &raw mut attributes, which) };
        if code == 0 {
            return Ok(());
        }
        let why = std::io::Error::from_raw_os_error(code);
        let what = format!("queue pair to state {}: {why}", attributes.state);
        Err(TransferError::Device { device: self.device.name.clone(), what })
    }

    fn given_up(&self) -> TransferError {
        let what = "the queue pair is given up".into();
        TransferError::Device { device: self.device.name.clone(), what }
    }

    /// Destroys the queue pair: the card neither reads nor writes for it any more.
    pub fn give_up(&self) {
        let mut pair = self.pair.lock();
        if !pair.is_null() {
            // SAFETY: live, and used by nobody while it is locked; null from here on.
            unsafe { (self.device.verbs.destroy_qp)(*pair) };
            *pair = null_mut();
        }
    }

    pub fn address(&self) -> Address {
        let pair = self.pair.lock();
        // SAFETY: a live queue pair, if it is not null.
        let number = if pair.is_null() { 0 } else { unsafe { (**pair).number } };
        let Device { mtu, lid, gid, .. } = *self.device;
        Address { number, first: self.first, mtu, lid, gid }
    }

    /// Connects to the pair that is at `peer`.
    pub fn connect(&self, peer: &Address) -> Result<(), TransferError> {
        let receive = QpAttributes {
            state: STATE_READY_TO_RECEIVE,
            path_mtu: peer.mtu.clamp(1, self.device.mtu),
            remote_number: peer.number,
            recv_psn: peer.first & 0xff_ffff,
            max_reads_served: MAX_READS,
            min_rnr_timer: 12,
            address: AddressHandle {
                route: Route {
                    gid: peer.gid,
                    own_gid: self.device.gid_index,
                    hop_limit: 64,
                    ..Route::default()
                },
                lid: peer.lid,
                is_global: 1,
                port: self.device.port,
                ..AddressHandle::default()
            },
            ..QpAttributes::default()
        };
        self.modify(
            receive,
            mask::STATE
                | mask::ADDRESS
                | mask::PATH_MTU
                | mask::REMOTE_NUMBER
                | mask::RECV_PSN
                | mask::MAX_READS_SERVED
                | mask::MIN_RNR_TIMER,
        )?;
        let send = QpAttributes {
            state: STATE_READY_TO_SEND,
            timeout: TIMEOUT,
            retries: RETRIES,
            rnr_retries: RETRIES,
            send_psn: self.first,
            max_reads: MAX_READS,
            ..QpAttributes::default()
        };
        self.modify(
            send,
            mask::STATE
                | mask::TIMEOUT
                | mask::RETRIES
                | mask::RNR_RETRIES
                | mask::SEND_PSN
                | mask::MAX_READS,
        )
    }

    /// Stops: what is under way comes back with an error.
    pub fn stop(&self) {
        let error = QpAttributes { state: STATE_ERROR, ..QpAttributes::default() };
        // Fails only where the card is gone.
        let _ = self.modify(error, mask::STATE);
    }

    /// Posts requests as one chain, at most [`MAX_REQUESTS`] together with what is under way. The
    /// last says when all are done, and, with `immediate`, tells the peer.
    pub fn post(
        &self,
        op: Op,
        chain: u64,
        requests: &[Request],
        immediate: Option<u32>,
    ) -> Result<(), TransferError> {
        let mut pieces: Vec<Piece> = requests
            .iter()
            .map(|request| Piece {
                address: request.local_address,
                bytes: request.bytes,
                local_key: request.local_key,
            })
            .collect();
        let opcode = if op == Op::Read { OP_READ } else { OP_WRITE };
        let mut sends: Vec<SendRequest> = requests
            .iter()
            .zip(&mut pieces)
            .map(|(request, piece)| SendRequest {
                id: chain << 1,
                next: null_mut(),
                pieces: piece,
                piece_count: 1,
                opcode,
                flags: 0,
                immediate: 0,
                remote_address: request.remote_address,
                remote_key: request.remote_key,
                rest: [0; 128 - 52],
            })
            .collect();
        let Some(last) = sends.last_mut() else { return Ok(()) };
        last.id |= 1;
        last.flags = SIGNALED;
        if let (Some(immediate), Op::Write) = (immediate, op) {
            last.opcode = OP_WRITE_WITH_IMMEDIATE;
            last.immediate = immediate.to_be();
        }
        let start = sends.as_mut_ptr();
        for i in 1..sends.len() {
            // SAFETY: both within the vector, which is not moved until the call is over.
            unsafe { (*start.add(i - 1)).next = start.add(i) };
        }
        let pair = self.pair.lock();
        if pair.is_null() {
            return Err(self.given_up());
        }
        // SAFETY: the chain and its pieces live through the call, which copies them. The memory they
        // name is registered, and the caller keeps it until the last completion.
        let code = unsafe { post_send(*pair, start) };
        if code == 0 {
            return Ok(());
        }
        let what = format!("posting requests: {}", std::io::Error::from_raw_os_error(code));
        Err(TransferError::Device { device: self.device.name.clone(), what })
    }

    /// The next completion of what was posted, if there is one.
    pub fn completed(&self) -> Option<Completed> {
        let mut found = WorkCompletion::default();
        // SAFETY: a live queue.
        let count = unsafe { poll_cq(self.sent, &mut found) };
        let WorkCompletion { id, status, .. } = found;
        (count > 0).then_some(Completed { chain: id >> 1, last: id & 1 == 1, status })
    }

    /// Makes room for `count` more immediates.
    pub fn expect(&self, count: u32) -> Result<(), TransferError> {
        let pair = self.pair.lock();
        if pair.is_null() {
            return Err(self.given_up());
        }
        for _ in 0..count.min(MAX_IMMEDIATES) {
            let mut request =
                RecvRequest { id: 0, next: null_mut(), pieces: null_mut(), piece_count: 0 };
            // SAFETY: a live pair; a request without memory.
            if unsafe { post_recv(*pair, &raw mut request) } != 0 {
                return Err(self.device.failed("making room for an immediate"));
            }
        }
        Ok(())
    }

    /// Whether the immediate came, behind everything that was written before it.
    pub fn immediate(&self, wanted: u32) -> Result<bool, TransferError> {
        let mut immediates = self.immediates.lock();
        loop {
            if let Some(at) = immediates.iter().position(|&seen| seen == wanted) {
                immediates.swap_remove(at);
                self.expect(1)?;
                return Ok(true);
            }
            let mut found = WorkCompletion::default();
            // SAFETY: a live queue.
            match unsafe { poll_cq(self.received, &mut found) } {
                0 => return Ok(false),
                1 if found.status == 0 => immediates.push(u32::from_be(found.immediate)),
                _ => return Err(self.device.failed("waiting for an immediate")),
            }
        }
    }

    /// Room for immediates that a new connection has.
    pub fn expect_all(&self) -> Result<(), TransferError> {
        self.expect(MAX_IMMEDIATES)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.give_up();
        let verbs = &self.device.verbs;
        // SAFETY: each is live or null, and the pair, which used them, is gone.
        unsafe {
            for queue in [self.sent, self.received] {
                if !queue.is_null() {
                    (verbs.destroy_cq)(queue);
                }
            }
        }
    }
}
