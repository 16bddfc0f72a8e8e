//! What the encoder sends by a profile, the decoder reads by the same profile: values, reasons, statuses, waves, beats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vitalbridge::clock::Clock;
use vitalbridge::decode::{Decoded, Decoder};
use vitalbridge::encode::{Cadence, EncodeError, Encoder, Moment, Say, Wanted};
use vitalbridge::profile::model::{Field, Part};
use vitalbridge::profile::{Profile, built_in, built_in_ids, built_in_text};
use vitalbridge::vitals::{Absent, Decimal, Metric, Status, Value, Vital};

fn profile(id: &str) -> Arc<Profile> {
    built_in(id).unwrap().unwrap()
}

fn fields(profile: &Profile) -> impl Iterator<Item = &Field> {
    profile.messages().iter().flat_map(|message| &message.fields)
}

/// A number that every device with this metric can show.
fn random_value(metric: Metric, part: Option<Part>, random: &mut fastrand::Rng) -> Decimal {
    match (metric, part) {
        (Metric::Spo2, _) => Decimal::integer(random.i32(1..=100)),
        (Metric::PulseRate | Metric::HeartRate, _) => Decimal::integer(random.i32(18..=250)),
        (Metric::RespiratoryRate, _) => Decimal::integer(random.i32(1..=120)),
        (Metric::Temperature, _) => Decimal::tenths(random.i32(201..=449)),
        (Metric::PerfusionIndex, _) => Decimal::new(random.i64(1..=2999), -2).unwrap(),
        (_, Some(Part::Systolic)) => Decimal::integer(random.i32(101..=250)),
        (_, Some(Part::Mean)) => Decimal::integer(random.i32(60..=100)),
        (_, Some(Part::Diastolic)) => Decimal::integer(random.i32(20..=59)),
        (metric, None) => panic!("no numbers for {metric}"),
    }
}

fn random_wanted(profile: &Profile, random: &mut fastrand::Rng) -> Wanted {
    let mut wanted = Wanted::default();
    for field in fields(profile) {
        let say = Say::Value(random_value(field.metric, field.part, random));
        wanted.vitals.insert((field.metric, field.part), say);
        wanted.measured.insert((field.metric, field.part), say);
    }
    wanted
}

/// Frames of every unit, in rounds; as many as any lock and a whole superframe need.
fn encode(profile: &Arc<Profile>, wanted: &Wanted, moment: Moment<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Encoder::new(Arc::clone(profile))?;
    let said = encoder.say(wanted)?;
    let rounds = 4 * profile.superframe().map_or(1, |superframe| superframe.frames);
    let mut bytes = Vec::new();
    for _ in 0..rounds {
        for unit in 0..encoder.units().len() {
            let is_due = match encoder.units()[unit].cadence() {
                Cadence::Hz(_) | Cadence::AtStart => true,
                Cadence::OnBeat => moment.beat,
                Cadence::OnEvent(name) => moment.event == Some(name),
            };
            if is_due {
                encoder.encode(unit, &said, moment, &mut |_| 1, &mut bytes)?;
            }
        }
    }
    Ok(bytes)
}

fn decode(profile: &Arc<Profile>, bytes: &[u8]) -> Vec<Decoded> {
    let mut decoder = Decoder::new(Arc::clone(profile));
    let mut decoded = Vec::new();
    decoder.push(bytes, &mut decoded);
    decoder.finish(&mut decoded);
    assert_eq!(decoder.counters().skipped_bytes, 0, "{}: {bytes:02X?}", profile.id());
    decoded
}

/// Every value that was read, of whichever message.
fn values(decoded: &[Decoded]) -> BTreeMap<(Metric, Option<Part>), Vec<Value>> {
    let mut found: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for item in decoded {
        let Decoded::Vital(vital) = item else { continue };
        let metric = vital.vital.metric();
        let parts = match &vital.vital {
            Vital::BloodPressure(pressure) | Vital::ArterialPressure(pressure) => vec![
                (Some(Part::Systolic), pressure.systolic),
                (Some(Part::Diastolic), pressure.diastolic),
                (Some(Part::Mean), pressure.mean),
            ],
            vital => vec![(None, vital.leading())],
        };
        for (part, value) in parts {
            found.entry((metric, part)).or_default().push(value);
        }
    }
    found
}

fn status(decoded: &[Decoded]) -> BTreeSet<Status> {
    let sets = decoded.iter().filter_map(|item| match item {
        Decoded::Status(set) => Some(set.clone()),
        _ => None,
    });
    sets.fold(BTreeSet::new(), |_, newest| newest)
}

/// The profiles that describe their bytes; the others name a driver.
pub(crate) fn described() -> impl Iterator<Item = &'static str> {
    built_in_ids().filter(|id| profile(id).driver().is_none())
}

#[test]
fn what_a_driver_reads_is_refused_with_that_reason() {
    let error = Encoder::new(profile("draeger-medibus")).unwrap_err().to_string();
    assert!(error.contains("draeger-medibus") && error.contains("the driver `medibus`"), "{error}");
}

#[test]
fn random_values_are_read_back_by_every_profile() {
    let seed = Clock::System.now().mono.0;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for id in described() {
        let profile = profile(id);
        for _ in 0..50 {
            let wanted = random_wanted(&profile, &mut random);
            let bytes = encode(&profile, &wanted, Moment::default()).unwrap();
            let decoded = decode(&profile, &bytes);
            assert_eq!(status(&decoded), BTreeSet::new(), "{id}");
            let found = values(&decoded);
            assert!(found.keys().all(|key| wanted.vitals.contains_key(key)), "{id}: {found:?}");
            for (key, say) in &wanted.vitals {
                let Say::Value(expected) = say else { unreachable!() };
                let read = found.get(key).unwrap_or_else(|| panic!("{id} says nothing of {key:?}"));
                for value in read {
                    let is_equal = matches!(value, Value::Valid(number) if number.compare(*expected).is_eq());
                    assert!(is_equal, "{id}: {key:?} is {value:?} and should be {expected}");
                }
            }
        }
    }
}

#[test]
fn every_reason_that_a_profile_has_is_read_back_and_others_are_refused() {
    let mut random = fastrand::Rng::with_seed(7);
    for id in described() {
        let profile = profile(id);
        for (message, field) in profile.messages().iter().flat_map(|m| m.fields.iter().map(move |field| (m, field))) {
            let key = (field.metric, field.part);
            let mut said = BTreeSet::new();
            for reason in Absent::ALL {
                let mut wanted = random_wanted(&profile, &mut random);
                let vitals = if message.spot { &mut wanted.measured } else { &mut wanted.vitals };
                vitals.insert(key, Say::Absent(*reason));
                let bytes = match encode(&profile, &wanted, Moment::default()) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        assert_eq!(error.profile, id);
                        continue;
                    }
                };
                let found = values(&decode(&profile, &bytes));
                let read = found.get(&key).cloned().unwrap_or_default();
                assert!(read.contains(&Value::Absent(*reason)), "{id}: {key:?} is {read:?} and should be {reason}");
                said.insert(*reason);
            }
            for gate in &field.unless {
                assert!(said.contains(&gate.reason), "{id}: {key:?} cannot be {}", gate.reason);
            }
            assert!(!said.contains(&Absent::LinkLost), "{id}");
            assert!(!said.is_empty(), "{id}: {key:?} always has a value");
        }
    }
}

#[test]
fn nothing_is_never_a_number_and_a_measurement_that_goes_on_has_no_result() {
    for id in described() {
        let profile = profile(id);
        for say in [Say::Nothing, Say::Measuring] {
            let all: BTreeMap<_, _> = fields(&profile).map(|field| ((field.metric, field.part), say)).collect();
            let wanted = Wanted { vitals: all.clone(), measured: all, ..Wanted::default() };
            let bytes = encode(&profile, &wanted, Moment::default()).unwrap();
            for (key, read) in values(&decode(&profile, &bytes)) {
                assert!(read.iter().all(|value| matches!(value, Value::Absent(_))), "{id}: {key:?} is {read:?}");
            }
        }
    }
}

#[test]
fn every_status_that_a_profile_maps_is_read_back_alone() {
    let mut random = fastrand::Rng::with_seed(8);
    for id in described() {
        let profile = profile(id);
        let maps: BTreeSet<Status> = profile
            .messages()
            .iter()
            .flat_map(|message| {
                let flags = message.flags.iter().filter_map(|flag| flag.maps);
                flags.chain(message.states.iter().flat_map(|state| state.values.iter().filter_map(|value| value.maps)))
            })
            .collect();
        for wanted_status in Status::ALL {
            let wanted = Wanted { statuses: [*wanted_status].into(), ..random_wanted(&profile, &mut random) };
            match encode(&profile, &wanted, Moment::default()) {
                Ok(bytes) => assert_eq!(status(&decode(&profile, &bytes)), [*wanted_status].into(), "{id}"),
                Err(error) => assert!(!maps.contains(wanted_status), "{error}"),
            }
        }
    }
}

#[test]
fn waves_beats_events_and_serial_numbers_are_read_back() {
    for id in described() {
        let profile = profile(id);
        let mut encoder = Encoder::new(Arc::clone(&profile)).unwrap();
        let said = encoder.say(&random_wanted(&profile, &mut fastrand::Rng::with_seed(9))).unwrap();
        let ranges: Vec<(i32, i32)> = (0..profile.waves().len()).map(|wave| encoder.sample_range(wave)).collect();
        let mut sent: Vec<Vec<i32>> = vec![Vec::new(); ranges.len()];
        let (mut bytes, mut random) = (Vec::new(), fastrand::Rng::with_seed(10));
        for _ in 0..400 {
            for unit in 0..encoder.units().len() {
                if !matches!(encoder.units()[unit].cadence(), Cadence::Hz(_)) {
                    continue;
                }
                let mut sample = |wave: usize| {
                    let sample = random.i32(ranges[wave].0..=ranges[wave].1);
                    sent[wave].push(sample);
                    sample
                };
                encoder.encode(unit, &said, Moment::default(), &mut sample, &mut bytes).unwrap();
            }
        }
        let mut read: Vec<Vec<i32>> = vec![Vec::new(); ranges.len()];
        for item in decode(&profile, &bytes) {
            let Decoded::Wave(block) = item else { continue };
            let wave = profile.waves().iter().position(|wave| wave.name == block.name).unwrap();
            assert_eq!(block.saturated, 0, "{id}: {}", block.name);
            read[wave].extend(block.samples);
        }
        assert_eq!(read, sent, "{id}");
        assert_eq!(profile.waves().is_empty(), sent.is_empty());
    }
    let random = || fastrand::Rng::with_seed(11);
    for (id, name) in [("nonin-ascii", "event_mark"), ("nonin-ascii", "breath"), ("berry-pm6750", "pulse")] {
        let profile = profile(id);
        let moment = Moment { beat: false, event: Some(name) };
        let decoded = decode(&profile, &encode(&profile, &random_wanted(&profile, &mut random()), moment).unwrap());
        assert!(decoded.iter().any(|item| matches!(item, Decoded::Event { name: found } if &**found == name)), "{id}");
    }
    for id in ["contec-v7", "contec-cms50-v5", "berry-bci", "berry-pm6750"] {
        let profile = profile(id);
        let beat = Moment { beat: true, event: None };
        for (moment, expected) in [(beat, true), (Moment::default(), false)] {
            let decoded = decode(&profile, &encode(&profile, &random_wanted(&profile, &mut random()), moment).unwrap());
            assert_eq!(decoded.contains(&Decoded::Beat), expected, "{id}");
        }
    }
    for (id, number) in [("contec-v7", "AB-1234"), ("masimo-ascii1", "0000000042")] {
        let profile = profile(id);
        let wanted = Wanted { serial_number: Some(number.to_owned()), ..random_wanted(&profile, &mut random()) };
        let decoded = decode(&profile, &encode(&profile, &wanted, Moment::default()).unwrap());
        assert!(decoded.contains(&Decoded::SerialNumber(number.to_owned())), "{id}");
    }
}

#[test]
fn what_cannot_be_sent_is_an_error_that_says_why() {
    let check = |id: &str, wanted: Wanted, expected: &str| {
        let error = encode(&profile(id), &wanted, Moment::default()).unwrap_err().to_string();
        assert_eq!(error, expected);
    };
    let value = |metric, say| Wanted { vitals: [((metric, None), say)].into(), ..Wanted::default() };
    let number = |number| Say::Value(Decimal::integer(number));
    check(
        "nonin-df2",
        value(Metric::Spo2, number(101)),
        "profile nonin-df2 cannot send frame+packet: spo2: 101 is outside 1 to 100",
    );
    check(
        "contec-v7",
        value(Metric::PulseRate, number(255)),
        "profile contec-v7 cannot send live: pulse_rate: 255 is written as 255, which means that there is no value",
    );
    check(
        "nonin-ascii",
        value(Metric::Spo2, Say::Absent(Absent::SensorOff)),
        "profile nonin-ascii cannot send spo2 without a value: it has no way to say sensor_off",
    );
    check(
        "nonin-df8",
        Wanted { serial_number: Some("1".to_owned()), ..Wanted::default() },
        "profile nonin-df8 cannot send the serial number 1: its protocol has none",
    );
    check(
        "healthypi",
        Wanted { statuses: [Status::LowBattery].into(), ..Wanted::default() },
        "profile healthypi cannot send the status low_battery: it has no flag and no state for it, or another one is \
         wanted there",
    );
    // Without a test that shows the message there is no pattern for it.
    let text = built_in_text("berry-pm6750").unwrap().replace("55 AA 04 FF 46 B6", "").replace(", resp = [70]", "");
    let text = text.replace("frames = 4\n", "frames = 3\n");
    let without = Arc::new(Profile::parse(&text).unwrap());
    let error = Encoder::new(without).unwrap_err().to_string();
    assert!(error.contains("cannot send the message `respiration_wave`: none of the profile's tests"), "{error}");
}
