//! When the log says how far a long backlog has come: soon after it begins, then once a minute, and at its end. Pure.

use std::time::Duration;

use super::plan::UplinkStatus;
use crate::clock::Mono;

/// Lines about one backlog, or about several behind a link that comes and goes, are this far apart.
const EVERY: Duration = Duration::from_mins(1);

/// A backlog that is gone sooner needs no line.
const LONG_S: u64 = 10;

/// What is to be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// So many events of the backlog are left, and so many seconds at the pace so far.
    GoesOut { left: u64, seconds: u64 },
    /// All of it has gone out, so long after the first line about it.
    IsOut { took: Duration },
}

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The first line about this backlog.
    first: Option<Mono>,
    /// The last line about any.
    last: Option<Mono>,
}

impl Progress {
    /// The line that is due, if one is.
    pub(super) fn turn(&mut self, status: &UplinkStatus, now: Mono) -> Option<Line> {
        if status.backlog == 0 {
            let first = self.first.take()?;
            return Some(Line::IsOut { took: now.since(first) });
        }
        // Known from a second after its begin, while there is a connection.
        let seconds = status.backlog_seconds.filter(|_| status.connected)?;
        let is_due = self.last.is_none_or(|last| now.since(last) >= EVERY);
        if !is_due || (self.first.is_none() && seconds < LONG_S) {
            return None;
        }
        self.last = Some(now);
        self.first.get_or_insert(now);
        Some(Line::GoesOut { left: status.backlog, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a backlog, of which the status told so much at each of these seconds: what is left, and for how long.
    fn lines(told: &[(u64, u64, Option<u64>)]) -> Vec<(u64, Line)> {
        let mut progress = Progress::default();
        let turn = |&(second, backlog, backlog_seconds): &(u64, u64, Option<u64>)| {
            let status = UplinkStatus { connected: true, backlog, backlog_seconds, ..UplinkStatus::default() };
            progress.turn(&status, Mono::from_millis(second * 1000)).map(|line| (second, line))
        };
        told.iter().filter_map(turn).collect()
    }

    const fn left(left: u64, seconds: u64) -> Line {
        Line::GoesOut { left, seconds }
    }

    #[test]
    fn a_long_backlog_is_told_as_soon_as_its_pace_is_known_then_each_minute_and_at_its_end() {
        let told: Vec<_> = (0..=300).map(|second| (second, 3000 - second * 10, Some(300 - second))).collect();
        let known = told.iter().map(|&(second, left, seconds)| (second, left, seconds.filter(|_| second > 0)));
        assert_eq!(
            lines(&known.collect::<Vec<_>>()),
            [
                (1, left(2990, 299)),
                (61, left(2390, 239)),
                (121, left(1790, 179)),
                (181, left(1190, 119)),
                (241, left(590, 59)),
                (300, Line::IsOut { took: Duration::from_secs(299) }),
            ]
        );
    }

    #[test]
    fn a_backlog_that_is_gone_at_once_is_not_told() {
        assert_eq!(lines(&[(1, 500, None), (2, 400, Some(9)), (3, 300, Some(8)), (4, 0, None), (5, 0, None)]), []);
        // Slower than it looked.
        let slow = [(1, 500, Some(9)), (2, 400, Some(30)), (9, 0, None)];
        let took = Duration::from_secs(7);
        assert_eq!(lines(&slow), [(2, left(400, 30)), (9, Line::IsOut { took })]);
    }

    #[test]
    fn a_link_that_comes_and_goes_makes_no_more_lines() {
        let mut progress = Progress::default();
        let mut said = 0;
        for second in 1..=121 {
            let connected = second % 5 != 0;
            let backlog_seconds = connected.then_some(500);
            let status = UplinkStatus { connected, backlog: 1000, backlog_seconds, ..UplinkStatus::default() };
            said += usize::from(progress.turn(&status, Mono::from_millis(second * 1000)).is_some());
        }
        assert_eq!(said, 3);
    }
}
