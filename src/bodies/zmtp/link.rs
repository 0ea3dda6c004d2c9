//! A session on a TCP connection: reading, writing, heartbeats, patience.

use super::session::{Event, PeerInfo, Session, SessionConfig};
use super::{Endpoint, Limits, ZmtpError};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How patient a connection is, and what it accepts.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// What it accepts.
    pub limits: Limits,
    /// Longest time for the connection and its handshake.
    pub connect_timeout: Duration,
    /// A ping goes out when nothing was heard for this long.
    pub heartbeat_interval: Duration,
    /// A peer that says nothing for this long, pings or not, is given up (ZMTP 3.1 peers only:
    /// older ones know no heartbeats and are left to TCP keep-alive).
    pub silence_timeout: Duration,
    /// A peer that takes no byte for this long while there are some is given up.
    pub stall_timeout: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connect_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(5),
            silence_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// Read at once, so that small messages share a system call; an idle link keeps this much.
const READ_CHUNK_BYTES: usize = 16 << 10;
/// An output buffer that grew past this is given back once it is empty.
const KEEP_OUTPUT_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    session: Session,
    config: LinkConfig,
    /// When the last byte came.
    heard: Instant,
    /// When the last byte went, or there was none to go.
    moved: Instant,
    pinged: Option<Instant>,
    /// The peer sends no more; what it sent is still to be read.
    ended: bool,
}

impl Link {
    /// Connects and shakes hands.
    pub async fn connect(
        endpoint: &Endpoint,
        session: SessionConfig,
        config: LinkConfig,
    ) -> Result<(Self, PeerInfo), ZmtpError> {
        let patience = config.connect_timeout;
        within(patience, async {
            let stream = TcpStream::connect((endpoint.host(), endpoint.port()))
                .await
                .map_err(|e| ZmtpError::io(format!("cannot connect to {endpoint}"), e))?;
            Self::handshake(stream, session, config).await
        })
        .await
    }

    /// Shakes hands on a connection that was accepted.
    pub async fn accept(
        stream: TcpStream,
        session: SessionConfig,
        config: LinkConfig,
    ) -> Result<(Self, PeerInfo), ZmtpError> {
        within(config.connect_timeout, Self::handshake(stream, session, config)).await
    }

    async fn handshake(
        stream: TcpStream,
        session: SessionConfig,
        config: LinkConfig,
    ) -> Result<(Self, PeerInfo), ZmtpError> {
        let setup = || {
            stream.set_nodelay(true)?;
            let idle = config.silence_timeout.max(Duration::from_secs(1));
            let keepalive = socket2::TcpKeepalive::new().with_time(idle);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)
        };
        setup().map_err(|e| ZmtpError::io("cannot set TCP options", e))?;
        let now = Instant::now();
        let mut link = Self {
            stream,
            session: Session::new(session),
            config,
            heard: now,
            moved: now,
            pinged: None,
            ended: false,
        };
        match link.next().await? {
            Event::Ready(peer) => Ok((link, peer)),
            _ => Err(ZmtpError::Protocol("traffic before READY".into())),
        }
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Queues a message; [`next`](Self::next) and [`flush`](Self::flush) send it.
    pub fn send(&mut self, frames: &[Bytes]) {
        self.session.send(frames);
    }

    /// Bytes queued and not yet taken by the operating system.
    pub fn output_bytes(&mut self) -> usize {
        self.session.output().len()
    }

    /// The peer's next event; meanwhile sends what is queued. Cancel-safe.
    pub async fn next(&mut self) -> Result<Event, ZmtpError> {
        loop {
            if let Some(event) = self.session.poll()? {
                return Ok(event);
            }
            self.turn().await?;
        }
    }

    /// Sends all that is queued, unless the peer closes first: [`next`](Self::next) then tells, after
    /// what came before. Cancel-safe: what is left stays queued.
    pub async fn flush(&mut self) -> Result<(), ZmtpError> {
        while self.output_bytes() > 0 && !self.ended {
            self.turn().await?;
        }
        Ok(())
    }

    /// One read, one write or one deadline, whichever comes first. Cancel-safe.
    pub async fn turn(&mut self) -> Result<(), ZmtpError> {
        if self.ended {
            return Err(ZmtpError::Closed { partial_bytes: self.session.partial_bytes() });
        }
        let deadline = self.deadline();
        let (mut reader, mut writer) = self.stream.split();
        let (input, output) = self.session.buffers();
        if output.is_empty() {
            self.moved = Instant::now();
        }
        if input.capacity() - input.len() < READ_CHUNK_BYTES / 4 {
            input.reserve(READ_CHUNK_BYTES);
        }
        tokio::select! {
            read = reader.read_buf(input) => {
                match read.map_err(|e| ZmtpError::io("cannot read", e))? {
                    0 => self.ended = true,
                    _ => self.heard = Instant::now(),
                }
            }
            written = writer.write_buf(output), if !output.is_empty() => {
                written.map_err(|e| ZmtpError::io("cannot write", e))?;
                self.moved = Instant::now();
                if output.is_empty() && output.capacity() > KEEP_OUTPUT_BYTES {
                    *output = BytesMut::new();
                }
            }
            () = sleep_until(deadline) => self.at_deadline()?,
        }
        Ok(())
    }

    fn deadline(&mut self) -> Instant {
        let ping = match self.pinged {
            Some(pinged) if pinged > self.heard => self.heard + self.config.silence_timeout,
            _ => self.heard + self.config.heartbeat_interval,
        };
        if self.output_bytes() > 0 {
            ping.min(self.moved + self.config.stall_timeout)
        } else {
            ping
        }
    }

    fn at_deadline(&mut self) -> Result<(), ZmtpError> {
        let now = Instant::now();
        let LinkConfig { silence_timeout, stall_timeout, .. } = self.config;
        if self.output_bytes() > 0 && now >= self.moved + stall_timeout {
            return Err(ZmtpError::Stalled(millis(stall_timeout)));
        }
        let waiting = self.pinged.is_some_and(|pinged| pinged > self.heard);
        if waiting && now >= self.heard + silence_timeout {
            return Err(ZmtpError::Silent(millis(silence_timeout)));
        }
        if !waiting {
            if self.session.ping() {
                self.pinged = Some(now);
            } else {
                // Nothing to ping with: look again an interval later.
                self.heard = now;
            }
        }
        Ok(())
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, ZmtpError>>,
) -> Result<T, ZmtpError> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(ZmtpError::Timeout(millis(patience))))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
