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

#[cfg(test)]
mod tests {
    use super::super::schema::{MIGRATIONS, migrate};
    use super::*;
    use crate::clock::Stamp;
    use crate::event::{ChatCleared, ChatMessage};

    fn event(seq: u64, chat: ChatEvent) -> Event {
        Event { epoch: "e".parse().unwrap(), seq: Seq(seq), at: Stamp::default(), body: EventBody::Chat(chat) }
    }

    fn message(seq: u64) -> Event {
        let (room, sender, message) = ("r".to_owned(), "lena".to_owned(), "m".to_owned());
        event(seq, ChatEvent::Message(ChatMessage { id: Uuid::from_u128(seq.into()), room, sender, message }))
    }

    /// Stores an event as the writer does.
    fn store(connection: &mut Connection, event: &Event) {
        let transaction = connection.transaction().unwrap();
        let row = params![row_id(event.seq)];
        transaction
            .execute("INSERT INTO event (seq, kind, mono, wall, body) VALUES (?1, 'chat', 0, 7, '')", row)
            .unwrap();
        apply(&transaction, event).unwrap();
        transaction.commit().unwrap();
    }

    fn seqs(connection: &mut Connection, user: &str) -> Vec<i64> {
        let wanted = PageWanted { room: "r".into(), user: user.into(), before: Seq(u64::MAX), limit: 9 };
        let transaction = connection.transaction().unwrap();
        page(&transaction, &wanted, |row| row.get::<_, i64>(0)).unwrap().unwrap()
    }

    #[test]
    fn what_leaves_the_log_leaves_its_room() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, std::path::Path::new("memory"), MIGRATIONS).unwrap();
        for seq in 1..=3 {
            store(&mut connection, &message(seq));
        }
        assert_eq!(seqs(&mut connection, "lena"), [3, 2, 1]);
        connection.execute("DELETE FROM event WHERE seq <= 2", []).unwrap();
        let lines: i64 = connection.query_row("SELECT count(*) FROM chat_line", [], |row| row.get(0)).unwrap();
        assert_eq!((seqs(&mut connection, "lena"), lines), (vec![3], 1));
        assert_eq!(remembered(&connection).unwrap(), [(Uuid::from_u128(3), Seq(3), Wall(7))]);
    }

    #[test]
    fn so_many_clearings_are_kept_and_the_oldest_is_forgotten() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, std::path::Path::new("memory"), MIGRATIONS).unwrap();
        store(&mut connection, &message(1));
        let clear = |seq, by: &str| {
            event(seq, ChatEvent::Cleared(ChatCleared { cleared: "r".into(), by: by.into(), everybody: false }))
        };
        store(&mut connection, &clear(2, "lena"));
        assert_eq!((seqs(&mut connection, "lena"), seqs(&mut connection, "otto")), (vec![], vec![1]));
        let others = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                      INSERT INTO chat_cleared (room, user, seq) SELECT 'other', i, 10 + i FROM n";
        connection.execute(others, [MAX_CLEARED - 1]).unwrap();
        store(&mut connection, &clear(20_000, "otto"));
        assert_eq!((seqs(&mut connection, "lena"), seqs(&mut connection, "otto")), (vec![1], vec![]));
        let kept: i64 = connection.query_row("SELECT count(*) FROM chat_cleared", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, MAX_CLEARED);
    }
}
