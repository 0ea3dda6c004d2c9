//! Refusals, shaped as vLLM's: `{"error": {"message", "type", "param", "code"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// The field at fault.
    pub(crate) param: Option<String>,
}

impl ApiError {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "BadRequestError",
            message: message.into(),
            param: None,
        }
    }

    /// A field with a value that is out of its range; vLLM repeats both behind the message.
    pub(crate) fn bad_value(
        message: impl std::fmt::Display,
        parameter: &str,
        value: impl std::fmt::Display,
    ) -> Self {
        Self {
            param: Some(parameter.to_owned()),
            ..Self::bad_request(format!("{message} (parameter={parameter}, value={value})"))
        }
    }

    /// A body that is not what the endpoint takes. `location` is where, from `body` on.
    pub(crate) fn invalid(location: String, problem: impl std::fmt::Display) -> Self {
        let message = format!(
            "1 validation error:\n  {{'type': 'value_error', 'loc': '{location}', 'msg': \
             '{problem}'}}"
        );
        Self { kind: "Bad Request", param: Some(location), ..Self::bad_request(message) }
    }

    pub(crate) fn unknown_model(name: &str, known: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "NotFoundError",
            message: format!("The model `{name}` does not exist. Valid aliases: {known}."),
            param: Some("model".into()),
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "InternalServerError",
            message: message.into(),
            param: None,
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "ServiceUnavailableError",
            message: message.into(),
            param: None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, kind, message, param } = self;
        let code = status.as_u16();
        let body = json!({
            "error": { "message": message, "type": kind, "param": param, "code": code }
        });
        (status, Json(body)).into_response()
    }
}
