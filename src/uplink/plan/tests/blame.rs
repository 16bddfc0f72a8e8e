//! Which row ends connections, and what only looks like one.

use super::*;

/// A row of which the broker says nothing: each connection on which `bad` comes ends.
fn end_with(bench: &mut Bench, log: &str, bad: u64, kind: EndKind) {
    bench.turn(log);
    for _ in 0..400 {
        for ticket in std::mem::take(&mut bench.tickets) {
            if (ticket.first.0..=ticket.last.0).contains(&bad) {
                return bench.plan.on_disconnected(kind, "closed", bench.now);
            }
            bench.answer(ticket, 0x00);
        }
        bench.turn(log);
        if bench.tickets.is_empty() {
            let Some(next) = bench.plan.next_deadline(bench.now) else { return };
            bench.now.mono = bench.now.mono.max(next);
            bench.turn(log);
        }
    }
}

#[test]
fn a_row_that_ends_connections_without_a_word_is_parked_after_it_did_so_alone_three_times_and_the_broker_took_others() {
    for (kind, most) in [(EndKind::Closed, 6), (EndKind::Denied, 4)] {
        let mut log = "rrrrr".to_owned();
        let mut bench = Bench::new(&log, BROAD);
        for connection in 1..=most {
            // There is always something else, and all of it is taken.
            log.push('r');
            bench.plan.on_durable(Seq(u64::try_from(log.len()).unwrap()));
            assert!(bench.parked.is_empty(), "{kind:?} {connection}");
            end_with(&mut bench, &log, 3, kind);
            bench.reconnect(&log, BROAD);
        }
        let reason = "with this row alone under way the broker has ended 3 connections: closed".to_owned();
        assert_eq!(bench.parked, [(3, reason)], "{kind:?}");
        end_with(&mut bench, &log, 0, kind);
        assert_eq!(bench.plan.status(bench.now).waiting, 0);
    }
}

#[test]
fn what_looks_like_a_row_that_ends_connections_and_is_none_is_not_parked() {
    // A network that breaks, a broker that takes nothing at all and closes whatever comes, connections of one age.
    for (kind, takes_others, lives) in [
        (EndKind::Lost, true, None),
        (EndKind::TakenOver, true, None),
        (EndKind::Closed, false, None),
        (EndKind::Closed, false, Some(1)),
        (EndKind::Closed, false, Some(7)),
        (EndKind::Denied, false, Some(13)),
        (EndKind::Closed, true, Some(0)),
        (EndKind::Closed, true, Some(7)),
        (EndKind::Closed, true, Some(13)),
        (EndKind::Denied, true, Some(7)),
    ] {
        let mut log = "r".to_owned();
        let mut bench = Bench::new(&log, BROAD);
        for _ in 0..50 {
            let end = lives.map(|seconds| bench.now.mono + Duration::from_secs(seconds));
            log.push('r');
            bench.plan.on_durable(Seq(u64::try_from(log.len()).unwrap()));
            bench.turn(&log);
            // Until the connection ends everything but the first row of it is taken; then it is not answered.
            for _ in 0..100 {
                for ticket in std::mem::take(&mut bench.tickets) {
                    if takes_others && ticket.first != Seq(1) {
                        bench.answer(ticket, 0x00);
                    }
                }
                bench.turn(&log);
                let Some(end) = end.filter(|end| bench.now.mono < *end) else { break };
                bench.now.mono = bench.plan.next_deadline(bench.now).unwrap_or(end).min(end);
            }
            bench.plan.on_disconnected(kind, "gone", bench.now);
            bench.reconnect(&log, BROAD);
        }
        assert!(bench.parked.is_empty(), "{kind:?} {takes_others} {lives:?}: {:?}", bench.parked);
    }
}

#[test]
fn while_the_bridge_speaks_of_itself_no_row_is_blamed_for_the_end_of_a_connection() {
    let mut bench = Bench::new("r", BROAD);
    for _ in 0..10 {
        assert_eq!(bench.plan.in_flight(), 1);
        bench.plan.on_announcements(true, false);
        bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
        bench.reconnect("r", BROAD);
    }
    assert!(bench.parked.is_empty());
    // One that goes alone has the connection for itself.
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.sent();
    bench.plan.on_announcements(true, true);
    bench.reconnect("r", BROAD);
    assert_eq!(bench.sent(), Vec::<u64>::new());
    bench.plan.on_announcements(false, false);
    bench.turn("r");
    assert_eq!(bench.sent(), [1]);

    // A suspect waits for the answers, but not for ever.
    let mut bench = Bench::new("rr", BROAD);
    bench.plan.on_disconnected(EndKind::Denied, "not allowed", bench.now);
    bench.plan.on_announcements(true, false);
    bench.sent();
    bench.reconnect("rr", BROAD);
    assert_eq!(bench.sent(), Vec::<u64>::new());
    bench.now.mono = bench.plan.next_deadline(bench.now).unwrap();
    bench.turn("rr");
    assert_eq!(bench.sent(), [1]);
}

#[test]
fn bundles_are_smaller_after_one_that_ended_a_connection() {
    let (mut bench, log) = with_backlog(300);
    let bundle = bench.tickets.pop().unwrap();
    assert_eq!((bundle.first, bundle.last), (Seq(1), Seq(50)));
    bench.plan.on_disconnected(EndKind::RowRefused, "too large", bench.now);
    assert_eq!(bench.plan.bundle_bytes, 2048, "not smaller than that: the packet had 100 bytes");
    bench.reconnect(&log, BROAD);
    assert_eq!(bench.tickets[0].last, Seq(1), "each by itself");
}
