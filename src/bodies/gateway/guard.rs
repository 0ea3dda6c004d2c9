//! Who may use the admin API: whoever knows its token, or where there is none, whoever is on this host.
//!
//! A browser on this host is there on behalf of every page that it shows. So without a token a
//! request that says which page it comes from has to come from ours, and the host that it names has to
//! be this one by a name that nobody else can give it (else a page could have its own name stand for
//! a loopback address: DNS rebinding).

use super::Gateway;
use super::keys::is_secret;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Weak;

pub(super) async fn check(
    State(gateway): State<Weak<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(gateway) = gateway.upgrade() else {
        return (StatusCode::GONE, "the gateway has stopped").into_response();
    };
    let head = request.headers();
    let refused = match &gateway.settings().config.admin.token_sha256 {
        Some(sha256) if !knows(head, sha256) => {
            Some((StatusCode::UNAUTHORIZED, "give the admin token as Authorization: Bearer TOKEN"))
        }
        None if !is_of_this_host(request.uri(), head) => Some((
            StatusCode::FORBIDDEN,
            "a page from elsewhere may not ask: call it by 127.0.0.1 or localhost, or set admin.token_sha256",
        )),
        _ => None,
    };
    drop(gateway);
    match refused {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    }
}

fn knows(headers: &HeaderMap, sha256: &str) -> bool {
    let said = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = said.and_then(|it| it.strip_prefix(b"Bearer "));
    token.is_some_and(|token| is_secret(token, sha256))
}

/// Whether it names this host by its address, and comes from no page but ours.
fn is_of_this_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let named = headers.get(HOST).and_then(|it| it.to_str().ok()?.parse::<Authority>().ok());
    // HTTP/2 has it in the target.
    let Some(host) = named.or_else(|| uri.authority().cloned()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    if !name.eq_ignore_ascii_case("localhost") && name.parse::<IpAddr>().is_err() {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    origins.all(|origin| {
        let from = origin.to_str().ok().and_then(|it| it.parse::<Uri>().ok());
        from.and_then(|it| it.into_parts().authority).is_some_and(|it| it == host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        headers.extend(origin.map(|it| (ORIGIN, it.parse().unwrap())));
        is_of_this_host(&Uri::from_static("/reload"), &headers)
    }

    #[test]
    fn a_page_from_elsewhere_is_told_from_this_host() {
        for (host, origin) in [
            ("127.0.0.1:9", None),
            ("localhost:9", None),
            ("[::1]:9", None),
            ("127.0.0.1:9", Some("http://127.0.0.1:9")),
            ("localhost:9", Some("http://localhost:9")),
        ] {
            assert!(asks(host, origin), "{host} {origin:?}");
        }
        for (host, origin) in [
            ("evil.example:9", None),
            ("localhost.evil.example", None),
            ("127.0.0.1:9", Some("http://evil.example")),
            ("127.0.0.1:9", Some("http://127.0.0.1:8")),
            ("127.0.0.1:9", Some("null")),
            ("not a host", None),
        ] {
            assert!(!asks(host, origin), "{host} {origin:?}");
        }
    }

    #[test]
    fn in_http_2_the_host_stands_in_the_target() {
        let here = Uri::from_static("http://127.0.0.1:9/live");
        assert!(is_of_this_host(&here, &HeaderMap::new()));
        assert!(!is_of_this_host(&Uri::from_static("http://a.example/live"), &HeaderMap::new()));
        assert!(!is_of_this_host(&Uri::from_static("/live"), &HeaderMap::new()));
    }
}
