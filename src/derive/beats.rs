//! Heart rate and its variability from the times between beats.
//!
//! The variability is computed without artefacts: an interval is kept if it is 300 to 2000 ms long and within 20 % of the
//! median of the last five that were kept. A difference counts only between neighbours that were both kept.
//!
//! The rate is computed from every interval of 200 to 5000 ms, whatever came before: what kills makes intervals that look
//! like artefacts.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Mono;
use crate::vitals::Decimal;

/// Span of the statistics.
pub const SPAN: Duration = Duration::from_mins(5);
/// Span of the mean from which a heart rate is computed, unless fewer than three beats come in it.
pub const RATE_SPAN: Duration = Duration::from_secs(8);
/// Shortest and longest interval that counts for a rate, in µs: 300 and 12 beats a minute.
const RATE_PLAUSIBLE: std::ops::RangeInclusive<u32> = 200_000..=5_000_000;
/// How late an interval may arrive, because a strap sends about once a second.
const RATE_JITTER: Duration = Duration::from_secs(1);
/// Intervals that a heart rate needs at least.
const RATE_BEATS: usize = 3;
/// Intervals whose median an interval is compared with.
const REFERENCE: usize = 5;
/// After so many artefacts in a row the reference is what was wrong: the heart has another rate now.
const STRANGERS: usize = 10;
/// Shortest and longest interval, in µs.
const PLAUSIBLE: std::ops::RangeInclusive<u32> = 300_000..=2_000_000;
/// Most intervals that are kept: five minutes of the shortest plausible ones.
const MAX_BEATS: usize = 1000;
/// pNN50 counts differences of more than this, in µs.
const NN50: u32 = 50_000;

/// Variability of the heart rate (Task Force of ESC and NASPE, 1996).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variability {
    /// Intervals that were kept.
    pub n: usize,
    /// Intervals that were artefacts.
    pub rejected: usize,
    /// Standard deviation of the intervals (n - 1), in ms.
    pub sdnn_ms: f64,
    /// Root mean square of successive differences, in ms.
    pub rmssd_ms: f64,
    /// Differences of more than 50 ms, in % of all.
    pub pnn50_percent: f64,
}

/// One interval.
#[derive(Debug, Clone, Copy)]
struct Beat {
    /// When it arrived.
    at: Mono,
    /// Its length in µs.
    micros: u32,
    /// It counts for the variability.
    kept: bool,
    /// It begins where the one before it ends.
    joined: bool,
}

/// The beats of one device, of the last five minutes.
#[derive(Debug, Default)]
pub struct Beats {
    intervals: VecDeque<Beat>,
    /// The last that were kept.
    reference: VecDeque<u32>,
    strangers: usize,
    broken: bool,
}

impl Beats {
    /// Takes an interval of 1/1024 s, as straps give it (HRS 1.0, 3.1.1.4).
    pub fn push(&mut self, raw: u16, at: Mono) {
        // Nearest µs; 65535 * 10^6 / 1024 fits.
        let micros = (u64::from(raw) * 1_000_000 + 512) / 1024;
        self.push_micros(u32::try_from(micros).unwrap_or(u32::MAX), at);
    }

    /// Takes an interval in µs.
    pub fn push_micros(&mut self, micros: u32, at: Mono) {
        let kept = self.is_good(micros);
        if kept {
            self.strangers = 0;
            if self.reference.len() >= REFERENCE {
                self.reference.pop_front();
            }
            self.reference.push_back(micros);
        } else {
            self.strangers += 1;
            if self.strangers >= STRANGERS {
                self.reference.clear();
            }
        }
        if self.intervals.len() >= MAX_BEATS {
            self.intervals.pop_front();
        }
        let joined = !std::mem::take(&mut self.broken);
        self.intervals.push_back(Beat { at, micros, kept, joined });
        while self.intervals.front().is_some_and(|beat| at.since(beat.at) > SPAN) {
            self.intervals.pop_front();
        }
    }

    /// Beats were missed: the next interval does not follow the last one.
    pub const fn gap(&mut self) {
        self.broken = true;
    }

    fn is_good(&self, micros: u32) -> bool {
        let mut sorted: Vec<u32> = self.reference.iter().copied().collect();
        sorted.sort_unstable();
        // Doubled, so that the middle of two is exact.
        let low = sorted.get(sorted.len().saturating_sub(1) / 2);
        let high = sorted.get(sorted.len() / 2);
        let is_near = match (low, high) {
            (Some(low), Some(high)) => {
                let median2 = u64::from(*low) + u64::from(*high);
                (2 * u64::from(micros)).abs_diff(median2) * 5 <= median2
            }
            _ => true,
        };
        PLAUSIBLE.contains(&micros) && is_near
    }

    /// 60000 / mean interval of the last 8 s, or of the last three intervals of a heart so slow that they take longer, in
    /// beats a minute. `None` with fewer than three, and while the newest interval is none that counts: what came before it
    /// is not the present rate.
    pub fn heart_rate(&self, now: Mono) -> Option<Decimal> {
        self.intervals.back().filter(|beat| RATE_PLAUSIBLE.contains(&beat.micros))?;
        self.recent_rate(now)
    }

    /// The same, whatever the newest interval is: one artefact is not yet the loss of a rate.
    pub fn recent_rate(&self, now: Mono) -> Option<Decimal> {
        let counting = || self.intervals.iter().rev().filter(|beat| RATE_PLAUSIBLE.contains(&beat.micros));
        let newest = counting().next()?;
        let three = Duration::from_micros(u64::from(newest.micros) * 3) + RATE_JITTER;
        let in_span = |(place, beat): &(usize, &Beat)| {
            let age = now.since(beat.at);
            age <= RATE_SPAN || *place < RATE_BEATS && age <= three
        };
        let recent = counting().enumerate().take_while(in_span).map(|(_, beat)| beat);
        let (count, sum) = recent.fold((0_u64, 0_u64), |(count, sum), beat| (count + 1, sum + u64::from(beat.micros)));
        if usize::try_from(count).ok()? < RATE_BEATS {
            return None;
        }
        let rate = (60_000_000 * count + sum / 2).checked_div(sum)?;
        Decimal::new(i64::try_from(rate).ok()?, 0)
    }

    /// The variability over the last five minutes; `None` with fewer than 95 % good intervals, or of less than five
    /// minutes but for the beats that were missed in them.
    pub fn variability(&self, now: Mono) -> Option<Variability> {
        let in_span = || self.intervals.iter().filter(|beat| now.since(beat.at) <= SPAN);
        let heard: u64 = in_span().map(|beat| u64::from(beat.micros)).sum();
        // As much as 95 % good beats, so that one lost packet does not stop the statistics for five minutes.
        if u128::from(heard) * 100 < SPAN.as_micros() * 95 {
            return None;
        }
        statistics(in_span())
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts up to 1000 and µs below 2^32 are exact")]
fn statistics<'a>(beats: impl Iterator<Item = &'a Beat> + Clone) -> Option<Variability> {
    let kept: Vec<f64> = beats.clone().filter(|beat| beat.kept).map(|beat| f64::from(beat.micros)).collect();
    let (n, all) = (kept.len(), beats.clone().count());
    if n < 2 || n * 100 < all * 95 {
        return None;
    }
    let neighbours = beats.clone().zip(beats.skip(1)).filter(|(one, next)| one.kept && next.kept && next.joined);
    let differences: Vec<u32> = neighbours.map(|(one, next)| next.micros.abs_diff(one.micros)).collect();
    let pairs = differences.len() as f64;
    let mean = kept.iter().sum::<f64>() / n as f64;
    let variance = kept.iter().map(|interval| (interval - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let squares = differences.iter().map(|difference| f64::from(*difference).powi(2)).sum::<f64>();
    let large = differences.iter().filter(|difference| **difference > NN50).count() as f64;
    (!differences.is_empty()).then(|| Variability {
        n,
        rejected: all - n,
        sdnn_ms: variance.sqrt() / 1000.0,
        rmssd_ms: (squares / pairs).sqrt() / 1000.0,
        pnn50_percent: 100.0 * large / pairs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    /// Beats of these lengths in ms, each at its end.
    fn beats(lengths: impl IntoIterator<Item = u32>) -> (Beats, Mono) {
        let (mut beats, mut at) = (Beats::default(), 0);
        for length in lengths {
            at += u64::from(length);
            beats.push_micros(length * 1000, millis(at));
        }
        (beats, millis(at))
    }

    #[test]
    fn five_minutes_of_a_real_heart_have_the_published_variability() {
        let table = include_str!("../../tests/vectors/rr_mitbih100.csv");
        let mut beats = Beats::default();
        let mut last = Mono::default();
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            let thousandths = |cell: &str| cell.parse::<Decimal>().unwrap().rounded(-3).unwrap();
            last = millis(u64::try_from(thousandths(cells[0])).unwrap());
            beats.push_micros(u32::try_from(thousandths(cells[1])).unwrap(), last);
        }
        let found = beats.variability(last).unwrap();
        assert_eq!((found.n, found.rejected), (364, 6));
        let shown = [found.sdnn_ms, found.rmssd_ms, found.pnn50_percent].map(|number| format!("{number:.3}"));
        assert_eq!(shown, ["27.458", "27.689", "3.621"]);
        assert!((found.sdnn_ms - 27.457_5).abs() < 0.000_1);
    }

    #[test]
    fn a_rate_needs_three_good_intervals_of_the_last_eight_seconds() {
        for (lengths, expected) in [
            (vec![1000, 1000, 1000], Some("60")),
            (vec![1000, 1000], None),
            (vec![800, 810, 790, 2500, 805], Some("53")),
            (vec![1000, 1000, 10_000, 1000], None),
            // Nothing of before while what comes does not count: the electrode is off, or the strap slips.
            (vec![1000, 1000, 1000, 150], None),
            (vec![1000, 1000, 1000, 5100], None),
            (vec![1000, 1000, 1000, 150, 1000], Some("60")),
            // Ventricular tachycardia at 220 after a quiet rhythm, and at once; a block at 25.
            (vec![1000; 8].into_iter().chain(vec![273; 30]).collect(), Some("220")),
            (vec![270; 30], Some("222")),
            (vec![200; 40], Some("300")),
            (vec![199; 40], None),
            (vec![800; 8].into_iter().chain(vec![2400; 5]).collect(), Some("25")),
            (vec![3000; 4], Some("20")),
            (vec![5000; 4], Some("12")),
            (vec![], None),
        ] {
            let (beats, now) = beats(lengths.clone());
            assert_eq!(beats.heart_rate(now).map(|rate| rate.to_string()).as_deref(), expected, "{lengths:?}");
        }
    }

    #[test]
    fn one_ectopic_beat_neither_counts_nor_makes_a_difference() {
        let with_ectopic = (0..400).map(|beat| if beat == 200 { 500 } else { 800 });
        let (beats, now) = beats(with_ectopic);
        let found = beats.variability(now).unwrap();
        assert_eq!(found.rejected, 1);
        assert!(found.sdnn_ms < 0.01 && found.pnn50_percent < 0.01, "{found:?}");
    }

    #[test]
    fn too_many_artefacts_or_too_short_a_time_give_nothing() {
        let (noisy, now) = beats((0..400).map(|beat| if beat % 10 == 0 { 400 } else { 800 }));
        assert_eq!(noisy.variability(now), None);
        let (short, now) = beats((0..300).map(|_| 800));
        assert_eq!(short.variability(now), None);
        let (old, now) = beats((0..400).map(|_| 800));
        assert!(old.variability(now).is_some());
        assert_eq!(old.variability(now + SPAN), None);
    }

    #[test]
    fn a_lasting_new_rate_is_believed_after_a_while() {
        let (beats, now) = beats((0..20).map(|_| 1000).chain((0..20).map(|_| 500)));
        assert_eq!(beats.heart_rate(now).unwrap().to_string(), "120");
    }

    #[test]
    fn a_difference_across_missed_beats_is_none() {
        let mut beats = Beats::default();
        let mut at = 0;
        for beat in 0..400_u32 {
            let length = if beat < 200 { 800 } else { 880 };
            if beat == 200 {
                beats.gap();
            }
            at += u64::from(length);
            beats.push_micros(length * 1000, millis(at));
        }
        assert!(beats.variability(millis(at)).unwrap().pnn50_percent < 0.01);
    }

    #[test]
    fn what_a_strap_sends_is_counted_in_microseconds_and_memory_is_bounded() {
        let mut beats = Beats::default();
        for _ in 0..5000 {
            beats.push(833, millis(0));
        }
        assert_eq!((beats.intervals.len(), beats.intervals[0].micros), (MAX_BEATS, 813_477));
        for raw in [0, u16::MAX] {
            beats.push(raw, millis(1));
            assert!(!beats.intervals.back().unwrap().kept, "{raw}");
        }
    }
}
