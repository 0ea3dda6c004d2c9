//! Answers of the gateway's own: errors in OpenAI's shape, so that clients raise what they would
//! raise at an engine.

use super::body::AnswerBody;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use llmd_brain::brain::Rejected;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// OpenAI's `type` of the error.
    pub(super) kind: &'static str,
    /// OpenAI's `code`, for programs.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) retry_after_ms: Option<u64>,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, kind, code, message: message.into(), retry_after_ms: None }
    }

    pub(super) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message)
    }

    pub(super) fn too_large(limit_bytes: usize) -> Self {
        let message = format!(
            "the body has more than {limit_bytes} bytes (limits.max_body_bytes): send less"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "too_large", message)
    }

    pub(super) fn unknown_model(model: &str) -> Self {
        let shown: String = model.chars().take(120).collect();
        let message =
            format!("The model `{shown}` does not exist: GET /v1/models lists those that do.");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message)
    }

    /// Nobody has room, or nobody is there.
    pub(super) fn rejected(rejected: &Rejected) -> Self {
        let message = rejected.to_string();
        match rejected.retry_after_ms {
            Some(after_ms) => Self {
                retry_after_ms: Some(after_ms),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_error",
                    "overloaded",
                    message,
                )
            },
            None => Self::unavailable(message),
        }
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "no_capacity", message)
    }

    /// The engine failed before the first byte, and nobody else could be asked.
    pub(super) fn bad_engine(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", "engine_failed", message)
    }

    pub(super) fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", "engine_timeout", message)
    }

    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let document = serde_json::json!({
            "error": { "message": self.message, "type": self.kind, "param": null, "code": self.code }
        });
        let mut response = json(self.status, document.to_string());
        if let Some(after_ms) = self.retry_after_ms {
            // Whole seconds, rounded up: a client that comes back too early is turned away again.
            let seconds = after_ms.div_ceil(1_000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(RETRY_AFTER, value);
            }
        }
        response
    }
}

/// An answer of JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
    typed(status, HeaderValue::from_static("application/json"), body)
}

/// An answer of text, or of whatever `content_type` says.
pub(super) fn typed(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
