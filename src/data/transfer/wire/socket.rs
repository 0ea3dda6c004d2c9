//! Frames over a socket.

use super::frame::{HEADER_BYTES, Header};
use super::pieces::{Moved, Pieces};
use crate::transfer::TransferError;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection of either family.
#[derive(Debug)]
pub enum Socket {
    /// Between machines.
    Tcp(TcpStream),
    /// Within one; it carries files.
    Unix(UnixStream),
}

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The peer closed, between frames.
    Closed,
    /// Nothing came for the socket's timeout, between frames. The connection is still good.
    Quiet,
    /// Nothing came for the socket's timeout, and something should have.
    Stalled,
    /// It broke, or what came has no meaning.
    Broken(String),
}

impl Lost {
    /// As an error of a transfer with `peer`.
    pub fn error(self, peer: &str, waited_ms: u64) -> TransferError {
        let peer = peer.to_owned();
        match self {
            Self::Closed => TransferError::PeerGone { peer, why: "it closed".into() },
            Self::Quiet | Self::Stalled => TransferError::Stalled { peer, waited_ms },
            Self::Broken(why) => TransferError::PeerGone { peer, why },
        }
    }
}

impl Socket {
    /// No delay for small frames, and `timeout` as the limit of every wait.
    pub fn set_up(&self, timeout: Duration) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    /// Tells the peer that nothing more comes.
    pub fn end_sending(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Waits until the peer ends the connection, and forgets what it still says.
    pub fn await_end(&self) {
        let mut sink = [0; 4096];
        loop {
            let mut pieces = Pieces::default();
            pieces.receive_into(&mut sink);
            match pieces.receive(self.as_fd(), &mut Vec::new()) {
                Ok(Moved::Bytes(0)) | Err(_) => return,
                Ok(Moved::Bytes(_) | Moved::TimedOut) => {}
            }
        }
    }

    /// Ends both directions; whoever waits on the socket wakes up.
    pub fn shut_down(&self) {
        // Fails only where the peer was faster.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Numbers and sends frames. Whoever shares one locks it for a whole frame.
#[derive(Debug, Default)]
pub struct FrameWriter {
    sequence: u32,
    body: Vec<u8>,
}

impl FrameWriter {
    /// Sends a frame: `encode` appends the body and returns the kind; `payload` follows it, and
    /// `files` go along.
    pub fn send(
        &mut self,
        socket: &Socket,
        files: &[BorrowedFd<'_>],
        payload: Option<Pieces<'_>>,
        encode: impl FnOnce(&mut Vec<u8>) -> u8,
    ) -> Result<(), Lost> {
        self.body.clear();
        let kind = encode(&mut self.body);
        let payload_bytes = payload.as_ref().map_or(0, Pieces::left_bytes) as u64;
        let (body_bytes, sequence) = (self.body.len() as u32, self.sequence);
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header { kind, body_bytes, payload_bytes, sequence }.encode();
        let mut pieces = Pieces::default();
        pieces.send_from(&header);
        pieces.send_from(&self.body);
        if let Some(payload) = payload {
            pieces.append(payload);
        }
        let mut files = files;
        while pieces.left_bytes() > 0 {
            match pieces.send(socket.as_fd(), files) {
                Ok(Moved::Bytes(_)) => files = &[],
                Ok(Moved::TimedOut) => return Err(Lost::Stalled),
                Err(error) => return Err(Lost::Broken(error.to_string())),
            }
        }
        Ok(())
    }
}

/// Receives frames and sees that none is missing.
#[derive(Debug, Default)]
pub struct FrameReader {
    sequence: u32,
    body: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl FrameReader {
    /// The next frame's header; its body is then in [`FrameReader::body`], its payload still in the
    /// socket.
    pub fn next(&mut self, socket: &Socket) -> Result<Header, Lost> {
        let mut bytes = [0; HEADER_BYTES];
        let mut pieces = Pieces::default();
        pieces.receive_into(&mut bytes);
        self.fill(socket, pieces, true)?;
        self.body_of(socket, &bytes)
    }

    /// The header of a frame that was received already, as the payload before it was.
    pub fn header(&mut self, bytes: &[u8; HEADER_BYTES]) -> Result<Header, Lost> {
        let header = Header::decode(bytes, self.sequence).map_err(Lost::Broken)?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(header)
    }

    fn body_of(&mut self, socket: &Socket, bytes: &[u8; HEADER_BYTES]) -> Result<Header, Lost> {
        let header = self.header(bytes)?;
        let mut body = std::mem::take(&mut self.body);
        body.resize(header.body_bytes as usize, 0);
        let mut pieces = Pieces::default();
        pieces.receive_into(&mut body);
        let filled = self.fill(socket, pieces, false);
        self.body = body;
        filled.map(|()| header)
    }

    /// The body of the last frame.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The files that came with the last frame.
    pub fn take_files(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.files)
    }

    /// Receives a payload to its end.
    pub fn payload(&mut self, socket: &Socket, pieces: Pieces<'_>) -> Result<(), Lost> {
        self.fill(socket, pieces, false)
    }

    /// Receives a payload and forgets it.
    pub fn discard(&mut self, socket: &Socket, mut bytes: u64) -> Result<(), Lost> {
        let mut sink = vec![0; bytes.min(1 << 16) as usize];
        while bytes > 0 {
            let now = bytes.min(sink.len() as u64) as usize;
            let mut pieces = Pieces::default();
            pieces.receive_into(&mut sink[..now]);
            self.fill(socket, pieces, false)?;
            bytes -= now as u64;
        }
        Ok(())
    }

    fn fill(
        &mut self,
        socket: &Socket,
        mut pieces: Pieces<'_>,
        between_frames: bool,
    ) -> Result<(), Lost> {
        let mut untouched = between_frames;
        while pieces.left_bytes() > 0 {
            match pieces.receive(socket.as_fd(), &mut self.files) {
                Ok(Moved::Bytes(0)) if untouched => return Err(Lost::Closed),
                Ok(Moved::Bytes(0)) => return Err(Lost::Broken("closed within a frame".into())),
                Ok(Moved::Bytes(_)) => untouched = false,
                Ok(Moved::TimedOut) if untouched => return Err(Lost::Quiet),
                Ok(Moved::TimedOut) => return Err(Lost::Stalled),
                Err(error) => return Err(Lost::Broken(error.to_string())),
            }
            if self.files.len() > MAX_PENDING_FILES {
                return Err(Lost::Broken("more files than a frame has".into()));
            }
        }
        Ok(())
    }
}

/// Files of one frame: a segment and its epochs.
const MAX_PENDING_FILES: usize = 2;
