//! An engine's answer out of pieces of bytes, without a connection: what is fuzzed. Heads and framing are
//! read by what reads those of a connection.

use super::WireError;
use super::head::take_answer;
use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::header::HeaderMap;

/// What bytes say as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as far as it came.
    pub body: Bytes,
    /// Whether all of it came; one that ends with its connection never has.
    pub is_over: bool,
    /// Bytes behind it.
    pub rest_bytes: usize,
}

/// Reads an answer, interim ones before it passed over; `None` where all of its head has not come.
///
/// # Errors
/// What is wrong with it.
pub fn decode_answer<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<DecodedAnswer>, String> {
    let wrong = |error: WireError| error.to_string();
    let (mut buffer, mut body, mut begun) = (BytesMut::new(), BytesMut::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while begun.is_none()
            && let Some(answer) = take_answer(&mut buffer).map_err(wrong)?
        {
            let is_interim = answer.head.status().is_informational();
            begun = (!is_interim).then_some((answer.head, answer.framing));
        }
        if let Some((_, framing)) = &mut begun {
            while let Some(piece) = framing.take(&mut buffer).map_err(wrong)? {
                body.extend_from_slice(&piece);
            }
        }
    }
    let Some((head, framing)) = begun else { return Ok(None) };
    Ok(Some(DecodedAnswer {
        status: head.status(),
        headers: head.headers().clone(),
        body: body.freeze(),
        is_over: framing.is_over(),
        rest_bytes: buffer.len(),
    }))
}
