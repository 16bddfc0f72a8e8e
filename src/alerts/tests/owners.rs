//! Whose devices are: one patient's, several people's, or of nobody any more.

use super::*;

/// A cuff beside a bench.
struct Cuff(Bench);

impl Cuff {
    fn shared() -> Self {
        let mut bench = Bench::new(RuleSet::built_in());
        bench.engine.share(&"cuff".parse().unwrap());
        Self(bench)
    }

    fn measure(&mut self, who: &str, value: &str) -> Vec<AlertEvent> {
        let number = |text: &str| Value::Valid(text.parse().unwrap());
        let (systolic, diastolic) = value.split_once('/').unwrap();
        let mean = Value::Absent(Absent::NotMeasured);
        let pressure = Pressure { systolic: number(systolic), diastolic: number(diastolic), mean };
        let reading = Reading {
            patient: Some(who.parse().unwrap()),
            device: "cuff".parse().unwrap(),
            ..self.0.reading(Vital::BloodPressure(pressure), Quality::Valid)
        };
        self.0.engine.on_reading(&reading, self.0.now)
    }

    fn link(&mut self, who: Option<&str>, link: LinkState) -> Vec<AlertEvent> {
        let patient = who.map(|who| who.parse().unwrap());
        let source = SourceEvent { patient, ..Bench::source("cuff", link, &[]) };
        self.0.engine.on_source(&source, self.0.now)
    }

    /// Rule and patient of each alert that stands.
    fn present(&self) -> Vec<(String, String)> {
        let name = |event: AlertEvent| (event.rule.to_string(), event.patient.unwrap().to_string());
        let mut present: Vec<_> = self.0.engine.present().into_iter().map(name).collect();
        present.sort();
        present
    }
}

fn names(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(rule, who)| ((*rule).to_owned(), (*who).to_owned())).collect()
}

#[test]
fn an_alert_of_one_user_of_a_sensor_outlives_its_link_and_the_others_measurements() {
    let mut cuff = Cuff::shared();
    for who in ["P-1", "P-2", "P-3"] {
        cuff.0.engine.expect_spot(&"cuff".parse().unwrap(), &who.parse().unwrap(), Mode::Real, cuff.0.now);
    }
    cuff.measure("P-1", "190/85");
    let standing = names(&[("systolic", "P-1")]);
    assert_eq!(cuff.present(), standing);
    // It goes away after each measurement, and its link has no patient, or its own one.
    for who in [None, Some("P-3")] {
        for link in [LinkState::Live, LinkState::Waiting, LinkState::Lost] {
            assert_eq!(cuff.link(who, link), [], "{who:?} {link}");
        }
    }
    assert_eq!(cuff.measure("P-2", "120/80"), []);
    cuff.0.run_to(3_600_000);
    assert_eq!(cuff.0.log, [], "nothing is missed of it");
    assert_eq!(cuff.present(), standing);
    // What ends it is a measurement of his own.
    cuff.measure("P-1", "130/80");
    cuff.0.run_to(3_700_000);
    assert_eq!(cuff.0.log.iter().map(|event| event.change).collect::<Vec<_>>(), [AlertChange::Latch]);
}

#[test]
fn alerts_of_several_users_of_a_sensor_come_back_after_a_restart() {
    let mut cuff = Cuff::shared();
    cuff.measure("P-1", "190/85");
    cuff.measure("P-2", "185/85");
    let both = names(&[("systolic", "P-1"), ("systolic", "P-2")]);
    assert_eq!(cuff.present(), both);
    let (open, now) = (cuff.0.engine.present(), cuff.0.now);
    let mut cuff = Cuff::shared();
    let events = cuff.0.engine.restore(open, now);
    assert!(events.iter().all(|event| event.change == AlertChange::Update), "{events:#?}");
    assert_eq!(cuff.present(), both);
    assert_eq!(cuff.0.engine.device_gone(&"cuff".parse().unwrap(), &"P-1".parse().unwrap(), now).len(), 1);
    assert_eq!(cuff.present(), names(&[("systolic", "P-2")]));
}

#[test]
fn a_device_that_nobody_shares_is_taken_from_one_by_another() {
    let mut cuff = Cuff(Bench::new(RuleSet::built_in()));
    cuff.measure("P-1", "190/85");
    cuff.measure("P-2", "120/80");
    assert_eq!(cuff.present(), names(&[]));
}

#[test]
fn a_shared_device_counts_for_each_patient_against_the_bound() {
    let mut bench = Bench::new(RuleSet::built_in());
    for number in 0..4 {
        bench.engine.share(&format!("cuff-{number}").parse().unwrap());
    }
    let mut told = 0;
    for number in 0..4 {
        let device: DeviceId = format!("cuff-{number}").parse().unwrap();
        for patient in 0..MAX_PATIENTS {
            let patient: PatientId = format!("P-{patient}").parse().unwrap();
            told += bench.engine.expect_spot(&device, &patient, Mode::Real, bench.now).len();
        }
    }
    assert_eq!((4 * MAX_PATIENTS, told), (MAX_DEVICES, 0));
    bench.engine.share(&"more".parse().unwrap());
    let told = bench.engine.expect_spot(&"more".parse().unwrap(), &"P-0".parse().unwrap(), Mode::Real, bench.now);
    assert_eq!(told.first().map(|event| event.rule.as_str()), Some("alert_limit"));
}
