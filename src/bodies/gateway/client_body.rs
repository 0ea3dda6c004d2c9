//! The body of a client's request.

use super::config::{GatewayConfig, ms};
use super::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Body;
use std::fmt::Display;

/// A client's body, from a connection of ours or from the server that this gateway is mounted in.
pub(super) trait ClientBody:
    Body<Data = Bytes, Error: Display + Send> + Unpin + Send
{
}

impl<B: Body<Data = Bytes, Error: Display + Send> + Unpin + Send> ClientBody for B {}

/// All of a client's body, within the limits.
pub(super) async fn read_body(
    mut body: impl ClientBody,
    config: &GatewayConfig,
) -> Result<Bytes, Refusal> {
    let limit = config.limits.max_body_bytes;
    let timeout = ms(config.timeouts.client_body_ms);
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(Refusal::too_large(limit));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout(timeout, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let message = format!("the body of the request broke off: {error}");
                return Err(Refusal::invalid("incomplete_body", message));
            }
            Err(_) => {
                let message =
                    "the body of the request did not come in time (timeouts.client_body_ms)";
                let (kind, code) = ("invalid_request_error", "body_timeout");
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, kind, code, message));
            }
        };
        let Ok(piece) = frame.into_data() else { continue };
        if first.len() + all.len() + piece.len() > limit {
            return Err(Refusal::too_large(limit));
        }
        // One piece is the usual case, and is not copied.
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve((hint.lower() as usize).max(2 * (first.len() + piece.len())));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
