//! The rooms of the care team on disk: which messages each has, and up to where it is not shown any more.

use rusqlite::{Connection, Row, Transaction, params};
use uuid::Uuid;

use super::codec::{row_id, seq_of};
use crate::clock::Wall;
use crate::event::{ChatEvent, Event, EventBody};
use crate::ids::Seq;
use crate::rooms::MAX_REMEMBERED;

/// Most rooms that users have cleared; one more forgets the oldest clearing, and what was hidden is shown again.
pub const MAX_CLEARED: i64 = 10_000;

/// For everybody.
const EVERYBODY: &str = "";

/// Which messages a page has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageWanted {
    /// Of this room.
    pub room: String,
    /// As this user sees it.
    pub user: String,
    /// Before this event.
    pub before: Seq,
    /// At most so many.
    pub limit: usize,
}

/// Keeps the tables as an event says, as a part of the transaction that stores the event.
pub(super) fn apply(transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<()> {
    match &event.body {
        EventBody::Chat(ChatEvent::Message(message)) => transaction
            .prepare_cached("INSERT INTO chat_line (seq, room, id) VALUES (?1, ?2, ?3)")?
            .execute(params![row_id(event.seq), message.room, message.id.to_string()])
            .map(drop),
        EventBody::Chat(ChatEvent::Cleared(cleared)) => {
            let user = if cleared.everybody { EVERYBODY } else { &cleared.by };
            transaction
                .prepare_cached(
                    "INSERT INTO chat_cleared (room, user, seq) VALUES (?1, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET seq = ?3",
                )?
                .execute(params![cleared.cleared, user, row_id(event.seq)])?;
            transaction
                .prepare_cached(
                    "DELETE FROM chat_cleared WHERE rowid IN \
                     (SELECT rowid FROM chat_cleared ORDER BY seq DESC LIMIT -1 OFFSET ?1)",
                )?
                .execute([MAX_CLEARED])
                .map(drop)
        }
        _ => Ok(()),
    }
}

/// The messages of a page, the newest first, as `read` makes them of columns like those of
/// [`super::codec::SELECT_EVENTS`].
pub(super) fn page<T, E>(
    transaction: &Transaction<'_>,
    wanted: &PageWanted,
    mut read: impl FnMut(&Row<'_>) -> Result<T, E>,
) -> rusqlite::Result<Result<Vec<T>, E>> {
    let mut cleared = transaction
        .prepare_cached("SELECT ifnull(max(seq), 0) FROM chat_cleared WHERE room = ?1 AND user IN ('', ?2)")?;
    let after: i64 = cleared.query_row([&wanted.room, &wanted.user], |row| row.get(0))?;
    let mut lines = transaction.prepare_cached(
        "SELECT event.seq, kind, mono, wall, body FROM chat_line JOIN event ON event.seq = chat_line.seq \
         WHERE room = ?1 AND chat_line.seq > ?2 AND chat_line.seq < ?3 ORDER BY chat_line.seq DESC LIMIT ?4",
    )?;
    let most = i64::try_from(wanted.limit).unwrap_or(i64::MAX);
    let mut rows = lines.query(params![wanted.room, after, row_id(wanted.before), most])?;
    let mut page = Vec::new();
    while let Some(row) = rows.next()? {
        match read(row) {
            Ok(event) => page.push(event),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(page))
}

/// The newest messages by their identity, so that one that is sent again is known. One that cannot be read is left out.
pub(super) fn remembered(connection: &Connection) -> rusqlite::Result<Vec<(Uuid, Seq, Wall)>> {
    let mut newest = connection.prepare(
        "SELECT chat_line.id, chat_line.seq, event.wall FROM chat_line JOIN event ON event.seq = chat_line.seq \
         ORDER BY chat_line.seq DESC LIMIT ?1",
    )?;
    let most = i64::try_from(MAX_REMEMBERED).unwrap_or(i64::MAX);
    let mut rows = newest.query([most])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        if let Ok(id) = id.parse() {
            found.push((id, seq_of(row.get(1)?), Wall(row.get(2)?)));
        }
    }
    Ok(found)
}
