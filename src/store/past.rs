//! Reading backwards: the newest events before a place, and where a time lies in the log.

use rusqlite::{OptionalExtension, Transaction, params};

use super::codec::{row_id, seq_of, stamp};
use crate::clock::Wall;
use crate::ids::Seq;
use crate::timeline::Timeline;

/// The newest row up to a number, with its times.
const NEWEST_UP_TO: &str = "SELECT seq, mono, wall FROM (
    SELECT * FROM (SELECT seq, mono, wall FROM reading WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
    UNION ALL SELECT * FROM (SELECT seq, mono, wall FROM event WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1)
) ORDER BY seq DESC LIMIT 1";

/// The last event that was published before `time`; [`Seq::ZERO`] if there is none.
///
/// Found by halves, because times have no index: where the clock was set back it is one of several such places.
pub(super) fn last_before(transaction: &Transaction<'_>, timeline: &Timeline, time: Wall) -> rusqlite::Result<Seq> {
    let mut statement = transaction.prepare_cached(NEWEST_UP_TO)?;
    let mut newest_up_to = |seq: i64| {
        let found =
            statement.query_row(params![seq], |row| Ok((row.get(0)?, stamp(row.get(1)?, row.get(2)?)))).optional();
        let dated = |(seq, at)| (seq, timeline.placed(seq_of(seq), at).map_or(at.wall, |placed| placed.wall));
        Ok::<_, rusqlite::Error>(found?.map(dated))
    };
    let newest: Option<(i64, Wall)> = newest_up_to(i64::MAX)?;
    // Everything up to `low` is before it, nothing after `high`.
    let (mut low, mut high) = (row_id(Seq::ZERO), newest.map_or(0, |(seq, _)| seq));
    while low < high {
        let middle = low + (high - low + 1) / 2;
        match newest_up_to(middle)? {
            Some((_, wall)) if wall < time => low = middle,
            Some((seq, _)) => high = seq.saturating_sub(1),
            None => low = middle,
        }
    }
    Ok(seq_of(low))
}
