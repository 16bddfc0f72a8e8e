//! One lane of the uplink: rows that were read from the log, which of them are settled, and how far it has come. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Mono;
use crate::ids::Seq;
use crate::uplink::plan::{Message, ReadRequest, Row};

/// Rows that one read may bring.
pub(super) const READ_BATCH: usize = 128;

/// Messages that wait to be sent and stop further reading.
const READ_AHEAD: usize = 32;

/// Unsettled rows of one lane that stop further reading.
const LANE_SPAN: usize = 256;

/// Wait before a failed read is tried again.
pub(super) const READ_RETRY: Duration = Duration::from_secs(1);

/// An event is read so often although that ends in a panic each time; then it is given up.
pub(super) const MAX_PANICS: u8 = 3;

/// Events of the log that go out in one publication, or wait for being read again one by one.
#[derive(Debug)]
struct Waiting {
    /// The last event of it; the first is its key.
    last: Seq,
    /// What to publish. `None`: the broker did not take them together, so each is to be read by itself.
    message: Option<Arc<Message>>,
    in_flight: bool,
    /// It says what does not hold any more: if it is to go again, it is read again.
    is_stale: bool,
    not_before: Mono,
}

impl Waiting {
    /// Events up to `last`, each of which is to be read by itself.
    const fn unread(last: Seq) -> Self {
        Self { last, message: None, in_flight: false, is_stale: false, not_before: Mono(0) }
    }
}

/// What a lane wants to have next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Events after the first number and up to the second; each by itself if they could not go together.
    Read { after: Seq, through: Seq, split: bool },
    /// Nothing: this event cannot be read, for this reason, and is passed.
    Pass(Seq, String),
}

/// One lane. Everything up to `cursor` is settled (confirmed or parked), everything up to `read_to` was read; of the
/// events between, those that are not settled are in `rows`, the others in `settled`.
#[derive(Debug)]
pub(super) struct LaneState {
    cursor: Seq,
    read_to: Seq,
    /// The lane has no event after this one.
    end: Seq,
    reading: bool,
    read_not_before: Mono,
    rows: BTreeMap<Seq, Waiting>,
    /// Ranges beyond the cursor: the first and the last event. Between two of them is an unsettled row, so there are few.
    settled: BTreeMap<Seq, Seq>,
    /// An event that cannot be read, and why.
    bad_row: Option<(Seq, String)>,
    /// Reading up to here has ended in a panic, so that it is read by halves.
    suspect: Option<Seq>,
    /// How often reading this event alone has ended in a panic.
    panics: Option<(Seq, u8)>,
}

/// The end of the first half of these events, and the begin of the second. `None`: it is one event.
pub(super) const fn halves(first: Seq, last: Seq) -> Option<(Seq, Seq)> {
    if first.0 >= last.0 {
        return None;
    }
    let end = Seq(first.0.saturating_add(last.0.saturating_sub(first.0) / 2));
    Some((end, end.next()))
}

/// How far to read of the events after `after` and up to `through`: to the middle of those among which a panic was.
pub(super) fn first_half(after: Seq, through: Seq, suspect: &mut Option<Seq>) -> Seq {
    *suspect = suspect.filter(|last| *last > after);
    let Some(last) = *suspect else { return through };
    halves(after.next(), last).map_or(last, |(end, _)| end).min(through)
}

impl LaneState {
    /// A lane of the events after `cursor` and up to `end`.
    pub(super) const fn new(cursor: Seq, end: Seq) -> Self {
        Self {
            cursor,
            read_to: cursor,
            end,
            reading: false,
            read_not_before: Mono(0),
            rows: BTreeMap::new(),
            settled: BTreeMap::new(),
            bad_row: None,
            suspect: None,
            panics: None,
        }
    }

    /// Everything up to here is settled.
    pub(super) const fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Moves the end of the lane.
    pub(super) const fn set_end(&mut self, end: Seq) {
        self.end = end;
    }

    /// Nothing of the lane is left.
    pub(super) fn is_done(&self) -> bool {
        self.cursor >= self.end
    }

    /// Takes up the whole lane that began where this one ended, and ends at `end` from now on. Of both everything is read
    /// again that is not settled.
    pub(super) fn join(&mut self, mut next: Self, end: Seq) {
        if self.is_done() {
            *self = next;
        } else if self.settled.len() < LANE_SPAN {
            // What of it was sent meanwhile is not sent again.
            if self.end < next.cursor {
                self.settled.insert(self.end.next(), next.cursor);
            }
            self.settled.append(&mut next.settled);
        }
        self.end = end;
        self.rewind();
    }

    /// Forgets what was read, so that it is read again from the cursor.
    pub(super) fn rewind(&mut self) {
        self.rows.clear();
        self.read_to = self.cursor;
        self.reading = false;
        self.bad_row = None;
    }

    /// Forgets what waits and is not under way, so that it is read again; what is being read now is not awaited.
    pub(super) fn read_again(&mut self) {
        (self.reading, self.bad_row) = (false, None);
        let Some((first, last)) =
            self.rows.iter().rfind(|(_, row)| row.in_flight).map(|(first, row)| (*first, row.last))
        else {
            self.rewind();
            return;
        };
        // Behind the last one under way as if it had never been read; before it one by one.
        self.rows.split_off(&first.next());
        for row in self.rows.values_mut() {
            if row.in_flight {
                row.is_stale = true;
            } else {
                row.message = None;
            }
        }
        self.read_to = last;
    }

    /// These events are confirmed or parked.
    pub(super) fn settle(&mut self, first: Seq, last: Seq) {
        self.rows.remove(&first);
        let (mut from, mut to) = (first, last);
        // Everything up to `read_to` was read: what lies there between two settled ranges is of other lanes, if it is no
        // unsettled row.
        if let Some((before, end)) = self.settled.range(..=first).next_back().map(|(first, last)| (*first, *last))
            && self.has_no_row(end, first)
        {
            (from, to) = (before, to.max(end));
        }
        if let Some((after, end)) = self.settled.range(first.next()..).next().map(|(first, last)| (*first, *last))
            && after <= self.read_to.next()
            && self.has_no_row(last, after)
        {
            self.settled.remove(&after);
            to = to.max(end);
        }
        self.settled.insert(from, to);
        self.advance();
    }

    /// Ranges that are settled beyond the cursor.
    #[cfg(test)]
    pub(super) fn settled_ranges(&self) -> usize {
        self.settled.len()
    }

    /// No unsettled row begins between these two.
    fn has_no_row(&self, after: Seq, before: Seq) -> bool {
        after >= before || self.rows.range(after.next()..before).next().is_none()
    }

    /// Moves the cursor over everything that is settled.
    fn advance(&mut self) {
        self.cursor = match self.rows.first_key_value() {
            Some((first, _)) => Seq(first.0.saturating_sub(1)).max(self.cursor),
            None => self.read_to.max(self.cursor),
        };
        while let Some(range) = self.settled.first_entry() {
            if *range.get() > self.cursor {
                break;
            }
            range.remove();
        }
    }

    fn is_settled(&self, seq: Seq) -> Option<Seq> {
        self.settled.range(..=seq).next_back().map(|(_, last)| *last).filter(|last| *last >= seq)
    }

    /// What to read now, if anything.
    pub(super) fn next_wish(&mut self, durable: Seq, now: Mono) -> Option<Wish> {
        if self.reading || now < self.read_not_before {
            return None;
        }
        if let Some((first, waiting)) = self.rows.iter().find(|(_, waiting)| waiting.message.is_none()) {
            self.reading = true;
            return Some(Wish::Read { after: Seq(first.0.saturating_sub(1)), through: waiting.last, split: true });
        }
        while let Some(last) = self.is_settled(self.read_to.next()) {
            self.read_to = last;
            self.advance();
        }
        let limit = durable.min(self.end);
        if self.read_to >= limit || !self.has_room() {
            return None;
        }
        if let Some((seq, reason)) = self.bad_row.take_if(|(seq, _)| *seq <= self.read_to.next()) {
            self.read_to = seq;
            return Some(Wish::Pass(seq, reason));
        }
        let before_bad = self.bad_row.as_ref().map(|(seq, _)| *seq);
        let before_settled = self.settled.range(self.read_to.next()..).next().map(|(first, _)| *first);
        let obstacle = before_bad.into_iter().chain(before_settled).min();
        let through = obstacle.map_or(limit, |seq| limit.min(Seq(seq.0.saturating_sub(1))));
        let through = first_half(self.read_to, through, &mut self.suspect);
        self.reading = true;
        Some(Wish::Read { after: self.read_to, through, split: false })
    }

    fn has_room(&self) -> bool {
        let idle = self.rows.values().filter(|waiting| !waiting.in_flight).count();
        idle < READ_AHEAD && self.rows.len() < LANE_SPAN
    }

    /// Takes what a read has brought. `more`: it brought as many events as it may, so others may follow before the end
    /// of its range. Returns those that cannot be written.
    pub(super) fn on_rows(&mut self, request: &ReadRequest, rows: Vec<Row>, more: bool) -> Vec<(Seq, String)> {
        if !self.reading {
            return Vec::new();
        }
        self.reading = false;
        let mut last = request.after;
        if request.split {
            self.rows.remove(&request.after.next());
        }
        let mut unwritable = Vec::new();
        for row in rows {
            if row.first <= last || row.last > request.through {
                continue;
            }
            last = row.last;
            match row.message {
                Ok(message) => {
                    self.rows.insert(row.first, Waiting { message: Some(message), ..Waiting::unread(row.last) });
                }
                Err(reason) => unwritable.push((row.first, reason)),
            }
        }
        if request.split {
            if more && last < request.through {
                // The rest of a bundle that is larger than one read.
                self.rows.insert(last.next(), Waiting::unread(request.through));
            }
        } else {
            self.read_to = if more { last } else { request.through };
        }
        if unwritable.is_empty() {
            self.advance();
        }
        unwritable
    }

    /// The event `seq` of a read makes no row, and the read has brought nothing. True if it is to be parked now.
    pub(super) fn on_bad_row(&mut self, request: &ReadRequest, seq: Seq, reason: &str) -> bool {
        self.reading = false;
        if !request.split {
            self.bad_row = Some((seq, reason.to_owned()));
            return false;
        }
        // What is before it and after it is read again in two pieces.
        self.rows.remove(&request.after.next());
        for (first, last) in [(request.after.next(), Seq(seq.0.saturating_sub(1))), (seq.next(), request.through)] {
            if first <= last {
                self.rows.insert(first, Waiting::unread(last));
            }
        }
        true
    }

    /// A read has ended in a panic: the event is looked for by halves, and read alone some times. It is returned if it is to
    /// be given up.
    pub(super) fn on_read_panicked(&mut self, request: &ReadRequest, now: Mono) -> Option<Seq> {
        self.reading = false;
        let (first, last) = (request.after.next(), request.through);
        match halves(first, last) {
            Some((end, begin)) if request.split => {
                for (first, last) in [(first, end), (begin, last)] {
                    self.rows.insert(first, Waiting::unread(last));
                }
                None
            }
            Some(_) => {
                self.suspect = Some(last);
                None
            }
            None => {
                let before = self.panics.take_if(|(seq, _)| *seq == first).map_or(0, |(_, count)| count);
                let count = before.saturating_add(1);
                if count >= MAX_PANICS {
                    self.suspect = None;
                    return Some(first);
                }
                self.panics = Some((first, count));
                self.suspect = Some(first);
                self.read_not_before = now + READ_RETRY;
                None
            }
        }
    }

    /// A read has failed.
    pub(super) fn on_read_failed(&mut self, now: Mono) {
        self.reading = false;
        self.read_not_before = now + READ_RETRY;
    }

    /// The next row to publish of those that are `wanted`, if one is due; [`Self::launch`] follows.
    pub(super) fn due(&self, now: Mono, wanted: impl Fn(Seq) -> bool) -> Option<(Seq, Seq, Arc<Message>)> {
        let due = |waiting: &Waiting| !waiting.in_flight && waiting.not_before <= now;
        self.rows
            .iter()
            .filter(|(first, waiting)| due(waiting) && wanted(**first))
            .find_map(|(first, waiting)| Some((*first, waiting.last, Arc::clone(waiting.message.as_ref()?))))
    }

    /// The row is on its way.
    pub(super) fn launch(&mut self, first: Seq) {
        if let Some(waiting) = self.rows.get_mut(&first) {
            waiting.in_flight = true;
        }
    }

    /// The row goes again, not before this time.
    pub(super) fn send_again(&mut self, first: Seq, not_before: Mono) {
        if let Some(waiting) = self.rows.get_mut(&first) {
            waiting.in_flight = false;
            waiting.not_before = not_before;
            if waiting.is_stale {
                waiting.message = None;
            }
        }
    }

    /// The events of the row are to be read again, each by itself.
    pub(super) fn split(&mut self, first: Seq) {
        if let Some(waiting) = self.rows.get_mut(&first) {
            (waiting.message, waiting.in_flight) = (None, false);
        }
    }

    /// When something of the lane may be due: rows that wait, and the next read after a failed one.
    pub(super) fn times(&self) -> impl Iterator<Item = Mono> {
        let rows = self.rows.values().filter(|waiting| !waiting.in_flight).map(|waiting| waiting.not_before);
        rows.chain([self.read_not_before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(after: Seq, through: Seq, split: bool) -> ReadRequest {
        ReadRequest::for_tests(after, through, split)
    }

    fn row(seq: u64) -> Row {
        let message = Message {
            topic: String::new(),
            body: bytes::Bytes::new(),
            seq: Seq(seq),
            present_until: None,
            bridge: String::new(),
            kind: "",
            id: String::new(),
            packet_bytes: 1,
        };
        Row { first: Seq(seq), last: Seq(seq), message: Ok(Arc::new(message)) }
    }

    #[test]
    fn a_row_that_waits_for_long_stops_nothing_behind_it() {
        // Every third event is of this lane; the first of them is refused again and again.
        let (mut lane, end, now) = (LaneState::new(Seq::ZERO, Seq(u64::MAX)), Seq(30_000), Mono(1));
        let mut sent = 0;
        while let Some(Wish::Read { after, through, split }) = lane.next_wish(end, now) {
            let numbers = (after.0 + 1..=through.0).filter(|seq| seq % 3 == 0);
            let rows: Vec<Row> = numbers.take(READ_BATCH).map(row).collect();
            let more = rows.len() == READ_BATCH;
            assert!(lane.on_rows(&request(after, through, split), rows, more).is_empty());
            while let Some((first, last, _)) = lane.due(now, |_| true) {
                lane.launch(first);
                if first == Seq(3) {
                    lane.send_again(first, Mono(9));
                } else {
                    lane.settle(first, last);
                    sent += 1;
                }
            }
            assert!(lane.settled.len() <= 2, "{:?}", lane.settled);
        }
        assert_eq!((sent, lane.cursor()), (9_999, Seq(2)));
        // What is read again after a lost connection is that row alone.
        lane.rewind();
        let Some(Wish::Read { after, through, .. }) = lane.next_wish(end, now) else { panic!("nothing is read") };
        assert_eq!((after, through), (Seq(2), Seq(5)));
        assert!(lane.on_rows(&request(after, through, false), vec![row(3)], false).is_empty());
        lane.settle(Seq(3), Seq(3));
        while let Some(Wish::Read { after, through, split }) = lane.next_wish(end, now) {
            assert!(lane.on_rows(&request(after, through, split), Vec::new(), false).is_empty());
        }
        assert_eq!(lane.cursor(), end);
    }

    #[test]
    fn an_event_that_ends_each_read_in_a_panic_is_found_and_given_up_after_some_tries() {
        let (mut lane, bad, end) = (LaneState::new(Seq::ZERO, Seq(u64::MAX)), Seq(777), Seq(100_000));
        let (mut now, mut panics, mut given_up) = (Mono(1), 0, Vec::new());
        for _ in 0..5000 {
            match lane.next_wish(end, now) {
                Some(Wish::Read { after, through, split }) => {
                    let request = request(after, through, split);
                    if after < bad && bad <= through && given_up.is_empty() {
                        panics += 1;
                        if let Some(seq) = lane.on_read_panicked(&request, now) {
                            assert!(!lane.on_bad_row(&request, seq, "a defect"));
                        }
                    } else {
                        assert!(lane.on_rows(&request, Vec::new(), false).is_empty());
                    }
                }
                Some(Wish::Pass(seq, _)) => {
                    given_up.push(seq);
                    lane.settle(seq, seq);
                }
                None if lane.cursor() == end => break,
                None => now = now + READ_RETRY,
            }
        }
        assert_eq!((given_up, lane.cursor()), (vec![bad], end));
        assert!(panics <= 17 + MAX_PANICS, "{panics} reads for one event of 100,000");
    }
}
