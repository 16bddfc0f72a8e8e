//! Who is turned away for want of room before anything is done: the answers, and the places that are kept for admins.

use axum::extract::Request;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use crate::server::accept::Slot;
use crate::server::auth::Role;
use crate::server::routes::{Site, failure, token_of};

/// When who was refused may try again, in seconds.
pub(super) const RETRY_AFTER_S: u16 = 5;

/// The refusal of a request on a connection beyond the limit: those of admins may go on, on the places kept for them.
pub(super) fn refusal(site: &Site, request: &Request) -> Option<Response> {
    let slot = request.extensions().get::<Slot>().filter(|slot| slot.is_undecided())?;
    let now = site.gate.clock.now().wall;
    // Whose token was revoked is nobody.
    let rights = token_of(request.headers()).map(|token| site.gate.check(token, now));
    let is_admin = matches!(rights, Some(Ok(rights)) if rights.role == Role::Admin);
    if slot.settle(is_admin) {
        return None;
    }
    site.gate.metrics.connections_refused_total.add_one();
    Some(full("this bridge has as many connections as it may have, or your address has"))
}

/// 503 with the time after which it is worth another attempt.
pub(super) fn full(message: &str) -> Response {
    let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, "over_capacity", message);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
