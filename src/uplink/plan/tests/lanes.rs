//! Who waits for whom: alerts for nothing, a lane for none of its rows, the broker for what it asked for.

use super::*;

/// Answers everything that is sent, until nothing more is or `span` has passed.
fn serve(bench: &mut Bench, log: &str, span: Duration, code: impl Fn(Ticket) -> u8) -> Vec<u64> {
    let (end, mut sent) = (bench.now.mono + span, Vec::new());
    loop {
        bench.turn(log);
        for ticket in std::mem::take(&mut bench.tickets) {
            sent.push(ticket.first.0);
            bench.answer(ticket, code(ticket));
        }
        bench.turn(log);
        if bench.tickets.is_empty() {
            let Some(next) = bench.plan.next_deadline(bench.now).filter(|next| *next <= end) else { return sent };
            bench.now.mono = bench.now.mono.max(next);
        }
    }
}

#[test]
fn a_lane_goes_on_however_many_rows_are_settled_behind_a_refused_one() {
    // Between two of them is always one of another lane.
    let log = "Ar".repeat(1000);
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(2000));
    let code = |ticket: Ticket| if matches!(ticket.first, Seq(1 | 501)) { 0x80 } else { 0x00 };
    let sent = serve(&mut bench, &log, Duration::ZERO, code);
    assert_eq!(sent.len(), 2000, "none of them waits for those that are refused");
    assert_eq!((bench.plan.alerts.cursor(), bench.parked.len()), (Seq(0), 0));
    assert_eq!(bench.plan.alerts.settled_ranges(), 2, "what is settled on each side of the second");
    serve(&mut bench, &log, Duration::from_secs(10), code);
    assert_eq!((bench.plan.alerts.cursor(), bench.parked.len()), (Seq(2000), 2));
}

#[test]
fn a_row_at_which_the_broker_always_asks_for_less_is_parked_if_it_takes_others_and_only_then() {
    let log = "A".repeat(2000);
    let mut bench = Bench::new("", BROAD);
    let quota = |ticket: Ticket| if ticket.first == Seq(3) { 0x97 } else { 0x00 };
    let mut durable = 0;
    for second in 0..400 {
        durable += 1;
        bench.plan.on_durable(Seq(durable));
        serve(&mut bench, &log, Duration::ZERO, quota);
        bench.wait(Duration::from_secs(1));
        if !bench.parked.is_empty() {
            assert!((100..400).contains(&second), "{second}: not in haste");
            break;
        }
    }
    assert_eq!(bench.parked.len(), 1);
    assert!(bench.parked[0].0 == 3 && bench.parked[0].1.contains("(0x97), and takes others"), "{:?}", bench.parked);

    // A broker that takes nothing at all is to be waited for.
    let mut bench = Bench::new("AAA", BROAD);
    let tried = serve(&mut bench, "AAA", Duration::from_hours(1), |_| 0x97).len();
    assert!(tried > 500 && bench.parked.is_empty(), "{tried} {:?}", bench.parked);
    assert_eq!(serve(&mut bench, "AAA", Duration::from_secs(5), |_| 0x00).len(), 3);
}

#[test]
fn a_broker_that_asks_for_less_of_the_backlog_has_alerts_at_once_and_less_of_what_goes_behind() {
    let (mut bench, mut log) = with_backlog(1000);
    let bundle = bench.tickets.pop().unwrap();
    bench.answer(bundle, 0x97);
    log.push_str("Aro");
    bench.plan.on_durable(Seq(1003));
    bench.turn(&log);
    assert_eq!(bench.sent(), [1001, 1002, 1003], "none of them goes behind the backlog");
    assert!(bench.plan.status(bench.now).reason.unwrap().contains("0x97"));

    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(3));
    bench.turn("Aro");
    let by_seq = |bench: &Bench, seq: u64| *bench.tickets.iter().find(|ticket| ticket.first.0 == seq).unwrap();
    let [alert, reading, other] = [1, 2, 3].map(|seq| by_seq(&bench, seq));
    bench.sent();
    bench.answer(reading, 0x97);
    bench.answer(other, 0x00);
    bench.plan.on_durable(Seq(6));
    bench.turn("AroAro");
    assert_eq!(bench.sent(), [4], "readings pause, and what goes behind them");
    bench.answer(alert, 0x97);
    bench.plan.on_durable(Seq(9));
    bench.turn("AroAroAro");
    assert_eq!(bench.sent(), Vec::<u64>::new(), "the broker wants less alerts too");
    for _ in 0..10 {
        let until = bench.plan.pauses.times().min().unwrap();
        assert!(until.since(bench.now.mono) <= Duration::from_secs(5), "for a short time");
        bench.now.mono = until;
        bench.turn("AroAroAro");
        for ticket in std::mem::take(&mut bench.tickets) {
            bench.answer(ticket, if ticket.lane == Lane::Alerts { 0x97 } else { 0x00 });
        }
    }
}

#[test]
fn a_bundle_at_which_the_broker_asks_for_less_again_and_again_goes_event_by_event() {
    let (mut bench, log) = with_backlog(300);
    let sent =
        serve(&mut bench, &log, Duration::from_mins(5), |ticket| if ticket.first < ticket.last { 0x97 } else { 0 });
    assert!(sent.len() > 300 && bench.parked.is_empty());
    assert_eq!(bench.plan.status(bench.now).waiting, 0);
}

#[test]
fn a_row_that_has_become_old_on_its_way_is_read_again_before_it_goes() {
    const LOG: &str = "AAA";
    let mut bench = Bench::new("", BrokerLimits { receive_maximum: 1, ..BROAD });
    let until = bench.now.mono + Duration::from_secs(10);
    bench.plan.on_durable(Seq(3));
    let Some(Action::Read(request)) = std::iter::from_fn(|| bench.plan.next_action(bench.now))
        .find(|action| matches!(action, Action::Read(request) if request.lane == Lane::Alerts))
    else {
        panic!("no read")
    };
    let mut read = rows(LOG, request);
    for row in &mut read {
        let message = Message { present_until: Some(until), ..Message::clone(row.message.as_ref().unwrap()) };
        row.message = Ok(Arc::new(message));
    }
    bench.plan.on_rows(request, read, false);
    let Some(Action::Publish { ticket, .. }) = bench.plan.next_action(bench.now) else { panic!("nothing goes") };
    bench.wait(Duration::from_secs(9));
    bench.answer(ticket, 0x00);
    let Some(Action::Publish { ticket, .. }) = std::iter::from_fn(|| bench.plan.next_action(bench.now))
        .find(|action| matches!(action, Action::Publish { .. }))
    else {
        panic!("the second is in time")
    };
    bench.wait(Duration::from_secs(1));
    bench.answer(ticket, 0x00);
    let again = std::iter::from_fn(|| bench.plan.next_action(bench.now)).find_map(|action| match action {
        Action::Publish { .. } => panic!("it says that it is of the present"),
        Action::Read(request) if request.lane == Lane::Alerts => Some(request),
        _ => None,
    });
    let again = again.expect("it is read again");
    assert_eq!((again.after, again.through), (Seq(2), Seq(3)));
    bench.plan.on_rows(again, rows(LOG, again), false);
    bench.turn(LOG);
    assert_eq!(bench.sent(), [3]);
}

#[test]
fn a_row_that_was_under_way_when_the_clock_was_set_goes_again_with_the_time_that_holds_now() {
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(1));
    bench.turn("A");
    let ticket = bench.tickets.pop().unwrap();
    bench.plan.on_clock(None, bench.now);
    bench.answer(ticket, 0x80);
    bench.wait(REFUSED_RETRY);
    let read = std::iter::from_fn(|| bench.plan.next_action(bench.now)).find_map(|action| match action {
        Action::Publish { .. } => panic!("it says the time of before"),
        Action::Read(request) if request.lane == Lane::Alerts => Some(request),
        _ => None,
    });
    assert_eq!(read.map(|request| (request.after, request.through)), Some((Seq(0), Seq(1))));
}

#[test]
fn an_alert_waits_for_no_earlier_one_and_for_nothing_else() {
    // As many rows as the lanes read ahead, and more.
    let mut log = "Aoor".repeat(300);
    let mut bench = Bench::new(&log, BROAD);
    let before = bench.sent();
    assert!(
        before.len() == 16 && before.iter().all(|seq| *seq % 4 == 1),
        "{before:?}: earlier alerts, and places are left"
    );
    log.push_str("oroA");
    bench.plan.on_durable(Seq(1204));
    bench.turn(&log);
    assert_eq!(bench.sent(), [1204, 1202], "the alert, then the reading, before any other of a thousand");
}

#[test]
fn what_is_urgent_is_settled_where_the_first_unconfirmed_earlier_one_is() {
    let mut log = "AAAA".to_owned();
    let mut bench = Bench::new(&log, BROAD);
    let earlier = std::mem::take(&mut bench.tickets);
    for place in [0, 2] {
        bench.answer(earlier[place], 0x00);
    }
    log.push_str("AAA");
    bench.plan.on_durable(Seq(7));
    bench.turn(&log);
    let present = std::mem::take(&mut bench.tickets);
    let found: Vec<_> = present.iter().map(|ticket| (ticket.lane, ticket.first.0)).collect();
    assert_eq!(found, [5, 6, 7].map(|seq| (Lane::Alerts, seq)));
    bench.answer(present[0], 0x00);
    bench.answer(present[2], 0x00);
    bench.turn(&log);
    assert_eq!(bench.plan.saved.get(URGENT), Some(&Seq(1)), "the second was never confirmed");

    // The next connection sends what nobody confirmed, and only that.
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.reconnect(&log, BROAD);
    assert_eq!(serve(&mut bench, &log, Duration::ZERO, |_| 0x00), [2, 4, 6]);
    assert_eq!(bench.plan.saved.get(URGENT), Some(&Seq(7)));
}

#[test]
fn what_an_earlier_version_stored_of_all_but_readings_holds_for_both_lanes() {
    let stored = [("alerts", 7), (READINGS, 9)].map(|(name, seq)| (name.to_owned(), Seq(seq)));
    let mut plan = Plan::new(Limits::default(), &BTreeMap::from(stored), Seq(10), 1, Stamp::default());
    assert_eq!((plan.urgent_cursor(), plan.others.cursor(), plan.live.cursor()), (Seq(7), Seq(7), Seq(9)));
    // It is stored anew before anything else happens, so that the store holds what it held.
    let expected = [(URGENT, 7), (OTHERS, 7)].map(|(name, seq)| (name.to_owned(), Seq(seq)));
    assert_eq!(plan.next_action(Stamp::default()), Some(Action::Save(expected.into())));
}
