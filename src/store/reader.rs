//! Reads what is committed: events in the order of their numbers, runs of the daemon, cursors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::{Mutex, watch};

use super::codec::{self, BadRow, Stream, row_id, seq_of, stamp};
use super::directory::Directory;
use super::resume::{self, ResumePoint};
use super::{PageWanted, SeqRange, StoreError, chat, past, records, schema};
use crate::clock::{Stamp, Wall};
use crate::event::Event;
use crate::ids::{DeviceId, Epoch, Seq};
use crate::record::RecordKey;
use crate::timeline::Timeline;

/// Most events that one call returns.
pub const MAX_READ: usize = 10_000;
/// Streams that are remembered; beyond that all are forgotten and looked up again.
const MAX_STREAMS: usize = 4096;

/// One run of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochInfo {
    /// Its name.
    pub epoch: Epoch,
    /// The boot of the machine it ran in.
    pub boot_id: String,
    /// The number of its first event. If the next run begins at the same number, this one stored nothing.
    pub first_seq: Seq,
    /// When it began.
    pub started: Stamp,
    /// When it ended; `None` while it runs, or if it was killed.
    pub ended: Option<Stamp>,
}

/// Reads the log. Where it meets damage ([`StoreError::is_damage`]) it calls the writer, which salvages the database; until
/// then what it can read is read.
///
/// Cheap to clone; all clones share one connection, and calls wait for each other. Pages of the past and searches, which may
/// look through many rows, have another one, so that a listener that resumes does not wait for them; and the uplink has one
/// of its own ([`Self::of_uplink`]), so that an alert waits for nobody.
#[derive(Debug, Clone)]
pub struct Reader {
    side: Arc<Mutex<ReadSide>>,
    searches: Arc<Mutex<ReadSide>>,
    uplink: Arc<Mutex<ReadSide>>,
}

#[derive(Debug)]
pub(super) struct ReadSide {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) streams: HashMap<i64, Stream>,
    /// Which of the databases that took each other's place in this run is open.
    generation: u64,
    /// What is known of clocks now: rows are read with the times that they have by it.
    pub(super) timeline: watch::Receiver<Arc<Timeline>>,
    /// Keeps the state directory locked while anybody can read.
    pub(super) directory: Arc<Directory>,
}

/// Which rows of a part a read wants.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: Seq,
    through: Seq,
    limit: usize,
}

/// The two tables that share one numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Readings,
    Others,
    /// Of the others what is urgent.
    Urgent,
    /// Of the others what is not.
    Unhurried,
    /// Of the others the audit trail, the newest that fit.
    Audit,
    /// Readings, the newest that fit.
    LastReadings,
    /// The others, the newest that fit.
    LastOthers,
}

impl Reader {
    /// Opens connections of its own to the database in `directory`.
    pub(super) fn open(
        directory: &Arc<Directory>,
        timeline: &watch::Receiver<Arc<Timeline>>,
    ) -> Result<Self, StoreError> {
        Self::open_by(directory, timeline, |path| {
            schema::connect_reader(path).map_err(StoreError::sqlite(path, "cannot open it for reading"))
        })
    }

    /// The same on a disk that takes no writes.
    pub(super) fn open_frozen(
        directory: &Arc<Directory>,
        timeline: &watch::Receiver<Arc<Timeline>>,
    ) -> Result<Self, StoreError> {
        Self::open_by(directory, timeline, schema::connect_frozen)
    }

    fn open_by(
        directory: &Arc<Directory>,
        timeline: &watch::Receiver<Arc<Timeline>>,
        connecting: fn(&Path) -> Result<Connection, StoreError>,
    ) -> Result<Self, StoreError> {
        let path = directory.database();
        let connect = || -> Result<_, StoreError> {
            let connection = connecting(&path)?;
            let (path, generation, timeline) = (path.clone(), directory.generation(), timeline.clone());
            let (streams, directory) = (HashMap::new(), Arc::clone(directory));
            Ok(Arc::new(Mutex::new(ReadSide { path, connection, streams, generation, timeline, directory })))
        };
        Ok(Self { side: connect()?, searches: connect()?, uplink: connect()? })
    }

    /// The same for the uplink, which waits for no listener and no page that somebody looks at.
    #[must_use]
    pub fn of_uplink(&self) -> Self {
        Self { side: Arc::clone(&self.uplink), ..self.clone() }
    }

    /// The events after `after` in the order of their numbers, at most `limit` and [`MAX_READ`].
    ///
    /// Numbers may be missing where rows were dropped or never stored; [`Self::resume_point`] tells which.
    pub async fn events(&self, after: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through: Seq(u64::MAX), limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Readings, Part::Others])).await
    }

    /// The events after `after` and up to `through`, at most `limit` and [`MAX_READ`], oldest first.
    pub async fn events_through(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Readings, Part::Others])).await
    }

    /// The readings after `after` and up to `through`, at most `limit` and [`MAX_READ`], oldest first.
    pub async fn readings(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Readings])).await
    }

    /// The events that are not readings after `after` and up to `through`, at most `limit` and [`MAX_READ`], oldest
    /// first.
    pub async fn events_but_readings(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Others])).await
    }

    /// The urgent events ([`EventBody::is_urgent`](crate::event::EventBody::is_urgent)) after `after` and up to `through`,
    /// at most `limit` and [`MAX_READ`], oldest first.
    pub async fn urgent_events(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Urgent])).await
    }

    /// The events after `after` and up to `through` that are neither readings nor urgent, at most `limit` and
    /// [`MAX_READ`], oldest first.
    pub async fn unhurried_events(&self, after: Seq, through: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.read(move |side| side.events(span, &[Part::Unhurried])).await
    }

    /// The newest event of each alert that has not ended, oldest first.
    pub async fn standing_alerts(&self) -> Result<Vec<Event>, StoreError> {
        self.read(|side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                let runs = epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
                let failed = StoreError::sqlite(path, "cannot read the alerts that stand");
                let mut statement = transaction.prepare_cached(codec::SELECT_STANDING).map_err(&failed)?;
                let mut rows = statement.query([]).map_err(&failed)?;
                let mut events = Vec::new();
                while let Some(row) = rows.next().map_err(&failed)? {
                    let seq = seq_of(row.get(0).map_err(&failed)?);
                    match epoch_of(&runs, seq).and_then(|epoch| codec::event_row(row, epoch)) {
                        Ok(event) => events.push(timeline.rebased(event)),
                        // One that cannot be read must not hide the others.
                        Err(bad) => tracing::error!(error = %bad.at(path, seq), "an alert that stands is left out"),
                    }
                }
                Ok(events)
            })
        })
        .await
    }

    /// The rows of the audit trail before `before`, at most `limit` and [`MAX_READ`], the newest first.
    pub async fn audit(&self, before: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let through = Seq(before.0.saturating_sub(1));
        let span = Span { after: Seq::ZERO, through, limit: limit.min(MAX_READ) };
        let mut rows = self.search(move |side| side.events(span, &[Part::Audit])).await?;
        rows.reverse();
        Ok(rows)
    }

    /// The newest events before `before` and not before `first`, at most `limit` and [`MAX_READ`], oldest first.
    pub async fn events_before(&self, before: Seq, first: Seq, limit: usize) -> Result<Vec<Event>, StoreError> {
        let (after, through) = (Seq(first.0.saturating_sub(1)), Seq(before.0.saturating_sub(1)));
        let span = Span { after, through, limit: limit.min(MAX_READ) };
        self.search(move |side| side.events(span, &[Part::LastReadings, Part::LastOthers])).await
    }

    /// The last event that was published before `time`; [`Seq::ZERO`] if there is none. Where the clock was set back it
    /// is one of several such places.
    pub async fn last_before(&self, time: Wall) -> Result<Seq, StoreError> {
        self.search(move |side| {
            let timeline = side.timeline();
            side.in_transaction(|path, transaction| {
                past::last_before(transaction, &timeline, time).map_err(StoreError::sqlite(path, "cannot read events"))
            })
        })
        .await
    }

    /// The runs of the daemon, oldest first. The last one is this run.
    pub async fn epochs(&self) -> Result<Vec<EpochInfo>, StoreError> {
        self.read(|side| {
            side.in_transaction(|path, transaction| epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO)))
        })
        .await
    }

    /// How far `lane` has come; [`Seq::ZERO`] if it never moved.
    pub async fn cursor(&self, lane: &str) -> Result<Seq, StoreError> {
        let lane = lane.to_owned();
        self.query(move |transaction| {
            let sql = "SELECT seq FROM cursor WHERE lane = ?1";
            let found = transaction.query_row(sql, [lane], |row| row.get(0)).optional()?;
            Ok(found.map_or(Seq::ZERO, seq_of))
        })
        .await
    }

    /// The oldest and the newest number in the log; `None` if it is empty.
    pub async fn bounds(&self) -> Result<Option<SeqRange>, StoreError> {
        self.query(|transaction| {
            let sql = "SELECT min(first), max(last) FROM (
                SELECT min(seq) AS first, max(seq) AS last FROM reading UNION ALL SELECT min(seq), max(seq) FROM event)";
            let ends: (Option<i64>, Option<i64>) =
                transaction.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(match ends {
                (Some(first), Some(last)) => Some(SeqRange { first: seq_of(first), last: seq_of(last) }),
                _ => None,
            })
        })
        .await
    }

    /// Where a listener goes on that last saw `(epoch, seq)`, and what it can no longer get.
    pub async fn resume_point(&self, epoch: &Epoch, seq: Seq) -> Result<ResumePoint, StoreError> {
        let epoch = epoch.clone();
        self.query(move |transaction| resume::find(transaction, epoch.as_str(), seq)).await
    }

    /// Which of the numbers after `after` and up to `last` are no longer in the log.
    pub async fn lost(&self, after: Seq, last: Seq) -> Result<Vec<SeqRange>, StoreError> {
        self.look_up(move |transaction| resume::lost(transaction, after, last)).await
    }

    /// Those of these records of a device that are not on disk.
    pub async fn missing_records(&self, device: &DeviceId, keys: Vec<RecordKey>) -> Result<Vec<RecordKey>, StoreError> {
        let device = device.clone();
        self.query(move |transaction| records::missing(transaction, &device, keys)).await
    }

    /// A page of a room of the care team as one user sees it, the newest message first.
    pub async fn conversation(&self, wanted: PageWanted) -> Result<Vec<Event>, StoreError> {
        self.search(move |side| side.conversation(&wanted)).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut ReadSide) -> Result<T, StoreError> + Send + 'static,
    {
        read_on(&self.side, work).await
    }

    /// Runs `work` on the connection for searches.
    pub(super) async fn search<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut ReadSide) -> Result<T, StoreError> + Send + 'static,
    {
        read_on(&self.searches, work).await
    }

    async fn query<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read(|side| {
            side.in_transaction(|path, transaction| {
                work(transaction).map_err(StoreError::sqlite(path, "cannot read events"))
            })
        })
        .await
    }
}

async fn read_on<T, F>(side: &Arc<Mutex<ReadSide>>, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut ReadSide) -> Result<T, StoreError> + Send + 'static,
{
    let mut side = Arc::clone(side).lock_owned().await;
    tokio::task::spawn_blocking(move || {
        side.follow()?;
        let outcome = work(&mut side);
        // Who only looks leaves no trace: the daemon meets the damage itself.
        if side.directory.is_claimed() && outcome.as_ref().is_err_and(StoreError::is_damage) {
            side.directory.suspect();
        }
        outcome
    })
    .await?
}

impl ReadSide {
    /// Opens the database that has taken the place of a damaged one.
    fn follow(&mut self) -> Result<(), StoreError> {
        let generation = self.directory.generation();
        if generation != self.generation {
            let failed = StoreError::sqlite(&self.path, "cannot open it for reading");
            self.connection = schema::connect_reader(&self.path).map_err(failed)?;
            self.streams.clear();
            self.generation = generation;
        }
        Ok(())
    }

    /// What is known of clocks now.
    pub(super) fn timeline(&self) -> Arc<Timeline> {
        Arc::clone(&self.timeline.borrow())
    }

    /// Runs `work` on one unchanging state of the database.
    pub(super) fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&std::path::Path, &Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction =
            self.connection.transaction().map_err(StoreError::sqlite(&self.path, "cannot read events"))?;
        work(&self.path, &transaction)
    }

    fn conversation(&mut self, wanted: &PageWanted) -> Result<Vec<Event>, StoreError> {
        let timeline = self.timeline();
        self.in_transaction(|path, transaction| {
            let runs = epochs(transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
            chat::page(transaction, wanted, |row| {
                let seq = seq_of(row.get(0).unwrap_or_default());
                let event = epoch_of(&runs, seq).and_then(|epoch| codec::event_row(row, epoch));
                event.map(|event| timeline.rebased(event)).map_err(|bad| bad.at(path, seq))
            })
            .map_err(StoreError::sqlite(path, "cannot read a conversation"))?
        })
    }

    fn events(&mut self, span: Span, parts: &[Part]) -> Result<Vec<Event>, StoreError> {
        let timeline = self.timeline();
        let Self { path, connection, streams, .. } = self;
        let failed = StoreError::sqlite(path, "cannot read events");
        let transaction = connection.transaction().map_err(&failed)?;
        let runs = epochs(&transaction).map_err(|bad| bad.at(path, Seq::ZERO))?;
        let most = i64::try_from(span.limit).unwrap_or(i64::MAX);

        let mut events = Vec::new();
        for part in parts {
            let sql = match part {
                Part::Readings => codec::SELECT_READINGS,
                Part::Others => codec::SELECT_EVENTS,
                Part::Urgent => codec::SELECT_URGENT,
                Part::Unhurried => codec::SELECT_UNHURRIED,
                Part::Audit => codec::SELECT_AUDIT,
                Part::LastReadings => codec::SELECT_LAST_READINGS,
                Part::LastOthers => codec::SELECT_LAST_EVENTS,
            };
            let mut statement = transaction.prepare_cached(sql).map_err(&failed)?;
            let mut rows = statement.query(params![row_id(span.after), most, row_id(span.through)]).map_err(&failed)?;
            while let Some(row) = rows.next().map_err(&failed)? {
                let seq = seq_of(row.get(0).map_err(&failed)?);
                let event = epoch_of(&runs, seq).and_then(|epoch| match part {
                    Part::Readings | Part::LastReadings => {
                        codec::reading_row(row, epoch, |id| find_stream(&transaction, streams, id))
                    }
                    Part::Others | Part::Urgent | Part::Unhurried | Part::Audit | Part::LastOthers => {
                        codec::event_row(row, epoch)
                    }
                });
                events.push(timeline.rebased(event.map_err(|bad| bad.at(path, seq))?));
            }
        }
        // Two rising runs: the sort only merges them.
        events.sort_by_key(|event| event.seq);
        if parts.contains(&Part::LastOthers) {
            events.drain(..events.len().saturating_sub(span.limit));
        }
        events.truncate(span.limit);
        Ok(events)
    }
}

/// The run that gave a number.
pub(super) fn epoch_of(runs: &[EpochInfo], seq: Seq) -> Result<Epoch, BadRow> {
    let after_it = runs.partition_point(|run| run.first_seq <= seq);
    let run = after_it.checked_sub(1).and_then(|place| runs.get(place));
    run.map(|run| run.epoch.clone()).ok_or_else(|| BadRow::Content("it belongs to no run".to_owned()))
}

/// What the stream `id` stands for, remembered or looked up.
pub(super) fn find_stream(
    transaction: &Transaction<'_>,
    streams: &mut HashMap<i64, Stream>,
    id: i64,
) -> Result<Stream, BadRow> {
    if let Some(stream) = streams.get(&id) {
        return Ok(stream.clone());
    }
    let mut statement = transaction.prepare_cached(codec::SELECT_STREAM)?;
    let mut rows = statement.query([id])?;
    let row = rows.next()?.ok_or_else(|| BadRow::Content(format!("its stream {id} is missing")))?;
    let stream = codec::stream_row(row)?;
    if streams.len() >= MAX_STREAMS {
        streams.clear();
    }
    streams.insert(id, stream.clone());
    Ok(stream)
}

/// The runs of the daemon, oldest first.
pub(super) fn epochs(transaction: &Transaction<'_>) -> Result<Vec<EpochInfo>, BadRow> {
    let mut statement = transaction.prepare_cached(
        "SELECT name, boot, first_seq, started_mono, started_wall, ended_mono, ended_wall FROM epoch ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut epochs = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let ended: (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
        epochs.push(EpochInfo {
            epoch: name.parse().map_err(|error: crate::ids::BadId| BadRow::Content(error.to_string()))?,
            boot_id: row.get(1)?,
            first_seq: seq_of(row.get(2)?),
            started: stamp(row.get(3)?, row.get(4)?),
            ended: ended.0.zip(ended.1).map(|(mono, wall)| stamp(mono, wall)),
        });
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Stamp;
    use crate::store::{StoreOptions, open};

    #[tokio::test]
    async fn the_uplink_waits_neither_for_listeners_nor_for_pages_of_the_past() {
        let folder = tempfile::tempdir().unwrap();
        let epoch = Epoch::from_bits(1);
        let reader = open(folder.path(), &StoreOptions::default(), epoch, "boot", Stamp::default()).unwrap().reader;
        let (search, listener) = (reader.searches.lock().await, reader.side.lock().await);
        let limit = Duration::from_mins(1);
        let uplink = reader.of_uplink();
        let found = tokio::time::timeout(limit, uplink.events_but_readings(Seq::ZERO, Seq(9), 9)).await;
        assert_eq!(found.unwrap().unwrap(), []);
        drop(listener);
        let found = tokio::time::timeout(limit, reader.events(Seq::ZERO, 9)).await;
        assert_eq!(found.unwrap().unwrap(), []);
        // What may look through much is behind the others.
        let last = tokio::select! {
            biased;
            _ = reader.audit(Seq(9), 9) => "audit",
            _ = reader.events_before(Seq(9), Seq(1), 9) => "events_before",
            _ = reader.last_before(Wall(0)) => "last_before",
            _ = reader.lost(Seq(1), Seq(9)) => "lost",
            _ = reader.conversation(PageWanted { room: "r".into(), user: "u".into(), before: Seq(9), limit: 9 }) => "page",
            // All of them have been asked by now, and wait.
            () = std::future::ready(()) => "nobody",
        };
        assert_eq!(last, "nobody");
        drop(search);
        assert_eq!(reader.audit(Seq(9), 9).await.unwrap(), []);
    }

    #[test]
    fn a_page_of_the_audit_trail_looks_at_nothing_else() {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::migrate(&mut connection, std::path::Path::new("memory"), schema::MIGRATIONS).unwrap();
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {}", codec::SELECT_AUDIT))
            .unwrap()
            .query_map(params![0, 9, 9], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].contains("INDEX audit_trail (seq>? AND seq<?)"), "{plan:?}");
    }
}
