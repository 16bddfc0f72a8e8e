//! The plan, input by input.

use super::*;
use crate::clock::Wall;
use crate::uplink::lane::READ_RETRY;
use crate::uplink::plan::refusals::{MAX_ERRORS, REFUSED_RETRY};

/// A plan, its time, and everything it has asked for.
struct Bench {
    plan: Plan,
    now: Stamp,
    tickets: Vec<Ticket>,
    saved: Vec<(&'static str, u64)>,
    parked: Vec<(u64, String)>,
    connects: usize,
    closed: Vec<String>,
}

const HUGE: usize = 5000;

impl Bench {
    /// A log of alerts (`A`), others (`o`), readings (`r`) and readings that are huge (`R`), numbered from 1; connected.
    fn new(log: &str, broker: BrokerLimits) -> Self {
        let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
        let durable = Seq(u64::try_from(log.len()).unwrap());
        let plan = Plan::new(Limits::default(), &BTreeMap::new(), durable, 1, now);
        let (tickets, saved, parked, closed) = (vec![], vec![], vec![], vec![]);
        let mut bench = Self { plan, now, tickets, saved, parked, connects: 0, closed };
        bench.turn(log);
        assert_eq!(bench.connects, 1, "the first connection is wanted at once");
        bench.plan.on_connected(broker, now);
        bench.turn(log);
        bench
    }

    fn turn(&mut self, log: &str) {
        while let Some(action) = self.plan.next_action(self.now) {
            match action {
                Action::Connect => self.connects += 1,
                Action::Close { reason } => self.closed.push(reason),
                Action::Read(request) => {
                    let (rows, more) = bundled(log, request);
                    self.plan.on_rows(request, rows, more);
                }
                Action::Publish { ticket, .. } => self.tickets.push(ticket),
                Action::Save(cursors) => {
                    for (name, seq) in cursors {
                        let known = [URGENT, OTHERS, READINGS].into_iter().find(|known| *known == name);
                        // Few of these logs have any, so that their cursor is always at the end.
                        if known != Some(OTHERS) {
                            self.saved.push((known.unwrap_or("sent"), seq.0));
                        }
                    }
                }
                Action::Park(parked) => self.parked.push((parked.seq.0, parked.reason)),
                Action::Unpark(first, last) => self.parked.retain(|(seq, _)| *seq < first.0 || last.0 < *seq),
            }
        }
    }

    fn sent(&mut self) -> Vec<u64> {
        self.tickets.drain(..).map(|ticket| ticket.first.0).collect()
    }

    fn wait(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
    }

    fn answer(&mut self, ticket: Ticket, code: u8) {
        self.plan.on_puback(ticket, code, self.now);
    }

    fn reconnect(&mut self, log: &str, broker: BrokerLimits) {
        self.wait(Limits::default().reconnect_longest);
        self.turn(log);
        self.plan.on_connected(broker, self.now);
        self.turn(log);
    }
}

fn is_full(log: &str, request: ReadRequest) -> bool {
    rows(log, request).len() >= request.limit
}

fn rows(log: &str, request: ReadRequest) -> Vec<Row> {
    let row = |(place, letter): (usize, char)| {
        let seq = Seq(u64::try_from(place + 1).unwrap());
        let packet_bytes = if letter == 'R' { HUGE } else { 100 };
        let message = Message {
            topic: String::new(),
            body: Bytes::new(),
            seq,
            present_until: Some(Mono(u64::MAX)),
            bridge: String::new(),
            kind: "",
            id: String::new(),
            packet_bytes,
        };
        Row { first: seq, last: seq, message: Ok(Arc::new(message)) }
    };
    let of_lane = |(_, letter): &(usize, char)| match request.lane {
        _ if request.every_kind => true,
        Lane::Alerts | Lane::EarlierAlerts => *letter == 'A',
        Lane::Others => *letter == 'o',
        Lane::Live | Lane::Backlog => !matches!(*letter, 'A' | 'o'),
    };
    let all = log.chars().enumerate().filter(of_lane).map(row);
    all.filter(|row| row.first > request.after && row.last <= request.through).take(request.limit).collect()
}

const BROAD: BrokerLimits = BrokerLimits { receive_maximum: u16::MAX, max_packet_bytes: None };

#[test]
fn alerts_go_first_and_readings_leave_places_to_them() {
    let log = format!("{}AA", "r".repeat(60));
    let mut bench = Bench::new(&log, BROAD);
    let sent = bench.sent();
    assert_eq!(sent.len(), 24, "32 places, 8 of them only for alerts, of which 2 came");
    assert!(sent.contains(&61) && sent.contains(&62), "{sent:?}");
    assert_eq!(sent.iter().filter(|seq| **seq <= 60).count(), 22);
}

#[test]
fn an_alert_passes_a_window_full_of_readings() {
    let log = format!("{}AA", "r".repeat(60));
    let before = log.replace('A', "");
    let mut bench = Bench::new(&before, BROAD);
    assert_eq!(bench.sent().len(), 24);
    bench.plan.on_durable(Seq(62));
    bench.turn(&log);
    assert_eq!(bench.sent(), [61, 62]);
}

#[test]
fn the_smaller_of_both_windows_counts() {
    for (receive_maximum, expected) in [(1, 1), (4, 2), (20, 12), (500, 24)] {
        let broker = BrokerLimits { receive_maximum, max_packet_bytes: None };
        assert_eq!(Bench::new(&"r".repeat(60), broker).sent().len(), expected, "{receive_maximum}");
    }
}

#[test]
fn a_cursor_passes_only_what_is_confirmed_in_whatever_order() {
    let mut bench = Bench::new("rArrr", BROAD);
    let tickets = bench.tickets.clone();
    let by_seq = |seq: u64| *tickets.iter().find(|ticket| ticket.first.0 == seq).unwrap();
    // What is in no lane's way is passed at once: the reading 1 before the first alert.
    assert_eq!(std::mem::take(&mut bench.saved), [(URGENT, 1)]);
    for (seq, code, expected) in [
        (3, 0x00, vec![]),
        (1, 0x10, vec![(READINGS, 3)]),
        (2, 0x00, vec![(URGENT, 5)]),
        (5, 0x00, vec![]),
        (4, 0x00, vec![(READINGS, 5)]),
    ] {
        bench.answer(by_seq(seq), code);
        bench.turn("rArrr");
        assert_eq!(std::mem::take(&mut bench.saved), expected, "after {seq}");
    }
    assert_eq!((bench.plan.status(bench.now).sent, bench.plan.status(bench.now).waiting), (5, 0));
}

#[test]
fn after_a_lost_connection_what_was_not_confirmed_goes_again_and_only_that() {
    let log = "rrrr";
    let mut bench = Bench::new(log, BROAD);
    let second = bench.tickets[1];
    bench.answer(second, 0x00);
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.turn(log);
    bench.sent();
    assert_eq!(bench.plan.status(bench.now).in_flight, 0);
    assert_eq!(bench.plan.status(bench.now).reason.as_deref(), Some("cut"));
    bench.reconnect(log, BROAD);
    assert_eq!(bench.sent(), [1, 3, 4]);
}

#[test]
fn an_answer_from_an_earlier_connection_confirms_nothing() {
    let log = "rr";
    let mut bench = Bench::new(log, BROAD);
    let old = bench.tickets[0];
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.answer(old, 0x00);
    bench.reconnect(log, BROAD);
    bench.answer(old, 0x00);
    bench.turn(log);
    assert_eq!(bench.saved, [(URGENT, 2)], "no reading is confirmed");
    assert_eq!((bench.plan.status(bench.now).sent, bench.plan.in_flight()), (0, 2));
}

#[test]
fn rows_of_an_earlier_connection_are_not_taken() {
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(2));
    let reads: Vec<_> = std::iter::from_fn(|| bench.plan.next_action(bench.now)).collect();
    let Some(Action::Read(old)) = reads.last().cloned() else { panic!("no read: {reads:?}") };
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.wait(Limits::default().reconnect_longest);
    assert_eq!(bench.plan.next_action(bench.now), Some(Action::Connect));
    bench.plan.on_connected(BROAD, bench.now);
    let _again: Vec<_> = std::iter::from_fn(|| bench.plan.next_action(bench.now)).collect();
    bench.plan.on_rows(old, rows("rr", old), false);
    assert_eq!(bench.plan.next_action(bench.now), None, "the new read has not been answered");
}

#[test]
fn some_codes_park_at_once_and_some_after_three_tries_and_the_lane_goes_on() {
    for (code, tries) in [(0x87, 1), (0x90, 1), (0x99, 1), (0x80, 3), (0x83, 3)] {
        let log = "rr";
        let mut bench = Bench::new(log, BROAD);
        let good = bench.tickets[1];
        bench.answer(good, 0x00);
        for attempt in 1..=tries {
            let bad = *bench.tickets.iter().rfind(|ticket| ticket.first == Seq(1)).unwrap();
            bench.answer(bad, code);
            bench.turn(log);
            assert_eq!(bench.parked.len(), usize::from(attempt == tries), "0x{code:02x}, try {attempt}");
            assert_eq!(bench.plan.in_flight(), 0, "the next try waits");
            bench.wait(REFUSED_RETRY);
            bench.turn(log);
        }
        assert_eq!(bench.saved.last(), Some(&(READINGS, 2)), "0x{code:02x}");
        assert_eq!(bench.plan.status(bench.now).last_parked.unwrap().seq, Seq(1));
    }
}

#[test]
fn tries_are_counted_over_connections() {
    let log = "r";
    let mut bench = Bench::new(log, BROAD);
    for _ in 0..MAX_ERRORS {
        let ticket = *bench.tickets.last().unwrap();
        bench.answer(ticket, 0x80);
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        bench.reconnect(log, BROAD);
    }
    assert_eq!(bench.parked.len(), 1);
    assert_eq!(bench.saved.last(), Some(&(READINGS, 1)));
}

#[test]
fn a_broker_that_asks_for_less_gets_nothing_for_a_while() {
    for code in [0x91, 0x97] {
        let log = "rrr";
        let mut bench = Bench::new(log, BrokerLimits { receive_maximum: 1, max_packet_bytes: None });
        let first = bench.tickets[0];
        bench.sent();
        bench.answer(first, code);
        bench.turn(log);
        assert!(bench.sent().is_empty(), "0x{code:02x}");
        let until = bench.plan.next_deadline(bench.now).unwrap();
        assert!(until.since(bench.now.mono) >= Limits::default().reconnect_shortest);
        bench.now.mono = until;
        bench.turn(log);
        assert_eq!(bench.sent(), [1], "the same row, and the lane in its order");
    }
}

#[test]
fn a_row_larger_than_the_broker_takes_is_parked_unsent() {
    let broker = BrokerLimits { receive_maximum: 100, max_packet_bytes: Some(1000) };
    let mut bench = Bench::new("rRr", broker);
    assert_eq!(bench.sent(), [1, 3]);
    assert_eq!(bench.parked, [(2, "the packet has 5000 bytes, the broker takes 1000".to_owned())]);
}

#[test]
fn after_a_refusal_that_names_no_row_they_go_one_by_one_until_it_is_found() {
    let log = "rRr";
    let mut bench = Bench::new(log, BROAD);
    assert_eq!(bench.sent(), [1, 2, 3]);
    bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
    bench.reconnect(log, BROAD);
    let first = bench.tickets[0];
    assert_eq!(bench.sent(), [1]);
    bench.answer(first, 0x00);
    bench.turn(log);
    assert_eq!(bench.sent(), [2]);
    bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
    bench.reconnect(log, BROAD);
    assert_eq!(bench.parked, [(2, "too large".to_owned())]);
    assert_eq!(bench.sent(), [3]);
}

#[test]
fn silence_after_a_publication_ends_the_connection() {
    let log = "r";
    let mut bench = Bench::new(log, BROAD);
    assert_eq!(bench.plan.next_deadline(bench.now), Some(bench.now.mono + Duration::from_secs(20)));
    bench.wait(Duration::from_millis(19_999));
    bench.turn(log);
    assert!(bench.closed.is_empty());
    bench.wait(Duration::from_millis(1));
    bench.turn(log);
    assert_eq!((bench.closed.len(), bench.plan.status(bench.now).connected), (1, false));
}

#[test]
fn an_idle_connection_is_not_ended() {
    let mut bench = Bench::new("", BROAD);
    bench.wait(Duration::from_hours(1));
    bench.turn("");
    assert!(bench.closed.is_empty());
    assert_eq!(bench.plan.next_deadline(bench.now), None);
}

#[test]
fn a_publication_passed_over_ends_the_connection_even_if_others_are_answered() {
    let log = "r".repeat(200);
    let mut bench = Bench::new(&log, BROAD);
    for _ in 0..25 {
        if !bench.closed.is_empty() {
            break;
        }
        let last = bench.tickets.pop().unwrap();
        bench.answer(last, 0x00);
        bench.wait(Duration::from_secs(1));
        bench.turn(&log);
    }
    assert_eq!(bench.closed.len(), 1);
}

#[test]
fn a_broker_that_never_answers_the_connection_request_is_given_up() {
    let now = Stamp { mono: Mono::from_millis(5), wall: Wall(0) };
    let mut plan = Plan::new(Limits::default(), &BTreeMap::new(), Seq::ZERO, 1, now);
    assert_eq!(plan.next_action(now), Some(Action::Connect));
    assert_eq!(plan.next_action(now), None);
    let late = Stamp { mono: plan.next_deadline(now).unwrap(), ..now };
    assert_eq!(late.mono.since(now.mono), Duration::from_secs(15));
    assert!(matches!(plan.next_action(late), Some(Action::Close { .. })));
}

#[test]
fn waits_grow_to_the_longest_and_a_stable_connection_makes_them_short_again() {
    let mut bench = Bench::new("", BROAD);
    let mut longest = Duration::ZERO;
    let wait_of = |bench: &mut Bench, stood: u64| {
        bench.wait(Duration::from_secs(stood));
        bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
        let wait = bench.plan.next_deadline(bench.now).unwrap().since(bench.now.mono);
        bench.now.mono = bench.now.mono + wait;
        bench.turn("");
        bench.plan.on_connected(BROAD, bench.now);
        wait
    };
    for _ in 0..60 {
        let wait = wait_of(&mut bench, 59);
        assert!((Duration::from_secs(1)..=Duration::from_mins(2)).contains(&wait), "{wait:?}");
        longest = longest.max(wait);
    }
    assert!(longest > Duration::from_mins(1), "{longest:?}");
    assert_eq!(wait_of(&mut bench, 60), Duration::from_secs(1));
}

#[test]
fn a_new_connection_that_the_bridge_wants_itself_waits_for_nothing_and_an_unset_clock_for_the_shortest_time() {
    let mut bench = Bench::new("", BROAD);
    for (kind, wait, reason) in [
        (EndKind::Again, Duration::ZERO, None),
        (EndKind::Clock, Duration::from_secs(1), Some("because")),
        (EndKind::Clock, Duration::from_secs(1), Some("because")),
        (EndKind::Again, Duration::ZERO, None),
    ] {
        for _ in 0..20 {
            bench.plan.on_disconnected(kind, "because", bench.now);
            assert_eq!(bench.plan.status(bench.now).reason.as_deref(), reason);
            let retry = bench.plan.next_deadline(bench.now).unwrap();
            assert_eq!(retry.since(bench.now.mono), wait, "{kind:?}");
            bench.now.mono = retry;
            bench.turn("");
            bench.plan.on_connected(BROAD, bench.now);
        }
    }
}

#[test]
fn three_takeovers_in_a_minute_name_their_cause() {
    let mut bench = Bench::new("", BROAD);
    let mut reasons = Vec::new();
    for _ in 0..3 {
        bench.plan.on_disconnected(EndKind::TakenOver, "taken over", bench.now);
        reasons.push(bench.plan.status(bench.now).reason.unwrap());
        bench.now.mono = bench.plan.next_deadline(bench.now).unwrap();
        bench.turn("");
        bench.plan.on_connected(BROAD, bench.now);
    }
    assert_eq!(reasons[..2], ["taken over", "taken over"]);
    assert!(reasons[2].contains("two clients share one client id"), "{}", reasons[2]);
    assert_eq!(bench.plan.status(bench.now).reason.as_deref(), Some(reasons[2].as_str()), "still said while connected");
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.reconnect("", BROAD);
    assert_eq!(bench.plan.status(bench.now).reason, None, "over after a while");
}

#[test]
fn only_durable_rows_are_read_and_a_failed_read_is_tried_again() {
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(1));
    let Some(Action::Read(request)) = bench.plan.next_action(bench.now) else { panic!("no read") };
    assert_eq!((request.after, request.through), (Seq::ZERO, Seq(1)));
    bench.plan.on_read_failed(request, "disk", bench.now);
    assert_eq!(bench.plan.status(bench.now).reason.as_deref(), Some("disk"));
    bench.turn("r");
    bench.wait(READ_RETRY);
    bench.turn("rrr");
    assert_eq!(bench.sent(), [1], "the other two are not durable");
}

#[test]
fn a_row_that_cannot_be_written_is_parked_and_passed() {
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(1));
    while let Some(action) = bench.plan.next_action(bench.now) {
        if let Action::Read(request) = action {
            let row = Row { first: Seq(1), last: Seq(1), message: Err("no JSON".to_owned()) };
            let rows = if request.lane == Lane::Live { vec![row] } else { vec![] };
            bench.plan.on_rows(request, rows, false);
        }
    }
    assert_eq!((bench.plan.status(bench.now).parked, bench.plan.status(bench.now).waiting), (1, 0));
}

#[test]
fn a_row_that_cannot_be_read_is_parked_and_those_around_it_are_sent() {
    let log = "r".repeat(100);
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(100));
    for _ in 0..1000 {
        match bench.plan.next_action(bench.now) {
            Some(Action::Read(request)) if request.after < Seq(70) && request.through >= Seq(70) => {
                let whole = rows(&log, request);
                if request.lane == Lane::Live && whole.last().unwrap().last >= Seq(70) {
                    bench.plan.on_bad_row(request, Seq(70), "damaged", bench.now);
                } else {
                    let more = is_full(&log, request) && request.lane == Lane::Live;
                    bench.plan.on_rows(request, if request.lane == Lane::Live { whole } else { vec![] }, more);
                }
            }
            Some(Action::Read(request)) => {
                bench.plan.on_rows(request, rows(&log, request), is_full(&log, request));
            }
            Some(Action::Publish { ticket, .. }) => {
                bench.tickets.push(ticket);
                bench.answer(ticket, 0x00);
            }
            Some(Action::Park(parked)) => bench.parked.push((parked.seq.0, parked.reason)),
            Some(Action::Save(_)) => {}
            Some(other) => panic!("{other:?}"),
            None => break,
        }
    }
    assert_eq!(bench.sent(), (1..=100).filter(|seq| *seq != 70).collect::<Vec<_>>());
    assert_eq!(bench.parked, [(70, "damaged".to_owned())]);
    assert_eq!(bench.plan.status(bench.now).waiting, 0);
}

#[test]
fn after_stop_answers_count_and_nothing_new_is_sent() {
    let log = "r".repeat(60);
    let mut bench = Bench::new(&log, BROAD);
    let sent = bench.tickets.len();
    bench.plan.on_stop();
    let first = bench.tickets[0];
    bench.answer(first, 0x00);
    bench.turn(&log);
    assert_eq!((bench.tickets.len(), bench.saved.last()), (sent, Some(&(READINGS, 1))));
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.wait(Duration::from_mins(10));
    bench.turn(&log);
    assert_eq!(bench.connects, 1);
}

#[test]
fn a_cursor_from_a_log_that_was_lost_is_set_back_to_the_end_of_this_one() {
    let now = Stamp::default();
    let stored = [(URGENT, 900), (OTHERS, 900), (READINGS, 5)].map(|(name, seq)| (name.to_owned(), Seq(seq)));
    let plan = Plan::new(Limits::default(), &BTreeMap::from(stored), Seq(10), 1, now);
    assert_eq!(plan.status(now).waiting, 5);
    assert_eq!(plan.urgent_cursor(), Seq(10));
}

/// Connected with a backlog of so many readings.
fn with_backlog(readings: usize) -> (Bench, String) {
    let log = "r".repeat(readings);
    (Bench::new(&log, BROAD), log)
}

/// The longest run of the events that a bundle may hold.
fn bundled(log: &str, request: ReadRequest) -> (Vec<Row>, bool) {
    let single = rows(log, request);
    let more = single.len() >= request.limit;
    let bundle = |rows: &[Row]| {
        let (first, last) = (rows[0].first, rows[rows.len() - 1].last);
        let mut row = rows[0].clone();
        (row.first, row.last) = (first, last);
        row
    };
    (single.chunks(request.bundle).map(bundle).collect(), more)
}

#[test]
fn a_moments_interruption_is_no_backlog() {
    for (count, backlog) in [(256, 0), (257, 257)] {
        let (bench, _) = with_backlog(count);
        assert_eq!(bench.plan.status(bench.now).backlog, backlog, "{count}");
    }
}

#[test]
fn the_backlog_goes_in_bundles_at_its_pace_and_the_present_passes_it() {
    let (mut bench, mut log) = with_backlog(1000);
    let first = bench.tickets.pop().unwrap();
    assert_eq!((first.lane, first.first, first.last), (Lane::Backlog, Seq(1), Seq(50)));
    assert!(bench.tickets.is_empty(), "one at a time");
    log.push_str("rA");
    bench.plan.on_durable(Seq(1002));
    bench.turn(&log);
    assert_eq!(bench.sent(), [1002, 1001]);
    let next = bench.plan.next_deadline(bench.now).unwrap().since(bench.now.mono);
    assert_eq!(next, Duration::from_millis(50), "twenty a second");
    bench.wait(next);
    bench.turn(&log);
    assert_eq!(bench.sent(), [51]);
    bench.answer(first, 0x00);
    bench.wait(Duration::from_secs(1));
    bench.turn(&log);
    assert_eq!(bench.saved.last(), Some(&(READINGS, 50)));
    let status = bench.plan.status(bench.now);
    assert_eq!((status.backlog, status.backlog_seconds), (950, Some(20)));
}

#[test]
fn what_was_sent_ahead_of_the_backlog_is_not_sent_again_after_a_restart() {
    let (mut bench, mut log) = with_backlog(1000);
    log.push_str("rrr");
    bench.plan.on_durable(Seq(1003));
    bench.turn(&log);
    for ticket in bench.tickets.clone() {
        bench.answer(ticket, 0x00);
    }
    bench.turn(&log);
    let mut again = Plan::new(Limits::default(), &bench.plan.saved, Seq(1003), 1, bench.now);
    assert_eq!(again.status(bench.now).backlog, 950);
    let mut read = Vec::new();
    again.next_action(bench.now).unwrap();
    again.on_connected(BROAD, bench.now);
    while let Some(action) = again.next_action(bench.now) {
        if let Action::Read(request) = action {
            read.push((request.lane, request.after.0, request.through.0));
            again.on_rows(request, vec![], false);
        }
    }
    assert!(read.contains(&(Lane::Backlog, 50, 1000)), "{read:?}");
    assert!(!read.iter().any(|(lane, ..)| *lane == Lane::Live), "{read:?}");
}

#[test]
fn a_bundle_that_is_refused_goes_event_by_event_until_the_bad_one_is_found() {
    let (mut bench, log) = with_backlog(300);
    let bundle = bench.tickets.pop().unwrap();
    bench.answer(bundle, 0x99);
    let mut parked = Vec::new();
    for _ in 0..200 {
        bench.wait(Duration::from_millis(50));
        bench.turn(&log);
        for ticket in std::mem::take(&mut bench.tickets) {
            let bad = ticket.first <= Seq(7) && Seq(7) <= ticket.last;
            bench.answer(ticket, if bad { 0x99 } else { 0x00 });
        }
        parked.append(&mut bench.parked);
    }
    bench.turn(&log);
    assert_eq!(parked, [(7, "the broker finds the payload format invalid (0x99)".to_owned())]);
    assert_eq!(bench.saved.last(), Some(&(READINGS, 300)));
}

#[test]
fn a_range_that_is_asked_for_goes_out_again_with_events_of_every_kind() {
    let log = format!("{}A{}", "r".repeat(6), "r".repeat(14));
    let mut bench = Bench::new(&log, BROAD);
    for ticket in std::mem::take(&mut bench.tickets) {
        bench.answer(ticket, 0x00);
    }
    bench.turn(&log);
    bench.saved.clear();
    assert!(bench.plan.resend(Seq(5), Seq(9)));
    assert!(!bench.plan.resend(Seq(10), Seq(11)), "one after the other");
    assert_eq!(bench.plan.next_action(bench.now), Some(Action::Unpark(Seq(5), Seq(9))));
    let Some(Action::Read(request)) = bench.plan.next_action(bench.now) else { panic!("no read") };
    assert_eq!((request.after, request.through, request.every_kind), (Seq(4), Seq(9), true));
    assert_eq!(bench.plan.status(bench.now).waiting, 0, "what was confirmed before holds nothing in the store");
    let (rows, more) = bundled(&log, request);
    bench.plan.on_rows(request, rows, more);
    bench.turn(&log);
    let ticket = bench.tickets.pop().unwrap();
    assert_eq!((ticket.first, ticket.last), (Seq(5), Seq(9)));
    bench.answer(ticket, 0x00);
    bench.turn(&log);
    assert_eq!((bench.saved.len(), bench.plan.is_resending()), (0, false), "no cursor has moved");
}

/// Answers everything that is sent, and adds it to `sent`.
fn answer_all(bench: &mut Bench, log: &str, sent: &mut Vec<(u64, u64)>) {
    for _ in 0..1000 {
        bench.turn(log);
        if bench.tickets.is_empty() {
            return;
        }
        for ticket in std::mem::take(&mut bench.tickets) {
            sent.push((ticket.first.0, ticket.last.0));
            bench.answer(ticket, 0x00);
        }
        bench.wait(Duration::from_millis(50));
    }
    panic!("there is no end: {sent:?}");
}

#[test]
fn of_a_range_that_is_asked_for_while_readings_wait_for_the_clock_nothing_is_forgotten() {
    const LOG: &str = "rrArrArr";
    let (mut bench, mut sent) = (Bench::new("", BROAD), Vec::new());
    bench.plan.on_clock(Some(Seq(4)), bench.now);
    bench.plan.on_durable(Seq(8));
    bench.turn(LOG);
    let alert = *bench.tickets.iter().find(|ticket| ticket.first == Seq(6)).unwrap();
    bench.tickets.retain(|ticket| *ticket != alert);
    bench.answer(alert, 0x87);
    answer_all(&mut bench, LOG, &mut sent);
    assert_eq!((sent.len(), bench.parked.len()), (3, 1), "{sent:?}");

    sent.clear();
    assert!(bench.plan.resend(Seq(2), Seq(7)));
    answer_all(&mut bench, LOG, &mut sent);
    assert_eq!((&sent, bench.parked.len()), (&vec![(2, 3)], 0), "what has passed goes at once");
    assert!(bench.plan.is_resending());
    sent.clear();
    bench.plan.on_clock(None, bench.now);
    answer_all(&mut bench, LOG, &mut sent);
    assert!(sent.contains(&(4, 7)), "{sent:?}: the rest of the range, with the alert that was parked");
    assert_eq!((bench.plan.is_resending(), bench.plan.status(bench.now).waiting), (false, 0));
}

#[test]
fn a_range_that_was_not_sent_at_all_is_taken_up_when_its_turn_has_come() {
    let log = format!("{}A", "r".repeat(20));
    let (mut bench, mut sent) = (Bench::new("", BROAD), Vec::new());
    bench.plan.on_durable(Seq(21));
    assert!(bench.plan.resend(Seq(15), Seq(21)));
    answer_all(&mut bench, &log, &mut sent);
    assert!(sent.contains(&(15, 21)), "{sent:?}");
    assert!(!bench.plan.is_resending());
}

#[test]
fn readings_of_a_boot_without_a_time_wait_for_the_clock_and_alerts_do_not() {
    const LOG: &str = "rrArrArr";
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_clock(Some(Seq(4)), bench.now);
    bench.plan.on_durable(Seq(8));
    bench.turn(LOG);
    for ticket in bench.tickets.clone() {
        bench.answer(ticket, 0x00);
    }
    assert_eq!(bench.sent(), [3, 6, 1, 2], "those of the boot before are not held");
    assert_eq!(bench.plan.status(bench.now).held_seconds, Some(120));
    bench.wait(Duration::from_secs(119));
    bench.turn(LOG);
    assert_eq!((bench.sent(), bench.plan.status(bench.now).held_seconds), (Vec::<u64>::new(), Some(1)));
    assert!(bench.plan.next_deadline(bench.now).unwrap() <= bench.now.mono + Duration::from_secs(1));
    bench.plan.on_clock(None, bench.now);
    bench.turn(LOG);
    assert_eq!((bench.sent(), bench.plan.status(bench.now).held_seconds), (vec![4, 5, 7, 8], None));
}

#[test]
fn readings_go_out_without_a_time_once_they_have_waited_for_long_enough_with_a_connection() {
    const LOG: &str = "rrr";
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_clock(Some(Seq(1)), bench.now);
    bench.plan.on_durable(Seq(3));
    bench.wait(Duration::from_secs(70));
    bench.turn(LOG);
    bench.plan.on_disconnected(EndKind::Lost, "gone", bench.now);
    // Without a connection nothing is waited for: there may be no network at all.
    bench.wait(Duration::from_hours(3));
    bench.reconnect(LOG, BROAD);
    assert_eq!(bench.plan.status(bench.now).held_seconds, Some(50));
    bench.wait(Duration::from_secs(49));
    bench.turn(LOG);
    assert_eq!(bench.sent(), Vec::<u64>::new());
    bench.wait(Duration::from_secs(1));
    bench.turn(LOG);
    assert_eq!(bench.sent(), [1, 2, 3]);
    // It is not waited for again.
    bench.plan.on_clock(Some(Seq(1)), bench.now);
    assert_eq!(bench.plan.status(bench.now).held_seconds, None);
}

#[test]
fn what_waits_is_read_again_when_the_clock_was_set_and_what_flies_is_not() {
    const LOG: &str = "rrrrrr";
    let mut bench = Bench::new(LOG, BrokerLimits { receive_maximum: 4, ..BROAD });
    let [first, second] = [bench.tickets[0], bench.tickets[1]];
    assert_eq!(bench.sent(), [1, 2]);
    let before = bench.plan.clock;
    bench.plan.on_clock(None, bench.now);
    assert_eq!(bench.plan.clock, before + 1);
    assert!(bench.plan.live.due(bench.now.mono, |_| true).is_none(), "nothing that was read before is sent");
    bench.answer(second, 0x87);
    bench.answer(first, 0x00);
    bench.turn(LOG);
    assert_eq!(bench.sent(), [3, 4]);
}

#[test]
fn much_that_has_waited_for_the_clock_is_of_the_past_and_live_readings_do_not_wait_for_it() {
    let log = "r".repeat(400);
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_clock(Some(Seq(1)), bench.now);
    bench.plan.on_durable(Seq(400));
    bench.turn(&log);
    bench.plan.on_clock(None, bench.now);
    bench.turn(&log);
    assert_eq!(bench.tickets[0].lane, Lane::Backlog);
    let more = "r".repeat(401);
    bench.plan.on_durable(Seq(401));
    bench.turn(&more);
    assert_eq!((bench.tickets[1].lane, bench.tickets[1].first), (Lane::Live, Seq(401)));
}

#[test]
fn a_backlog_without_bundles_is_read_many_rows_at_a_time() {
    let log = "r".repeat(1000);
    let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
    let limits = Limits { bundle: 1, backlog_a_second: 0, ..Limits::default() };
    let mut plan = Plan::new(limits, &BTreeMap::new(), Seq(1000), 1, now);
    assert_eq!(plan.next_action(now), Some(Action::Connect));
    plan.on_connected(BROAD, now);
    let mut asked = Vec::new();
    while let Some(action) = plan.next_action(now) {
        if let Action::Read(request) = action {
            let (rows, more) = bundled(&log, request);
            if request.lane == Lane::Backlog {
                asked.push((request.after.0, request.through.0, rows.len()));
            }
            plan.on_rows(request, rows, more);
        }
    }
    assert_eq!(asked, [(0, 1000, READ_BATCH)], "one read fills the window, and what goes out next");
}

#[test]
fn what_people_must_know_is_told_apart_from_counts() {
    let shown =
        UplinkStatus { connected: true, waiting: 9, backlog: 4, sent: 3, in_flight: 2, ..UplinkStatus::default() };
    let counts = UplinkStatus { waiting: 8, backlog: 3, sent: 4, in_flight: 1, ..shown.clone() };
    assert!(!counts.differs_for_people(&shown));
    for news in [
        UplinkStatus { connected: false, ..shown.clone() },
        UplinkStatus { parked: 1, ..shown.clone() },
        UplinkStatus { held_seconds: Some(7), ..shown.clone() },
        UplinkStatus { reason: Some("lost".to_owned()), ..shown.clone() },
        UplinkStatus { waiting: 0, in_flight: 0, ..shown.clone() },
        UplinkStatus { backlog: 0, ..shown.clone() },
    ] {
        assert!(news.differs_for_people(&shown), "{news:?}");
    }
}

#[test]
fn a_read_of_the_live_lane_from_before_it_began_anew_counts_for_nothing() {
    let log = "r".repeat(2000);
    let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
    let mut plan = Plan::new(Limits::default(), &BTreeMap::new(), Seq(100), 1, now);
    assert_eq!(plan.next_action(now), Some(Action::Connect));
    plan.on_connected(BROAD, now);
    let live_read = |plan: &mut Plan| {
        std::iter::from_fn(|| plan.next_action(now)).fold(None, |found, action| match action {
            Action::Read(request) if request.lane == Lane::Live => Some(request),
            _ => found,
        })
    };
    let before = live_read(&mut plan).expect("a moment's readings are live");
    plan.on_durable(Seq(1000));
    plan.turn_to_the_present(now.mono);
    plan.on_durable(Seq(1010));
    let after = live_read(&mut plan).expect("what comes now is live");
    assert_eq!((before.after, after.after), (Seq::ZERO, Seq(1000)));
    let (old, more) = bundled(&log, before);
    plan.on_rows(before, old, more);
    let (new, more) = bundled(&log, after);
    plan.on_rows(after, new, more);
    let published = std::iter::from_fn(|| plan.next_action(now)).filter_map(|action| match action {
        Action::Publish { ticket, .. } if ticket.lane == Lane::Live => Some(ticket.first.0),
        _ => None,
    });
    assert_eq!(published.collect::<Vec<_>>(), (1001..=1010).collect::<Vec<_>>());
}

/// What is on disk in the end, if a plan begins with `known` while the disk will have `stored`, and nothing but its live
/// readings arrives.
fn stored_after(known: &BTreeMap<String, Seq>, mut stored: BTreeMap<String, Seq>) -> BTreeMap<String, Seq> {
    let log = "r".repeat(60);
    let now = Stamp { mono: Mono::from_millis(1_000_000), wall: Wall(0) };
    let mut plan = Plan::new(Limits::default(), known, Seq(60), 1, now);
    while let Some(action) = plan.next_action(now) {
        match action {
            Action::Connect => plan.on_connected(BROAD, now),
            Action::Read(request) => {
                let (rows, more) = bundled(&log, request);
                plan.on_rows(request, rows, more);
            }
            Action::Publish { ticket, .. } if ticket.lane == Lane::Live => plan.on_puback(ticket, 0x00, now),
            Action::Save(cursors) => stored.extend(cursors),
            _ => {}
        }
    }
    stored
}

#[test]
fn a_plan_that_begins_again_must_know_what_the_one_before_said_and_the_disk_does_not() {
    let cursors = |readings, sent: [(u64, u64); 2]| -> BTreeMap<String, Seq> {
        let [(first, second), (third, fourth)] = sent;
        let all = [
            (READINGS, readings),
            ("sent.0.after", first),
            ("sent.0.through", second),
            ("sent.1.after", third),
            ("sent.1.through", fourth),
        ];
        all.into_iter().map(|(name, seq)| (name.to_owned(), Seq(seq))).collect()
    };
    // The piece from 5 to 10 was sent since; that from 20 to 30 was not.
    let (disk, said) = (cursors(5, [(10, 20), (30, 40)]), cursors(20, [(30, 40), (0, 0)]));
    let left = |known: &BTreeMap<String, Seq>| {
        let (pieces, live) = Pieces::restore(&stored_after(known, said.clone()), Seq(60));
        (pieces.ranges().collect::<Vec<_>>(), live)
    };
    assert_eq!(left(&said), (vec![(Seq(20), Seq(30))], Seq(60)));
    assert_eq!(left(&disk), (vec![], Seq(60)), "with the disk alone that piece would be passed over");
}

mod blame;
mod lanes;
mod piecemeal;
mod precedence;
