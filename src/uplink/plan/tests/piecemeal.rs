//! Rows that are read once more, one by one: of a bundle that was refused, around damage in it, when the clock was set.

use super::*;

/// The numbers that `ticket` names and this broker does not take.
fn code_for(ticket: Ticket, bad: &[u64]) -> u8 {
    let is_bad = bad.iter().any(|seq| (ticket.first.0..=ticket.last.0).contains(seq));
    if is_bad { 0x99 } else { 0x00 }
}

/// Serves reads until nothing is wanted; what is damaged is found by reads of single events alone, as if the bundle had
/// been read before. Gives the numbers that went by themselves and were taken.
fn serve(bench: &mut Bench, log: &str, bad: &[u64], damaged: Seq) -> Vec<u64> {
    let mut taken = Vec::new();
    for _ in 0..2000 {
        while let Some(action) = bench.plan.next_action(bench.now) {
            match action {
                Action::Read(request) if request.split && request.after < damaged && damaged <= request.through => {
                    bench.plan.on_bad_row(request, damaged, "damaged", bench.now);
                }
                Action::Read(request) => {
                    let (rows, more) = bundled(log, request);
                    bench.plan.on_rows(request, rows, more);
                }
                Action::Publish { ticket, .. } => bench.tickets.push(ticket),
                Action::Park(parked) => bench.parked.push((parked.seq.0, parked.reason)),
                Action::Save(cursors) => bench.saved.extend(cursors.iter().filter_map(|(name, seq)| {
                    [URGENT, OTHERS, READINGS].into_iter().find(|known| known == name).map(|name| (name, seq.0))
                })),
                other => panic!("{other:?}"),
            }
        }
        if bench.plan.status(bench.now).waiting == 0 {
            return taken;
        }
        for ticket in std::mem::take(&mut bench.tickets) {
            let code = code_for(ticket, bad);
            taken.extend((ticket.first == ticket.last && code == 0).then_some(ticket.first.0));
            bench.answer(ticket, code);
        }
        bench.wait(Duration::from_millis(50));
    }
    panic!("there is no end: {:?}", bench.plan.status(bench.now));
}

#[test]
fn of_a_refused_bundle_larger_than_a_read_every_event_goes_by_itself() {
    let log = "r".repeat(1000);
    let mut bench = Bench::new("", BROAD);
    bench.plan.limits.bundle = 400;
    bench.plan.on_disconnected(EndKind::Lost, "cut", bench.now);
    bench.plan.on_durable(Seq(1000));
    bench.reconnect(&log, BROAD);
    assert_eq!((bench.tickets[0].first, bench.tickets[0].last), (Seq(1), Seq(400)));
    let taken = serve(&mut bench, &log, &[390], Seq::ZERO);
    let expected: Vec<u64> = (1..=400).filter(|seq| *seq != 390).collect();
    assert_eq!(taken, expected);
    assert_eq!(bench.parked.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [390]);
}

#[test]
fn damage_that_came_after_a_bundle_was_read_costs_only_the_damaged_event() {
    let (mut bench, log) = with_backlog(300);
    let taken = serve(&mut bench, &log, &[3], Seq(20));
    let expected: Vec<u64> = (1..=50).filter(|seq| ![3, 20].contains(seq)).collect();
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected, "{taken:?}");
    let mut parked: Vec<u64> = bench.parked.iter().map(|(seq, _)| *seq).collect();
    parked.sort_unstable();
    assert_eq!(parked, [3, 20]);
    assert_eq!(bench.saved.last(), Some(&(READINGS, 300)));
}

#[test]
fn a_row_that_waits_before_one_under_way_is_read_again_when_the_clock_was_set() {
    const LOG: &str = "rr";
    let mut bench = Bench::new(LOG, BROAD);
    let first = bench.tickets[0];
    bench.answer(first, 0x80);
    bench.plan.on_clock(None, bench.now);
    let actions: Vec<Action> = std::iter::from_fn(|| bench.plan.next_action(bench.now)).collect();
    let read = actions.iter().find_map(|action| match action {
        Action::Read(request) if request.lane == Lane::Live => Some(*request),
        _ => None,
    });
    let request = read.expect("its text has the times that do not hold any more");
    assert_eq!((request.after, request.through), (Seq::ZERO, Seq(1)));
}

#[test]
fn rows_from_beyond_what_was_asked_for_are_not_taken() {
    let mut bench = Bench::new("", BROAD);
    bench.plan.on_durable(Seq(2));
    let mut reads = std::iter::from_fn(|| bench.plan.next_action(bench.now));
    let live = |action| match action {
        Action::Read(request) if request.lane == Lane::Live => Some(request),
        _ => None,
    };
    let request = reads.find_map(live).expect("a read");
    bench.plan.on_rows(request, rows("rrrr", ReadRequest { through: Seq(4), ..request }), false);
    bench.turn("");
    assert_eq!(bench.sent(), [1, 2], "what is not durable is not sent");
}
