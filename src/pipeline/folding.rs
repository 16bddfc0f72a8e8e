//! Refused wishes in the audit trail: the first of a user and action stand alone, and the rest of a minute is one row with
//! its count, so that whoever is refused a thousand times fills neither the disk nor its queue. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Mono;
use crate::event::{AuditAction, AuditEvent, AuditResult};

/// Refused rows of one user and action that are written one by one in a minute.
const SINGLY: u32 = 10;

/// How long the others are counted.
const SPAN: Duration = Duration::from_mins(1);

/// Users with an action that are counted at once; one more writes down the one that is due first.
const MAX_COUNTED: usize = 1024;

#[derive(Debug)]
struct Counted {
    until: Mono,
    /// Rows that were written since it began.
    written: u32,
    /// Rows that were not, and the last of them.
    folded: u64,
    last: Option<AuditEvent>,
}

impl Counted {
    fn summary(self) -> Option<AuditEvent> {
        let last = self.last?;
        let reason = last.reason.clone().unwrap_or_default();
        Some(AuditEvent { reason: Some(format!("{reason}; refused {} times within a minute", self.folded)), ..last })
    }
}

/// Who was refused what lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counted: BTreeMap<(String, AuditAction), Counted>,
}

impl Refusals {
    /// The rows to write now for a row that was to be written.
    pub(super) fn fold(&mut self, row: AuditEvent, now: Mono) -> Vec<AuditEvent> {
        let is_bounded = row.by == AuditEvent::BRIDGE || row.action.is_about_connections();
        if row.result != AuditResult::Refused || is_bounded {
            return vec![row];
        }
        let mut rows = self.due(now);
        let key = (row.by.clone(), row.action);
        if self.counted.len() >= MAX_COUNTED && !self.counted.contains_key(&key) {
            let first = self.counted.iter().min_by_key(|(_, counted)| counted.until).map(|(key, _)| key.clone());
            rows.extend(first.and_then(|first| self.counted.remove(&first)).and_then(Counted::summary));
        }
        let begun = Counted { until: now + SPAN, written: 0, folded: 0, last: None };
        let counted = self.counted.entry(key).or_insert(begun);
        if counted.written < SINGLY {
            counted.written += 1;
            rows.push(row);
        } else {
            counted.folded = counted.folded.saturating_add(1);
            counted.last = Some(row);
        }
        rows
    }

    /// The rows of what is over; who goes on has one row a minute from then on.
    pub(super) fn due(&mut self, now: Mono) -> Vec<AuditEvent> {
        let over = |counted: &Counted| counted.until <= now;
        if !self.counted.values().any(over) {
            return Vec::new();
        }
        let mut rows = Vec::new();
        for (key, counted) in self.counted.extract_if(.., |_, counted| over(counted)).collect::<Vec<_>>() {
            if let Some(row) = counted.summary() {
                rows.push(row);
                let goes_on = Counted { until: now + SPAN, written: SINGLY, folded: 0, last: None };
                self.counted.insert(key, goes_on);
            }
        }
        rows
    }

    /// The rows of everything that is counted: this run ends.
    pub(super) fn finish(&mut self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.counted).into_values().filter_map(Counted::summary).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vitals::Mode;

    fn row(by: &str, action: AuditAction, result: AuditResult) -> AuditEvent {
        AuditEvent {
            by: by.to_owned(),
            address: None,
            action,
            object: "spo2_low".to_owned(),
            patient: None,
            device: None,
            source: None,
            result,
            reason: Some("no".to_owned()),
            mode: Mode::Test,
        }
    }

    fn refused(by: &str) -> AuditEvent {
        row(by, AuditAction::LimitsSet, AuditResult::Refused)
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    #[test]
    fn who_is_refused_again_and_again_has_one_row_a_minute_with_a_count() {
        let mut refusals = Refusals::default();
        let rows: Vec<AuditEvent> = (0..1000).flat_map(|_| refusals.fold(refused("otto"), at(0))).collect();
        assert_eq!(rows, vec![refused("otto"); 10]);
        // Others, other actions and what was done are not touched.
        assert_eq!(refusals.fold(refused("lena"), at(1)).len(), 1);
        let done = row("otto", AuditAction::LimitsSet, AuditResult::Done);
        assert_eq!(refusals.fold(done.clone(), at(1)), [done]);
        assert_eq!(refusals.fold(row("otto", AuditAction::RuleDisable, AuditResult::Refused), at(1)).len(), 1);
        assert!(refusals.due(at(59)).is_empty());
        let reasons = |rows: Vec<AuditEvent>| rows.into_iter().filter_map(|row| row.reason).collect::<Vec<_>>();
        assert_eq!(reasons(refusals.due(at(60))), ["no; refused 990 times within a minute"]);
        // He goes on, and stops.
        assert!(refusals.fold(refused("otto"), at(61)).is_empty());
        assert_eq!(reasons(refusals.due(at(120))), ["no; refused 1 times within a minute"]);
        assert!(refusals.due(at(180)).is_empty());
        assert_eq!(refusals.fold(refused("otto"), at(181)).len(), 1, "forgotten");
    }

    #[test]
    fn what_is_counted_is_bounded_and_never_dropped_without_its_row() {
        let mut refusals = Refusals::default();
        for _ in 0..SINGLY + 2 {
            refusals.fold(refused("first"), at(0));
        }
        let rows: Vec<AuditEvent> =
            (0..MAX_COUNTED).flat_map(|number| refusals.fold(refused(&number.to_string()), at(1))).collect();
        assert_eq!(refusals.counted.len(), MAX_COUNTED);
        let of_first: Vec<_> = rows.iter().filter(|row| row.by == "first").collect();
        assert_eq!(of_first.len(), 1);
        assert_eq!(of_first[0].reason.as_deref(), Some("no; refused 2 times within a minute"));
        for _ in 0..SINGLY + 2 {
            refusals.fold(refused("0"), at(2));
        }
        assert_eq!(refusals.finish().len(), 1);
    }
}
