//! The cases of a device's time, one by one and at random.

use super::*;

const DAY_MS: u64 = 86_400_000;

/// Boot was on 2026-11-21 at 00:00.
fn at(ms: u64) -> Stamp {
    let boot = Wall::parse("2026-11-21T00:00:00Z").unwrap();
    Stamp { mono: Mono::from_millis(ms), wall: Wall(boot.0 + i64::try_from(ms).unwrap()) }
}

fn current_time(local: &str, fractions_256: u8) -> [u8; 10] {
    let time = CurrentTime::local(Wall::parse(&format!("{local}Z")).unwrap(), 0).unwrap();
    CurrentTime { fractions_256, ..time }.encode()
}

/// One that was asked 200 ms before it answered, and is known to count seconds.
fn told(clock: &mut DeviceClock, local: &str, ms: u64) {
    clock.counts_seconds = true;
    clock.on_asked(at(ms - 200));
    clock.on_told(&current_time(local, 0), at(ms));
}

fn local(text: &str) -> Wall {
    Wall::parse(&format!("{text}Z")).unwrap()
}

/// The bridge has set it, which took 200 ms.
fn set(clock: &mut DeviceClock, said: &str, ms: u64) {
    clock.on_set(local(said), at(ms));
    clock.on_taken(at(ms + 200));
}

/// What it was brought to, and how certain; `None`: nobody knows.
fn mapped(clock: &DeviceClock, said: &str, received: Stamp) -> Option<(String, u32)> {
    match clock.related(said, received) {
        Related::At(mapped) => Some((mapped.wall.to_string(), mapped.uncertainty_ms)),
        Related::TooOld | Related::Unknown => None,
    }
}

/// To the second, if it is known.
fn second(clock: &DeviceClock, said: &str, received: Stamp) -> Option<String> {
    mapped(clock, said, received).map(|(wall, _)| wall[..19].to_owned())
}

#[test]
fn a_stamp_is_dated_by_the_distance_of_both_clocks_or_not_at_all() {
    const NOON: u64 = DAY_MS / 2;
    let mut clock = DeviceClock::default();
    assert_eq!(clock.related("2020-01-01T07:00:01", at(NOON)), Related::Unknown, "nothing relates it");
    // Its clock is years behind; only the distance counts. Halves of both seconds and of the round trip, and 100 ppm.
    told(&mut clock, "2020-01-01T08:00:01", NOON);
    for (said, later_ms, expected) in [
        ("2020-01-01T08:00:01", 0, Some(("2026-11-21T11:59:59.900Z", 1100))),
        ("2020-01-01T07:00:01", 0, Some(("2026-11-21T10:59:59.900Z", 1460))),
        ("2020010107000155", 0, Some(("2026-11-21T10:59:59.900Z", 1460))),
        // A clock that says minutes, and one that writes them with seconds.
        ("2020-01-01T07:59", 0, Some(("2026-11-21T11:59:28.400Z", 30_604))),
        ("2020-01-01T07:59:00", 0, Some(("2026-11-21T11:59:28.400Z", 30_604))),
        ("2020010107590000", 0, Some(("2026-11-21T11:59:28.400Z", 30_604))),
        // Measured while the answer was on its way, and in the future.
        ("2020-01-01T08:00:03", 0, Some(("2026-11-21T12:00:00.000Z", 1101))),
        ("2020-01-01T08:00:04", 0, None),
        // Measured over this link, a minute after the answer.
        ("2020-01-01T08:01:01", 60_000, Some(("2026-11-21T12:00:59.900Z", 1106))),
        ("2020-01-01T08:01:01", 0, None),
        ("2020-01-01T08:01:04", 60_000, None),
        // 30 days.
        ("2019-12-02T08:00:02", 0, Some(("2026-10-22T12:00:00.900Z", 260_300))),
        ("2020-13-01T07:00:00", 0, None),
        ("07-Jan-04 11:24:58", 0, None),
        ("12:34:56", 0, None),
        ("", 0, None),
    ] {
        let found = mapped(&clock, said, at(NOON + later_ms));
        assert_eq!(found, expected.map(|(wall, ms)| (wall.to_owned(), ms)), "{said} after {later_ms} ms");
    }
    // More than 30 days are of the past; more than 366 were said by a clock that was never set, perhaps just now.
    for (said, expected) in [
        ("2019-12-02T08:00:01", Related::TooOld),
        ("2018-12-31T08:00:03", Related::TooOld),
        ("2018-12-31T08:00:01", Related::Unknown),
        ("2000-01-01T00:05:00", Related::Unknown),
    ] {
        assert_eq!(clock.related(said, at(NOON)), expected, "{said}");
    }
}

#[test]
fn only_the_first_answer_of_a_link_counts_and_of_a_link_before_none() {
    let mut clock = DeviceClock::default();
    told(&mut clock, "2020-01-01T08:00:00", 10_000);
    let before = mapped(&clock, "2020-01-01T07:00:00", at(10_000));
    assert!(before.is_some());
    // Somebody has set it meanwhile: what it has kept is of before.
    told(&mut clock, "2026-11-21T01:00:00", 20_000);
    assert_eq!(mapped(&clock, "2020-01-01T07:00:00", at(10_000)), before);
    clock.on_link_end(at(30_000));
    clock.on_link_end(at(40_000));
    assert!(mapped(&clock, "2020-01-01T07:00:00", at(32_000)).is_some(), "it was on its way");
    assert_eq!(mapped(&clock, "2020-01-01T07:00:00", at(32_001)), None, "it is of another link");
    clock.on_link();
    assert_eq!(mapped(&clock, "2020-01-01T07:00:00", at(10_000)), None);
    // An answer that is none.
    for payload in [&[][..], &[0; 10], &[0xEA, 7, 13, 1, 8, 0, 0]] {
        clock.on_told(payload, at(50_000));
        assert_eq!(mapped(&clock, "2020-01-01T07:00:00", at(50_000)), None, "{payload:?}");
    }
    // Date Time (0x2A08), unasked.
    clock.on_told(&[0xE4, 7, 1, 1, 8, 0, 50], at(60_000));
    let found = mapped(&clock, "2020-01-01T08:00:50", at(60_000));
    assert_eq!(found, Some(("2026-11-21T00:01:00.000Z".to_owned(), 1000)));
}

#[test]
fn an_answer_without_seconds_is_one_of_minutes_until_the_clock_has_told_a_second() {
    let date_time = |minute: u8, second: u8| [0xE4, 7, 1, 1, 8, minute, second];
    let mut clock = DeviceClock::default();
    // Half a minute, and half a second for the stamp, and 100 ppm of what is between their middles.
    clock.on_told(&date_time(0, 0), at(60_000));
    let found = mapped(&clock, "2020-01-01T07:59:01", at(60_000));
    assert_eq!(found, Some(("2026-11-20T23:59:31.500Z".to_owned(), 30_509)));
    clock.on_link();
    clock.on_told(&date_time(1, 1), at(121_000));
    let found = mapped(&clock, "2020-01-01T08:01:01", at(121_000));
    assert_eq!(found, Some(("2026-11-21T00:02:01.000Z".to_owned(), 1000)));
    // The next one that says no second is of a clock that counts them.
    clock.on_link();
    clock.on_told(&date_time(2, 0), at(180_000));
    let found = mapped(&clock, "2020-01-01T08:01:59", at(180_000));
    assert_eq!(found, Some(("2026-11-21T00:02:59.000Z".to_owned(), 1001)));
}

#[test]
fn measurements_wait_2_s_for_the_answer() {
    let mut clock = DeviceClock::default();
    assert_eq!(clock.deadline(), None);
    clock.on_asked(at(1000));
    assert_eq!(clock.deadline(), Some(Mono::from_millis(3000)));
    clock.on_told(&current_time("2020-01-01T08:00:00", 0), at(1100));
    assert_eq!(clock.deadline(), None);
    clock.on_awaited(at(5000));
    assert_eq!(clock.deadline(), Some(Mono::from_millis(7000)));
    clock.on_untold();
    assert_eq!(clock.deadline(), None);
    clock.on_asked(at(8000));
    clock.on_link();
    assert_eq!(clock.deadline(), None, "the link has gone");
}

#[test]
fn where_the_clock_was_set_between_two_visits_only_what_can_be_of_one_line_is_dated() {
    const HOUR: u64 = 3_600_000;
    let mut clock = DeviceClock::default();
    told(&mut clock, "2026-11-21T09:00:00", 8 * HOUR);
    clock.on_link();
    // Twelve hours later it says thirteen more.
    told(&mut clock, "2026-11-21T22:00:00", 20 * HOUR);
    for (said, expected) in [
        // By the new line five minutes ago; by the old one in the future.
        ("2026-11-21T21:55:01", Some("2026-11-21T19:55:00")),
        // Three hours ago by the new line, and two by the old one.
        ("2026-11-21T19:00:00", None),
        // By the new line before the visit at which it was not set yet.
        ("2026-11-21T08:30:01", Some("2026-11-21T07:30:00")),
        ("2026-11-21T22:00:03", None),
        ("2000-01-01T00:00:00", None),
    ] {
        let found = second(&clock, said, at(20 * HOUR));
        assert_eq!(found.as_deref(), expected, "{said}");
    }
    // A clock that goes 100 ppm wrong and says whole seconds was not set.
    let mut clock = DeviceClock::default();
    told(&mut clock, "2026-11-21T09:00:00", 8 * HOUR);
    clock.on_link();
    told(&mut clock, "2026-11-21T21:00:06", 20 * HOUR);
    assert!(mapped(&clock, "2026-11-21T19:00:00", at(20 * HOUR)).is_some());
    // The bridge itself has set it to 10:00 at 8:00.
    let mut clock = DeviceClock::default();
    told(&mut clock, "2026-11-21T09:00:00", 8 * HOUR);
    set(&mut clock, "2026-11-21T10:00:00", 8 * HOUR);
    clock.on_link();
    told(&mut clock, "2026-11-21T22:00:00", 20 * HOUR);
    let found = second(&clock, "2026-11-21T19:00:01", at(20 * HOUR));
    assert_eq!(found.as_deref(), Some("2026-11-21T17:00:00"));
    // What came at no visit before, of the time before it was set.
    let found = second(&clock, "2026-11-21T08:30:01", at(20 * HOUR));
    assert_eq!(found.as_deref(), Some("2026-11-21T07:30:00"));
    // An answer that comes after it was set says nothing of what was measured before.
    let mut clock = DeviceClock::default();
    clock.on_set(local("2026-11-21T10:00:00"), at(8 * HOUR - 500));
    told(&mut clock, "2026-11-21T09:00:00", 8 * HOUR);
    assert_eq!(mapped(&clock, "2026-11-21T08:00:00", at(8 * HOUR)), None);
}

#[test]
fn what_is_measured_after_the_bridge_has_set_the_clock_is_dated_by_what_it_wrote() {
    const NOON: u64 = DAY_MS / 2;
    const LATER: u64 = NOON + 10 * 60_000;
    // Its clock was seven hours ahead, seven hours behind, or ten minutes ahead, and was set to 12:00:01.
    for (told_time, said, expected) in [
        // Just now, or seven hours ago.
        ("2026-11-21T19:00:00", "2026-11-21T12:09:57", None),
        ("2026-11-21T05:00:00", "2026-11-21T12:09:57", Some("2026-11-21T12:09:56")),
        ("2026-11-21T12:20:00", "2026-11-21T12:09:57", None),
        // By the old time it was measured after that was changed.
        ("2026-11-21T12:09:50", "2026-11-21T12:09:57", Some("2026-11-21T12:09:56")),
        // Kept in it.
        ("2026-11-21T05:00:00", "2026-11-21T04:30:05", Some("2026-11-21T11:30:04")),
        // By the new time it was measured before that was set.
        ("2026-11-21T19:00:00", "2026-11-21T11:30:05", Some("2026-11-21T04:30:04")),
    ] {
        let mut clock = DeviceClock::default();
        told(&mut clock, told_time, NOON);
        set(&mut clock, "2026-11-21T12:00:01", NOON);
        assert_eq!(second(&clock, said, at(LATER)).as_deref(), expected, "{told_time} {said}");
    }
    // It was not taken, or nobody knows yet: what can be of one of both alone is dated.
    let mut clock = DeviceClock::default();
    told(&mut clock, "2026-11-21T19:00:00", NOON);
    clock.on_set(local("2026-11-21T12:00:01"), at(NOON));
    assert_eq!(clock.related("2026-11-21T12:09:57", at(LATER)), Related::Unknown, "just now, or seven hours ago");
    assert_eq!(second(&clock, "2026-11-21T19:09:57", at(LATER)).as_deref(), Some("2026-11-21T12:09:56"));
    // A clock that can only be written.
    let mut clock = DeviceClock::default();
    set(&mut clock, "2026-11-21T12:00:01", NOON);
    assert_eq!(second(&clock, "2026-11-21T12:09:57", at(LATER)).as_deref(), Some("2026-11-21T12:09:56"));
    assert_eq!(clock.related("2026-11-21T11:30:05", at(LATER)), Related::Unknown, "it was kept");
    clock.on_link();
    assert_eq!(clock.related("2026-11-21T12:09:57", at(LATER)), Related::Unknown, "somebody may have set it");
}

#[test]
fn a_monitor_tells_its_time_with_each_measurement_of_now() {
    let mut clock = DeviceClock::default();
    clock.on_live("2026112022053000", at(1000));
    clock.on_live("02/24/18 04:48:53", at(1500));
    clock.on_live("2026112022063000", at(2000));
    assert_eq!(
        mapped(&clock, "2026112022063000", at(2000)),
        Some(("2026-11-21T00:00:02.000Z".to_owned(), 1000)),
        "the newest counts"
    );
}

/// A device with a clock that is wrong in every way in which one may be, and what it really was.
struct Device {
    random: fastrand::Rng,
    /// Its local time at our boot, in ms since 1970.
    local: i64,
    /// How fast it runs, in millionths of what it should.
    ppm: i64,
    has_fractions: bool,
    says_minutes: bool,
}

impl Device {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            local: random.i64(0..4_000_000_000_000),
            ppm: random.i64(-99..=99),
            has_fractions: random.bool(),
            says_minutes: random.bool(),
            random,
        }
    }

    /// What its clock really says at a time since boot.
    fn local_at(&self, ms: i64) -> i64 {
        self.local + ms + ms * self.ppm / 1_000_000
    }

    fn answer(&self, ms: i64) -> [u8; 10] {
        let local = self.local_at(ms);
        let whole = CurrentTime::local(Wall(local), 0).unwrap();
        let fraction = u8::try_from(local.rem_euclid(1000) * 256 / 1000).unwrap();
        CurrentTime { fractions_256: if self.has_fractions { fraction } else { 0 }, ..whole }.encode()
    }

    fn stamp(&self, ms: i64) -> String {
        let text = Wall(self.local_at(ms)).to_string();
        text[..if self.says_minutes { 16 } else { 19 }].to_owned()
    }
}

#[test]
fn the_true_time_is_never_further_off_than_the_uncertainty_says() {
    let first = fastrand::u64(..);
    println!("seeds from {first}");
    let mut dated = 0;
    for seed in (0..20_000).map(|more| first.wrapping_add(more)) {
        let mut device = Device::new(seed);
        // Since boot: 40 days of measuring, then a visit.
        let asked = 40 * 86_400_000 + device.random.i64(0..86_400_000);
        let trip = device.random.i64(0..800);
        let answered = asked + device.random.i64(0..=trip);
        let told = asked + trip;
        let came = told + device.random.i64(0..600_000);
        let measured =
            if device.random.bool() { device.random.i64(0..came) } else { came - device.random.i64(0..900_000) };
        let stamp = |ms: i64| at(u64::try_from(ms).unwrap());
        let mut clock = DeviceClock::default();
        clock.on_asked(stamp(asked));
        clock.on_told(&device.answer(answered), stamp(told));
        let (said, received) = (device.stamp(measured), stamp(came));
        let Related::At(mapped) = clock.related(&said, received) else {
            assert!(came - measured > OLDEST_MS - 400_000, "seed {seed}: {said} could be related");
            continue;
        };
        dated += 1;
        let truth = received.wall.0 - (came - measured);
        let off = mapped.wall.0 - truth;
        assert!(
            off.abs() <= i64::from(mapped.uncertainty_ms),
            "seed {seed}: {said} is off by {off} ms of {} ms",
            mapped.uncertainty_ms
        );
        assert!(mapped.wall <= received.wall, "seed {seed}: it lies in the future");
    }
    assert!(dated > 10_000, "{dated}");
}
