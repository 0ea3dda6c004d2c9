//! What TCP does by itself: one connection, blocks gathered by one side and scattered by the other.

use crate::Shape;
use llmd_data::transfer::{Memory, Segment};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Pieces a call, which was the best number found.
const PIECES: usize = 256;

/// Sends every block, permuted, for each byte that comes. Returns its port.
pub fn serve(memory: Arc<Segment>, shape: Shape) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let from: Vec<_> = shape.pairs().into_iter().map(|(_, far)| far).collect();
        while stream.read_exact(&mut [0]).is_ok() {
            each(&memory, &from, shape.block_bytes as usize, |pieces| {
                // SAFETY: the pieces are blocks of the segment.
                unsafe { libc::writev(stream.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) }
            });
        }
    });
    port
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks for all blocks and takes them.
pub fn read(stream: &mut TcpStream, near: &Segment, pairs: &[(usize, usize)], block: usize) {
    stream.write_all(&[1]).unwrap();
    let to: Vec<_> = pairs.iter().map(|&(near, _)| near).collect();
    each(near, &to, block, |pieces| {
        // SAFETY: the pieces are blocks of the segment.
        unsafe { libc::readv(stream.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) }
    });
}

fn each(memory: &Segment, offsets: &[usize], block: usize, call: impl Fn(&[libc::iovec]) -> isize) {
    for some in offsets.chunks(PIECES) {
        let piece = |&offset: &usize| libc::iovec {
            // SAFETY: within the segment.
            iov_base: unsafe { memory.start().as_ptr().add(offset) }.cast(),
            iov_len: block,
        };
        let mut pieces: Vec<_> = some.iter().map(piece).collect();
        let mut at = 0;
        while at < pieces.len() {
            let mut moved = usize::try_from(call(&pieces[at..])).unwrap();
            assert!(moved > 0);
            while at < pieces.len() && moved >= pieces[at].iov_len {
                moved -= pieces[at].iov_len;
                at += 1;
            }
            if moved > 0 {
                // SAFETY: stays within the piece.
                pieces[at].iov_base = unsafe { pieces[at].iov_base.cast::<u8>().add(moved) }.cast();
                pieces[at].iov_len -= moved;
            }
        }
    }
}
