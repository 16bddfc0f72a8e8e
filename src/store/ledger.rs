//! The connection that writes: one transaction a batch, with the alerts, cursors and clean-up that belong to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tracing::error;

use super::codec::{self, Stream, StreamKey, row_id, seq_of};
use super::directory::{Directory, Suspicion};
use super::handle::Moves;
use super::retention::Keeper;
use super::salvage::Replacement;
use super::{
    DeviceIdentity, DroppedRows, KeptChanges, KeptObservation, ResendOrder, SalvageReport, SeqRange, StoreError,
    StoreOptions, chat, clock_epochs, inbox, orders, parked, records, schema, times,
};
use crate::clock::{Stamp, Wall};
use crate::derive::live::ENTRY_LIFE;
use crate::event::{AlertEvent, AuditAction, AuditEvent, AuditResult, Event, EventBody, LimitsEvent, ObservationEvent};
use crate::ids::{DeviceId, Epoch, PatientId, Seq, SourceId};
use crate::notifier::{MAX_ACKED, Saved};
use crate::record::KnownRecords;
use crate::timeline::{ClockEpoch, Timeline};

/// Streams whose numbers are remembered: 40 patients with 20 metrics and five qualities each. Beyond that all are
/// forgotten and looked up again.
const MAX_STREAMS: usize = 4096;
/// Runs of the daemon that are kept at least, so that a listener of long ago still resumes.
const KEPT_EPOCHS: i64 = 1000;
/// A database of up to this size is checked after a crash; the check reads all of it (two seconds from an SD card).
const CHECKED_BYTES: u64 = 64 << 20;

/// Events that are looked through at a start for what people entered: many days of them, and a second of reading.
const MAX_LOOKED_THROUGH: i64 = 200_000;

/// When the last run ended, or its last event if it did not end by itself; null before the first.
const LAST_SEEN: &str = "SELECT ifnull((SELECT ended_wall FROM epoch ORDER BY id DESC LIMIT 1),
    (SELECT wall FROM event ORDER BY seq DESC LIMIT 1))";

/// The number of the first event since this boot; null before its first run.
const FIRST_OF_BOOT: &str =
    "SELECT min(first_seq) FROM epoch WHERE id > ifnull((SELECT max(id) FROM epoch WHERE boot <> ?1), 0)";

/// The newest number anything in the database knows. A cursor or a hole may be ahead of the rows after a salvage.
const NEWEST: &str = "SELECT max(
    ifnull((SELECT max(seq) FROM reading), 0), ifnull((SELECT max(seq) FROM event), 0),
    ifnull((SELECT max(last) FROM hole), 0), ifnull((SELECT max(seq) FROM cursor), 0),
    ifnull((SELECT max(first_seq) - 1 FROM epoch), 0))";

/// The database, for writing.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    connection: Connection,
    streams: HashMap<Stream, i64>,
    cursors: BTreeMap<String, Seq>,
    /// What is to be sent again. As many as there may be orders.
    orders: Vec<ResendOrder>,
    newest: Seq,
    /// How many rows the broker did not take.
    parked: u64,
    keeper: Keeper,
    /// This run, once it has begun.
    run: Option<Run>,
    /// It has its row. A run that began on a disk that fails has none yet.
    is_entered: bool,
    /// A new database that is to take the place of a damaged one, if that was begun and has failed.
    replacement: Option<Replacement>,
    /// What was lost by a replacement that was damaged in its turn, and that nobody was told.
    untold: Vec<SeqRange>,
}

/// One run of the daemon, as its row says it.
#[derive(Debug, Clone)]
struct Run {
    epoch: Epoch,
    boot: String,
    first: Seq,
    began: Stamp,
}

/// What a commit did besides storing the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// The newest stored number.
    pub(super) newest: Seq,
    /// Where rows were dropped that were not acknowledged.
    pub(super) dropped: Option<SeqRange>,
    /// Cursors that are ahead of the log.
    pub(super) ahead: BTreeMap<String, Seq>,
    /// How many rows the broker did not take.
    pub(super) parked: u64,
    /// Of these, those that have just left the log for want of space.
    pub(super) parked_gone: Option<DroppedRows>,
}

impl Ledger {
    /// Opens the database, checks it if there is reason to, and brings its tables up to date.
    pub(super) fn open(path: &Path, suspicion: &Suspicion) -> Result<Self, StoreError> {
        let failed = StoreError::sqlite(path, "cannot open it");
        let mut connection = schema::connect_writer(path).map_err(&failed)?;
        schema::migrate(&mut connection, path, schema::MIGRATIONS)?;
        let crashed: bool = connection
            .query_row("SELECT ended_mono IS NULL FROM epoch ORDER BY id DESC LIMIT 1", [], |row| row.get(0))
            .optional()
            .map_err(&failed)?
            .unwrap_or(false);
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if suspicion.exists() || (crashed && bytes <= CHECKED_BYTES) {
            look_through(&connection, path)?;
            suspicion.settle()?;
        }
        Self::on(connection, path)
    }

    /// What a disk that takes no writes lets be read: the numbering and what earlier runs left. [`Self::catch_up`] opens it in
    /// earnest.
    pub(super) fn look_at(path: &Path) -> Result<Self, StoreError> {
        Self::on(schema::connect_frozen(path)?, path)
    }

    fn on(connection: Connection, path: &Path) -> Result<Self, StoreError> {
        let mut ledger = Self {
            path: path.to_owned(),
            connection,
            streams: HashMap::new(),
            cursors: BTreeMap::new(),
            orders: Vec::new(),
            newest: Seq::ZERO,
            parked: 0,
            keeper: Keeper::default(),
            run: None,
            is_entered: false,
            replacement: None,
            untold: Vec::new(),
        };
        ledger.load().map_err(StoreError::sqlite(path, "cannot open it"))?;
        Ok(ledger)
    }

    /// Reads again what is remembered of the database.
    fn load(&mut self) -> rusqlite::Result<()> {
        self.streams.clear();
        self.newest = self.connection.query_row(NEWEST, [], |row| row.get(0)).map(seq_of)?;
        let mut statement = self.connection.prepare("SELECT lane, seq FROM cursor")?;
        let cursors = statement.query_map([], |row| Ok((row.get(0)?, seq_of(row.get(1)?))))?;
        self.cursors = cursors.collect::<rusqlite::Result<_>>()?;
        drop(statement);
        self.orders = orders::load(&self.connection)?;
        self.parked = parked::count(&self.connection)?;
        Ok(())
    }

    /// Opens the file again after an error: what the system still holds of a failed write cannot be trusted.
    ///
    /// Returns the newest stored number: a commit that reported an error may have reached the disk all the same.
    pub(super) fn reopen(&mut self) -> Result<Seq, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot open it again");
        self.connection = schema::connect_writer(&self.path).map_err(&failed)?;
        self.keeper.limit_pages(&self.connection).map_err(&failed)?;
        self.load().map_err(&failed)?;
        Ok(self.newest)
    }

    /// The rows of salvage are written through the same connection.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sets the limits of space and age.
    pub(super) fn limit(&mut self, max_bytes: u64, options: &StoreOptions) -> Result<(), StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot limit its size");
        self.keeper.limit(max_bytes, options);
        self.keeper.limit_pages(&self.connection).map_err(failed)
    }

    /// Raises the limit of space, if this is more.
    pub(super) fn grow(&mut self, max_bytes: u64) -> Result<(), StoreError> {
        if self.keeper.grow(max_bytes) {
            let failed = StoreError::sqlite(&self.path, "cannot raise its limit of size");
            self.keeper.limit_pages(&self.connection).map_err(failed)?;
        }
        Ok(())
    }

    /// Begins a run of the daemon; returns the number of its first event.
    pub(super) fn begin_epoch(&mut self, epoch: &Epoch, boot: &str, now: Stamp) -> Result<Seq, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot begin a new run in it");
        self.load().map_err(&failed)?;
        let first = self.newest.next();
        let run = Run { epoch: epoch.clone(), boot: boot.to_owned(), first, began: now };
        // Of a boot whose last events never came to the disk: they say nothing about this run's.
        clock_epochs::forget_ahead(&self.connection, first, boot).map_err(&failed)?;
        self.enter(&run).map_err(failed)?;
        self.run = Some(run);
        Ok(first)
    }

    /// Begins a run on a disk that takes no writes; returns the number of its first event. Its row is owed.
    pub(super) fn begin_late(&mut self, epoch: &Epoch, boot: &str, now: Stamp) -> Seq {
        let first = self.newest.next();
        self.run = Some(Run { epoch: epoch.clone(), boot: boot.to_owned(), first, began: now });
        first
    }

    /// Opens the database in earnest, if the disk let it only be read so far.
    ///
    /// # Errors
    /// Those of [`Self::open`]; [`StoreError::OutOfOrder`]: it has numbers that could not be read and that this run has given
    /// too. Nothing but another run helps.
    pub(super) fn catch_up(&mut self, directory: &Directory) -> Result<(), StoreError> {
        let Some(run) = self.run.clone().filter(|_| !self.is_entered) else { return Ok(()) };
        directory.finish_replacement()?;
        directory.create_database()?;
        let Self { connection, newest, .. } = Self::open(&self.path, &directory.suspicion())?;
        if newest >= run.first {
            return Err(StoreError::OutOfOrder { seq: run.first, newest });
        }
        let failed = StoreError::sqlite(&self.path, "cannot begin this run in it");
        self.connection = connection;
        clock_epochs::forget_ahead(&self.connection, run.first, &run.boot).map_err(&failed)?;
        self.enter(&run).map_err(failed)?;
        directory.renew();
        Ok(())
    }

    /// Writes the row of this run, unless it is there.
    fn enter(&mut self, run: &Run) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Run { epoch, boot, first, began } = run;
        transaction.execute(
            "INSERT INTO epoch (name, boot, first_seq, started_mono, started_wall) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO NOTHING",
            params![epoch.as_str(), boot, row_id(*first), began.mono.0.cast_signed(), began.wall.0],
        )?;
        forget_epochs(&transaction)?;
        clock_epochs::forget(&transaction)?;
        times::note(&transaction, self.newest)?;
        let boot_first = transaction.query_row(FIRST_OF_BOOT, [boot], |row| row.get(0))?;
        transaction.commit()?;
        self.keeper.booted_at(seq_of(boot_first));
        self.keeper.know(clock_epochs::load(&self.connection)?);
        self.is_entered = true;
        Ok(())
    }

    /// Reads the whole database anew, as after a start; an error if it is damaged.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        self.reopen()?;
        look_through(&self.connection, &self.path)
    }

    /// Replaces a damaged database by one with what can be read of it, in the middle of a run: the numbering, the limits
    /// and the run itself go on.
    pub(super) fn mend(
        &mut self,
        directory: &Directory,
        problem: &StoreError,
        now: Stamp,
    ) -> Result<SalvageReport, StoreError> {
        // Closed before it is moved, see `Replacement`. Nothing can be stored meanwhile, nor after a failure: the database
        // in its place has no tables.
        self.connection =
            Connection::open_in_memory().map_err(StoreError::sqlite(&self.path, "cannot let go of it"))?;
        let mut replacement = match self.replacement.take() {
            Some(begun) => begun,
            None => Replacement::fill(directory, problem, Some(self.newest))?,
        };
        match self.go_on_with(&mut replacement, directory, now) {
            Ok(()) => {
                directory.renew();
                Ok(replacement.into_report().after(std::mem::take(&mut self.untold)))
            }
            // The disk has spoilt the new one too: it is replaced in its turn, where what is lost by now is no news.
            Err(error) if error.is_damage() => {
                let report = replacement.into_report().after(std::mem::take(&mut self.untold));
                self.untold = report.lost;
                Err(error)
            }
            Err(error) => {
                // What is done stays done: another try would take the new database for the damaged one.
                self.replacement = Some(replacement);
                Err(error)
            }
        }
    }

    /// Takes up a database with what could be read of the damaged one, and puts back what memory knows better.
    fn go_on_with(
        &mut self,
        replacement: &mut Replacement,
        directory: &Directory,
        now: Stamp,
    ) -> Result<(), StoreError> {
        self.connection = replacement.finish(directory, now)?.connection;
        let failed = StoreError::sqlite(&self.path, "cannot go on with it");
        self.keeper.limit_pages(&self.connection).map_err(&failed)?;
        put_back(&mut self.connection, &self.cursors, &self.orders, self.keeper.timeline().epochs())
            .map_err(&failed)?;
        self.load().map_err(&failed)?;
        if let Some(run) = self.run.clone() {
            self.enter(&run).map_err(failed)?;
        }
        Ok(())
    }

    /// The latest state of each alert that has not ended, oldest change first.
    ///
    /// One that cannot be read is left out with an error in the log: the next readings raise it again, and without
    /// this the bridge would not start at all.
    pub(super) fn open_alerts(&self) -> Result<Vec<AlertEvent>, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot read the open alerts");
        let mut statement =
            self.connection.prepare("SELECT alert, body FROM alert_open ORDER BY seq").map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut alerts = Vec::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let id: String = row.get(0).map_err(&failed)?;
            let body: String = row.get(1).map_err(&failed)?;
            match serde_json::from_str(&body) {
                Ok(alert) => alerts.push(alert),
                Err(error) => error!(alert = %id, %error, "an open alert of the last run cannot be restored"),
            }
        }
        Ok(alerts)
    }

    /// The changes of limits that people made and that held when the last run ended.
    ///
    /// One that cannot be read is named instead (patient and rule): the patient then has the limits of the rule file, and
    /// somebody has to be told.
    pub(super) fn limit_changes(&self) -> Result<KeptChanges, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot read the changes of limits");
        let mut statement = self
            .connection
            .prepare("SELECT patient, rule, body FROM limit_change ORDER BY patient, rule, kind")
            .map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let last_run =
            self.connection.query_row(LAST_SEEN, [], |row| row.get(0)).map(|wall: Option<i64>| wall.map(Wall));
        let mut kept = KeptChanges { last_run: last_run.map_err(&failed)?, ..KeptChanges::default() };
        while let Some(row) = rows.next().map_err(&failed)? {
            let (patient, rule): (String, String) = (row.get(0).map_err(&failed)?, row.get(1).map_err(&failed)?);
            let body: String = row.get(2).map_err(&failed)?;
            match serde_json::from_str(&body) {
                Ok(change) => kept.changes.push(change),
                Err(error) => {
                    error!(%patient, %rule, %error, "limits set by a person cannot be restored");
                    kept.unreadable.push(format!("{rule} of {patient}"));
                }
            }
        }
        Ok(kept)
    }

    /// How many rows the broker did not take.
    pub(super) const fn parked(&self) -> u64 {
        self.parked
    }

    /// What is known of clocks.
    pub(super) fn timeline(&self) -> Result<Timeline, StoreError> {
        clock_epochs::load(&self.connection).map_err(StoreError::sqlite(&self.path, "cannot read the clock epochs"))
    }

    /// The newest messages of the care team.
    pub(super) fn messages(&self) -> Result<Vec<(uuid::Uuid, Seq, Wall)>, StoreError> {
        chat::remembered(&self.connection).map_err(StoreError::sqlite(&self.path, "cannot read the conversations"))
    }

    /// What is in the inboxes.
    pub(super) fn inboxes(&self) -> Result<Saved, StoreError> {
        inbox::load(&self.connection).map_err(StoreError::sqlite(&self.path, "cannot read the inboxes"))
    }

    /// What people entered about patients, the latest of each, as far back as it can still hold. The log is read from its
    /// end; what was entered counts for hours, and so only hours of it are read, and [`MAX_LOOKED_THROUGH`] events at most:
    /// the clock may be years behind.
    pub(super) fn observations(&self, boot: &str, now: Stamp) -> Result<Vec<KeptObservation>, StoreError> {
        // Twice the life of an entry, for a clock that was set meanwhile.
        let oldest = now.wall.0.saturating_sub(i64::try_from(2 * ENTRY_LIFE.as_millis()).unwrap_or(i64::MAX));
        let failed = StoreError::sqlite(&self.path, "cannot read what was entered about patients");
        let mut statement = self
            .connection
            .prepare("SELECT kind, wall, seq, body FROM event ORDER BY seq DESC LIMIT ?1")
            .map_err(&failed)?;
        let first_of_boot: Option<i64> =
            self.connection.query_row(FIRST_OF_BOOT, [boot], |row| row.get(0)).map_err(&failed)?;
        let mut rows = statement.query([MAX_LOOKED_THROUGH]).map_err(&failed)?;
        let mut latest: BTreeMap<PatientId, KeptObservation> = BTreeMap::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            if row.get::<_, i64>(1).map_err(&failed)? < oldest {
                break;
            }
            if row.get_ref(0).map_err(&failed)?.as_str().ok() != Some(codec::OBSERVATION) {
                continue;
            }
            let body: String = row.get(3).map_err(&failed)?;
            let seq: i64 = row.get(2).map_err(&failed)?;
            let is_of_this_boot = first_of_boot.is_some_and(|first| first <= seq);
            match serde_json::from_str::<ObservationEvent>(&body) {
                Ok(event) => {
                    latest.entry(event.patient.clone()).or_insert(KeptObservation { event, is_of_this_boot });
                }
                Err(error) => {
                    error!(seq, %error, "what was entered about a patient cannot be restored");
                }
            }
        }
        Ok(latest.into_values().collect())
    }

    /// What each source's device is bound to. A row that cannot be read is left out with an error in the log.
    pub(super) fn identities(&self) -> Result<BTreeMap<SourceId, DeviceIdentity>, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot read the serial numbers of devices");
        let mut statement = self
            .connection
            .prepare("SELECT source, device, serial_number, doubted FROM device_identity")
            .map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut identities = BTreeMap::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let (source, device): (String, String) = (row.get(0).map_err(&failed)?, row.get(1).map_err(&failed)?);
            match (SourceId::try_from(source), device.parse()) {
                (Ok(source), Ok(device)) => {
                    let serial_number = row.get(2).map_err(&failed)?;
                    let doubted = row.get(3).map_err(&failed)?;
                    identities.insert(source, DeviceIdentity { device, serial_number, doubted });
                }
                (source, _) => error!(?source, device = "unreadable", "a device's serial number cannot be restored"),
            }
        }
        Ok(identities)
    }

    /// Which records of sensors are stored.
    pub(super) fn known_records(&self) -> Result<BTreeMap<DeviceId, KnownRecords>, StoreError> {
        records::load(&self.connection, &self.path)
    }

    /// Stores a batch, the moves of cursors and clock epochs in one transaction, synced to the disk when this returns.
    ///
    /// After an error only [`Self::reopen`] may follow: numbers that were given to new streams are void.
    pub(super) fn commit(
        &mut self,
        batch: &[Arc<Event>],
        moves: &Moves,
        clocks: &[ClockEpoch],
    ) -> Result<Committed, StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot store events");
        let moved = &moves.cursors;
        let mut cursors = self.cursors.clone();
        cursors.extend(moved.iter().map(|(lane, seq)| (lane.clone(), *seq)));
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        // What the broker did not take is known before the cursors that have passed it let it go by its age.
        moves.parking.store(&transaction).map_err(&failed)?;
        // Room is made first, so that a database at its limit can take the batch.
        let now = batch.last().map(|event| event.at);
        let dropped = self.keeper.make_room(&transaction, self.newest, &cursors, now).map_err(&failed)?;
        clock_epochs::keep(&transaction, clocks).map_err(&failed)?;
        let newest = append(&transaction, &self.path, &mut self.streams, self.newest, batch)?;
        if times::is_beyond(newest, self.newest) {
            times::note(&transaction, newest).map_err(&failed)?;
        }
        let (parked, parked_gone) = look_at_parked(&transaction, moves, self.parked, &self.keeper).map_err(&failed)?;
        orders::forget(&transaction, &moves.resent).map_err(&failed)?;
        let mut ahead = BTreeMap::new();
        for (lane, seq) in moved {
            if *seq > newest {
                ahead.insert(lane.clone(), *seq);
            }
            let stored = newest.min(*seq);
            set_cursor(&transaction, lane, stored).map_err(&failed)?;
            cursors.insert(lane.clone(), stored);
        }
        forget_acked(&transaction, moved).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        self.keeper.made_room(now);
        self.keeper.learn(clocks);
        (self.newest, self.parked) = (newest, parked);
        self.cursors = cursors;
        orders::follow(&mut self.orders, batch, &moves.resent);
        Ok(Committed { newest, dropped, ahead, parked, parked_gone })
    }

    /// Notes that this run ends on purpose, and moves the log into the database file.
    pub(super) fn end_epoch(&mut self, ended: Stamp) -> Result<(), StoreError> {
        let failed = StoreError::sqlite(&self.path, "cannot end this run in it");
        self.connection
            .execute(
                "UPDATE epoch SET ended_mono = ?1, ended_wall = ?2 WHERE id = (SELECT max(id) FROM epoch)",
                params![ended.mono.0.cast_signed(), ended.wall.0],
            )
            .map_err(&failed)?;
        self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").map_err(&failed)
    }
}

/// Stores once more what was on disk before damage may have taken it.
fn put_back(
    connection: &mut Connection,
    cursors: &BTreeMap<String, Seq>,
    resends: &[ResendOrder],
    epochs: &[ClockEpoch],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (lane, seq) in cursors {
        set_cursor(&transaction, lane, *seq)?;
    }
    orders::keep(&transaction, resends)?;
    clock_epochs::keep(&transaction, epochs)?;
    transaction.commit()
}

fn set_cursor(transaction: &Transaction<'_>, lane: &str, seq: Seq) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO cursor (lane, seq) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET seq = ?2")?
        .execute(params![lane, row_id(seq)])
        .map(drop)
}

/// How many rows are parked after these moves, and those of them that have left the log; `before`: how many there were.
fn look_at_parked(
    transaction: &Transaction<'_>,
    moves: &Moves,
    before: u64,
    keeper: &Keeper,
) -> rusqlite::Result<(u64, Option<DroppedRows>)> {
    let may_be_gone = keeper.has_deleted() && (before > 0 || !moves.parking.is_empty());
    let gone = if may_be_gone { parked::note_gone(transaction, keeper.dropped_through())? } else { None };
    let gone = gone.map(|(SeqRange { first, last }, parked)| DroppedRows { first, last, parked });
    let parked = if moves.parking.is_empty() { before } else { parked::count(transaction)? };
    Ok((parked, gone))
}

/// Reads all of a database; an error with the first finding if it is damaged.
fn look_through(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path, "cannot check it");
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found == "ok" {
        return Ok(());
    }
    // The first line only says of which database it is.
    let finding = found.lines().find(|line| !line.starts_with("***")).unwrap_or(&found).to_owned();
    Err(StoreError::Damaged { path: path.to_owned(), finding })
}

/// Places of users on alerts' channels are as many as [`MAX_ACKED`]; of more the ones furthest behind go.
fn forget_acked(transaction: &Transaction<'_>, moved: &BTreeMap<String, Seq>) -> rusqlite::Result<()> {
    if !moved.keys().any(|lane| lane.starts_with("ack:")) {
        return Ok(());
    }
    let sql = "DELETE FROM cursor WHERE lane GLOB 'ack:*' AND rowid NOT IN \
         (SELECT rowid FROM cursor WHERE lane GLOB 'ack:*' ORDER BY seq DESC LIMIT ?1)";
    let most = i64::try_from(MAX_ACKED).unwrap_or(i64::MAX);
    transaction.prepare_cached(sql)?.execute([most]).map(drop)
}

/// Writes the events of a batch; returns the newest number.
fn append(
    transaction: &Transaction<'_>,
    path: &Path,
    streams: &mut HashMap<Stream, i64>,
    mut newest: Seq,
    batch: &[Arc<Event>],
) -> Result<Seq, StoreError> {
    let failed = StoreError::sqlite(path, "cannot store events");
    let mut readings = transaction.prepare_cached(codec::INSERT_READING).map_err(&failed)?;
    for event in batch {
        let expected = newest.next();
        if event.seq < expected {
            return Err(StoreError::OutOfOrder { seq: event.seq, newest });
        }
        if event.seq > expected {
            let hole = params![row_id(expected), row_id(event.seq).saturating_sub(1)];
            transaction.execute("INSERT INTO hole (first, last) VALUES (?1, ?2)", hole).map_err(&failed)?;
        }
        if let EventBody::Reading(reading) = &event.body {
            let stream = stream_number(transaction, streams, StreamKey::of(reading)).map_err(&failed)?;
            codec::insert_reading(&mut readings, event, reading, stream).map_err(&failed)?;
        } else {
            append_event(transaction, path, event)?;
        }
        newest = event.seq;
    }
    Ok(newest)
}

/// Writes an event that is not a reading, and keeps the list of open alerts.
fn append_event(transaction: &Transaction<'_>, path: &Path, event: &Event) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path, "cannot store events");
    let Some(body) = codec::body_text(&event.body) else {
        return Ok(());
    };
    let body = body.map_err(|source| StoreError::Unwritable { seq: event.seq, source })?;
    transaction
        .prepare_cached(codec::INSERT_EVENT)
        .and_then(|mut statement| codec::insert_event(&mut statement, event, &body))
        .map_err(&failed)?;
    inbox::apply(transaction, event, &body).map_err(&failed)?;
    chat::apply(transaction, event).map_err(&failed)?;
    let alert = match &event.body {
        EventBody::Alert(alert) => alert,
        EventBody::Audit(audit) => {
            orders::accept(transaction, audit, event.seq).map_err(&failed)?;
            return keep_identity(transaction, audit).and_then(|()| records::mark(transaction, audit)).map_err(failed);
        }
        EventBody::Record(record) => return records::keep(transaction, record).map_err(failed),
        EventBody::Limits(limits) => return keep_limits(transaction, limits, event.seq, path),
        _ => return Ok(()),
    };
    let id = alert.alert.to_string();
    let changed = if alert.is_present() {
        transaction
            .prepare_cached(
                "INSERT INTO alert_open (alert, seq, body) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET seq = ?2, body = ?3",
            )
            .and_then(|mut statement| statement.execute(params![id, row_id(event.seq), body]))
    } else {
        transaction
            .prepare_cached("DELETE FROM alert_open WHERE alert = ?1")
            .and_then(|mut statement| statement.execute([id]))
    };
    changed.map(drop).map_err(failed)
}

/// The changes of limits that hold after a restart.
fn keep_limits(transaction: &Transaction<'_>, limits: &LimitsEvent, seq: Seq, path: &Path) -> Result<(), StoreError> {
    let failed = StoreError::sqlite(path, "cannot store events");
    let change = &limits.change;
    let (patient, rule, kind) = (change.patient.as_str(), change.rule.as_str(), change.kind.name());
    let done = if limits.action.is_in_force() {
        let body = serde_json::to_string(change).map_err(|source| StoreError::Unwritable { seq, source })?;
        transaction
            .prepare_cached(
                "INSERT INTO limit_change (patient, rule, kind, body) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT DO UPDATE SET body = ?4",
            )
            .and_then(|mut statement| statement.execute(params![patient, rule, kind, body]))
    } else if change.set.is_some() {
        transaction
            .prepare_cached("DELETE FROM limit_change WHERE patient = ?1 AND rule = ?2 AND kind = ?3")
            .and_then(|mut statement| statement.execute(params![patient, rule, kind]))
    } else {
        // One of the rule file is not kept here, and its end is not the end of what a person set beside it.
        return Ok(());
    };
    done.map(drop).map_err(failed)
}

/// What a source must know about its device after a restart.
fn keep_identity(transaction: &Transaction<'_>, audit: &AuditEvent) -> rusqlite::Result<()> {
    let (Some(source), Some(device), AuditResult::Done) = (&audit.source, &audit.device, audit.result) else {
        return Ok(());
    };
    let script = match audit.action {
        AuditAction::DeviceBound | AuditAction::DeviceConfirmed => {
            "INSERT INTO device_identity (source, device, serial_number) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET device = ?2, serial_number = ?3, doubted = NULL"
        }
        AuditAction::DeviceChanged => {
            "INSERT INTO device_identity (source, device, doubted) VALUES (?1, ?2, ?3) \
             ON CONFLICT DO UPDATE SET device = ?2, doubted = ?3"
        }
        _ => return Ok(()),
    };
    transaction.prepare_cached(script)?.execute(params![source.as_str(), device.as_str(), audit.object]).map(drop)
}

/// The number of a stream, remembered or looked up.
fn stream_number(
    transaction: &Transaction<'_>,
    streams: &mut HashMap<Stream, i64>,
    key: StreamKey<'_>,
) -> rusqlite::Result<i64> {
    if let Some(number) = streams.get(&key) {
        return Ok(*number);
    }
    let stream = key.to_stream();
    let mut insert = transaction.prepare_cached(codec::INSERT_STREAM)?;
    let mut find = transaction.prepare_cached(codec::FIND_STREAM)?;
    let number = stream.number(&mut insert, &mut find)?;
    if streams.len() >= MAX_STREAMS {
        streams.clear();
    }
    streams.insert(stream, number);
    Ok(number)
}

/// Forgets runs of long ago of which no row is left.
fn forget_epochs(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute(
        "DELETE FROM epoch WHERE id <= (SELECT max(id) FROM epoch) - ?1 AND id < (
            SELECT max(id) FROM epoch WHERE first_seq <= (
                SELECT min(seq) FROM (SELECT min(seq) AS seq FROM reading UNION ALL SELECT min(seq) FROM event)))",
        [KEPT_EPOCHS],
    )?;
    Ok(())
}
