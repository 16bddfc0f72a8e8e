//! The table of clock epochs: how stored times become time of day once more is known of the clock.

use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::codec::{row_id, seq_of};
use crate::clock::Mono;
use crate::ids::Seq;
use crate::timeline::{ClockEpoch, ClockState, MAX_EPOCHS, Timeline};

/// All clock epochs of the log.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Timeline> {
    let mut statement = connection.prepare(
        "SELECT first_seq, boot, since_mono, offset_ms, uncertainty_ms, state FROM clock_epoch ORDER BY first_seq",
    )?;
    let mut rows = statement.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let (boot, state): (String, String) = (row.get(1)?, row.get(5)?);
        epochs.push(ClockEpoch {
            first: seq_of(row.get(0)?),
            boot: Arc::from(boot),
            since: Mono(row.get::<_, i64>(2)?.cast_unsigned()),
            offset_ms: row.get(3)?,
            uncertainty_ms: row.get(4)?,
            // What a later version knows, this one does not.
            state: ClockState::from_name(&state).unwrap_or(ClockState::Unknown),
        });
    }
    Ok(Timeline::new(epochs))
}

/// Stores epochs that have begun or are known less exactly, and forgets the oldest of too many.
pub(super) fn keep(transaction: &Transaction<'_>, epochs: &[ClockEpoch]) -> rusqlite::Result<()> {
    if epochs.is_empty() {
        return Ok(());
    }
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO clock_epoch (first_seq, boot, since_mono, offset_ms, uncertainty_ms, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for epoch in epochs {
        statement.execute(params![
            row_id(epoch.first),
            &*epoch.boot,
            epoch.since.0.cast_signed(),
            epoch.offset_ms,
            epoch.uncertainty_ms,
            epoch.state.name(),
        ])?;
    }
    let most = i64::try_from(MAX_EPOCHS).unwrap_or(i64::MAX);
    transaction.execute(
        "DELETE FROM clock_epoch WHERE first_seq NOT IN
            (SELECT first_seq FROM clock_epoch ORDER BY first_seq DESC LIMIT ?1)",
        [most],
    )?;
    Ok(())
}

/// Forgets the epochs of other boots that begin at this number or later.
pub(super) fn forget_ahead(connection: &Connection, first: Seq, boot: &str) -> rusqlite::Result<()> {
    let ahead = "DELETE FROM clock_epoch WHERE first_seq >= ?1 AND boot <> ?2";
    connection.execute(ahead, params![row_id(first), boot]).map(drop)
}

/// Forgets the epochs of which no row is left.
pub(super) fn forget(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    // The last one that begins at or before the oldest row is that row's own.
    transaction.execute(
        "DELETE FROM clock_epoch WHERE first_seq < (SELECT max(first_seq) FROM clock_epoch WHERE first_seq <= (
            SELECT min(seq) FROM (SELECT min(seq) AS seq FROM reading UNION ALL SELECT min(seq) FROM event)))",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::clock::{Mono, Stamp, Wall};
    use crate::event::EventBody;
    use crate::ids::Seq;
    use crate::store::schema::{MIGRATIONS, connect_writer, migrate};
    use crate::store::{StoreOptions, open};
    use crate::timeline::{ClockEpoch, ClockState};

    /// The schema before clock epochs.
    const BEFORE: usize = 6;

    const SET: i64 = 1_795_219_200_000; // 2026-11-21

    /// A database of the version before clock epochs: one reading, published 5 s after boot by a clock that began at 1970.
    fn older_database(folder: &std::path::Path) {
        let path = folder.join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect_writer(&path).unwrap();
        migrate(&mut connection, &path, MIGRATIONS.get(..BEFORE).unwrap()).unwrap();
        connection
            .execute_batch(
                "INSERT INTO epoch (name, boot, first_seq, started_mono, started_wall) VALUES ('older', 'b', 1, 0, 0);
                 INSERT INTO stream VALUES (1, 'P-1', 'd', 's', 'spo2', -1, 'real', 'valid', 'received');
                 INSERT INTO reading (seq, stream, mono, wall, received_ns, received_ms, taken_ms, uncertainty_ms, mantissa,
                     exponent) VALUES (1, 1, 5000000000, 5000, 0, 0, 0, 0, 97, 0);",
            )
            .unwrap();
    }

    fn empty(folder: &std::path::Path) -> rusqlite::Connection {
        let path = folder.join("vitals.db");
        std::fs::File::create(&path).unwrap();
        let mut connection = connect_writer(&path).unwrap();
        migrate(&mut connection, &path, MIGRATIONS).unwrap();
        connection
    }

    #[test]
    fn what_a_later_version_knows_of_a_clock_is_not_taken_for_a_set_one() {
        let folder = tempfile::tempdir().unwrap();
        let connection = empty(folder.path());
        connection.execute_batch("INSERT INTO clock_epoch VALUES (1, 'b', 0, 0, 100, 'by_starlight');").unwrap();
        assert_eq!(super::load(&connection).unwrap().epochs()[0].state, ClockState::Unknown);
    }

    #[test]
    fn the_clock_epoch_of_the_oldest_row_is_kept_and_what_is_before_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = empty(folder.path());
        connection
            .execute_batch(
                "INSERT INTO clock_epoch VALUES (1, 'a', 0, 0, NULL, 'unknown'), (10, 'b', 0, 0, NULL, 'unknown'),
                     (20, 'b', 0, 0, 100, 'synchronised');
                 INSERT INTO reading (seq, stream, mono, wall, received_ns, received_ms, uncertainty_ms) VALUES (12, 1, 0, 0, 0, 0, 0);",
            )
            .unwrap();
        let transaction = connection.transaction().unwrap();
        super::forget(&transaction).unwrap();
        transaction.commit().unwrap();
        let left: Vec<Seq> = super::load(&connection).unwrap().epochs().iter().map(|epoch| epoch.first).collect();
        assert_eq!(left, [Seq(10), Seq(20)]);
    }

    #[tokio::test]
    async fn a_database_from_before_clock_epochs_keeps_its_times_and_takes_epochs() {
        let folder = tempfile::tempdir().unwrap();
        older_database(folder.path());
        let now = Stamp { mono: Mono::from_millis(60_000), wall: Wall(SET) };
        let opened = open(folder.path(), &StoreOptions::default(), "newer".parse().unwrap(), "b", now).unwrap();
        assert_eq!(opened.handle.timeline().borrow().epochs(), []);
        let epoch = ClockEpoch {
            first: opened.first_seq,
            boot: "b".into(),
            since: now.mono,
            offset_ms: SET - 60_000,
            uncertainty_ms: Some(100),
            state: ClockState::Synchronised,
        };
        opened.handle.begin_clock_epoch(epoch.clone());
        let found = opened.reader.events(Seq::ZERO, 10).await.unwrap();
        let [event] = found.as_slice() else { panic!("{found:?}") };
        // Nobody noted what was known of the clock then, so nothing is made of it.
        assert_eq!(event.at.wall, Wall(5000));
        assert!(matches!(&event.body, EventBody::Reading(reading) if reading.taken.wall == Some(Wall(5000))));

        let stop = tokio_util::sync::CancellationToken::new();
        stop.cancel();
        opened.writer.run(stop).await.unwrap();
        drop((opened.reader, opened.handle));
        let again = open(folder.path(), &StoreOptions::default(), "last".parse().unwrap(), "b", now).unwrap();
        assert_eq!(again.handle.timeline().borrow().epochs(), [epoch], "stored although no event came with it");
        drop(again);
        let other = open(folder.path(), &StoreOptions::default(), "rebooted".parse().unwrap(), "c", now).unwrap();
        assert_eq!(
            other.handle.timeline().borrow().epochs(),
            [],
            "no event of that boot is there, and this is another"
        );
    }
}
