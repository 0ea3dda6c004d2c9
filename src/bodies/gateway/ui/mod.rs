//! `GET /ui`: a page that shows `GET /live` once a second.
//!
//! Its three files are part of the binary. They say nothing of the gateway, so they need no token;
//! the page asks for one where what it shows does. It loads nothing from elsewhere, runs no script
//! that is not its own file, and shows what others have written as text only.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's files.
pub(super) fn pages() -> Router {
    let page = || file("text/html; charset=utf-8", include_str!("page.html"));
    let script = || file("text/javascript; charset=utf-8", include_str!("page.js"));
    let style = || file("text/css; charset=utf-8", include_str!("page.css"));
    Router::new()
        .route("/ui", get(async move || page()))
        .route("/ui/page.js", get(async move || script()))
        .route("/ui/page.css", get(async move || style()))
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // Another version of the gateway has another page.
        (CACHE_CONTROL, "no-cache"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, content).into_response()
}
