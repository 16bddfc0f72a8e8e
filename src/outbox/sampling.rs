//! Which readings of a stream a listener gets that wants fewer of them: at most so many a second, and small changes later.
//!
//! Whatever is held back is the newest of its stream, and it goes out at the end of its interval if nothing newer has
//! taken its place: the last value before a silence is never an old one. What changes its kind (a number that becomes
//! absent, another quality) and what belongs to an alarm passes at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Published, READING_LANE, Stream};
use crate::clock::Mono;
use crate::event::EventBody;
use crate::ids::PatientId;
use crate::vitals::{Decimal, Metric, Pressure, Reading, Value, Vital};

/// A value inside the deadband is held back no longer than this: shorter than the time after which a number is shown as
/// old, and than what a slow display may be behind.
pub const QUIET: Duration = Duration::from_secs(2);

/// How a listener wants a stream thinned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// At least so long between two readings of a stream.
    pub interval: Duration,
    /// A number that differs by no more than this from the last one sent (of a pressure: each of its parts) may be held
    /// back up to [`QUIET`].
    pub deadband: Option<Decimal>,
}

/// What is known of one stream.
#[derive(Debug)]
struct Sampled {
    sent: Arc<Published>,
    sent_at: Mono,
    /// The newest one that was held back, and until when.
    held: Option<(Arc<Published>, Mono)>,
}

/// The streams of one listener. At most [`READING_LANE`]; of one more every reading passes.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    streams: HashMap<Stream, Sampled>,
    /// When the first held reading is due.
    earliest: Option<Mono>,
}

impl Sampler {
    /// True if the reading goes out now; else it waits here. Its own time is the time.
    pub(super) fn passes(
        &mut self,
        stream: &Stream,
        published: &Arc<Published>,
        sampling: Sampling,
        is_alarmed: bool,
    ) -> bool {
        let now = published.event.at.mono;
        let Some(known) = self.streams.get_mut(stream) else {
            if self.streams.len() < READING_LANE {
                let first = Sampled { sent: Arc::clone(published), sent_at: now, held: None };
                self.streams.insert(stream.clone(), first);
            }
            return true;
        };
        let quiet = match (reading_of(&known.sent), reading_of(published)) {
            (Some(before), Some(after)) => change(before, after, sampling.deadband),
            _ => Change::OfKind,
        };
        let due = match quiet {
            Change::OfKind => now,
            Change::OfValue => known.sent_at + sampling.interval,
            Change::Small => known.sent_at + sampling.interval.max(QUIET),
        };
        if is_alarmed || due <= now {
            *known = Sampled { sent: Arc::clone(published), sent_at: now, held: None };
            return true;
        }
        known.held = Some((Arc::clone(published), due));
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        false
    }

    /// When [`Sampler::due`] has something. It may be earlier than that: what was held has been replaced.
    pub(super) const fn next_due(&self) -> Option<Mono> {
        self.earliest
    }

    /// What was held back long enough.
    pub(super) fn due(&mut self, now: Mono) -> Vec<(Stream, Arc<Published>)> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let found = self.let_go(now, |_, due| due <= now);
        self.earliest = self.streams.values().filter_map(|known| known.held.as_ref().map(|(_, due)| *due)).min();
        found
    }

    /// What was held back of a patient's metric: it has begun to alarm.
    pub(super) fn of(
        &mut self,
        patient: Option<&PatientId>,
        metric: Metric,
        now: Mono,
    ) -> Vec<(Stream, Arc<Published>)> {
        self.let_go(now, |stream, _| stream.0.as_ref() == patient && stream.2 == metric)
    }

    /// Forgets what is not wanted any more.
    pub(super) fn keep(&mut self, is_wanted: impl Fn(&Published) -> bool) {
        self.streams.retain(|_, known| is_wanted(&known.sent));
    }

    /// Forgets a stream of which each reading goes out.
    pub(super) fn forget(&mut self, stream: &Stream) {
        self.streams.remove(stream);
    }

    /// True if it knows no stream.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many readings are held back.
    pub(super) fn held(&self) -> usize {
        self.streams.values().filter(|known| known.held.is_some()).count()
    }

    fn let_go(&mut self, now: Mono, is_meant: impl Fn(&Stream, Mono) -> bool) -> Vec<(Stream, Arc<Published>)> {
        let mut found = Vec::new();
        for (stream, known) in &mut self.streams {
            if let Some((held, _)) = known.held.take_if(|(_, due)| is_meant(stream, *due)) {
                (known.sent, known.sent_at) = (Arc::clone(&held), now);
                found.push((stream.clone(), held));
            }
        }
        // In the order in which they were measured.
        found.sort_by_key(|(_, published)| published.event.seq);
        found
    }
}

fn reading_of(published: &Published) -> Option<&Reading> {
    match &published.event.body {
        EventBody::Reading(reading) => Some(reading),
        _ => None,
    }
}

/// How much a reading differs from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It says something else: there is no number any more, or one again, or the quality is another.
    OfKind,
    /// Another number.
    OfValue,
    /// A number inside the deadband.
    Small,
}

fn change(before: &Reading, after: &Reading, deadband: Option<Decimal>) -> Change {
    if before.quality != after.quality || before.mode != after.mode {
        return Change::OfKind;
    }
    match (&before.vital, &after.vital) {
        (Vital::Scalar { value: before, .. }, Vital::Scalar { value: after, .. }) => {
            change_of(&[(*before, *after)], deadband)
        }
        (Vital::BloodPressure(before), Vital::BloodPressure(after))
        | (Vital::ArterialPressure(before), Vital::ArterialPressure(after)) => {
            change_of(&parts(before, after), deadband)
        }
        // Beats, scores and variability have more to say than one number.
        (before, after) if before.leading().absent() == after.leading().absent() => Change::OfValue,
        _ => Change::OfKind,
    }
}

const fn parts(before: &Pressure, after: &Pressure) -> [(Value, Value); 3] {
    [(before.systolic, after.systolic), (before.diastolic, after.diastolic), (before.mean, after.mean)]
}

fn change_of(pairs: &[(Value, Value)], deadband: Option<Decimal>) -> Change {
    let mut is_small = true;
    for pair in pairs {
        match pair {
            (Value::Valid(before), Value::Valid(after)) => {
                // Decimals of a sensor are far coarser than what binary fractions round.
                let most = deadband.map(|deadband| deadband.to_f64() + 1e-9);
                is_small &= most.is_some_and(|most| (before.to_f64() - after.to_f64()).abs() <= most);
            }
            (Value::Absent(before), Value::Absent(after)) if before == after => {}
            _ => return Change::OfKind,
        }
    }
    if is_small && deadband.is_some() { Change::Small } else { Change::OfValue }
}
