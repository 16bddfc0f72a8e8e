//! What one reading costs the alert engine with 64 patients and 20 rules each, and what it costs to compute the early
//! warning score too, beside a bare loop that compares the number with 20 limits, in the same run.

#![expect(clippy::print_stdout, reason = "the table is what a benchmark is for")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use vitalbridge::alerts::{BridgeCondition, EffectiveLimit, Engine, RuleSet};
use vitalbridge::clock::{Mono, Stamp, Wall};
use vitalbridge::derive::live::{Derivation, News2Settings};
use vitalbridge::ids::PatientId;
use vitalbridge::vitals::{Decimal, Metric, Mode, Quality, Reading, Taken, Value, Vital};

/// Patients of a full bridge.
const PATIENTS: usize = 64;

/// Rounds, each with three readings of every patient; medians count.
const ROUNDS: u64 = 301;

/// What each patient's monitor sends once a second.
const METRICS: [(Metric, i32); 3] = [(Metric::Spo2, 97), (Metric::HeartRate, 71), (Metric::RespiratoryRate, 15)];

/// One rule more than the default set has for a patient.
const RULE: &str = "[[rule]]\nid = \"perfusion_low\"\nmetric = \"perfusion_index\"\nkind = \"physiological\"\n\
                    priority = \"info\"\nwhen = { below = 0.3 }\n";

fn main() -> anyhow::Result<()> {
    let rules = RuleSet::parse(RULE).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    // A rule about the bridge itself has the name of its condition.
    let is_of_patient = |limit: &EffectiveLimit| BridgeCondition::from_name(limit.rule.as_str()).is_none();
    let of_patients = rules.limits(&"P-0000".parse()?, Wall(0)).iter().filter(|limit| is_of_patient(limit)).count();
    let mut engine = Engine::new(rules, 1);
    let mut derivation = Derivation::default();
    let patients: Vec<PatientId> =
        (0..PATIENTS).map(|number| format!("P-{number:04}").parse()).collect::<Result<_, _>>()?;
    for patient in &patients {
        derivation.score(patient.clone(), Mode::Test, &News2Settings::default());
    }
    let limits: Vec<i32> = (70..90).collect();
    let (mut ours, mut scored, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for second in 0..ROUNDS {
        let now = Stamp { mono: Mono::from_millis(1_000_000 + second * 1000), wall: Wall(1_795_219_200_000) };
        let readings = readings(&patients, second, now)?;
        let begin = instant();
        for reading in &readings {
            black_box(engine.on_reading(black_box(reading), now));
        }
        ours.push(begin.elapsed());
        let begin = instant();
        for reading in &readings {
            black_box(derivation.on_reading(black_box(reading), now));
        }
        scored.push(begin.elapsed());
        let begin = instant();
        for reading in &readings {
            let value = black_box(reading).vital.leading().valid();
            black_box(value.map(|value| limits.iter().filter(|limit| value.mantissa() < i64::from(**limit)).count()));
        }
        bare.push(begin.elapsed());
    }
    let each = |mut times: Vec<Duration>| {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        median.as_secs_f64() * 1e6 / f64::from(u32::try_from(PATIENTS * METRICS.len()).unwrap_or(1))
    };
    let (ours, scored, bare) = (each(ours), each(scored), each(bare));
    println!("{PATIENTS} patients, {of_patients} rules each, a reading, median of {ROUNDS} rounds");
    println!("  alert engine         {ours:>8.3} us");
    println!("  computed values      {scored:>8.3} us");
    println!("  bare loop, 20 limits {bare:>8.3} us");
    Ok(())
}

fn readings(patients: &[PatientId], second: u64, now: Stamp) -> anyhow::Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for patient in patients {
        for (metric, value) in METRICS {
            // It moves by one, as numbers do.
            let value = value + i32::from(second.is_multiple_of(2));
            readings.push(Reading {
                patient: Some(patient.clone()),
                device: patient.as_str().parse()?,
                source: "port".parse()?,
                vital: Vital::scalar(metric, Value::Valid(Decimal::integer(value))),
                mdc: None,
                quality: Quality::Valid,
                mode: Mode::Test,
                taken: Taken::on_arrival(now),
                received: now,
            });
        }
    }
    Ok(readings)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn instant() -> Instant {
    Instant::now()
}
