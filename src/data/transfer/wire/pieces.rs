//! Scattered memory to and from a socket, in as few calls as the kernel allows.
//!
//! `sendmsg` and `recvmsg` and not `writev` and `readv`: the first takes MSG_NOSIGNAL, the second
//! brings files along. MSG_ZEROCOPY was tried on the loopback and lost (docs/transfer.md).
#![allow(unsafe_code)]

use crate::transfer::Place;
use crate::transfer::region::Registered;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the kernel takes in one call (UIO_MAXIOV).
const MAX_PIECES_A_CALL: usize = 1024;
/// Room for the files of one message: a segment and its epochs.
const MAX_FILES: usize = 2;
const CONTROL_BYTES: usize = 64;

/// Pieces of memory in the order of a stream, borrowed for `'a`.
#[derive(Default)]
pub struct Pieces<'a> {
    list: Vec<libc::iovec>,
    at: usize,
    /// Some of them may only be read.
    read_only: bool,
    borrowed: PhantomData<&'a mut [u8]>,
}

/// What one call did.
pub enum Moved {
    /// So many bytes; zero is the stream's end.
    Bytes(usize),
    /// The socket's timeout passed.
    TimedOut,
}

impl<'a> Pieces<'a> {
    fn add(&mut self, start: *mut u8, length: usize) {
        if length > 0 {
            self.list.push(libc::iovec { iov_base: start.cast(), iov_len: length });
        }
    }

    /// Bytes to be sent; nothing is received into a list that has some.
    pub fn send_from(&mut self, bytes: &'a [u8]) {
        self.read_only = true;
        self.add(bytes.as_ptr().cast_mut(), bytes.len());
    }

    /// Bytes to be received into.
    pub fn receive_into(&mut self, bytes: &'a mut [u8]) {
        self.add(bytes.as_mut_ptr(), bytes.len());
    }

    /// A range of a region, for either; false if it is not in the region, or not in host memory.
    #[must_use]
    pub fn region(&mut self, region: &'a Registered, offset: u64, bytes: u64) -> bool {
        let host = !matches!(region.memory().place(), Place::Device { .. });
        let inside = region.shape.contains(crate::transfer::End::Local, offset, bytes).is_ok();
        if host && inside {
            // SAFETY: the offset lies within the region's one allocation.
            let start = unsafe { region.memory().start().as_ptr().add(offset as usize) };
            self.add(start, bytes as usize);
        }
        host && inside
    }

    /// Puts `others` behind these.
    pub fn append(&mut self, mut others: Pieces<'a>) {
        self.read_only |= others.read_only;
        self.list.extend(others.list.drain(others.at..));
    }

    /// Bytes that are left.
    pub fn left_bytes(&self) -> usize {
        self.list[self.at..].iter().map(|piece| piece.iov_len).sum()
    }

    fn message(&mut self) -> libc::msghdr {
        let pieces = &mut self.list[self.at..];
        // SAFETY: all zeroes is an empty header: null pointers with lengths of zero.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = pieces.as_mut_ptr();
        message.msg_iovlen = pieces.len().min(MAX_PIECES_A_CALL);
        message
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(piece) = self.list.get_mut(self.at) {
            if bytes < piece.iov_len {
                // SAFETY: stays within the piece.
                piece.iov_base = unsafe { piece.iov_base.cast::<u8>().add(bytes) }.cast();
                piece.iov_len -= bytes;
                return;
            }
            bytes -= piece.iov_len;
            self.at += 1;
        }
    }

    /// Sends some of what is left, with `files` beside its first byte.
    pub fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        files: &[BorrowedFd<'_>],
    ) -> std::io::Result<Moved> {
        let mut control = Control([MaybeUninit::zeroed(); CONTROL_BYTES]);
        let mut message = self.message();
        if !files.is_empty() && files.len() <= MAX_FILES {
            let bytes = std::mem::size_of_val(files) as u32;
            message.msg_control = control.0.as_mut_ptr().cast();
            // SAFETY: plain arithmetic on lengths.
            message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as usize;
            // SAFETY: the control buffer is aligned, zeroed and longer than CMSG_SPACE of two files,
            // so the first header is there and what is written stays within the buffer.
            unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
                let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                for (i, file) in files.iter().enumerate() {
                    data.add(i).write_unaligned(file.as_raw_fd());
                }
            }
        }
        // SAFETY: the pieces are borrowed for `'a`, which `self` carries, so they are valid; the
        // kernel only reads them.
        let sent = retry(|| unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
        })?;
        if let Moved::Bytes(bytes) = sent {
            self.advance(bytes);
        }
        Ok(sent)
    }

    /// Receives into some of what is left, and adds files that came along to `files`.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        files: &mut Vec<OwnedFd>,
    ) -> std::io::Result<Moved> {
        if self.read_only {
            return Err(std::io::Error::other("receiving into bytes that are only lent"));
        }
        let mut control = Control([MaybeUninit::zeroed(); CONTROL_BYTES]);
        let mut message = self.message();
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        // SAFETY: all pieces are exclusively borrowed slices, as was just checked, or ranges of a region,
        // whose memory may be written at any time; both outlive `self`.
        let received = retry(|| unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
        })?;
        // SAFETY: the kernel filled the control buffer, and `msg_controllen` says how far; the
        // macros walk headers within it. Each number is a file that the kernel just made for us,
        // and is owned exactly once here.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_SOCKET
                    && (*header).cmsg_type == libc::SCM_RIGHTS
                {
                    let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                    let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
                    for i in 0..bytes / size_of::<libc::c_int>() {
                        files.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        if let Moved::Bytes(bytes) = received {
            self.advance(bytes);
        }
        Ok(received)
    }
}

/// Aligned as control messages want to be.
#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

fn retry(mut call: impl FnMut() -> isize) -> std::io::Result<Moved> {
    loop {
        if let Ok(bytes) = usize::try_from(call()) {
            return Ok(Moved::Bytes(bytes));
        }
        let error = std::io::Error::last_os_error();
        match error.kind() {
            std::io::ErrorKind::Interrupted => {}
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                return Ok(Moved::TimedOut);
            }
            _ => return Err(error),
        }
    }
}
