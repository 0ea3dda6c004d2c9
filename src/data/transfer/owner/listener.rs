//! Accepting peers, over TCP and, for those of this host, over a Unix socket.

use super::Owner;
use super::connection::Connection;
use crate::transfer::TransferError;
use crate::transfer::wire::socket::Socket;
use parking_lot::Mutex;
use rustix::net::Shutdown;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most connections at a time. A peer has a few.
const MAX_CONNECTIONS: usize = 4096;

/// A full table of files does not empty faster by trying.
const AFTER_AN_ERROR: Duration = Duration::from_millis(10);

/// The listening sockets and everybody's threads. Dropping it ends all of them.
pub struct Listener {
    owner: Arc<Owner>,
    tcp: Arc<TcpListener>,
    unix: Arc<UnixListener>,
    closing: Arc<AtomicBool>,
    accepting: Vec<JoinHandle<()>>,
    serving: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Listener {
    pub fn start(
        owner: Arc<Owner>,
        tcp: TcpListener,
        unix: UnixListener,
    ) -> Result<Self, TransferError> {
        let (tcp, unix) = (Arc::new(tcp), Arc::new(unix));
        let mut listener = Self {
            owner,
            tcp: tcp.clone(),
            unix: unix.clone(),
            closing: Arc::default(),
            accepting: Vec::new(),
            serving: Arc::default(),
        };
        listener.accept(move || Ok(Socket::Tcp(tcp.accept()?.0)))?;
        listener.accept(move || Ok(Socket::Unix(unix.accept()?.0)))?;
        Ok(listener)
    }

    fn accept(
        &mut self,
        next: impl Fn() -> std::io::Result<Socket> + Send + 'static,
    ) -> Result<(), TransferError> {
        let (owner, closing) = (self.owner.clone(), self.closing.clone());
        let serving = self.serving.clone();
        let accepting = spawn("llmd-accept", move || {
            while !closing.load(Ordering::Acquire) {
                match next() {
                    Ok(socket) => serve(&owner, &closing, &serving, socket),
                    // Out of files, or a peer that was gone again: the others are still to be served.
                    Err(_) => std::thread::sleep(AFTER_AN_ERROR),
                }
            }
        })?;
        self.accepting.push(accepting);
        Ok(())
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, TransferError> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map_err(|e| TransferError::os("starting a thread", e))
}

fn serve(
    owner: &Arc<Owner>,
    closing: &AtomicBool,
    serving: &Mutex<Vec<JoinHandle<()>>>,
    socket: Socket,
) {
    let connection = Arc::new(Connection::new(owner.clone(), socket));
    {
        let mut connections = owner.connections.lock();
        // Who closes sets the flag before it looks at the list.
        if closing.load(Ordering::Acquire) || connections.len() >= MAX_CONNECTIONS {
            return;
        }
        connections.push(connection.clone());
    }
    let ours = owner.clone();
    let thread = spawn("llmd-serve", move || {
        connection.serve();
        ours.connections.lock().retain(|other| !Arc::ptr_eq(other, &connection));
    });
    let mut serving = serving.lock();
    serving.retain(|thread| !thread.is_finished());
    serving.extend(thread.ok());
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes `accept`, as Linux does it; an error means that nobody waits there.
        let _ = rustix::net::shutdown(self.tcp.as_fd(), Shutdown::Both);
        let _ = rustix::net::shutdown(self.unix.as_fd(), Shutdown::Both);
        self.owner.connections.lock().iter().for_each(|connection| connection.close());
        for thread in self.accepting.drain(..) {
            let _ = thread.join();
        }
        for thread in self.serving.lock().drain(..) {
            let _ = thread.join();
        }
    }
}
