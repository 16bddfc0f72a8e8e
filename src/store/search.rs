//! Searches the log for people: readings of a time, whole alerts. Bounded, on a connection of its own.

use std::collections::HashSet;

use rusqlite::{Row, Transaction, params};

use super::codec::{self, BadRow, row_id, seq_of};
use super::reader::{EpochInfo, ReadSide, Reader, epoch_of, epochs, find_stream};
use super::{MAX_READ, StoreError, minutes, redated, times};
use crate::clock::Wall;
use crate::event::Event;
use crate::ids::{AlertId, DeviceId, Epoch, PatientId, Seq};
use crate::timeline::Timeline;
use crate::vitals::{Metric, Mode};

/// Most readings that one search looks at, whether it wants them or not: a second on a small machine.
pub const MAX_SCANNED: u64 = 200_000;

/// Blocks that are looked at in one transaction; other searches have their turn between two.
const BLOCKS_AT_ONCE: i64 = 16;

/// Events that a search for alerts looks at.
const MAX_EVENTS_SCANNED: i64 = 20_000;

/// Changes of one alert that are read.
const MAX_LIFE: i64 = 10_000;

/// What readings have in common that a search chooses by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// Whose. `None`: the device was not assigned.
    pub patient: Option<PatientId>,
    /// The device.
    pub device: DeviceId,
    /// What is measured.
    pub metric: Metric,
    /// Real, demo or test.
    pub mode: Mode,
}

/// Which readings a search wants, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Measured from then on; where nobody knows when, arrived.
    pub from: Wall,
    /// Measured before.
    pub to: Wall,
    /// After this number.
    pub after: Seq,
    /// Up to this number.
    pub through: Seq,
    /// At most so many.
    pub limit: usize,
}

/// How far a search has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// The last number that was looked at, with the run that gave it; a further search goes on after it. `None`: nothing
    /// is left.
    pub next: Option<(Epoch, Seq)>,
}

/// One search under way.
struct Search {
    scan: Scan,
    /// The streams that are wanted.
    streams: HashSet<i64>,
    runs: Vec<EpochInfo>,
    taken: usize,
    looked_at: u64,
}

impl Reader {
    /// Gives `take` the readings that `scan` wants of the streams that `chooses` wants, with what it has gathered so far.
    ///
    /// Looks at [`MAX_SCANNED`] readings at most. What is stored meanwhile is found by a further search.
    ///
    /// # Errors
    /// SQLite failed, or a row makes no reading.
    pub async fn scan<S, F>(
        &self,
        scan: Scan,
        chooses: F,
        mut gathered: S,
        take: fn(&mut S, Event),
    ) -> Result<(S, Scanned), StoreError>
    where
        S: Send + 'static,
        F: Fn(&StreamInfo) -> bool + Send + 'static,
    {
        let mut search = self.search(move |side| begin(side, scan, chooses)).await?;
        loop {
            let (back, so_far, done) = self
                .search(move |side| {
                    let done = advance(side, &mut search, &mut gathered, take)?;
                    Ok((search, gathered, done))
                })
                .await?;
            (search, gathered) = (back, so_far);
            if let Some(scanned) = done {
                return Ok((gathered, scanned));
            }
        }
    }

    /// The streams of the log that `chooses` wants: patient, device, metric and mode once each.
    pub async fn streams<F>(&self, chooses: F) -> Result<Vec<StreamInfo>, StoreError>
    where
        F: Fn(&StreamInfo) -> bool + Send + 'static,
    {
        self.search(move |side| {
            side.in_transaction(|path, transaction| {
                let found = streams(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
                let mut wanted: Vec<StreamInfo> = Vec::new();
                for (_, info) in found {
                    if chooses(&info) && !wanted.contains(&info) {
                        wanted.push(info);
                    }
                }
                Ok(wanted)
            })
        })
        .await
    }

    /// The first time since `from` at which something may have been measured, and the last; `None`: nothing was.
    pub async fn extent(&self, from: Wall) -> Result<Option<(Wall, Wall)>, StoreError> {
        self.search(move |side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                let failed = StoreError::sqlite(path, "cannot find a time");
                let readings = redated::extent(transaction, &timeline, from).map_err(&failed)?;
                let minutes = minutes::extent(transaction, from).map_err(failed)?;
                let ends = readings.into_iter().chain(minutes);
                Ok(ends.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))))
            })
        })
        .await
    }

    /// The latest time up to which one search finds all readings and minutes since `from`; not after `to`.
    pub async fn reach(&self, from: Wall, to: Wall) -> Result<Wall, StoreError> {
        let most = i64::try_from(MAX_SCANNED).unwrap_or(i64::MAX) / times::BLOCK - 2;
        self.search(move |side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                let failed = StoreError::sqlite(path, "cannot find a time");
                let readings = redated::reach(transaction, &timeline, (from, to), most).map_err(&failed)?;
                Ok(readings.min(minutes::reach(transaction, (from, to), minutes::MAX_ROWS).map_err(failed)?))
            })
        })
        .await
    }

    /// The changes of alerts before `before` that `chooses` wants, the newest first, at most `limit` and [`MAX_READ`].
    pub async fn alerts<F>(&self, before: Seq, limit: usize, chooses: F) -> Result<(Vec<Event>, Scanned), StoreError>
    where
        F: Fn(&Event) -> bool + Send + 'static,
    {
        let limit = limit.min(MAX_READ);
        self.search(move |side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                let failed = StoreError::sqlite(path, "cannot read alerts");
                let runs = epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
                let mut statement = transaction.prepare_cached(codec::SELECT_BACKWARDS).map_err(&failed)?;
                let mut rows = statement.query(params![row_id(before), MAX_EVENTS_SCANNED]).map_err(&failed)?;
                let (mut found, mut looked_at) = (Vec::new(), 0);
                while let Some(row) = rows.next().map_err(&failed)? {
                    let seq = seq_of(row.get(0).map_err(&failed)?);
                    looked_at += 1;
                    if row.get_ref(1).map_err(&failed)?.as_str().ok() == Some(codec::ALERT) {
                        let event = epoch_of(&runs, seq).and_then(|epoch| codec::event_row(row, epoch));
                        let event = timeline.rebased(event.map_err(|bad| bad.at(path, seq))?);
                        if chooses(&event) {
                            found.push(event);
                        }
                    }
                    if found.len() >= limit || looked_at >= MAX_EVENTS_SCANNED {
                        let epoch = epoch_of(&runs, seq).map_err(|bad| bad.at(path, seq))?;
                        return Ok((found, Scanned { next: Some((epoch, seq)) }));
                    }
                }
                Ok((found, Scanned { next: None }))
            })
        })
        .await
    }

    /// Every change of one alert, oldest first.
    pub async fn alert_life(&self, alert: AlertId) -> Result<Vec<Event>, StoreError> {
        self.search(move |side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                let failed = StoreError::sqlite(path, "cannot read an alert");
                let runs = epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
                let mut statement = transaction.prepare_cached(codec::SELECT_LIFE).map_err(&failed)?;
                let mut rows = statement.query(params![alert.to_string(), MAX_LIFE]).map_err(&failed)?;
                let mut found = Vec::new();
                while let Some(row) = rows.next().map_err(&failed)? {
                    let seq = seq_of(row.get(0).map_err(&failed)?);
                    let event = epoch_of(&runs, seq).and_then(|epoch| codec::event_row(row, epoch));
                    found.push(timeline.rebased(event.map_err(|bad| bad.at(path, seq))?));
                }
                Ok(found)
            })
        })
        .await
    }
}

fn begin(side: &mut ReadSide, scan: Scan, chooses: impl Fn(&StreamInfo) -> bool) -> Result<Search, StoreError> {
    side.in_transaction(|path, transaction| {
        let found = streams(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
        let streams = found.into_iter().filter(|(_, info)| chooses(info)).map(|(id, _)| id).collect();
        let runs = epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
        Ok(Search { scan, streams, runs, taken: 0, looked_at: 0 })
    })
}

/// Every stream of the log with its number.
fn streams(transaction: &Transaction<'_>) -> Result<Vec<(i64, StreamInfo)>, BadRow> {
    let sql = "SELECT patient, device, source, metric, mdc, mode, quality, time_source, id FROM stream";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let codec::Stream { patient, device, metric, mode, .. } = codec::stream_row(row)?;
        found.push((row.get(8)?, StreamInfo { patient, device, metric, mode }));
    }
    Ok(found)
}

/// Goes on for some blocks; `None`: there is more to do.
fn advance<S>(
    side: &mut ReadSide,
    search: &mut Search,
    gathered: &mut S,
    take: fn(&mut S, Event),
) -> Result<Option<Scanned>, StoreError> {
    let timeline = side.timeline();
    let ReadSide { path, connection, streams, .. } = side;
    let failed = StoreError::sqlite(path, "cannot search readings");
    let transaction = connection.transaction().map_err(&failed)?;
    let scan = search.scan;
    let nothing_left = Ok(Some(Scanned { next: None }));
    if search.streams.is_empty() || scan.from >= scan.to || scan.after >= scan.through {
        return nothing_left;
    }
    let first = times::block_of(scan.after.next());
    let span = (scan.from, scan.to);
    let (blocks, open) = redated::blocks(&transaction, &timeline, first, span, BLOCKS_AT_ONCE).map_err(&failed)?;
    let are_more = i64::try_from(blocks.len()).is_ok_and(|found| found == BLOCKS_AT_ONCE);
    let mut spans: Vec<(Seq, Seq)> = blocks
        .iter()
        .map(|block| {
            (Seq(times::first_of(*block).0.saturating_sub(1)), Seq(times::first_of(block + 1).0.saturating_sub(1)))
        })
        .collect();
    if !are_more {
        // The times of the newest block are not known yet.
        spans.push((Seq(times::first_of(open).0.saturating_sub(1)), Seq(u64::MAX)));
    }
    for (before, last) in spans {
        let (after, last) = (before.max(search.scan.after), last.min(scan.through));
        if after >= last {
            continue;
        }
        let mut statement = transaction.prepare_cached(codec::SELECT_READINGS).map_err(&failed)?;
        let mut rows = statement.query(params![row_id(after), i64::MAX, row_id(last)]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let seq = seq_of(row.get(0).map_err(&failed)?);
            search.looked_at += 1;
            search.scan.after = seq;
            if is_wanted(row, search, &timeline).map_err(&failed)? {
                let event = epoch_of(&search.runs, seq)
                    .and_then(|epoch| codec::reading_row(row, epoch, |id| find_stream(&transaction, streams, id)));
                take(gathered, timeline.rebased(event.map_err(|bad| bad.at(path, seq))?));
                search.taken += 1;
            }
            if search.taken >= scan.limit || search.looked_at >= MAX_SCANNED {
                let epoch = epoch_of(&search.runs, seq).map_err(|bad| bad.at(path, seq))?;
                return Ok(Some(Scanned { next: Some((epoch, seq)) }));
            }
        }
        search.scan.after = search.scan.after.max(last.min(Seq(u64::MAX - 1)));
    }
    if are_more { Ok(None) } else { nothing_left }
}

/// True if the row of [`codec::SELECT_READINGS`] is of a wanted stream and was measured in time.
fn is_wanted(row: &Row<'_>, search: &Search, timeline: &Timeline) -> rusqlite::Result<bool> {
    if !search.streams.contains(&row.get(1)?) {
        return Ok(false);
    }
    let at = codec::stamp(row.get(2)?, row.get(3)?);
    let wall = timeline.placed(seq_of(row.get(0)?), at).map_or(at.wall, |placed| placed.wall);
    let measured = redated::measured(wall, row.get(5)?, row.get(6)?);
    Ok((search.scan.from.0..search.scan.to.0).contains(&measured))
}
