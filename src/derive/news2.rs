//! The National Early Warning Score 2 (Royal College of Physicians, 2017), with what is known of it while inputs are missing.
//!
//! Sensors give neither consciousness nor whether oxygen is given, so a score is a range: from what the known inputs
//! make certain to what the missing ones could add. Alerts go by the lower end alone. Not for people under 16 and not
//! in pregnancy.

use crate::vitals::{Consciousness, Decimal, Parameter, Spo2Scale};

/// What is known of a patient. `None` is unknown, which is not normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inputs {
    /// Breaths a minute.
    pub respiration: Option<Decimal>,
    /// Oxygen saturation in %.
    pub spo2: Option<Decimal>,
    /// True if oxygen is given.
    pub oxygen: Option<bool>,
    /// Systolic pressure in mmHg.
    pub systolic: Option<Decimal>,
    /// Pulse or heart rate a minute.
    pub pulse: Option<Decimal>,
    /// Level of consciousness.
    pub consciousness: Option<Consciousness>,
    /// Temperature in °C.
    pub temperature: Option<Decimal>,
}

/// The score, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Score {
    /// What the known inputs make certain.
    pub score_min: u8,
    /// What it could be.
    pub score_max: u8,
    /// The points of each known parameter; those that are certain, where oxygen decides about SpO2 and is unknown.
    pub points: Vec<(Parameter, u8)>,
    /// What is not known.
    pub missing: Vec<Parameter>,
    /// The highest points of one parameter, for certain.
    pub single_min: u8,
    /// The highest points that one parameter could have.
    pub single_max: u8,
}

/// Computes the score.
pub fn score(inputs: &Inputs, scale: Spo2Scale) -> Score {
    let mut score = Score::default();
    let mut add = |parameter, points: Option<u8>, most| match points {
        Some(points) => score.known(parameter, points, points),
        None => score.unknown(parameter, most),
    };
    add(Parameter::Respiration, inputs.respiration.and_then(whole).map(respiration), 3);
    add(Parameter::Systolic, inputs.systolic.and_then(whole).map(systolic), 3);
    add(Parameter::Pulse, inputs.pulse.and_then(whole).map(pulse), 3);
    add(Parameter::Consciousness, inputs.consciousness.map(consciousness), 3);
    add(Parameter::Temperature, inputs.temperature.and_then(|value| value.rounded(-1)).map(temperature), 3);
    add(Parameter::Oxygen, inputs.oxygen.map(oxygen), 2);
    match (inputs.spo2.and_then(whole), inputs.oxygen) {
        (None, _) => score.unknown(Parameter::Spo2, 3),
        (Some(percent), Some(given)) => {
            let points = saturation(percent, scale, given);
            score.known(Parameter::Spo2, points, points);
        }
        (Some(percent), None) => {
            let (air, oxygen) = (saturation(percent, scale, false), saturation(percent, scale, true));
            score.known(Parameter::Spo2, air.min(oxygen), air.max(oxygen));
        }
    }
    score
}

impl Score {
    fn unknown(&mut self, parameter: Parameter, most: u8) {
        self.score_max = self.score_max.saturating_add(most);
        self.single_max = self.single_max.max(most);
        self.missing.push(parameter);
    }

    fn known(&mut self, parameter: Parameter, least: u8, most: u8) {
        self.score_min = self.score_min.saturating_add(least);
        self.score_max = self.score_max.saturating_add(most);
        self.single_min = self.single_min.max(least);
        self.single_max = self.single_max.max(most);
        self.points.push((parameter, least));
    }
}

/// The nearest whole number: the chart has whole numbers.
fn whole(number: Decimal) -> Option<i64> {
    number.rounded(0)
}

const fn respiration(rate: i64) -> u8 {
    match rate {
        ..=8 | 25.. => 3,
        9..=11 => 1,
        12..=20 => 0,
        21..=24 => 2,
    }
}

const fn saturation(percent: i64, scale: Spo2Scale, oxygen: bool) -> u8 {
    match (scale, percent, oxygen) {
        (Spo2Scale::One, ..=91, _) | (Spo2Scale::Two, ..=83, _) | (Spo2Scale::Two, 97.., true) => 3,
        (Spo2Scale::One, 92..=93, _) | (Spo2Scale::Two, 84..=85, _) | (Spo2Scale::Two, 95..=96, true) => 2,
        (Spo2Scale::One, 94..=95, _) | (Spo2Scale::Two, 86..=87, _) | (Spo2Scale::Two, 93..=94, true) => 1,
        (Spo2Scale::One, 96.., _) | (Spo2Scale::Two, 88..=92, _) | (Spo2Scale::Two, 93.., false) => 0,
    }
}

const fn oxygen(given: bool) -> u8 {
    if given { 2 } else { 0 }
}

const fn systolic(pressure: i64) -> u8 {
    match pressure {
        ..=90 | 220.. => 3,
        91..=100 => 2,
        101..=110 => 1,
        111..=219 => 0,
    }
}

const fn pulse(rate: i64) -> u8 {
    match rate {
        ..=40 | 131.. => 3,
        41..=50 | 91..=110 => 1,
        51..=90 => 0,
        111..=130 => 2,
    }
}

const fn consciousness(level: Consciousness) -> u8 {
    if matches!(level, Consciousness::Alert) { 0 } else { 3 }
}

/// By tenths of a degree.
const fn temperature(tenths: i64) -> u8 {
    match tenths {
        ..=350 => 3,
        351..=360 | 381..=390 => 1,
        361..=380 => 0,
        391.. => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vitals::Risk;

    fn number(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    /// Nothing gives a point.
    fn well() -> Inputs {
        Inputs {
            respiration: Some(number("16")),
            spo2: Some(number("97")),
            oxygen: Some(false),
            systolic: Some(number("120")),
            pulse: Some(number("70")),
            consciousness: Some(Consciousness::Alert),
            temperature: Some(number("37.0")),
        }
    }

    #[test]
    fn every_boundary_of_the_chart_scores_as_it_says() {
        let table = include_str!("../../tests/vectors/news2.csv");
        let mut rows = 0;
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            let [scale, o2, rr, spo2, sbp, hr, acvpu, temp, total, points @ .., any3, band] = cells.as_slice() else {
                panic!("{row}")
            };
            let inputs = Inputs {
                respiration: Some(number(rr)),
                spo2: Some(number(spo2)),
                oxygen: Some(*o2 == "1"),
                systolic: Some(number(sbp)),
                pulse: Some(number(hr)),
                consciousness: Consciousness::from_name(acvpu),
                temperature: Some(number(temp)),
            };
            let score = score(&inputs, Spo2Scale::from_name(scale).unwrap());
            assert!(score.missing.is_empty() && score.score_min == score.score_max, "{row}: {score:?}");
            assert_eq!(score.score_min.to_string(), *total, "{row}");
            assert_eq!(
                (u8::from(score.single_min == 3).to_string(), Risk::of(score.score_min, score.single_min).name()),
                ((*any3).to_owned(), *band),
                "{row}"
            );
            let order = ["respiratory_rate", "spo2", "oxygen", "systolic", "pulse", "consciousness", "temperature"];
            for (name, expected) in order.iter().zip(points) {
                let found = score.points.iter().find(|(parameter, _)| parameter.name() == *name).unwrap();
                assert_eq!(found.1.to_string(), *expected, "{row}: {name}");
            }
            rows += 1;
        }
        assert_eq!(rows, 248);
    }

    #[test]
    fn what_is_missing_opens_the_range_and_never_counts_as_normal() {
        let nothing = score(&Inputs::default(), Spo2Scale::One);
        assert_eq!((nothing.score_min, nothing.score_max, nothing.missing.len()), (0, 20, 7));
        assert!((nothing.single_min, nothing.single_max) == (0, 3) && nothing.points.is_empty());
        let sensors = score(&Inputs { oxygen: None, consciousness: None, ..well() }, Spo2Scale::One);
        assert_eq!((sensors.score_min, sensors.score_max), (0, 5));
        assert_eq!(sensors.missing, [Parameter::Consciousness, Parameter::Oxygen]);
        let ill = Inputs { oxygen: None, spo2: Some(number("90")), pulse: Some(number("135")), ..well() };
        let ill = score(&ill, Spo2Scale::One);
        assert_eq!((ill.score_min, ill.score_max, ill.single_min), (6, 8, 3));
        assert_eq!(Risk::of(ill.score_min, ill.single_min), Risk::Medium);
    }

    #[test]
    fn on_scale_two_unknown_oxygen_leaves_the_points_of_a_high_saturation_open() {
        let inputs = Inputs { oxygen: None, spo2: Some(number("97")), ..well() };
        let found = score(&inputs, Spo2Scale::Two);
        // 0 on air; 3 for the saturation and 2 for the oxygen on oxygen.
        assert_eq!((found.score_min, found.score_max, found.single_min, found.single_max), (0, 5, 0, 3));
    }

    #[test]
    fn fractions_count_as_the_nearest_number_of_the_chart() {
        for (temperature, points) in [("35.04", 3), ("35.05", 1), ("38.0", 0), ("38.05", 1), ("39.04", 1), ("39.1", 2)]
        {
            let inputs = Inputs { temperature: Some(number(temperature)), ..well() };
            assert_eq!(score(&inputs, Spo2Scale::One).score_min, points, "{temperature}");
        }
    }
}
