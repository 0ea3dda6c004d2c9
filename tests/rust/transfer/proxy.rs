//! A peer in the middle that loses, holds up, repeats, swaps and cuts frames.
//!
//! It knows the key and shakes hands with both sides; then it passes frames on as they are, numbers
//! and files included, but for what its dice say.

use llmd_brain::rng::Rng;
use llmd_data::transfer::wire::auth::{self, Introduction};
use llmd_data::transfer::wire::frame::{HEADER_BYTES, Header};
use llmd_data::transfer::wire::pieces::{Moved, Pieces};
use llmd_data::transfer::wire::socket::{FrameReader, FrameWriter, Lost, Socket};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Frames that each fault befell.
#[derive(Debug, Default)]
pub struct Faults {
    pub dropped: AtomicU64,
    pub delayed: AtomicU64,
    pub duplicated: AtomicU64,
    pub truncated: AtomicU64,
    pub swapped: AtomicU64,
}

impl Faults {
    pub fn counts(&self) -> [u64; 5] {
        let Self { dropped, delayed, duplicated, truncated, swapped } = self;
        [dropped, delayed, duplicated, truncated, swapped].map(|n| n.load(Ordering::Relaxed))
    }
}

struct Shared {
    owner: Introduction,
    owner_address: SocketAddr,
    key: Vec<u8>,
    /// One frame in so many has a fault.
    one_in: u64,
    seed: AtomicU64,
    faults: Arc<Faults>,
}

/// Listens in an owner's place.
pub struct Proxy {
    pub address: SocketAddr,
}

impl Proxy {
    pub fn start(
        owner_address: SocketAddr,
        key: &[u8],
        seed: u64,
        one_in: u64,
        faults: Arc<Faults>,
    ) -> Self {
        let probe = Socket::Tcp(TcpStream::connect(owner_address).unwrap());
        let (mut reader, mut writer) = (FrameReader::default(), FrameWriter::default());
        let owner = auth::connect(&probe, &mut reader, &mut writer, key, 0, "owner").unwrap();
        let shared = Arc::new(Shared {
            owner,
            owner_address,
            key: key.to_vec(),
            one_in,
            seed: seed.into(),
            faults,
        });
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let name = format!("llmd-proxy-{}-{}", std::process::id(), address.port());
        let unix_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let unix = UnixListener::bind_addr(&unix_name).unwrap();
        // The threads stay until the test's process ends.
        let (ours, name) = (shared.clone(), name.into_bytes());
        let named = name.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                ours.clone().meet(Socket::Tcp(stream), &named);
            }
        });
        std::thread::spawn(move || {
            for stream in unix.incoming().flatten() {
                shared.clone().meet(Socket::Unix(stream), &name);
            }
        });
        Self { address }
    }
}

impl Shared {
    fn meet(self: Arc<Self>, client: Socket, unix_name: &[u8]) {
        let unix_name = unix_name.to_vec();
        std::thread::spawn(move || {
            let said = Introduction { unix_name, ..self.owner.clone() };
            let mut from_client = (FrameReader::default(), FrameWriter::default());
            let (reader, writer) = (&mut from_client.0, &mut from_client.1);
            let Ok(incarnation) = auth::accept(&client, reader, writer, &self.key, &said) else {
                return;
            };
            let owner = match &client {
                Socket::Tcp(_) => TcpStream::connect(self.owner_address).map(Socket::Tcp),
                Socket::Unix(_) => {
                    let name = &self.owner.unix_name;
                    let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
                    UnixStream::connect_addr(&name).map(Socket::Unix)
                }
            };
            let Ok(owner) = owner else { return };
            let mut from_owner = (FrameReader::default(), FrameWriter::default());
            let (reader, writer) = (&mut from_owner.0, &mut from_owner.1);
            if auth::connect(&owner, reader, writer, &self.key, incarnation, "owner").is_err() {
                return;
            }
            // A day: only the ends decide that a peer is silent.
            for end in [&client, &owner] {
                end.set_up(Duration::from_secs(86_400)).unwrap();
            }
            let (client, owner) = (Arc::new(client), Arc::new(owner));
            let seed = self.seed.fetch_add(2, Ordering::Relaxed);
            let (ours, client_too, owner_too) = (self.clone(), client.clone(), owner.clone());
            let forth = std::thread::spawn(move || {
                ours.pass(seed, from_client.0, &client_too, &owner_too);
                // To the end of what the client says: an owner may take the end of a connection
                // for the end of its peer.
                client_too.end_sending();
                client_too.await_end();
                owner_too.shut_down();
            });
            self.pass(seed + 1, from_owner.0, &owner, &client);
            client.end_sending();
            let _ = forth.join();
        });
    }

    fn pass(&self, seed: u64, mut reader: FrameReader, from: &Socket, to: &Socket) {
        let mut rng = Rng::new(seed);
        let mut held: Option<Frame> = None;
        loop {
            let Ok(frame) = Frame::receive(&mut reader, from) else { return };
            let sent = if rng.below(self.one_in) > 0 {
                frame.send(to, None)
            } else {
                match rng.below(5) {
                    0 => {
                        self.faults.dropped.fetch_add(1, Ordering::Relaxed);
                        Ok(())
                    }
                    1 => {
                        self.faults.delayed.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(rng.below(4)));
                        frame.send(to, None)
                    }
                    2 => {
                        self.faults.duplicated.fetch_add(1, Ordering::Relaxed);
                        frame.send(to, None).and_then(|()| frame.send(to, None))
                    }
                    3 => {
                        self.faults.truncated.fetch_add(1, Ordering::Relaxed);
                        let _ = frame.send(to, Some(rng.next_u64()));
                        return;
                    }
                    _ => {
                        self.faults.swapped.fetch_add(1, Ordering::Relaxed);
                        held = Some(frame);
                        continue;
                    }
                }
            };
            let sent = sent.and_then(|()| held.take().map_or(Ok(()), |frame| frame.send(to, None)));
            if sent.is_err() {
                return;
            }
        }
    }
}

struct Frame {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Frame {
    fn receive(reader: &mut FrameReader, from: &Socket) -> Result<Self, Lost> {
        let header: Header = reader.next(from)?;
        let mut bytes = header.encode().to_vec();
        bytes.extend(reader.body());
        let body_end = HEADER_BYTES + header.body_bytes as usize;
        bytes.resize(body_end + header.payload_bytes as usize, 0);
        let mut pieces = Pieces::default();
        pieces.receive_into(&mut bytes[body_end..]);
        reader.payload(from, pieces)?;
        Ok(Self { bytes, files: reader.take_files() })
    }

    /// Sends the frame, or, given a number, some of it.
    fn send(&self, to: &Socket, cut: Option<u64>) -> Result<(), Lost> {
        let until = cut.map_or(self.bytes.len(), |cut| (cut % self.bytes.len() as u64) as usize);
        let mut pieces = Pieces::default();
        pieces.send_from(&self.bytes[..until]);
        let mut files: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        while pieces.left_bytes() > 0 {
            match pieces.send(to.as_fd(), &files) {
                Ok(Moved::Bytes(_)) => files.clear(),
                Ok(Moved::TimedOut) => return Err(Lost::Stalled),
                Err(error) => return Err(Lost::Broken(error.to_string())),
            }
        }
        Ok(())
    }
}
