//! What of a head is passed on, in both directions.
//!
//! Bodies are framed anew, so nothing of a message's framing passes (RFC 9112, 6; RFC 9110, 7.6.1):
//! two parties that read one message's length differently is how requests are smuggled. Of a request
//! that has both a length and chunks, the chunks count, and its engine gets a length.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const DP_RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");
pub(super) const EXPLAIN: HeaderName = HeaderName::from_static("x-llmd-explain");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const OF_ONE_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Takes away what is between the two ends of one connection.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in OF_ONE_HOP {
        headers.remove(name);
    }
}

/// Makes a client's headers those of the request to an engine, but for where it goes. The ids that
/// it came with stay; one that came without gets one.
pub(super) fn towards_engine(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(HOST);
    headers.remove(EXPECT);
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPLAIN);
    // Which rank is our choice.
    headers.remove(DP_RANK);
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, invented_id());
    }
}

/// Makes an engine's headers those of the answer to the client. The length stays: the body is
/// passed on byte for byte.
pub(super) fn towards_client(headers: &mut HeaderMap) {
    strip(headers);
}

/// 16 hex digits that this process does not repeat, and hardly any other.
fn invented_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut next = NEXT.fetch_add(1, Relaxed);
    if next == 0 {
        // Where a process begins is a matter of chance.
        let start = random_start();
        NEXT.store(start.wrapping_add(1), Relaxed);
        next = start;
    }
    let digits = format!("{:016x}", next.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    HeaderValue::from_str(&digits).unwrap_or(HeaderValue::from_static("0"))
}

fn random_start() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "gateway"),
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("x-data-parallel-rank", "3"),
            ("authorization", "Bearer a"),
            ("traceparent", "00-1-2-01"),
            ("x-request-id", "mine"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        towards_engine(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "traceparent", "x-request-id"]);
        assert_eq!(headers[REQUEST_ID], "mine");
    }

    #[test]
    fn a_request_without_an_id_gets_one_of_its_own() {
        let mut ids = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let mut headers = HeaderMap::new();
            towards_engine(&mut headers);
            assert!(ids.insert(headers[REQUEST_ID].clone()));
        }
    }
}
