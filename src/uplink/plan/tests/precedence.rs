//! Who goes before whom, and what does not go twice.

use super::*;

/// With so many readings sent and none of them answered.
fn flying(readings: usize) -> (Bench, String) {
    let log = "r".repeat(readings);
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(u64::try_from(readings).unwrap()));
    bench.turn(&log);
    (bench, log)
}

#[test]
fn an_alert_takes_the_only_place_before_a_reading_that_has_waited_for_longer() {
    let mut bench = Bench::new("rrr", BrokerLimits { receive_maximum: 1, max_packet_bytes: None });
    let first = bench.tickets[0];
    assert_eq!(bench.sent(), [1]);
    bench.plan.on_durable(Seq(4));
    bench.turn("rrrA");
    bench.answer(first, 0x00);
    bench.turn("rrrA");
    assert_eq!(bench.sent(), [4]);
}

#[test]
fn the_backlog_leaves_places_to_the_present_and_the_present_to_alerts() {
    let (mut bench, mut log) = with_backlog(5000);
    bench.plan.limits.backlog_a_second = 0;
    bench.wait(Duration::from_secs(1));
    bench.turn(&log);
    let lanes = |bench: &Bench| {
        [Lane::Alerts, Lane::Live, Lane::Backlog]
            .map(|lane| bench.tickets.iter().filter(|ticket| ticket.lane == lane).count())
    };
    assert_eq!(lanes(&bench), [0, 0, 16]);
    log.push_str(&"r".repeat(60));
    bench.plan.on_durable(Seq(5060));
    bench.turn(&log);
    assert_eq!(lanes(&bench), [0, 8, 16]);
    log.push_str(&"A".repeat(60));
    bench.plan.on_durable(Seq(5120));
    bench.turn(&log);
    assert_eq!(lanes(&bench), [8, 8, 16]);
}

#[test]
fn after_the_row_was_found_that_ended_the_connection_the_window_is_whole_again() {
    let mut bench = Bench::new("rRr", BROAD);
    bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
    bench.sent();
    bench.reconnect("rRr", BROAD);
    for _ in 0..3 {
        assert_eq!(bench.tickets.len(), 1, "one by one");
        let ticket = bench.tickets.pop().unwrap();
        bench.answer(ticket, 0x00);
        bench.turn("rRr");
    }
    bench.plan.on_durable(Seq(63));
    bench.turn(&"r".repeat(63));
    assert_eq!(bench.sent().len(), 24);
}

#[test]
fn what_is_durable_stays_so() {
    let (mut bench, _) = flying(0);
    bench.plan.on_durable(Seq(10));
    bench.plan.on_durable(Seq(5));
    assert_eq!(bench.plan.status(bench.now).waiting, 10);
}

#[test]
fn what_flies_when_the_wait_for_the_clock_ends_does_not_go_twice() {
    let log = "r".repeat(400);
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_clock(Some(Seq(11)), bench.now);
    bench.plan.on_durable(Seq(400));
    bench.turn(&log);
    assert_eq!(bench.tickets.len(), 10, "those of the boot before");
    bench.plan.on_clock(None, bench.now);
    let mut sent = Vec::new();
    answer_all(&mut bench, &log, &mut sent);
    let mut numbers: Vec<u64> = sent.iter().flat_map(|(first, last)| *first..=*last).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=400).collect::<Vec<_>>());
    assert_eq!(bench.saved.last(), Some(&(READINGS, 400)));
}

#[test]
fn of_a_range_that_is_asked_for_only_what_the_present_has_passed_is_of_the_past() {
    let (mut bench, log) = flying(60);
    for ticket in std::mem::take(&mut bench.tickets) {
        bench.answer(ticket, 0x00);
    }
    bench.turn(&log);
    assert_eq!(bench.tickets.len(), 24, "the next ones fly");
    assert!(bench.plan.resend(Seq(20), Seq(50)));
    assert_eq!(bench.plan.status(bench.now).backlog, 5, "20 to 24");
    let mut sent = Vec::new();
    answer_all(&mut bench, &log, &mut sent);
    let again: Vec<_> = sent.into_iter().filter(|(first, last)| first < last).collect();
    assert_eq!(again, [(20, 24), (25, 50)], "the rest once the present has passed it");
}
