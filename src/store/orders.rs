//! Ranges of the log that are to be sent to the broker again: an order is the row of the audit trail that accepted it, so
//! that both reach the disk together, and it is remembered until it is carried out.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::codec::{row_id, seq_of};
use super::reader::Reader;
use super::{SeqRange, StoreError};
use crate::command::ResendWish;
use crate::event::{AuditAction, AuditEvent, AuditResult, Event, EventBody};
use crate::ids::Seq;

/// An order that was accepted and is not carried out yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResendOrder {
    /// The number of its row in the audit trail.
    pub seq: Seq,
    /// What is to be sent again.
    pub range: SeqRange,
}

/// Remembers an order whose acceptance is stored by this transaction.
pub(super) fn accept(transaction: &Transaction<'_>, audit: &AuditEvent, seq: Seq) -> rusqlite::Result<()> {
    accepted(audit, seq).map_or(Ok(()), |order| keep(transaction, &[order]))
}

/// The order that a row of the audit trail accepts, if it is about one.
fn accepted(audit: &AuditEvent, seq: Seq) -> Option<ResendOrder> {
    let is_accepted = audit.action == AuditAction::UplinkResend && audit.result == AuditResult::Done;
    let wish = is_accepted.then(|| ResendWish::described(&audit.object)).flatten()?;
    Some(ResendOrder { seq, range: SeqRange { first: wish.first, last: wish.last } })
}

/// Does to a list of orders what [`accept`] and [`forget`] did on disk.
pub(super) fn follow(orders: &mut Vec<ResendOrder>, batch: &[Arc<Event>], done: &[Seq]) {
    let order = |event: &Arc<Event>| match &event.body {
        EventBody::Audit(audit) => accepted(audit, event.seq),
        _ => None,
    };
    orders.extend(batch.iter().filter_map(order));
    orders.retain(|order| !done.contains(&order.seq));
}

/// Stores orders that are not carried out.
pub(super) fn keep(transaction: &Transaction<'_>, orders: &[ResendOrder]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO resend_order (seq, first, last) VALUES (?1, ?2, ?3)";
    for ResendOrder { seq, range } in orders {
        transaction.prepare_cached(sql)?.execute(params![row_id(*seq), row_id(range.first), row_id(range.last)])?;
    }
    Ok(())
}

/// The orders that were accepted and are not carried out yet, oldest first.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<ResendOrder>> {
    let mut statement = connection.prepare_cached("SELECT seq, first, last FROM resend_order ORDER BY seq")?;
    let rows = statement.query_map([], |row| {
        let range = SeqRange { first: seq_of(row.get(1)?), last: seq_of(row.get(2)?) };
        Ok(ResendOrder { seq: seq_of(row.get(0)?), range })
    })?;
    rows.collect()
}

/// Forgets an order that was carried out.
pub(super) fn forget(transaction: &Transaction<'_>, done: &[Seq]) -> rusqlite::Result<()> {
    for seq in done {
        transaction.prepare_cached("DELETE FROM resend_order WHERE seq = ?1")?.execute([row_id(*seq)])?;
    }
    Ok(())
}

impl Reader {
    /// The orders that were accepted and are not carried out yet, oldest first.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn resend_orders(&self) -> Result<Vec<ResendOrder>, StoreError> {
        self.look_up(|transaction| load(transaction)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::{Mono, Stamp, Wall};
    use crate::store::{Opened, StoreOptions, open, schema};
    use crate::vitals::Mode;

    const NOW: Stamp = Stamp { mono: Mono::from_millis(60_000), wall: Wall(1_795_219_200_000) };

    fn opened(folder: &std::path::Path, run: u64) -> Opened {
        open(folder, &StoreOptions::default(), crate::ids::Epoch::from_bits(run), "boot", NOW).unwrap()
    }

    fn audit(action: AuditAction, object: &str, result: AuditResult) -> EventBody {
        EventBody::Audit(AuditEvent {
            by: "lena".to_owned(),
            address: None,
            action,
            object: object.to_owned(),
            patient: None,
            device: None,
            source: None,
            result,
            reason: None,
            mode: Mode::Real,
        })
    }

    #[tokio::test]
    async fn an_order_is_on_disk_with_the_word_that_it_was_accepted_until_it_is_carried_out() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { writer, handle, reader, epoch, .. } = opened(folder.path(), 1);
        let (resend, done) = (AuditAction::UplinkResend, AuditResult::Done);
        let rows = [
            audit(resend, "k3f9:18-21", done),
            audit(resend, "k3f9:30-31", AuditResult::Refused),
            audit(AuditAction::LimitsSet, "k3f9:40-41", done),
            audit(resend, "k3f9:50-51", done),
        ];
        for (seq, body) in (1..).map(Seq).zip(rows) {
            handle.try_append(Arc::new(Event { epoch: epoch.clone(), seq, at: NOW, body })).unwrap();
        }
        let mut durable = handle.durable();
        let (stop, mut tasks) = (CancellationToken::new(), tokio::task::JoinSet::new());
        tasks.spawn(writer.run(stop.clone()));
        durable.wait_for(|through| *through >= Seq(4)).await.unwrap();
        let order =
            |seq, first, last| ResendOrder { seq: Seq(seq), range: SeqRange { first: Seq(first), last: Seq(last) } };
        assert_eq!(reader.resend_orders().await.unwrap(), [order(1, 18, 21), order(4, 50, 51)]);
        handle.resent(Seq(1));
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        drop((handle, reader));
        let again = opened(folder.path(), 2);
        assert_eq!(again.reader.resend_orders().await.unwrap(), [order(4, 50, 51)]);
    }

    #[test]
    fn orders_that_stood_among_the_cursors_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = schema::connect_writer(&path).unwrap();
        let place = schema::MIGRATIONS.iter().position(|script| script.contains("CREATE TABLE resend_order")).unwrap();
        let before = &schema::MIGRATIONS[..place];
        schema::migrate(&mut connection, &path, before).unwrap();
        connection
            .execute_batch(
                "INSERT INTO cursor (lane, seq) VALUES ('resend.0.first', 18), ('resend.0.last', 21),
                    ('resend.1.first', 0), ('resend.1.last', 0), ('resend.2.first', 5), ('resend.2.last', 6), ('alerts', 9);",
            )
            .unwrap();
        schema::migrate(&mut connection, &path, schema::MIGRATIONS).unwrap();
        let text = |sql: &str| -> String { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        let orders = "SELECT group_concat(seq || ':' || first || '-' || last, ' ' ORDER BY seq) FROM resend_order";
        assert_eq!(text(orders), "1:18-21 3:5-6");
        assert_eq!(text("SELECT group_concat(lane) FROM cursor"), "alerts");
    }
}
