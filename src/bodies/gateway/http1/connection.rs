//! A connection to an engine: one exchange after the other.

use super::WireError;
use super::framing::Framing;
use super::head::{Answer, take_answer};
use crate::tls::Wire;
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::{poll_read_buf, poll_write_buf};

/// Room that is made for a read: some dozen events. A read that fills it doubles it, to the most.
const READ_BYTES: usize = 8 << 10;
const MOST_READ_BYTES: usize = 64 << 10;
/// With less room than this a read would be cut short.
const LEAST_READ_BYTES: usize = 1 << 10;

/// A connection to an engine.
#[derive(Debug)]
pub(in crate::gateway) struct Connection {
    wire: Wire,
    /// What was read and not used yet.
    buffer: BytesMut,
    /// Room for the next read.
    read_bytes: usize,
    /// Of the answer under way.
    framing: Framing,
    /// Whether another request may follow the answer under way.
    is_kept: bool,
}

impl Connection {
    pub(in crate::gateway) fn new(wire: Wire) -> Self {
        Self {
            wire,
            buffer: BytesMut::new(),
            read_bytes: READ_BYTES,
            framing: Framing::EMPTY,
            is_kept: true,
        }
    }

    /// Sends a request and waits for the head of its answer. An engine may answer before it has read
    /// all of a request, or close the connection then.
    pub(in crate::gateway) async fn exchange(
        &mut self,
        head: Bytes,
        body: Bytes,
    ) -> Result<Answer, WireError> {
        let mut request = head.chain(body);
        let mut sending = Ok(false);
        let answer = poll_fn(|context| {
            if let Ok(false) = sending {
                sending = match self.poll_send(context, &mut request) {
                    Poll::Ready(sent) => sent.map(|()| true),
                    Poll::Pending => Ok(false),
                };
            }
            loop {
                if let Some(answer) = take_answer(&mut self.buffer)? {
                    match answer.head.status().as_u16() {
                        101 => return Poll::Ready(Err(WireError::Head("it upgrades".to_owned()))),
                        // Another one follows.
                        100..200 => continue,
                        _ => return Poll::Ready(Ok(answer)),
                    }
                }
                match ready!(self.poll_read(context)) {
                    Ok(0) => return Poll::Ready(Err(WireError::Closed)),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await;
        match answer {
            Ok(answer) => {
                self.framing = answer.framing;
                self.is_kept = answer.is_kept && matches!(sending, Ok(true));
                Ok(answer)
            }
            // Why it could not be sent says more than that there was no answer.
            Err(error) => Err(sending.err().unwrap_or(error)),
        }
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        request: &mut impl Buf,
    ) -> Poll<Result<(), WireError>> {
        while request.has_remaining() {
            if ready!(poll_write_buf(Pin::new(&mut self.wire), context, request))? == 0 {
                return Poll::Ready(Err(std::io::Error::from(ErrorKind::WriteZero).into()));
            }
        }
        Pin::new(&mut self.wire).poll_flush(context).map_err(WireError::from)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, WireError>> {
        if self.buffer.capacity() - self.buffer.len() < LEAST_READ_BYTES {
            self.buffer.reserve(self.read_bytes);
        }
        let read = ready!(poll_read_buf(Pin::new(&mut self.wire), context, &mut self.buffer))?;
        if self.buffer.len() == self.buffer.capacity() {
            self.read_bytes = MOST_READ_BYTES.min(2 * self.read_bytes);
        }
        Poll::Ready(Ok(read))
    }

    /// The next piece of the answer under way; `None` at its end.
    pub(in crate::gateway) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, WireError>>> {
        loop {
            if let Some(piece) = self.framing.take(&mut self.buffer).transpose() {
                return Poll::Ready(Some(piece));
            }
            if self.framing.is_over() {
                return Poll::Ready(None);
            }
            match ready!(self.poll_read(context)) {
                Ok(0) if self.framing == Framing::UntilClose => {
                    self.framing = Framing::EMPTY;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(WireError::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Whether the answer was read to its end.
    pub(in crate::gateway) fn is_over(&self) -> bool {
        self.framing.is_over()
    }

    /// Bytes of the answer that are left, where that is known.
    pub(in crate::gateway) fn left(&self) -> Option<u64> {
        self.framing.left()
    }

    /// Whether another request may be sent: the answer was read to its end, and the engine has neither
    /// closed the connection since nor sent what nobody asked for.
    pub(in crate::gateway) fn is_idle(&mut self) -> bool {
        let is_done = self.is_kept && self.is_over() && self.buffer.is_empty();
        let mut byte = [0];
        let mut unasked = ReadBuf::new(&mut byte);
        let context = &mut Context::from_waker(Waker::noop());
        is_done && Pin::new(&mut self.wire).poll_read(context, &mut unasked).is_pending()
    }

    /// Gives back memory that an idle connection does not need.
    pub(in crate::gateway) fn shrink(&mut self) {
        self.buffer = BytesMut::new();
        self.read_bytes = READ_BYTES;
    }
}
