//! The inboxes and what people asked for, on disk: what each event changes in them, and what is there at the start.

use rusqlite::{Connection, Transaction, params};
use serde::de::DeserializeOwned;
use tracing::error;

use super::codec::{row_id, seq_of};
use crate::clock::Wall;
use crate::event::{Event, EventBody, InboxChange, Notification, Priority};
use crate::ids::{AlertId, Seq};
use crate::notifier::{Acked, KEPT_REQUESTS_MS, Kept, MAX_REQUESTS, Saved};

/// Changes the inboxes as an event says, as a part of the transaction that stores the event.
pub(super) fn apply(transaction: &Transaction<'_>, event: &Event, body: &str) -> rusqlite::Result<()> {
    match &event.body {
        EventBody::Notification(notification) => take_in(transaction, event, notification, body),
        EventBody::Inbox(change) => carry_out(transaction, event, change),
        EventBody::Alert(alert) if !alert.is_present() => {
            execute(transaction, "DELETE FROM inbox_notified WHERE alert = ?1", params![alert.alert.to_string()])
        }
        _ => Ok(()),
    }
}

fn execute(transaction: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
    transaction.prepare_cached(sql)?.execute(params).map(drop)
}

/// JSON of a value that always serialises: its keys are text.
fn text(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn take_in(
    transaction: &Transaction<'_>,
    event: &Event,
    notification: &Notification,
    body: &str,
) -> rusqlite::Result<()> {
    let id = notification.id.to_string();
    if !notification.users.is_empty() {
        let row = params![id, row_id(event.seq), body];
        execute(transaction, "INSERT OR IGNORE INTO inbox_message (id, seq, body) VALUES (?1, ?2, ?3)", row)?;
    }
    for user in &notification.users {
        execute(transaction, "INSERT OR IGNORE INTO inbox_waiting (id, user) VALUES (?1, ?2)", params![id, user])?;
    }
    if let Some(alert) = notification.alert {
        execute(
            transaction,
            "INSERT INTO inbox_notified (alert, priority) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET priority = ?2",
            params![alert.to_string(), notification.priority.name()],
        )?;
    }
    if notification.by.is_some() {
        execute(transaction, "DELETE FROM inbox_scheduled WHERE id = ?1", params![id])?;
    }
    Ok(())
}

/// What was asked for is known for its time and as far as [`MAX_REQUESTS`] reach.
fn remember(
    transaction: &Transaction<'_>,
    event: &Event,
    id: &uuid::Uuid,
    (digest, last): (&str, Option<Seq>),
) -> rusqlite::Result<()> {
    let now = event.at.wall.0;
    execute(transaction, "DELETE FROM request WHERE wall <= ?1", params![now.saturating_sub(KEPT_REQUESTS_MS)])?;
    let row = params![id.to_string(), digest, now, last.map(row_id)];
    execute(transaction, "INSERT OR REPLACE INTO request (id, digest, wall, seq) VALUES (?1, ?2, ?3, ?4)", row)?;
    let most = i64::try_from(MAX_REQUESTS).unwrap_or(i64::MAX);
    execute(transaction, "DELETE FROM request WHERE rowid <= (SELECT max(rowid) FROM request) - ?1", params![most])
}

fn carry_out(transaction: &Transaction<'_>, event: &Event, change: &InboxChange) -> rusqlite::Result<()> {
    match change {
        InboxChange::Known { user, listens } => execute(
            transaction,
            "INSERT INTO inbox_person (user, listens) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET listens = ?2",
            params![user, text(listens)?],
        ),
        InboxChange::Preferences { user, preferences } => execute(
            transaction,
            "INSERT INTO inbox_person (user, preferences) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET preferences = ?2",
            params![user, text(preferences)?],
        ),
        InboxChange::Forgotten { user } => {
            execute(transaction, "DELETE FROM inbox_person WHERE user = ?1", params![user])?;
            execute(transaction, "DELETE FROM inbox_waiting WHERE user = ?1", params![user])?;
            forget_unneeded(transaction)
        }
        InboxChange::Scheduled { reminder } => {
            let id = reminder.id.to_string();
            let row = params![id, text(reminder)?];
            execute(transaction, "INSERT OR IGNORE INTO inbox_scheduled (id, body) VALUES (?1, ?2)", row)
        }
        InboxChange::Requested { id, digest, last } => remember(transaction, event, id, (digest, *last)),
        InboxChange::NotDone { id } => {
            execute(transaction, "DELETE FROM request WHERE id = ?1", params![id.to_string()])
        }
        InboxChange::Withdrawn { id } => {
            execute(transaction, "DELETE FROM inbox_scheduled WHERE id = ?1", params![id.to_string()])
        }
        // It waits on until a client has it.
        InboxChange::HandedOver { .. } => Ok(()),
        InboxChange::Delivered { user, ids } => {
            no_longer_waiting(transaction, user, ids)?;
            let told = ids.iter().map(ToString::to_string);
            for id in told {
                execute(
                    transaction,
                    "UPDATE inbox_person SET untold = NULL WHERE user = ?1 AND json_extract(untold, '$.id') = ?2",
                    params![user, id],
                )?;
            }
            Ok(())
        }
        InboxChange::Dropped { user, ids, untold } => {
            no_longer_waiting(transaction, user, ids)?;
            execute(
                transaction,
                "INSERT INTO inbox_person (user, untold) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET untold = ?2",
                params![user, text(untold)?],
            )
        }
        InboxChange::Expired { ids } => {
            for id in ids.iter().map(ToString::to_string) {
                execute(transaction, "DELETE FROM inbox_waiting WHERE id = ?1", params![id])?;
                execute(transaction, "DELETE FROM inbox_message WHERE id = ?1", params![id])?;
            }
            Ok(())
        }
    }
}

fn no_longer_waiting(transaction: &Transaction<'_>, user: &str, ids: &[uuid::Uuid]) -> rusqlite::Result<()> {
    for id in ids.iter().map(ToString::to_string) {
        execute(transaction, "DELETE FROM inbox_waiting WHERE id = ?1 AND user = ?2", params![id, user])?;
        execute(
            transaction,
            "DELETE FROM inbox_message WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM inbox_waiting WHERE id = ?1)",
            params![id],
        )?;
    }
    Ok(())
}

fn forget_unneeded(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    execute(transaction, "DELETE FROM inbox_message WHERE id NOT IN (SELECT id FROM inbox_waiting)", [])
}

/// What is in the inboxes. A row that cannot be read is left out with an error in the log.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Saved> {
    let mut saved = Saved::default();
    load_people(connection, &mut saved)?;
    let mut messages = connection.prepare("SELECT id, body, seq FROM inbox_message ORDER BY seq")?;
    let mut rows = messages.query([])?;
    while let Some(row) = rows.next()? {
        let message = readable(&row.get::<_, String>(0)?, Some(row.get(1)?));
        saved.messages.extend(message.zip(Some(seq_of(row.get(2)?))));
    }
    let mut waiting = connection.prepare("SELECT id, user FROM inbox_waiting ORDER BY rowid")?;
    let mut rows = waiting.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(id) = id_of(&row.get::<_, String>(0)?) {
            saved.waiting.entry(id).or_default().push(row.get(1)?);
        }
    }
    let mut scheduled = connection.prepare("SELECT id, body FROM inbox_scheduled")?;
    let mut rows = scheduled.query([])?;
    while let Some(row) = rows.next()? {
        saved.scheduled.extend(readable(&row.get::<_, String>(0)?, Some(row.get(1)?)));
    }
    let mut notified = connection.prepare("SELECT alert, priority FROM inbox_notified")?;
    let mut rows = notified.query([])?;
    while let Some(row) = rows.next()? {
        let (alert, priority): (String, String) = (row.get(0)?, row.get(1)?);
        let pair = id_of(&alert).map(AlertId).zip(Priority::from_name(&priority));
        saved.notified.extend(pair);
    }
    let mut requests = connection.prepare("SELECT id, digest, wall, seq FROM request")?;
    let mut rows = requests.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(id) = id_of(&row.get::<_, String>(0)?) {
            let seq: Option<i64> = row.get(3)?;
            let (digest, wall, seq) = (row.get(1)?, Wall(row.get(2)?), seq.map(seq_of));
            saved.requests.insert(id, Kept { digest, wall, seq, is_kept: true });
        }
    }
    let mut lanes = connection.prepare("SELECT lane, seq FROM cursor")?;
    let lanes = lanes.query_map([], |row| Ok((row.get(0)?, seq_of(row.get(1)?))))?;
    let lanes: Vec<(String, Seq)> = lanes.collect::<rusqlite::Result<_>>()?;
    saved.acked = Acked::restored(lanes.iter().map(|(lane, seq)| (lane.as_str(), *seq)));
    Ok(saved)
}

fn load_people(connection: &Connection, saved: &mut Saved) -> rusqlite::Result<()> {
    let mut people = connection.prepare("SELECT user, listens, preferences, untold FROM inbox_person")?;
    let mut rows = people.query([])?;
    while let Some(row) = rows.next()? {
        let user: String = row.get(0)?;
        let person = saved.people.entry(user.clone()).or_default();
        person.listens = readable(&user, row.get(1)?);
        person.preferences = readable(&user, row.get(2)?).unwrap_or_default();
        person.untold = readable(&user, row.get(3)?);
    }
    Ok(())
}

fn id_of(text: &str) -> Option<uuid::Uuid> {
    text.parse().inspect_err(|error| error!(id = text, %error, "a row of an inbox cannot be restored")).ok()
}

fn readable<T: DeserializeOwned>(what: &str, body: Option<String>) -> Option<T> {
    let body = body?;
    serde_json::from_str(&body)
        .inspect_err(|error| error!(row = what, %error, "a row of an inbox cannot be restored"))
        .ok()
}
