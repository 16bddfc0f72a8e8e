//! Refusals of the HTTP library in the form of our own: `{"code", "message"}` everywhere.

use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use super::routes::failure;

/// Gives a refusal that is no JSON our form, with its status and its headers.
pub(super) fn refusals(response: Response) -> Response {
    let status = response.status();
    let is_refusal = status.is_client_error() || status.is_server_error();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind: &HeaderValue| kind.to_str().ok());
    if !is_refusal || kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return response;
    }
    let (code, message) = match status {
        StatusCode::BAD_REQUEST => {
            ("format", "the address or its parameters cannot be read; check the percent-encoding")
        }
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the request is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("format", "send application/json"),
        _ if status.is_server_error() => ("internal_error", "the bridge could not do this; its log says why"),
        _ => ("refused", "the request cannot be answered"),
    };
    let mut answer = failure(status, code, message);
    for (name, value) in response.headers() {
        if *name != CONTENT_TYPE && *name != CONTENT_LENGTH {
            answer.headers_mut().append(name, value.clone());
        }
    }
    answer
}
