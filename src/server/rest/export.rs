//! `/api/v1/export`: the readings of a span of time as one file, written while the client takes it.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use super::query::{BadQuery, Given};
use super::readings::Choice;
use super::{Answer, Viewer, answered};
use crate::clock::Wall;
use crate::event::{Event, EventBody};
use crate::ids::Seq;
use crate::server::auth::Rights;
use crate::server::jwt::LEEWAY_SECONDS;
use crate::server::routes::{Site, failure};
use crate::server::table;
use crate::store::Scan;
use crate::tasks::Role;
use crate::wire;

/// Exports at once; one more is refused and told to come again.
const MAX_EXPORTS: usize = 4;

/// Who was refused for their number may come again after so many seconds.
const PAUSE_SECONDS: u64 = 5;

/// Readings of one piece of the file: some 100 KiB.
const ROWS_A_PIECE: usize = 500;

/// Pieces that wait for the client; beyond them the log is not read on.
const PIECES: usize = 2;

/// A client that takes nothing for so long has gone.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A table for a spreadsheet.
    Csv,
    /// One reading a line as it was pushed.
    Ndjson,
}

/// What the log gives the body.
enum Piece {
    Rows(Bytes),
    /// The file is whole. Without this the body ends with an error, so that nobody takes a half for it.
    End,
}

#[derive(Debug, Clone)]
struct Desk {
    site: Site,
    slots: Arc<Semaphore>,
    /// Users who have one: at most [`MAX_EXPORTS`].
    users: Arc<Mutex<BTreeSet<String>>>,
}

/// An export's place among all, and that of its user.
struct Place {
    _slot: OwnedSemaphorePermit,
    user: String,
    users: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user);
    }
}

impl Desk {
    /// A place for an export of this user, or the refusal.
    fn place(&self, user: &str) -> Answer<Place> {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return Err(busy(StatusCode::SERVICE_UNAVAILABLE, "too many exports at once; see Retry-After"));
        };
        if !self.users.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned()) {
            return Err(busy(StatusCode::TOO_MANY_REQUESTS, "you have an export under way; see Retry-After"));
        }
        Ok(Place { _slot: slot, user: user.to_owned(), users: Arc::clone(&self.users) })
    }
}

fn busy(status: StatusCode, reason: &str) -> Box<Response> {
    let mut response = failure(status, "busy", reason);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(PAUSE_SECONDS));
    Box::new(response)
}

pub(super) fn router(site: Site) -> Router {
    let desk = Desk { site, slots: Arc::new(Semaphore::new(MAX_EXPORTS)), users: Arc::default() };
    Router::new().route("/api/v1/export", get(export)).with_state(desk)
}

async fn export(State(desk): State<Desk>, headers: HeaderMap, uri: Uri) -> Response {
    answered(begin(&desk, &headers, &uri))
}

fn begin(desk: &Desk, headers: &HeaderMap, uri: &Uri) -> Answer<Response> {
    let viewer = Viewer::of(&desk.site, headers)?;
    let mut given = Given::of(uri, &["format", "patient", "device", "metric", "from", "to"])?;
    let format = match given.text("format").as_deref() {
        None | Some("csv") => Format::Csv,
        Some("ndjson") => Format::Ndjson,
        Some(_) => return Err(BadQuery::value("format", "is neither csv nor ndjson").into()),
    };
    let rights = viewer.rights.clone();
    let choice = Choice::read(viewer, &mut given)?;
    let place = desk.place(&rights.user)?;
    let (pieces, taken) = mpsc::channel(PIECES);
    let site = desk.site.clone();
    let writing = async move {
        write(site, (rights, choice), format, pieces).await;
        drop(place);
    };
    desk.site.tasks.spawn("export", Role::Helper, async move {
        writing.await;
        Ok(())
    });
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"readings.csv\""),
        Format::Ndjson => ("application/x-ndjson", "attachment; filename=\"readings.ndjson\""),
    };
    let body = futures_util::stream::unfold(Some(taken), next_piece);
    Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, name)], Body::from_stream(body)).into_response())
}

async fn next_piece(
    taken: Option<mpsc::Receiver<Piece>>,
) -> Option<(io::Result<Bytes>, Option<mpsc::Receiver<Piece>>)> {
    let mut taken = taken?;
    match taken.recv().await {
        Some(Piece::Rows(rows)) => Some((Ok(rows), Some(taken))),
        Some(Piece::End) => None,
        None => Some((Err(io::Error::other("the export was broken off")), None)),
    }
}

/// Writes everything that was on disk when it began. A file that cannot be finished is broken off.
async fn write(site: Site, (rights, choice): (Rights, Choice), format: Format, pieces: mpsc::Sender<Piece>) {
    let send = async |piece: Piece| {
        if !may_go_on(&site, &rights) {
            return false;
        }
        tokio::select! {
            biased;
            // The daemon's end must not wait for a client.
            () = site.gate.stop.cancelled() => false,
            sent = tokio::time::timeout(STALL_LIMIT, pieces.send(piece)) => matches!(sent, Ok(Ok(()))),
        }
    };
    let through = *site.gate.durable.borrow();
    let (from, to) = (choice.from.unwrap_or(Wall(i64::MIN)), choice.to.unwrap_or(Wall(i64::MAX)));
    let mut after = Seq::ZERO;
    if format == Format::Csv && !send(Piece::Rows(table::header().into())).await {
        return;
    }
    loop {
        let scan = Scan { from, to, after, through, limit: ROWS_A_PIECE };
        let wanted = choice.clone();
        let found = site.gate.reader.scan(scan, move |stream| wanted.wants(stream), Vec::new(), Vec::push).await;
        let (events, scanned) = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "an export ends early");
                return;
            }
        };
        let piece: Vec<u8> = events.iter().flat_map(|event| line(event, format)).collect();
        if !piece.is_empty() && !send(Piece::Rows(piece.into())).await {
            return;
        }
        let Some((_, seq)) = scanned.next else {
            send(Piece::End).await;
            return;
        };
        after = seq;
    }
}

/// False once the token has ended or was revoked.
fn may_go_on(site: &Site, rights: &Rights) -> bool {
    let until = rights.expires.0.saturating_add(LEEWAY_SECONDS.saturating_mul(1000));
    site.gate.clock.now().wall.0 <= until && !site.gate.access.forbids(rights)
}

fn line(event: &Event, format: Format) -> Bytes {
    match (&event.body, format) {
        (EventBody::Reading(reading), Format::Csv) => table::row(event, reading).into(),
        // Its text is made of plain data and cannot fail.
        (_, Format::Ndjson) => wire::push(event).map(|text| text + "\n").unwrap_or_default().into(),
        (_, Format::Csv) => Bytes::new(),
    }
}
