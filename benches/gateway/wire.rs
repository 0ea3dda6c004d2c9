//! Just enough of HTTP/1.1 for both ends.

use memchr::memmem;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection, and what was read of it and not used yet.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// How a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

/// The head of a message.
pub struct Head {
    pub first_line: String,
    pub framing: Framing,
    pub closes: bool,
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(16 << 10);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// The next head; `None` where the other side closed.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().await? == 0 {
                return Ok(None);
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut head =
            Head { first_line: String::new(), framing: Framing::Length(0), closes: false };
        for (number, line) in text.lines().enumerate() {
            if number == 0 {
                line.clone_into(&mut head.first_line);
                continue;
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.framing = Framing::Length(value.parse().map_err(io::Error::other)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.closes = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(Some(head))
    }

    /// The body, a piece at a time, to `take`.
    pub async fn body(&mut self, framing: Framing, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        match framing {
            Framing::Length(mut left) => {
                while left > 0 {
                    if self.buffer.is_empty() && self.more().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let piece = left.min(self.buffer.len());
                    take(&self.buffer[..piece]);
                    self.buffer.drain(..piece);
                    left -= piece;
                }
                Ok(())
            }
            Framing::Chunked => loop {
                let line = loop {
                    if let Some(at) = memmem::find(&self.buffer, b"\r\n") {
                        break at;
                    }
                    if self.more().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                };
                let size = std::str::from_utf8(&self.buffer[..line]).map_err(io::Error::other)?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16)
                    .map_err(io::Error::other)?;
                while self.buffer.len() < line + 2 + size + 2 {
                    if self.more().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                take(&self.buffer[line + 2..line + 2 + size]);
                self.buffer.drain(..line + 2 + size + 2);
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }
}
