//! Heads: of a request as bytes, and of an answer from them.

use super::WireError;
use super::framing::Framing;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{Method, Response, StatusCode, Version};

/// Largest head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most headers of an answer.
const MAX_HEADERS: usize = 128;

/// The head of an answer, and what it says of its body and its connection.
#[derive(Debug)]
pub(in crate::gateway) struct Answer {
    pub(in crate::gateway) head: Response<()>,
    pub(super) framing: Framing,
    /// Whether another request may follow.
    pub(super) is_kept: bool,
}

/// The bytes of a request's head: its target and host, headers that are left of a client's, and
/// the length of its body.
pub(in crate::gateway) fn request_head(
    method: &Method,
    target: [&str; 2],
    host: &HeaderValue,
    headers: &HeaderMap,
    more: &[(HeaderName, HeaderValue)],
    body_bytes: usize,
) -> Bytes {
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let [prefix, path] = target;
    let mut out = BytesMut::with_capacity(256 + prefix.len() + path.len() + sizes.sum::<usize>());
    for part in [method.as_str(), " ", prefix, path, " HTTP/1.1\r\nhost: "] {
        out.put_slice(part.as_bytes());
    }
    out.put_slice(host.as_bytes());
    out.put_slice(b"\r\n");
    let added = more.iter().map(|(name, value)| (name, value));
    for (name, value) in headers.iter().chain(added) {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"content-length: ");
    out.put_slice(body_bytes.to_string().as_bytes());
    out.put_slice(b"\r\n\r\n");
    out.freeze()
}

/// The head that `buffer` begins with, taken out of it; `None` where it takes more bytes.
pub(super) fn take_answer(buffer: &mut BytesMut) -> Result<Option<Answer>, WireError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let wrong = |what: &dyn std::fmt::Display| WireError::Head(what.to_string());
    let length = match parsed.parse(buffer).map_err(|error| wrong(&error))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if buffer.len() > MAX_HEAD_BYTES => {
            return Err(wrong(&"its head is larger than 64 KiB"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let mut head = Response::new(());
    *head.status_mut() = status.map_err(|error| wrong(&error))?;
    if parsed.version == Some(0) {
        *head.version_mut() = Version::HTTP_10;
    }
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| wrong(&error))?;
        let value = HeaderValue::from_bytes(header.value).map_err(|error| wrong(&error))?;
        head.headers_mut().append(name, value);
    }
    buffer.advance(length);
    let framing = framing(&mut head)?;
    let is_kept = framing != Framing::UntilClose && is_kept(&head);
    Ok(Some(Answer { head, framing, is_kept }))
}

/// How the body ends (RFC 9112, 6.3). An answer that gives a length beside chunks is one whose
/// length does not count, and its connection is not used again.
fn framing(head: &mut Response<()>) -> Result<Framing, WireError> {
    let status = head.status();
    if status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        // Of a body that is not there it may say anything, which need not be a length.
        head.headers_mut().remove(CONTENT_LENGTH);
        return Ok(Framing::EMPTY);
    }
    let codings = head.headers().get_all(TRANSFER_ENCODING);
    if let Some(last) = codings.iter().next_back() {
        let is_chunked = words(last).next_back().is_some_and(|it| it == "chunked");
        let is_only = codings.iter().flat_map(words).count() == 1;
        if is_chunked && !is_only {
            return Err(WireError::Framing("its transfer coding is not only chunked"));
        }
        if head.headers_mut().remove(CONTENT_LENGTH).is_some() {
            head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        return Ok(if is_chunked { Framing::CHUNKED } else { Framing::UntilClose });
    }
    let mut length = None;
    for value in head.headers().get_all(CONTENT_LENGTH) {
        let said = value.as_bytes();
        let is_number = !said.is_empty() && said.iter().all(u8::is_ascii_digit);
        let said = value.to_str().ok().filter(|_| is_number).and_then(|it| it.parse().ok());
        match (said, length) {
            (Some(said), None) => length = Some(said),
            (Some(said), Some(before)) if said == before => {}
            _ => return Err(WireError::Framing("its content-length is no length")),
        }
    }
    // Said once is enough for the client.
    if let Some(length) = length {
        head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

fn is_kept(head: &Response<()>) -> bool {
    let mut said = head.headers().get_all(CONNECTION).iter().flat_map(words);
    match head.version() {
        Version::HTTP_10 => said.any(|it| it == "keep-alive"),
        _ => !said.any(|it| it == "close"),
    }
}

/// The words of a list, in small letters.
fn words(value: &HeaderValue) -> impl DoubleEndedIterator<Item = String> {
    let text = value.to_str().unwrap_or_default();
    text.split(',').map(|it| it.trim().to_ascii_lowercase()).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(text: &str) -> Result<Option<Answer>, WireError> {
        take_answer(&mut BytesMut::from(text.as_bytes()))
    }

    fn of(headers: &str) -> (Framing, bool) {
        let read = answer(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).unwrap().unwrap();
        (read.framing, read.is_kept)
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_standard_says() {
        assert_eq!(of("Content-Length: 7\r\n"), (Framing::Length(7), true));
        assert_eq!(of("content-length: 7\r\ncontent-length: 7\r\n"), (Framing::Length(7), true));
        assert_eq!(of("Transfer-Encoding: Chunked\r\n"), (Framing::CHUNKED, true));
        assert_eq!(
            of("transfer-encoding: chunked\r\ncontent-length: 7\r\n"),
            (Framing::CHUNKED, false)
        );
        assert_eq!(of("transfer-encoding: gzip\r\n"), (Framing::UntilClose, false));
        assert_eq!(of(""), (Framing::UntilClose, false));
        assert_eq!(
            of("content-length: 7\r\nconnection: x, Close\r\n"),
            (Framing::Length(7), false)
        );
        let none = answer("HTTP/1.1 204 No Content\r\ncontent-length: 7\r\n\r\n").unwrap().unwrap();
        assert_eq!(none.framing, Framing::EMPTY);
        assert!(!none.head.headers().contains_key(CONTENT_LENGTH));
        let old = answer("HTTP/1.0 200 OK\r\ncontent-length: 7\r\n\r\n").unwrap().unwrap();
        assert!(!old.is_kept);
    }

    #[test]
    fn heads_that_can_be_read_in_two_ways_are_refused() {
        for headers in [
            "content-length: 7\r\ncontent-length: 8\r\n",
            "content-length: +7\r\n",
            "content-length: 7, 7\r\n",
            "content-length: 99999999999999999999\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "content-length : 7\r\n",
            "a: b\r\n c\r\n",
        ] {
            let told = answer(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"));
            assert!(told.is_err(), "{headers:?}: {told:?}");
        }
        assert!(answer("garbage\r\n\r\n").is_err());
        let endless = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        assert!(answer(&endless).is_err());
        assert!(answer("HTTP/1.1 200 OK\r\na: b\r\n").unwrap().is_none());
    }

    #[test]
    fn a_request_is_what_the_client_s_headers_and_our_own_make() {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("1"));
        let rank = (HeaderName::from_static("x-data-parallel-rank"), HeaderValue::from(3));
        let host = HeaderValue::from_static("engine:1");
        let bytes = request_head(&Method::POST, ["/base", "/v1?x=1"], &host, &headers, &[rank], 12);
        let wanted = "POST /base/v1?x=1 HTTP/1.1\r\nhost: engine:1\r\nx-request-id: 1\r\nx-data-parallel-rank: 3\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(bytes, wanted);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_head_or_refused(
            start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 "]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut buffer = BytesMut::from(start.as_bytes());
            buffer.extend_from_slice(&bytes);
            drop(take_answer(&mut buffer));
        }
    }
}
