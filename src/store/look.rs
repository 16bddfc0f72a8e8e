//! Looking at the store of a daemon from outside, whether it runs or not: nothing is claimed and nothing written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Transaction;
use tokio::sync::watch;

use super::codec::seq_of;
use super::directory::Directory;
use super::reader::Reader;
use super::{StoreError, clock_epochs, schema};
use crate::ids::Seq;

/// A store that is only looked at.
#[derive(Debug)]
pub struct Look {
    /// Reads what is committed, also while the daemon writes.
    pub reader: Reader,
    /// The daemon that works in the directory, if one does.
    pub owner: Option<Owner>,
}

/// A daemon at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its process, if it said so.
    pub pid: Option<u32>,
}

/// Opens the store in `dir` for reading. Blocks.
///
/// # Errors
/// There is none, it cannot be read, or its tables are not those of this version.
pub fn look(dir: &Path) -> Result<Look, StoreError> {
    let directory = Arc::new(Directory::seen(dir));
    let path = directory.database();
    if let Err(source) = std::fs::metadata(&path) {
        return Err(StoreError::Directory { path, doing: "cannot read it", source });
    }
    let found: u32 = schema::connect_reader(&path)
        .and_then(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)))
        .map_err(StoreError::sqlite(&path, "cannot open it for reading"))?;
    let known = schema::MIGRATIONS.len();
    match usize::try_from(found).unwrap_or(usize::MAX).cmp(&known) {
        std::cmp::Ordering::Less => return Err(StoreError::Older { path, found, known }),
        std::cmp::Ordering::Greater => return Err(StoreError::Newer { path, found, known }),
        std::cmp::Ordering::Equal => {}
    }
    let owner = directory.owner();
    // As it is now: who only looks does not see a clock that is set meanwhile.
    let timeline = schema::connect_reader(&path).and_then(|connection| clock_epochs::load(&connection));
    let timeline = timeline.map_err(StoreError::sqlite(&path, "cannot read the clock epochs"))?;
    let timeline = watch::Sender::new(Arc::new(timeline)).subscribe();
    Ok(Look { reader: Reader::open(&directory, &timeline)?, owner })
}

impl Reader {
    /// How far every reader of the log has come, by the names under which that is kept.
    ///
    /// # Errors
    /// SQLite failed.
    pub async fn cursors(&self) -> Result<BTreeMap<String, Seq>, StoreError> {
        self.look_up(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT lane, seq FROM cursor")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, seq_of(row.get(1)?))))?;
            rows.collect()
        })
        .await
    }

    /// Runs a query on the connection for searches, so that the uplink and listeners do not wait for it.
    pub(super) async fn look_up<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.search(|side| {
            side.in_transaction(|path, transaction| {
                work(transaction).map_err(StoreError::sqlite(path, "cannot look into it"))
            })
        })
        .await
    }
}
