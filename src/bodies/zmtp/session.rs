//! One ZMTP connection without its socket: bytes in, events and bytes out.

use super::command::{self, Command};
use super::frame::{self, Limits};
use super::{Message, ZmtpError, greeting};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;

/// The socket types that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketType {
    /// Publishes.
    Pub,
    /// Subscribes.
    Sub,
    /// Asks without waiting.
    Dealer,
    /// Answers by identity.
    Router,
}

impl SocketType {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pub => "PUB",
            Self::Sub => "SUB",
            Self::Dealer => "DEALER",
            Self::Router => "ROUTER",
        }
    }

    /// Whether RFC 37 lets this type talk to `peer`.
    #[must_use]
    pub fn talks_to(self, peer: &str) -> bool {
        match self {
            Self::Pub => matches!(peer, "SUB" | "XSUB"),
            Self::Sub => matches!(peer, "PUB" | "XPUB"),
            Self::Dealer => matches!(peer, "ROUTER" | "DEALER" | "REP"),
            Self::Router => matches!(peer, "ROUTER" | "DEALER" | "REQ"),
        }
    }
}

impl fmt::Display for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What this side of a connection is.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Its type.
    pub socket_type: SocketType,
    /// Its identity towards a ROUTER; empty: the router invents one.
    pub identity: Bytes,
    /// What it accepts.
    pub limits: Limits,
}

impl SessionConfig {
    /// Default limits, no identity.
    #[must_use]
    pub fn new(socket_type: SocketType) -> Self {
        Self { socket_type, identity: Bytes::new(), limits: Limits::default() }
    }
}

/// Who the peer is, known at the end of the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Minor version of ZMTP 3 that both sides speak.
    pub minor: u8,
    /// Its socket type.
    pub socket_type: String,
    /// Its identity; empty where it has none.
    pub identity: Bytes,
}

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The handshake is done.
    Ready(PeerInfo),
    /// A whole message.
    Message(Message),
    /// It wants topics with this prefix (to a PUB only).
    Subscribe(Bytes),
    /// It no longer does.
    Unsubscribe(Bytes),
    /// It answered a ping.
    Pong,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Greeting,
    Handshake { minor: u8 },
    Traffic { minor: u8 },
}

/// One connection. Feed received bytes to [`input`](Self::input), call [`poll`](Self::poll) until
/// it has no more, and send what is in [`output`](Self::output). After an error it is finished.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    input: BytesMut,
    output: BytesMut,
    message: Message,
    message_bytes: usize,
}

impl Session {
    /// A connection that begins; its greeting is in the output already.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            config,
            phase: Phase::Greeting,
            input: BytesMut::new(),
            output: BytesMut::from(&greeting::greeting()[..]),
            message: Message::new(),
            message_bytes: 0,
        }
    }

    /// Where received bytes are appended.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Bytes to be sent; the caller takes from the front what it has sent.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Both at once, for a transport that reads and writes at once.
    pub fn buffers(&mut self) -> (&mut BytesMut, &mut BytesMut) {
        (&mut self.input, &mut self.output)
    }

    /// Bytes received of a frame or message whose rest is still to come.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.input.len() + self.message_bytes
    }

    /// The next event, if the bytes for it have come.
    ///
    /// # Errors
    /// Any breach of the protocol or the limits; the connection must then be closed.
    pub fn poll(&mut self) -> Result<Option<Event>, ZmtpError> {
        loop {
            if self.phase == Phase::Greeting {
                let Some(minor) = greeting::parse(&self.input)? else { return Ok(None) };
                self.input.advance(greeting::GREETING_BYTES);
                let SessionConfig { socket_type, identity, .. } = &self.config;
                command::encode_ready(&mut self.output, *socket_type, identity);
                self.phase = Phase::Handshake { minor };
            }
            let budget = self.config.limits.max_message_bytes - self.message_bytes;
            let Some(frame) = frame::decode(&mut self.input, &self.config.limits, budget)? else {
                return Ok(None);
            };
            let event = match (&self.phase, frame.command) {
                (&Phase::Handshake { minor }, true) => self.handshake(minor, frame.body)?,
                (_, true) => self.command(frame.body)?,
                (Phase::Traffic { .. }, false) => self.message_frame(frame.body, frame.more)?,
                (_, false) => {
                    return Err(ZmtpError::Protocol("a message before the handshake".into()));
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Appends a message to the output.
    pub fn send(&mut self, frames: &[Bytes]) {
        frame::encode_message(&mut self.output, frames);
    }

    /// Asks a PUB for topics with this prefix. Only after [`Event::Ready`].
    pub fn subscribe(&mut self, topic: &[u8]) {
        let minor = self.minor();
        command::encode_subscribe(&mut self.output, minor, topic);
    }

    /// Asks for a sign of life; false where the peer's version has no heartbeats.
    pub fn ping(&mut self) -> bool {
        let speaks = matches!(self.phase, Phase::Traffic { minor: 1.. });
        if speaks {
            command::encode_ping(&mut self.output);
        }
        speaks
    }

    fn minor(&self) -> u8 {
        match self.phase {
            Phase::Greeting => 0,
            Phase::Handshake { minor } | Phase::Traffic { minor } => minor,
        }
    }

    fn handshake(&mut self, minor: u8, body: Bytes) -> Result<Option<Event>, ZmtpError> {
        match command::parse(body)? {
            Command::Ready { socket_type, identity } => {
                let ours = self.config.socket_type;
                if !ours.talks_to(&socket_type) {
                    return Err(ZmtpError::SocketType { ours, theirs: socket_type });
                }
                self.phase = Phase::Traffic { minor };
                Ok(Some(Event::Ready(PeerInfo { minor, socket_type, identity })))
            }
            Command::Error(reason) => Err(ZmtpError::Refused(reason)),
            _ => Err(ZmtpError::Protocol("a command other than READY in the handshake".into())),
        }
    }

    fn command(&mut self, body: Bytes) -> Result<Option<Event>, ZmtpError> {
        Ok(match command::parse(body)? {
            Command::Subscribe(topic) if self.config.socket_type == SocketType::Pub => {
                Some(Event::Subscribe(topic))
            }
            Command::Cancel(topic) if self.config.socket_type == SocketType::Pub => {
                Some(Event::Unsubscribe(topic))
            }
            Command::Ping(context) => {
                command::encode_pong(&mut self.output, &context);
                None
            }
            Command::Pong => Some(Event::Pong),
            Command::Error(reason) => return Err(ZmtpError::Refused(reason)),
            Command::Ready { .. } => {
                return Err(ZmtpError::Protocol("a second READY".into()));
            }
            Command::Subscribe(_) | Command::Cancel(_) | Command::Unknown => None,
        })
    }

    fn message_frame(&mut self, body: Bytes, more: bool) -> Result<Option<Event>, ZmtpError> {
        if self.message.len() >= self.config.limits.max_message_frames {
            return Err(ZmtpError::TooManyFrames(self.config.limits.max_message_frames));
        }
        self.message_bytes += body.len();
        self.message.push(body);
        if more {
            return Ok(None);
        }
        self.message_bytes = 0;
        let mut message = std::mem::take(&mut self.message);
        if self.config.socket_type != SocketType::Pub {
            return Ok(Some(Event::Message(message)));
        }
        // What ZMTP 3.0 subscribers say, they say in messages. A PUB ignores all else.
        let mut first = message.swap_remove(0);
        Ok(match first.first() {
            Some(1) => Some(Event::Subscribe(first.split_off(1))),
            Some(0) => Some(Event::Unsubscribe(first.split_off(1))),
            _ => None,
        })
    }
}
