//! Whether the log is whole: SQLite's own check, and every row read as the uplink and a listener would.

use std::collections::BTreeMap;

use rusqlite::params;

use super::codec::{self, BadRow, row_id, seq_of};
use super::reader::{ReadSide, Reader, epoch_of, epochs, find_stream};
use super::{MAX_READ, SeqRange, StoreError};
use crate::event::Event;
use crate::ids::{Epoch, Seq};

/// Findings of SQLite's check that are told.
const MAX_FINDINGS: usize = 100;

/// A row of the log: its event, or why it makes none.
#[derive(Debug)]
pub struct ProvenRow {
    /// The run that gave its number; `None`: no run did.
    pub epoch: Option<Epoch>,
    /// Its number.
    pub seq: Seq,
    /// What it is.
    pub event: Result<Event, String>,
}

/// Some rows of the log, and what is missing among them.
#[derive(Debug, Default)]
pub struct ProvenPage {
    /// In the order of their numbers.
    pub rows: Vec<ProvenRow>,
    /// Numbers before the last of these rows that no row has and no noted hole explains.
    pub gaps: Vec<SeqRange>,
    /// Noted holes that end among these rows: numbers that were given and never stored.
    pub holes: Vec<SeqRange>,
}

/// What is wrong with the tables beside the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// What SQLite found.
    pub damage: Vec<String>,
    /// Other findings, in words.
    pub findings: Vec<String>,
}

impl Reader {
    /// The rows after `after` and up to `through` in the order of their numbers, at most `limit` and [`MAX_READ`]. One that
    /// cannot be read does not hide the others.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn rows(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<ProvenRow>, StoreError> {
        let limit = limit.min(MAX_READ);
        self.search(move |side| rows(side, after, through, limit)).await
    }

    /// The same, and what is missing among these rows. What is before the oldest reading is missing because it was kept
    /// long enough.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn proven(&self, after: Seq, through: Seq, limit: usize) -> Result<ProvenPage, StoreError> {
        let rows = self.rows(after, through, limit).await?;
        let Some(last) = rows.last().map(|row| row.seq) else { return Ok(ProvenPage::default()) };
        // Asked for after the rows, so that what is dropped meanwhile is not taken for a gap.
        let front = self
            .look_up(|transaction| {
                let sql = "SELECT ifnull((SELECT min(seq) FROM reading), (SELECT max(seq) FROM event))";
                transaction.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))
            })
            .await?;
        let front = front.map_or(last, seq_of);
        let mut holes = self.holes(after, MAX_READ).await?;
        holes.retain(|hole| hole.first <= last);
        let mut gaps = Vec::new();
        let mut before = after.max(Seq(front.0.saturating_sub(1)));
        for row in rows.iter().filter(|row| row.seq >= front) {
            gaps.extend(unexplained(before, row.seq, &holes));
            before = row.seq;
        }
        Ok(ProvenPage { rows, gaps, holes })
    }

    /// Checks the file, and what the tables say of each other: runs in order, cursors inside the log, open alerts with
    /// their events. Reads the whole file.
    ///
    /// # Errors
    /// SQLite failed in another way than by finding damage.
    pub async fn prove(&self) -> Result<Proof, StoreError> {
        let damage = self
            .look_up(|transaction| {
                let mut statement = transaction.prepare(&format!("PRAGMA integrity_check({MAX_FINDINGS})"))?;
                let found = statement.query_map([], |row| row.get(0))?;
                found.collect::<rusqlite::Result<Vec<String>>>()
            })
            .await;
        let damage = match damage {
            Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
            Err(error) if error.is_damage() => vec![error.to_string()],
            Err(error) => return Err(error),
        };
        let mut findings = Vec::new();
        match self.relations().await {
            Ok(found) => findings.extend(found),
            Err(error) if error.is_damage() => findings.push(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(Proof { damage, findings })
    }

    async fn relations(&self) -> Result<Vec<String>, StoreError> {
        let cursors = self.cursors().await?;
        let newest = self.bounds().await?.map_or(Seq::ZERO, |bounds| bounds.last);
        let last_hole = self.look_up(|transaction| {
            transaction.query_row("SELECT ifnull(max(last), 0) FROM hole", [], |row| row.get(0)).map(seq_of)
        });
        let newest = newest.max(last_hole.await?);
        let mut findings = beyond(&cursors, newest);
        let unordered = self
            .look_up(|transaction| {
                let sql =
                    "SELECT name FROM (SELECT name, first_seq, lag(first_seq) OVER (ORDER BY id) AS before FROM epoch)
                    WHERE first_seq < before";
                transaction.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
            })
            .await?;
        findings.extend(unordered.into_iter().map(|epoch| format!("the run {epoch} begins before the one before it")));
        let orphans = self
            .look_up(|transaction| {
                let sql = "SELECT alert FROM alert_open WHERE seq NOT IN (SELECT seq FROM event)";
                transaction.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
            })
            .await?;
        findings.extend(orphans.into_iter().map(|alert| format!("the open alert {alert} has no event in the log")));
        Ok(findings)
    }
}

/// Cursors that count events and stand after the newest one. Those of documents are marks and no numbers of events.
fn beyond(cursors: &BTreeMap<String, Seq>, newest: Seq) -> Vec<String> {
    let beyond = cursors.iter().filter(|(_, seq)| **seq > newest);
    beyond
        .filter(|(lane, _)| !lane.starts_with("document:"))
        .map(|(lane, seq)| format!("the cursor {lane} stands at {seq}, after the newest event {newest}"))
        .collect()
}

fn rows(side: &mut ReadSide, after: Seq, through: Seq, limit: usize) -> Result<Vec<ProvenRow>, StoreError> {
    let ReadSide { path, connection, streams, .. } = side;
    let failed = StoreError::sqlite(path, "cannot read events");
    let transaction = connection.transaction().map_err(&failed)?;
    let runs = epochs(&transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for is_reading in [true, false] {
        let sql = if is_reading { codec::SELECT_READINGS } else { codec::SELECT_EVENTS };
        let mut statement = transaction.prepare_cached(sql).map_err(&failed)?;
        let mut rows = statement.query(params![row_id(after), most, row_id(through)]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let seq = seq_of(row.get(0).map_err(&failed)?);
            let epoch = epoch_of(&runs, seq);
            let event = match &epoch {
                Ok(epoch) if is_reading => {
                    codec::reading_row(row, epoch.clone(), |id| find_stream(&transaction, streams, id))
                }
                Ok(epoch) => codec::event_row(row, epoch.clone()),
                Err(_) => Err(BadRow::Content("it belongs to no run".to_owned())),
            };
            let event = event.map_err(|bad| match bad {
                BadRow::Content(what) => what,
                BadRow::Sqlite(error) => error.to_string(),
            });
            found.push(ProvenRow { epoch: epoch.ok(), seq, event });
        }
    }
    // Two rising runs: the sort only merges them.
    found.sort_by_key(|row| row.seq);
    found.truncate(limit);
    Ok(found)
}

/// The numbers between two rows that neither a row nor a noted hole has.
fn unexplained(before: Seq, row: Seq, holes: &[SeqRange]) -> Vec<SeqRange> {
    let mut gaps = Vec::new();
    let mut expected = before.next();
    for hole in holes.iter().filter(|hole| hole.last > before && hole.first < row) {
        if hole.first > expected {
            gaps.push(SeqRange { first: expected, last: Seq(hole.first.0.saturating_sub(1)) });
        }
        expected = expected.max(hole.last.next());
    }
    if expected < row {
        gaps.push(SeqRange { first: expected, last: Seq(row.0.saturating_sub(1)) });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange { first: Seq(first), last: Seq(last) }
    }

    #[test]
    fn a_gap_that_no_hole_explains_is_named_and_the_others_are_not() {
        let found = |before, row, holes: &[SeqRange]| unexplained(Seq(before), Seq(row), holes);
        assert_eq!(found(4, 5, &[]), []);
        assert_eq!(found(4, 8, &[]), [range(5, 7)]);
        assert_eq!(found(4, 8, &[range(5, 7)]), []);
        assert_eq!(
            found(4, 20, &[range(1, 2), range(6, 7), range(10, 12), range(30, 40)]),
            [range(5, 5), range(8, 9), range(13, 19)]
        );
    }

    #[test]
    fn a_cursor_after_the_newest_event_is_named_and_a_mark_is_none() {
        let cursors = |pairs: &[(&str, u64)]| pairs.iter().map(|(lane, seq)| ((*lane).to_owned(), Seq(*seq))).collect();
        assert_eq!(beyond(&cursors(&[("alerts", 7), ("document:a/b", 1)]), Seq(7)), Vec::<String>::new());
        let found = beyond(&cursors(&[("readings", 8), ("document:a/b", 1)]), Seq(0));
        assert_eq!(found, ["the cursor readings stands at 8, after the newest event 0"]);
    }
}
