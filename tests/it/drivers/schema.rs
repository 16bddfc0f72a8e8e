//! What `[driver]` in a profile may say.

use vitalbridge::decode::self_test;
use vitalbridge::profile::{Profile, built_in_text};
use vitalbridge::vitals::Metric;

use crate::decode::profile;

#[track_caller]
fn check(id: &str, from: &str, to: &str, expected: &str) {
    let text = built_in_text(id).unwrap();
    assert!(text.contains(from), "{from}");
    let problems = Profile::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
    assert!(problems.contains(expected), "{problems}");
}

#[test]
fn an_unknown_driver_is_refused_with_the_names_of_the_known_ones() {
    check(
        "draeger-medibus",
        "name = \"medibus\"",
        "name = \"medibuss\"",
        "there is no driver `medibuss`; there are medibus, datex-dri",
    );
}

#[test]
fn a_driver_is_asked_only_for_what_it_can_give() {
    let medibus = "draeger-medibus";
    check(medibus, "\"co2\"", "\"ecg1\"", "medibus has no wave `ecg1`; the nearest is `co2`");
    check(medibus, "\"co2\"", "\"airway_flow\"", "wave `airway_flow` is there twice");
    check(medibus, "\"co2\"", "\"co2\", \"o2\"", "5 waves are asked for, at most 4");
    check(medibus, "\"1s\"", "\"4s\"", "interval must be 1 s to 60 s, and shorter than silence");
    check(medibus, "\"1s\"", "\"500ms\"", "interval must be 1 s to 60 s");
    let datex = "datex-s5-dri";
    check(datex, "\"5s\"", "\"4s\"", "interval must be 5 s to 60 s");
    check(datex, "\"pleth\"", "\"ecg2\"", "the waves have 775 samples a second, below 115200 bit/s at most 600 fit");
    let fast = built_in_text(datex).unwrap().replace("\"pleth\"", "\"ecg2\"").replace("19200 8E1", "115200 8E1");
    assert!(Profile::parse(&fast.replace("At 115200", "At")).is_ok(), "a fast line has room for it");
}

#[test]
fn a_profile_with_a_driver_does_nothing_of_the_drivers_work() {
    let id = "draeger-medibus";
    let frame = "[frame]\nkind = \"line\"\nend = \"\\r\"\nmax = 20\n\n[driver]";
    check(id, "[driver]", frame, "a profile with [driver] has no [frame]: the driver does that");
    let poll = "silence = \"4s\"\npoll = [{ send = \"1B 24 33 46 0D\", every = \"2s\" }]";
    check(id, "silence = \"4s\"", poll, "has no init, poll, keep_alive, stop or commands in [link]");
    let message = "[[message]]\nid = \"any\"\n\n[[test]]";
    check(id, "[[test]]", message, "a profile with [driver] has no [[message]]");
}

#[test]
fn what_depends_on_a_devices_modules_is_not_expected_of_it() {
    let expected = |id: &str| self_test::expected_metrics(&profile(id)).into_iter().collect::<Vec<Metric>>();
    assert_eq!(expected("draeger-medibus"), [Metric::RespiratoryRate, Metric::MinuteVolume]);
    assert_eq!(expected("datex-s5-dri"), []);
    assert!(!profile("datex-s5-dri").is_spot_check(), "it answers every 5 s, and measures all the time");
    assert!(profile("nonin-df13").is_spot_check());
    assert_eq!(expected("nonin-df13"), []);
    assert_eq!(expected("nonin-df2"), self_test::metrics(&profile("nonin-df2")).into_iter().collect::<Vec<Metric>>());
    assert!(self_test::metrics(&profile("datex-s5-dri")).contains(&Metric::ArterialPressure));
}
