//! Conversations in virtual time: who says what when, and what happens when somebody does not.

use std::sync::Arc;
use std::time::Duration;

use vitalbridge::clock::{Mono, Stamp, Wall};
use vitalbridge::decode::{Decoded, DecodedVital, Decoder};
use vitalbridge::profile::{Profile, built_in_text, hex};
use vitalbridge::vitals::{Metric, Status};

use super::evita::{self, Evita};
use super::monitor::Monitor;
use crate::decode::shown;

/// How fine the virtual time is.
const STEP_MS: u64 = 10;

fn profile_with(id: &str, changes: &[(&str, &str)]) -> Arc<Profile> {
    let mut text = built_in_text(id).unwrap().to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Arc::new(Profile::parse(&text).unwrap_or_else(|problems| panic!("{problems}")))
}

/// A decoder that is talked to, and all it has said.
struct Host {
    decoder: Decoder,
    millis: u64,
    decoded: Vec<(u64, Decoded)>,
    /// Everything that was sent.
    sent: Vec<u8>,
}

impl Host {
    fn new(profile: Arc<Profile>) -> Self {
        Self { decoder: Decoder::new(profile), millis: 1_000_000, decoded: Vec::new(), sent: Vec::new() }
    }

    fn now(&self) -> Stamp {
        Stamp { mono: Mono::from_millis(self.millis), wall: Wall(0) }
    }

    /// Lets so much time pass with this device at the other end.
    fn run(&mut self, span: Duration, device: &mut dyn FnMut(&[u8], Mono) -> Vec<u8>) {
        let until = self.millis + u64::try_from(span.as_millis()).unwrap();
        while self.millis < until {
            self.millis += STEP_MS;
            let now = self.now();
            let mut decoded = Vec::new();
            if self.decoder.next_deadline().is_some_and(|at| at <= now.mono) {
                self.decoder.on_time(now, &mut decoded);
            }
            let outgoing = self.decoder.take_outgoing();
            self.sent.extend_from_slice(&outgoing);
            let answer = device(&outgoing, now.mono);
            self.decoder.push_at(&answer, now, &mut decoded);
            self.decoded.extend(decoded.into_iter().map(|decoded| (self.millis, decoded)));
        }
    }

    fn with(&mut self, seconds: u64, evita: &mut Evita) {
        self.run(Duration::from_secs(seconds), &mut |bytes, now| evita.turn(bytes, now));
    }

    fn with_monitor(&mut self, seconds: u64, monitor: &mut Monitor) {
        self.run(Duration::from_secs(seconds), &mut |bytes, now| monitor.turn(bytes, now));
    }

    fn vitals(&self) -> impl Iterator<Item = (u64, &DecodedVital)> {
        self.decoded.iter().filter_map(|(at, decoded)| match decoded {
            Decoded::Vital(vital) => Some((*at, vital)),
            _ => None,
        })
    }

    fn values(&self, metric: Metric) -> Vec<String> {
        let of = self.vitals().filter(|(_, vital)| vital.vital.metric() == metric);
        of.map(|(_, vital)| shown(vital.vital.leading())).collect()
    }

    fn events(&self) -> Vec<String> {
        let events = self.decoded.iter().filter_map(|(_, decoded)| match decoded {
            Decoded::Event { name } => Some(name.to_string()),
            _ => None,
        });
        events.collect()
    }

    fn samples(&self, name: &str) -> usize {
        let of = |decoded: &Decoded| match decoded {
            Decoded::Wave(wave) if *wave.name == *name => wave.samples.len(),
            _ => 0,
        };
        self.decoded.iter().map(|(_, decoded)| of(decoded)).sum()
    }
}

/// A host and a ventilator that know each other and exchange data.
fn linked(changes: &[(&str, &str)]) -> (Host, Evita) {
    let mut host = Host::new(profile_with("draeger-medibus", changes));
    let mut evita = Evita::new();
    evita.manner.calls = false;
    host.decoder.begin(host.now());
    host.with(5, &mut evita);
    (host, evita)
}

fn codes(evita: &Evita) -> Vec<u8> {
    evita.asked.iter().map(|(code, _)| *code).collect()
}

#[test]
fn a_ventilator_is_called_identified_and_asked_for_waves_and_values() {
    let (mut host, mut evita) = linked(&[]);
    assert_eq!(codes(&evita)[..4], [0x51, 0x52, 0x53, 0x54]);
    assert_eq!(evita.chosen, b"00010601", "each sample of both waves that it offers");
    assert!(evita.answered.contains(&(0x52, b"0161'vitalbridge'01.00:04.03".to_vec())), "{:?}", evita.answered);
    assert!(host.decoded.iter().any(|(_, d)| *d == Decoded::SerialNumber("8240 Evita 4".to_owned())));
    let before = (evita.count(0x24), host.samples("airway_pressure"));
    host.with(20, &mut evita);
    assert!((19..=21).contains(&(evita.count(0x24) - before.0)), "{} requests in 20 s", evita.count(0x24) - before.0);
    let samples = host.samples("airway_pressure") - before.1;
    assert!((1240..=1260).contains(&samples), "{samples} samples in 20 s, 62.5 a second");
    for (metric, value) in [(Metric::TidalVolume, "450"), (Metric::Peep, "5.1"), (Metric::Spo2, "98")] {
        let values = host.values(metric);
        assert!(values.len() >= 19 && values.iter().all(|told| told == value), "{metric}: {values:?}");
    }
    let times: Vec<&str> = host.vitals().filter_map(|(_, vital)| vital.device_time.as_deref()).collect();
    assert!(!times.is_empty() && times.iter().all(|time| *time == "2014-10-07T09:33:00"), "{times:?}");
    assert!(host.events().contains(&"text Mode BIPAP".to_owned()), "{:?}", host.events());
    assert!(host.events().contains(&"setting 0B 5.0".to_owned()), "{:?}", host.events());
    assert_eq!(evita.damaged, 0);
    // Everything that was ever sent asks or keeps the link; nothing sets anything at the ventilator.
    let asks = [0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x2E, 0x30, 0x51, 0x52, 0x53, 0x54];
    assert!(codes(&evita).iter().all(|code| asks.contains(code)), "{:02X?}", codes(&evita));
}

#[test]
fn an_idle_link_is_kept_by_nop_every_two_seconds() {
    let (mut host, mut evita) = linked(&[("interval = \"1s\"", "interval = \"10s\""), ("\"4s\"", "\"30s\"")]);
    host.with(40, &mut evita);
    let nops: Vec<Mono> = evita.asked.iter().filter(|(code, _)| *code == 0x30).map(|(_, at)| *at).collect();
    assert!(nops.len() >= 10, "{} NOPs", nops.len());
    let pauses = evita.asked.windows(2).map(|pair| pair[1].1.since(pair[0].1).as_millis());
    assert!(pauses.clone().all(|pause| pause <= 2000 + u128::from(STEP_MS)), "{:?}", pauses.max());
    assert_eq!(evita.count(0x51), 1, "the link broke");
}

#[test]
fn a_ventilator_that_says_nothing_for_three_seconds_is_called_until_it_is_back() {
    let (mut host, mut evita) = linked(&[]);
    evita.manner.answers = false;
    let (silent_since, told) = (host.millis, host.vitals().count());
    host.with(30, &mut evita);
    assert_eq!(host.vitals().count(), told, "a value without an answer");
    let lost = host
        .decoded
        .iter()
        .find(|(at, d)| *at > silent_since && matches!(d, Decoded::Event { name } if &**name == "link time-out"));
    let after = lost.expect("no time-out is told").0 - silent_since;
    assert!((2000..=3010).contains(&after), "after {after} ms");
    let calls: Vec<Mono> = evita.asked.iter().filter(|(code, _)| *code == 0x51).skip(1).map(|(_, at)| *at).collect();
    assert!(calls.len() >= 9, "{} calls in 27 s", calls.len());
    assert!(calls.windows(2).all(|pair| pair[1].since(pair[0]).as_millis().abs_diff(3000) <= 20), "{calls:?}");
    evita.manner.answers = true;
    let samples = host.samples("co2");
    host.with(6, &mut evita);
    assert!(host.vitals().count() > told);
    assert!(host.samples("co2") > samples, "the waves were not chosen again");
}

#[test]
fn a_ventilator_that_starts_again_is_asked_everything_again() {
    let (mut host, mut evita) = linked(&[]);
    let asked = evita.asked.len();
    evita.chosen.clear();
    let mut called = false;
    host.run(Duration::from_secs(5), &mut |bytes, now| {
        let mut out = if std::mem::replace(&mut called, true) { Vec::new() } else { evita::command(0x51) };
        out.extend(evita.turn(bytes, now));
        out
    });
    assert!(evita.answered.contains(&(0x51, Vec::new())), "its call was not answered");
    let later = &codes(&evita)[asked..];
    assert!(later.windows(3).any(|codes| codes == [0x52, 0x53, 0x54]), "{later:02X?}");
    assert_eq!(evita.chosen, b"00010601");
}

#[test]
fn every_command_of_the_device_is_answered_known_or_not_and_a_corrupt_one_with_nak() {
    let (mut host, _) = linked(&[]);
    for code in (0x20..0x60).filter(|code| *code != 0x52) {
        host.sent.clear();
        let mut once = Some(evita::command(code));
        host.run(Duration::from_millis(20), &mut |_, _| once.take().unwrap_or_default());
        let expected = evita::response(code, b"");
        assert!(host.sent.windows(expected.len()).any(|sent| sent == expected), "{code:02X}: {:02X?}", host.sent);
    }
    host.sent.clear();
    // The sum that the manual prints for NOP on p. 29; 1BH + 30H is 4BH.
    let mut once = Some(hex::bytes("1B 30 34 36 0D").unwrap());
    host.run(Duration::from_millis(20), &mut |_, _| once.take().unwrap_or_default());
    assert!(host.sent.starts_with(&[0x01, 0x15, 0x31, 0x36, 0x0D]), "{:02X?}", host.sent);
}

#[test]
fn nothing_is_sent_between_dc1_and_dc3_and_after_three_seconds_the_link_starts_anew() {
    let (mut host, mut evita) = linked(&[]);
    let say = |host: &mut Host, evita: &mut Evita, byte: u8| {
        let mut once = Some(byte);
        host.run(Duration::from_millis(STEP_MS), &mut |bytes, now| {
            let mut out = evita.turn(bytes, now);
            out.extend(once.take());
            out
        });
    };
    let quiet = |host: &mut Host, evita: &mut Evita, millis| {
        // It goes on talking: NOP keeps its half of the link.
        let sent = host.sent.len();
        let mut said = 0;
        host.run(Duration::from_millis(millis), &mut |bytes, now| {
            said += STEP_MS;
            let mut out = evita.turn(bytes, now);
            out.extend(if said % 500 == 0 { evita::command(0x30) } else { Vec::new() });
            out
        });
        host.sent.len() - sent
    };
    say(&mut host, &mut evita, 0x11);
    assert_eq!(quiet(&mut host, &mut evita, 2500), 0, "something was sent");
    say(&mut host, &mut evita, 0x13);
    assert!(quiet(&mut host, &mut evita, 2000) > 0, "it does not go on");
    assert_eq!(evita.count(0x51), 1, "the link started anew");
    say(&mut host, &mut evita, 0x11);
    quiet(&mut host, &mut evita, 3500);
    assert!(evita.count(0x51) > 1, "it waits for ever");
}

#[test]
fn what_a_device_refuses_or_does_not_know_is_left_out() {
    for code in [0x52, 0x53, 0x54] {
        let mut host = Host::new(profile_with("draeger-medibus", &[]));
        let mut evita = Evita::new();
        evita.manner.refuses = Some(code);
        host.decoder.begin(host.now());
        host.with(10, &mut evita);
        assert_eq!(evita.count(code), 3, "{code:02X}");
        assert!(host.values(Metric::Spo2).len() >= 5, "{code:02X}: no values");
        assert_eq!(host.samples("co2"), 0, "{code:02X}");
    }
    // p. 7: a command with an argument confuses devices before MEDIBUS 3.00.
    let mut host = Host::new(profile_with("draeger-medibus", &[]));
    let mut evita = Evita::new();
    evita.manner.identity = b"8000'Old'01.00:02.00".to_vec();
    host.decoder.begin(host.now());
    host.with(10, &mut evita);
    assert_eq!((evita.count(0x53), evita.count(0x54)), (0, 0));
    assert!(host.values(Metric::Spo2).len() >= 5);
}

#[test]
fn a_value_that_is_not_in_the_answer_is_absent_and_never_the_last_one() {
    let (mut host, mut evita) = linked(&[]);
    assert_eq!(host.values(Metric::Etco2).last().unwrap(), "38");
    evita.manner.measured = b"88 450EB97  ".to_vec();
    host.with(3, &mut evita);
    assert_eq!(host.values(Metric::Etco2).last().unwrap(), "not_measured");
    assert_eq!(host.values(Metric::Spo2).last().unwrap(), "97");
    evita.manner.alarms = b"<D9CO2 SENSOR ?".to_vec();
    host.with(3, &mut evita);
    assert_eq!(host.values(Metric::Etco2).last().unwrap(), "no_sensor");
}

#[test]
fn alarms_are_told_when_they_begin_and_end_and_advisories_do_not_alarm() {
    let (mut host, mut evita) = linked(&[]);
    let statuses = |host: &Host| {
        let told = host.decoded.iter().rev().find_map(|(_, decoded)| match decoded {
            Decoded::Status(statuses) => Some(statuses.iter().copied().collect::<Vec<Status>>()),
            _ => None,
        });
        told.unwrap_or_default()
    };
    evita.manner.alarms = b"3BBSIGH ON     ".to_vec();
    host.with(2, &mut evita);
    assert_eq!((host.events().last().unwrap().as_str(), statuses(&host)), ("alarm 3 SIGH ON", vec![]));
    evita.manner.alarms = b"N10PAW \"#      3BBSIGH ON     ".to_vec();
    host.with(2, &mut evita);
    assert_eq!(host.events().last().unwrap(), "alarm 30 PAW HIGH");
    assert_eq!(statuses(&host), [Status::DeviceAlarm]);
    evita.manner.alarms.clear();
    host.with(2, &mut evita);
    assert!(host.events().ends_with(&["alarm 3 SIGH ON ended".to_owned(), "alarm 30 PAW HIGH ended".to_owned()]));
    assert_eq!(statuses(&host), []);
}

#[test]
fn a_driver_that_may_not_talk_says_nothing_whatever_comes() {
    for id in ["draeger-medibus", "datex-s5-dri"] {
        let mut host = Host::new(profile_with(id, &[]));
        let mut said = 0;
        host.run(Duration::from_secs(20), &mut |_, _| {
            said += 1;
            [evita::command(0x51), evita::command(0x52), evita::response(0x24, evita::MEASURED)][said % 3].clone()
        });
        assert_eq!(host.sent, [0; 0], "{id}");
        assert_eq!(host.decoder.next_deadline(), None, "{id}");
    }
}

#[test]
fn a_ventilator_is_told_that_nobody_listens_any_more() {
    let (mut host, mut evita) = linked(&[]);
    host.decoder.end();
    let told = host.decoder.take_outgoing();
    evita.turn(&told, host.now().mono);
    assert_eq!(codes(&evita).last(), Some(&0x55));
    assert_eq!(told[..5], [0xD0, 0xC1, 0xC0, 0xC0, 0xC0], "the waves are switched off");
}

/// The requests in appendix A of M1017617, but for the classes, of which only the basic one is asked for.
#[test]
fn the_requests_to_a_monitor_are_those_of_the_document() {
    let zeros = |count: usize| "00 ".repeat(count);
    let numbers = |interval: &str, sum: &str| {
        let (before, after) = (zeros(19), zeros(18));
        hex::bytes(&format!("7E 31 {before} 00 FF {after} 01 {interval} 00 {} {sum} 7E", zeros(6))).unwrap()
    };
    let waves = |kind: &str, types: &str, rest: usize| {
        let head = format!("7E 48 {} 01 {} FF {}", zeros(13), zeros(6), zeros(18));
        hex::bytes(&format!("{head} {kind} 00 00 00 {types} {} 48 7E", zeros(rest))).unwrap()
    };
    let only_ecg = r#"waves = ["ecg1"]"#;
    let all = r#"waves = ["ecg1", "pressure1", "pleth", "co2", "airway_pressure", "airway_flow"]"#;
    let changes = [(all, only_ecg), ("\"5s\"", "\"10s\""), ("\"12s\"", "\"30s\"")];
    let mut host = Host::new(profile_with("datex-s5-dri", &changes));
    host.decoder.begin(host.now());
    let sent = host.decoder.take_outgoing();
    // 49H less the 0EH of the classes that are not asked for.
    let displayed = numbers("0A", "3B");
    assert_eq!(sent[..displayed.len()], displayed);
    assert!(sent.ends_with(&waves("00", "01 FF", 26)), "{sent:02X?}");
    host.decoder.end();
    let sent = host.decoder.take_outgoing();
    assert!(sent.starts_with(&numbers("00", "31")), "{sent:02X?}");
    assert!(sent.ends_with(&waves("01", "FF", 27)), "{sent:02X?}");
}

#[test]
fn a_monitor_is_asked_once_and_gives_values_waves_and_alarms() {
    let mut host = Host::new(profile_with("datex-s5-dri", &[]));
    let mut monitor = Monitor::measuring(9750);
    host.decoder.begin(host.now());
    host.with_monitor(60, &mut monitor);
    assert_eq!(monitor.asked.len(), 3, "it was asked again although it answered");
    assert!(monitor.in_alarm_mode);
    let values = host.values(Metric::Spo2);
    assert_eq!((values.len(), values[0].as_str()), (12, "97.5"));
    let per_second = |name: &str| host.samples(name) / 60;
    assert_eq!((per_second("ecg1"), per_second("pleth")), (300, 100));
    assert_eq!(host.events(), ["alarm red HR LOW"]);
    let alarming = |d: &Decoded| matches!(d, Decoded::Status(set) if set.contains(&Status::DeviceAlarm));
    assert!(host.decoded.iter().any(|(_, decoded)| alarming(decoded)));
}

#[test]
fn a_monitor_that_has_forgotten_is_asked_again() {
    let mut host = Host::new(profile_with("datex-s5-dri", &[]));
    let mut monitor = Monitor::measuring(9750);
    host.decoder.begin(host.now());
    host.with_monitor(10, &mut monitor);
    let told = host.values(Metric::Spo2).len();
    let samples = host.samples("ecg1");
    // Switched off and on.
    let mut monitor = Monitor::measuring(9600);
    host.with_monitor(6, &mut monitor);
    assert!(host.samples("ecg1") > samples, "the waves were not asked for again");
    host.with_monitor(15, &mut monitor);
    assert!(host.values(Metric::Spo2).len() > told, "the values were not asked for again");
    assert_eq!(host.values(Metric::Spo2).last().unwrap(), "96");
}
