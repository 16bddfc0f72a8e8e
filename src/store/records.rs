//! Which records of sensors are on disk: written in the transaction that stores the record itself, read at the start and
//! before a sensor's memory is emptied.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tracing::error;

use super::StoreError;
use crate::event::{AuditAction, AuditEvent, AuditResult};
use crate::ids::DeviceId;
use crate::record::{KnownRecords, MAX_KNOWN_RECORDS, RecordEvent, RecordKey};

/// Forgets the oldest records after so many new ones of all devices, so that not each new one pays for it.
const FORGET_EVERY: i64 = 256;

/// Notes that a record is stored.
pub(super) fn keep(transaction: &Transaction<'_>, record: &RecordEvent) -> rusqlite::Result<()> {
    let Some(RecordKey(key)) = record.key() else { return Ok(()) };
    let device = record.device.as_str();
    let added = transaction
        .prepare_cached("INSERT INTO known_record (device, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![device, key])?;
    if added > 0 && transaction.last_insert_rowid() % FORGET_EVERY == 0 {
        transaction
            .prepare_cached(
                "DELETE FROM known_record WHERE device = ?1 AND id <= \
                 (SELECT id FROM known_record WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![device, most()])?;
    }
    Ok(())
}

/// Notes how far a device's memory has been taken, where a row of the audit trail says so.
pub(super) fn mark(transaction: &Transaction<'_>, audit: &AuditEvent) -> rusqlite::Result<()> {
    let (Some(device), AuditResult::Done) = (&audit.device, audit.result) else { return Ok(()) };
    match (audit.action, audit.object.parse::<u16>()) {
        (AuditAction::RecordsTaken, Ok(through)) => transaction
            .prepare_cached(
                "INSERT INTO record_mark (device, through) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET through = ?2",
            )?
            .execute(params![device.as_str(), through])
            .map(drop),
        // What is deleted cannot tell any more whether the device still counts as before.
        (AuditAction::RecordsDeleted, _) => transaction
            .prepare_cached("DELETE FROM record_mark WHERE device = ?1")?
            .execute([device.as_str()])
            .map(drop),
        _ => Ok(()),
    }
}

/// What is on disk of each device. A row that cannot be read is left out with an error in the log: the record is taken
/// again when it comes again.
pub(super) fn load(connection: &Connection, path: &Path) -> Result<BTreeMap<DeviceId, KnownRecords>, StoreError> {
    let mut known: BTreeMap<DeviceId, KnownRecords> = BTreeMap::new();
    let rows = |sql: &str, take: &mut dyn FnMut(String, Option<String>, Option<u16>)| -> rusqlite::Result<()> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            take(row.get(0)?, row.get(1)?, row.get(2)?);
        }
        Ok(())
    };
    let mut take = |device: String, key: Option<String>, through: Option<u16>| match device.parse::<DeviceId>() {
        Ok(device) => {
            let records = known.entry(device).or_default();
            records.keys.extend(key.map(RecordKey));
            records.through = through.or(records.through);
        }
        Err(error) => error!(device, %error, "a known record has no device"),
    };
    rows("SELECT device, name, NULL FROM known_record ORDER BY id", &mut take)
        .and_then(|()| rows("SELECT device, NULL, through FROM record_mark", &mut take))
        .map_err(StoreError::sqlite(path, "cannot read which records are known"))?;
    for records in known.values_mut() {
        let too_many = records.keys.len().saturating_sub(MAX_KNOWN_RECORDS);
        records.keys.drain(..too_many);
    }
    Ok(known)
}

/// Those that are not on disk.
pub(super) fn missing(
    transaction: &Transaction<'_>,
    device: &DeviceId,
    keys: Vec<RecordKey>,
) -> rusqlite::Result<Vec<RecordKey>> {
    let mut statement = transaction.prepare_cached("SELECT 1 FROM known_record WHERE device = ?1 AND name = ?2")?;
    let mut missing = Vec::new();
    for key in keys {
        let found: Option<i64> = statement.query_row(params![device.as_str(), key.0], |row| row.get(0)).optional()?;
        if found.is_none() {
            missing.push(key);
        }
    }
    Ok(missing)
}

fn most() -> i64 {
    i64::try_from(MAX_KNOWN_RECORDS).unwrap_or(i64::MAX)
}
