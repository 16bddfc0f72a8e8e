//! What the bridge keeps on the broker: one retained message a topic, put right after each connection. Pure.
//!
//! The broker's memory is never trusted: it may have been empty, or older than the last word of the bridge. Each
//! connection publishes everything that stands once more and removes once more what ended lately. What is to be removed
//! and was not yet, of whatever run, is found again in the log after [`Retained::cursor`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::ids::Seq;
use crate::uplink::plan::suspects::{ALONE_FOR, MAX_ENDS, Suspects};

/// Announcements that wait for the broker's answer at the same time.
pub(super) const AT_ONCE: usize = 16;

/// An alert is removed so long after its end.
const AFTER_END: Duration = Duration::from_mins(1);

/// So long after its end an alert is removed again at each new connection: a broker that dies may come back with what it
/// had saved last, which Mosquitto does every 30 minutes.
const REMOVED_AGAIN: Duration = Duration::from_hours(1);

/// Most ended alerts that are remembered. More are read again from the log when these are done.
const MAX_ENDED: usize = 1024;

/// What goes first when much is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Who the bridge is, and that it is there.
    Bridge,
    /// An alert that stands, and its end.
    Alert,
    /// What has ended: nobody is harmed if it stands a moment longer.
    Removal,
    /// Descriptions for other programs.
    Document,
}

/// A message to be retained, or the removal of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// To hand back with the answer.
    pub(super) ticket: u64,
    /// What kind of message it is.
    pub(super) rank: Rank,
    /// Where to.
    pub(super) topic: String,
    /// JSON; empty: it is removed (MQTT 5.0 3.3.1.3).
    pub(super) body: String,
}

/// The end of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    remove_at: Mono,
    forget_at: Mono,
}

/// What one topic shall hold.
#[derive(Debug)]
struct Entry {
    rank: Rank,
    body: String,
    /// Of the newest event in it; zero for documents.
    seq: Seq,
    ended: Option<Ended>,
    /// Changed since it was sent, or never sent on this connection.
    is_due: bool,
    /// The publication without an answer.
    ticket: Option<u64>,
    /// The broker has taken what was sent last.
    is_taken: bool,
    left_out: Option<LeftOut>,
}

/// Why something is not told to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeftOut {
    /// It ended connections. It is left out until it says something else.
    Refused,
    /// It is larger than the broker of this connection takes.
    TooLarge,
}

impl Entry {
    const fn new(rank: Rank, body: String, seq: Seq, ended: Option<Ended>) -> Self {
        Self { rank, body, seq, ended, is_due: true, ticket: None, is_taken: false, left_out: None }
    }

    /// It has ended, and the broker has said that it is gone.
    fn is_removed(&self) -> bool {
        self.ended.is_some() && self.body.is_empty() && !self.is_due && self.ticket.is_none() && self.is_taken
    }
}

/// An announcement without an answer.
#[derive(Debug)]
struct Flight {
    topic: String,
    sent: Mono,
    /// Nothing else was under way when it went.
    is_alone: bool,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Retained {
    entries: BTreeMap<String, Entry>,
    /// Those of the entries that are due and not under way.
    due: BTreeSet<(Rank, String)>,
    /// When something is to be removed or forgotten.
    timers: BTreeSet<(Mono, String)>,
    /// Ends that are not forgotten yet; not the same as all ends in the log after the cursor, see `missed`.
    ended: BTreeMap<Seq, String>,
    flights: BTreeMap<u64, Flight>,
    next_ticket: u64,
    /// Since when there is a connection.
    connected: Option<Mono>,
    /// Topics whose messages go alone, to find the one because of which the broker ends connections.
    suspects: Suspects<String>,
    /// Announcements that the broker has taken.
    taken: u64,
    /// Alerts up to here are known: what stood then stands here, so an older event about one that stands is no news.
    known: Seq,
    /// Every alert that ended up to here is gone from the broker for good.
    cursor: Seq,
    /// The first end that found no room.
    missed: Option<Seq>,
}

impl Retained {
    /// Begins with what the log says up to `known`; every end after `cursor` is told again by [`Self::ended`].
    pub(super) const fn new(cursor: Seq, known: Seq) -> Self {
        Self {
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            timers: BTreeSet::new(),
            ended: BTreeMap::new(),
            flights: BTreeMap::new(),
            next_ticket: 0,
            connected: None,
            suspects: Suspects::new(),
            taken: 0,
            known,
            cursor,
            missed: None,
        }
    }

    /// This alert stood when the machine began.
    pub(super) fn stood(&mut self, topic: String, body: String, seq: Seq) {
        self.put(topic, Entry::new(Rank::Alert, body, seq, None));
    }

    /// An event of the log about an alert that stands.
    pub(super) fn stands(&mut self, topic: String, body: String, seq: Seq) {
        if seq > self.known && self.entries.get(&topic).is_none_or(|entry| entry.seq < seq) {
            self.stood(topic, body, seq);
        }
    }

    /// The same event of the log says other times now.
    pub(super) fn dated_anew(&mut self, topic: String, body: String, seq: Seq) {
        if self.entries.get(&topic).is_some_and(|entry| entry.seq == seq && entry.rank == Rank::Alert) {
            self.stood(topic, body, seq);
        }
    }

    /// An event of the log about the end of an alert; `age`: how long ago that was, as far as anybody can tell.
    pub(super) fn ended(&mut self, topic: String, body: String, seq: Seq, age: Duration, now: Stamp) {
        if self.entries.get(&topic).is_some_and(|entry| entry.seq >= seq) {
            return;
        }
        if self.ended.len() >= MAX_ENDED {
            self.forget_removed(1);
        }
        if self.ended.len() >= MAX_ENDED {
            self.missed.get_or_insert(seq);
            // It is removed when the log is read again; until then nothing says that it stands.
            self.forget(&topic);
            return;
        }
        let after = |span: Duration| now.mono + span.saturating_sub(age);
        let ended = Ended { remove_at: after(AFTER_END), forget_at: after(REMOVED_AGAIN) };
        let (rank, body) =
            if ended.remove_at <= now.mono { (Rank::Removal, String::new()) } else { (Rank::Alert, body) };
        self.timers.insert((ended.remove_at, topic.clone()));
        self.ended.insert(seq, topic.clone());
        self.put(topic, Entry::new(rank, body, seq, Some(ended)));
    }

    /// The log has been looked through up to here.
    pub(super) fn looked_through(&mut self, seq: Seq) {
        self.known = self.known.max(seq);
        if self.ended.is_empty() && self.missed.is_none() {
            self.cursor = self.cursor.max(seq);
        }
    }

    /// A message about the bridge itself, which goes out now even if it is the same.
    pub(super) fn bridge(&mut self, topic: String, body: String) {
        self.put(topic, Entry::new(Rank::Bridge, body, Seq::ZERO, None));
    }

    /// A description that shall stand until it is taken back; nothing happens if it does.
    pub(super) fn document(&mut self, topic: &str, body: &str) {
        if self.entries.get(topic).is_none_or(|entry| entry.body != body) {
            self.put(topic.to_owned(), Entry::new(Rank::Document, body.to_owned(), Seq::ZERO, None));
        }
    }

    /// Everything of this rank is to be published again on this connection.
    pub(super) fn again(&mut self, rank: Rank) {
        for (topic, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.rank == rank) {
            entry.is_due = true;
            if entry.ticket.is_none() {
                self.due.insert((rank, topic.clone()));
            }
        }
    }

    /// The broker has accepted a connection; nothing is taken for granted of what it knows.
    pub(super) fn on_connected(&mut self, now: Mono) {
        self.on_disconnected();
        self.connected = Some(now);
    }

    /// Announcements that the broker has not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.flights.len()
    }

    /// A suspect is under way, or is to go as soon as nothing else is; `rows`: so many rows the broker has taken.
    pub(super) fn wants_quiet(&self, rows: u64, now: Mono) -> bool {
        let is_next = self.flights.is_empty() && self.suspect_due(rows, now).is_some();
        is_next || self.alone_until().is_some_and(|until| now < until)
    }

    /// Until then nothing else goes beside what goes alone.
    fn alone_until(&self) -> Option<Mono> {
        self.flights.values().find(|flight| flight.is_alone).map(|flight| flight.sent + ALONE_FOR)
    }

    fn suspect_due(&self, rows: u64, now: Mono) -> Option<&(Rank, String)> {
        let since = self.connected.filter(|_| !self.suspects.is_empty())?;
        let taken = self.taken.saturating_add(rows);
        self.due.iter().find(|(_, topic)| self.suspects.may_go(topic, since, taken, now))
    }

    /// The broker ends the connection, with `rows` under way and so many taken, and that may be because of something that
    /// was under way; `is_certain`: it is. Gives what is left out from now on: its topic, and the length of its text.
    pub(super) fn on_broken_off(
        &mut self,
        is_certain: bool,
        (rows, rows_taken): (usize, u64),
        now: Mono,
    ) -> Option<(String, usize)> {
        let taken = self.taken.saturating_add(rows_taken);
        if let (1, Some((_, Flight { topic, sent, is_alone }))) = (self.flights.len(), self.flights.first_key_value())
            && rows == 0
            && (is_certain || *is_alone)
        {
            if is_certain || self.suspects.ended(topic.clone(), *sent, taken, now) >= MAX_ENDS {
                self.suspects.acquit(topic);
                let entry = self.entries.get_mut(topic)?;
                entry.left_out = Some(LeftOut::Refused);
                return Some((topic.clone(), entry.body.len()));
            }
            return None;
        }
        for flight in self.flights.values() {
            self.suspects.add(flight.topic.clone());
        }
        None
    }

    /// There is no connection, or it shall carry nothing more of this.
    pub(super) fn on_disconnected(&mut self) {
        self.connected = None;
        self.flights.clear();
        self.due.clear();
        for (topic, entry) in &mut self.entries {
            entry.left_out = entry.left_out.filter(|why| *why == LeftOut::Refused);
            (entry.is_due, entry.ticket, entry.is_taken) = (entry.left_out.is_none(), None, false);
            if entry.is_due {
                self.due.insert((entry.rank, topic.clone()));
            }
        }
    }

    /// What to publish now, if anything, with `rows` under way and so many taken.
    pub(super) fn next(&mut self, (rows, rows_taken): (usize, u64), now: Mono) -> Option<Due> {
        self.turn(now);
        if self.connected.is_none()
            || self.flights.len() >= AT_ONCE
            || self.alone_until().is_some_and(|until| now < until)
        {
            return None;
        }
        let suspect = self.suspect_due(rows_taken, now).cloned();
        let is_alone = suspect.is_some();
        if is_alone && (rows > 0 || !self.flights.is_empty()) {
            return None;
        }
        let wanted = suspect.or_else(|| self.due.iter().find(|(_, topic)| !self.suspects.contains(topic)).cloned())?;
        self.due.remove(&wanted);
        let (_, topic) = wanted;
        let entry = self.entries.get_mut(&topic)?;
        self.next_ticket = self.next_ticket.saturating_add(1);
        (entry.is_due, entry.ticket) = (false, Some(self.next_ticket));
        self.flights.insert(self.next_ticket, Flight { topic: topic.clone(), sent: now, is_alone });
        Some(Due { ticket: self.next_ticket, rank: entry.rank, topic, body: entry.body.clone() })
    }

    /// The broker has answered. Refused or not: the same again would have the same answer on this connection. Gives the
    /// topic, if it was one of these.
    pub(super) fn on_answer(&mut self, ticket: u64, is_taken: bool) -> Option<String> {
        let Flight { topic, .. } = self.flights.remove(&ticket)?;
        self.taken = self.taken.saturating_add(u64::from(is_taken));
        self.suspects.acquit(&topic);
        let entry = self.entries.get_mut(&topic).filter(|entry| entry.ticket == Some(ticket))?;
        (entry.ticket, entry.is_taken) = (None, is_taken);
        if entry.is_due {
            self.due.insert((entry.rank, topic.clone()));
        } else if let Some(ended) = entry.ended.filter(|_| is_taken && entry.body.is_empty()) {
            self.timers.insert((ended.forget_at, topic.clone()));
        } else if is_taken && entry.rank == Rank::Document && entry.body.is_empty() {
            self.entries.remove(&topic);
        }
        Some(topic)
    }

    /// Whether something is to stand on this topic, or to be taken away.
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.entries.contains_key(topic)
    }

    /// When [`Self::next`] may have something without anything else happening.
    pub(super) fn next_deadline(&self, now: Mono) -> Option<Mono> {
        let suspects = self.connected.into_iter().flat_map(|since| self.suspects.times(since));
        let of_search = suspects.chain(self.alone_until()).filter(|at| *at > now);
        self.timers.first().map(|(at, _)| *at).into_iter().chain(of_search).min()
    }

    /// Every alert that ended up to here is gone from the broker for good.
    pub(super) const fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Ends found no room, and now there is: the log is to be read again from the cursor.
    pub(super) fn take_missed(&mut self) -> bool {
        if self.missed.is_none() || self.connected.is_none() || !self.due.is_empty() || !self.flights.is_empty() {
            return false;
        }
        self.forget_removed(MAX_ENDED);
        self.ended.len() < MAX_ENDED && self.missed.take().is_some()
    }

    fn put(&mut self, topic: String, mut entry: Entry) {
        if let Some(before) = self.entries.get(&topic) {
            self.due.remove(&(before.rank, topic.clone()));
            // The answer to what is under way is awaited, so that two messages never overtake each other.
            entry.ticket = before.ticket;
            if before.left_out.is_some() && before.body == entry.body {
                (entry.is_due, entry.left_out) = (false, before.left_out);
            }
        }
        if entry.is_due && entry.ticket.is_none() {
            self.due.insert((entry.rank, topic.clone()));
        }
        self.entries.insert(topic, entry);
    }

    /// What was given to be published is not, because it is larger than the broker takes.
    pub(super) fn pass_over(&mut self, ticket: u64) {
        if let Some(Flight { topic, .. }) = self.flights.remove(&ticket)
            && let Some(entry) = self.entries.get_mut(&topic).filter(|entry| entry.ticket == Some(ticket))
        {
            (entry.ticket, entry.left_out) = (None, Some(LeftOut::TooLarge));
        }
    }

    /// The topic of something that is not on the broker because it would not take it.
    pub(super) fn leaves_out(&self) -> Option<&str> {
        self.entries.iter().find(|(_, entry)| entry.left_out.is_some()).map(|(topic, _)| topic.as_str())
    }

    fn forget(&mut self, topic: &str) {
        if let Some(entry) = self.entries.remove(topic) {
            self.due.remove(&(entry.rank, topic.to_owned()));
        }
    }

    /// Removes what ended long enough ago, and forgets what was removed long enough ago.
    pub(super) fn turn(&mut self, now: Mono) {
        while let Some((at, topic)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, topic.clone()));
            let Some(entry) = self.entries.get_mut(&topic) else { continue };
            let Some(ended) = entry.ended else { continue };
            if !entry.body.is_empty() && ended.remove_at <= now {
                self.due.remove(&(entry.rank, topic.clone()));
                (entry.rank, entry.is_due) = (Rank::Removal, true);
                entry.body.clear();
                entry.left_out = None;
                if entry.ticket.is_none() {
                    self.due.insert((Rank::Removal, topic));
                }
            } else if ended.forget_at <= now && entry.is_removed() {
                let seq = entry.seq;
                self.settle(seq, &topic);
            }
        }
    }

    /// Forgets the oldest of those that the broker has removed, before their time.
    fn forget_removed(&mut self, most: usize) {
        let is_removed = |topic: &String| self.entries.get(topic).is_some_and(Entry::is_removed);
        let removed = self.ended.iter().filter(|(_, topic)| is_removed(topic)).take(most);
        let removed: Vec<(Seq, String)> = removed.map(|(seq, topic)| (*seq, topic.clone())).collect();
        for (seq, topic) in removed {
            self.settle(seq, &topic);
        }
    }

    /// The end with this number needs nothing more.
    fn settle(&mut self, seq: Seq, topic: &str) {
        self.entries.remove(topic);
        self.ended.remove(&seq);
        let before = |seq: &Seq| Seq(seq.0.saturating_sub(1));
        let open = self.ended.first_key_value().map(|(seq, _)| before(seq));
        let open = open.into_iter().chain(self.missed.as_ref().map(before)).min();
        self.cursor = self.cursor.max(open.unwrap_or(seq));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(seconds * 1000), ..Stamp::default() }
    }

    /// A broker that takes everything, and what it holds afterwards.
    struct Kept(BTreeMap<String, String>);

    impl Kept {
        /// Hands over all that is due and answers it; gives the topics in their order.
        fn serve(&mut self, retained: &mut Retained, seconds: u64) -> Vec<String> {
            let mut said = Vec::new();
            while let Some(Due { ticket, topic, body, .. }) = retained.next((0, 0), at(seconds).mono) {
                if body.is_empty() {
                    self.0.remove(&topic);
                    said.push(format!("-{topic}"));
                } else {
                    said.push(format!("{topic}={body}"));
                    self.0.insert(topic, body);
                }
                retained.on_answer(ticket, true);
            }
            said
        }

        fn holds(&self) -> Vec<String> {
            self.0.iter().map(|(topic, body)| format!("{topic}={body}")).collect()
        }
    }

    fn kept() -> Kept {
        Kept(BTreeMap::new())
    }

    fn stands(retained: &mut Retained, topic: &str, body: &str, seq: u64) {
        retained.stands(topic.to_owned(), body.to_owned(), Seq(seq));
        retained.looked_through(Seq(seq));
    }

    /// The end of an alert, `ago` seconds before `seconds`.
    fn ends(retained: &mut Retained, topic: &str, seq: u64, ago: u64, seconds: u64) {
        retained.ended(topic.to_owned(), "end".to_owned(), Seq(seq), Duration::from_secs(ago), at(seconds));
        retained.looked_through(Seq(seq));
    }

    #[test]
    fn an_alert_is_kept_with_its_newest_body_and_removed_a_minute_after_its_end() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected(Mono(0));
        stands(&mut retained, "a", "start", 1);
        assert_eq!(broker.serve(&mut retained, 0), ["a=start"]);
        assert_eq!(broker.serve(&mut retained, 1), Vec::<String>::new());
        stands(&mut retained, "a", "acknowledged", 2);
        assert_eq!(broker.serve(&mut retained, 2), ["a=acknowledged"]);
        ends(&mut retained, "a", 3, 2, 10);
        assert_eq!(broker.serve(&mut retained, 10), ["a=end"]);
        assert_eq!(retained.next_deadline(Mono(0)), Some(at(68).mono), "60 s after the end, which was at 8");
        assert_eq!(broker.serve(&mut retained, 67), Vec::<String>::new());
        assert_eq!(broker.serve(&mut retained, 68), ["-a"]);
        assert_eq!(broker.holds(), Vec::<String>::new());
    }

    #[test]
    fn nothing_goes_out_without_a_connection_and_everything_goes_out_again_on_a_new_one() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq(5)), kept());
        retained.stood("a".to_owned(), "stood".to_owned(), Seq(4));
        stands(&mut retained, "b", "start", 6);
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new());
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 1), ["a=stood", "b=start"]);
        retained.on_disconnected();
        ends(&mut retained, "b", 7, 0, 10);
        // The broker comes back without a memory.
        broker.0.clear();
        assert_eq!(broker.serve(&mut retained, 20), Vec::<String>::new());
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 20), ["a=stood", "b=end"]);
        assert_eq!(broker.serve(&mut retained, 70), ["-b"]);
    }

    #[test]
    fn what_ended_while_the_bridge_was_away_is_removed_and_never_shown_as_standing_again() {
        // The last run announced `a`; it ended, unheard, with event 8. This run begins at event 10.
        let (mut retained, mut broker) = (Retained::new(Seq(2), Seq(10)), kept());
        broker.0.insert("a".to_owned(), "start".to_owned());
        retained.on_connected(Mono(0));
        stands(&mut retained, "a", "start", 3);
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new(), "news of before the end are no news");
        ends(&mut retained, "a", 8, 100, 0);
        assert_eq!(broker.serve(&mut retained, 0), ["-a"]);
        assert_eq!(broker.holds(), Vec::<String>::new());
    }

    #[test]
    fn the_end_is_told_again_for_an_hour_to_a_broker_that_comes_back_with_an_older_memory() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected(Mono(0));
        stands(&mut retained, "a", "start", 1);
        broker.serve(&mut retained, 0);
        let saved = broker.0.clone();
        ends(&mut retained, "a", 2, 0, 10);
        broker.serve(&mut retained, 10);
        assert_eq!(broker.serve(&mut retained, 70), ["-a"]);
        retained.looked_through(Seq(9));
        assert_eq!(retained.cursor(), Seq(1), "a killed bridge would have to remove it again as well");

        broker.0 = saved;
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 1800), ["-a"]);
        assert_eq!(broker.holds(), Vec::<String>::new());

        assert_eq!(broker.serve(&mut retained, 10 + 3600), Vec::<String>::new());
        assert_eq!(retained.cursor(), Seq(2));
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 4000), Vec::<String>::new(), "it is forgotten");
    }

    #[test]
    fn what_the_broker_did_not_confirm_is_said_again() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.on_connected(Mono(0));
        ends(&mut retained, "a", 1, 7200, 0);
        let lost = retained.next((0, 0), at(0).mono).unwrap();
        assert!(lost.body.is_empty());
        assert_eq!(retained.next((0, 0), at(7200).mono), None, "it is under way");
        assert_eq!(retained.cursor(), Seq::ZERO);
        retained.on_connected(Mono(0));
        assert_eq!(retained.on_answer(lost.ticket, true), None, "that was another connection");
        let again = retained.next((0, 0), at(7201).mono).unwrap();
        assert_eq!((again.topic.as_str(), again.body.as_str()), ("a", ""));
        // A refusal is no confirmation; the next connection tries again.
        retained.on_answer(again.ticket, false);
        assert_eq!((retained.next((0, 0), at(9000).mono), retained.cursor()), (None, Seq::ZERO));
        retained.on_connected(Mono(0));
        let third = retained.next((0, 0), at(9000).mono).unwrap();
        retained.on_answer(third.ticket, true);
        assert_eq!((retained.next((0, 0), at(9000).mono), retained.cursor()), (None, Seq(1)));
    }

    #[test]
    fn one_message_a_topic_is_under_way_and_a_change_meanwhile_follows_it() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.on_connected(Mono(0));
        stands(&mut retained, "a", "1", 1);
        let first = retained.next((0, 0), at(0).mono).unwrap();
        stands(&mut retained, "a", "2", 2);
        stands(&mut retained, "a", "3", 3);
        assert_eq!(retained.next((0, 0), at(0).mono), None);
        retained.on_answer(first.ticket, true);
        let second = retained.next((0, 0), at(0).mono).unwrap();
        assert_eq!(second.body, "3");
        retained.on_answer(second.ticket, true);
        assert_eq!(retained.next((0, 0), at(0).mono), None);
    }

    #[test]
    fn no_more_is_under_way_than_the_connection_has_room_for_and_alerts_go_first() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected(Mono(0));
        retained.document("doc", "d");
        for number in 1..=40 {
            ends(&mut retained, &format!("old-{number:02}"), number, 7200, 0);
        }
        stands(&mut retained, "now", "start", 50);
        let mut sent = Vec::new();
        while let Some(due) = retained.next((0, 0), at(0).mono) {
            sent.push(due);
        }
        assert_eq!((sent.len(), sent[0].topic.as_str()), (AT_ONCE, "now"));
        for due in sent {
            retained.on_answer(due.ticket, true);
        }
        let rest = broker.serve(&mut retained, 0);
        assert_eq!((rest.len(), rest.last().unwrap().as_str()), (42 - AT_ONCE, "doc=d"));
    }

    #[test]
    fn a_document_stands_until_it_is_taken_back() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected(Mono(0));
        retained.document("doc", "one");
        assert_eq!(broker.serve(&mut retained, 0), ["doc=one"]);
        retained.document("doc", "one");
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new());
        retained.again(Rank::Document);
        assert_eq!(broker.serve(&mut retained, 0), ["doc=one"]);
        retained.document("doc", "");
        assert_eq!(broker.serve(&mut retained, 0), ["-doc"]);
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new());
    }

    #[test]
    fn an_end_that_the_broker_did_not_take_is_looked_for_again_whatever_ended_after_it() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected(Mono(0));
        ends(&mut retained, "a", 3, 7200, 0);
        let refused = retained.next((0, 0), at(0).mono).unwrap();
        retained.on_answer(refused.ticket, false);
        ends(&mut retained, "b", 4, 7200, 0);
        assert_eq!(broker.serve(&mut retained, 0), ["-b"]);
        assert_eq!(broker.serve(&mut retained, 4000), Vec::<String>::new());
        assert_eq!((retained.cursor(), retained.ended.len()), (Seq(2), 1), "`b` is forgotten, `a` is not");
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 8000), ["-a"]);
        assert_eq!(retained.cursor(), Seq(3));
    }

    #[test]
    fn what_is_older_than_what_stands_is_no_news_wherever_it_is_found() {
        // It stood at the begin with an event that came after the end of the log was looked up.
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq(5)), kept());
        retained.stood("a".to_owned(), "newest".to_owned(), Seq(8));
        retained.on_connected(Mono(0));
        assert_eq!(broker.serve(&mut retained, 0), ["a=newest"]);
        stands(&mut retained, "a", "older", 7);
        retained.dated_anew("a".to_owned(), "older, at another time".to_owned(), Seq(7));
        assert_eq!(broker.serve(&mut retained, 1), Vec::<String>::new());
        retained.dated_anew("a".to_owned(), "newest, at another time".to_owned(), Seq(8));
        assert_eq!(broker.serve(&mut retained, 2), ["a=newest, at another time"]);
    }

    #[test]
    fn an_answer_to_what_was_forgotten_lets_nothing_pass_what_is_under_way_now() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.on_connected(Mono(0));
        stands(&mut retained, "a", "first", 1);
        let first = retained.next((0, 0), at(0).mono).unwrap();
        // So many ends that the one of `a` finds no room.
        let most = u64::try_from(MAX_ENDED).unwrap();
        for number in 2..2 + most {
            ends(&mut retained, &format!("old-{number}"), number, 0, 0);
        }
        ends(&mut retained, "a", most + 2, 0, 0);
        assert!(!retained.holds("a"));
        stands(&mut retained, "a", "second", most + 3);
        let second = std::iter::from_fn(|| retained.next((0, 0), at(0).mono)).find(|due| due.topic == "a").unwrap();
        retained.on_answer(first.ticket, true);
        stands(&mut retained, "a", "third", most + 4);
        assert!(!std::iter::from_fn(|| retained.next((0, 0), at(0).mono)).any(|due| due.topic == "a"));
        retained.on_answer(second.ticket, true);
        assert_eq!(retained.next((0, 0), at(0).mono).map(|due| due.body).as_deref(), Some("third"));
    }

    #[test]
    fn more_ends_than_there_is_room_for_are_all_removed_in_the_end() {
        let count = u64::try_from(MAX_ENDED).unwrap() * 3;
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        let topic = |number: u64| format!("a-{number:05}");
        for number in 1..=count {
            broker.0.insert(topic(number), "start".to_owned());
        }
        // The log is read while there is no broker, and then again as often as the machine asks for it.
        let read = |retained: &mut Retained, seconds| {
            for number in retained.cursor().0 + 1..=count {
                ends(retained, &topic(number), number, 7200, seconds);
            }
        };
        read(&mut retained, 0);
        assert!(retained.entries.len() <= MAX_ENDED && !retained.take_missed());
        retained.on_connected(Mono(0));
        let mut rounds = 0;
        loop {
            broker.serve(&mut retained, 1);
            if !retained.take_missed() {
                break;
            }
            read(&mut retained, 1);
            rounds += 1;
        }
        assert_eq!((broker.holds().len(), rounds, retained.cursor()), (0, 2, Seq(count)));
    }

    #[test]
    fn whatever_is_lost_on_the_way_the_broker_holds_in_the_end_what_stands() {
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        let (mut log, mut seconds) = (Vec::<(u64, usize, bool)>::new(), 0);
        // Half of them are ends: fewer than there is room for, what finds none is another test's.
        for seq in 1..=1600 {
            seconds += random.u64(0..20);
            let alert = random.usize(0..12);
            let is_end = random.bool();
            log.push((seq, alert, is_end));
            let topic = format!("a{alert}");
            if is_end {
                ends(&mut retained, &topic, seq, random.u64(0..90), seconds);
            } else {
                stands(&mut retained, &topic, &seq.to_string(), seq);
            }
            match random.u8(0..20) {
                0 => retained.on_connected(Mono(0)),
                1 => retained.on_disconnected(),
                2 => broker.0.clear(),
                _ => {}
            }
            for _ in 0..random.usize(0..3) {
                if let Some(Due { ticket, topic, body, .. }) = retained.next((0, 0), at(seconds).mono) {
                    // Lost on the way, the answer lost, or all well.
                    let fate = random.u8(0..4);
                    if fate > 0 && !body.is_empty() {
                        broker.0.insert(topic, body);
                    } else if fate > 0 {
                        broker.0.remove(&topic);
                    }
                    if fate > 1 {
                        retained.on_answer(ticket, true);
                    }
                }
            }
        }
        retained.on_connected(Mono(0));
        broker.serve(&mut retained, seconds);
        broker.serve(&mut retained, seconds + 61);
        let newest: BTreeMap<usize, (u64, bool)> =
            log.into_iter().map(|(seq, alert, is_end)| (alert, (seq, is_end))).collect();
        let standing: Vec<String> = newest
            .iter()
            .filter(|(_, (_, is_end))| !is_end)
            .map(|(alert, (seq, _))| format!("a{alert}={seq}"))
            .collect();
        let mut held = broker.holds();
        held.sort();
        let mut expected = standing;
        expected.sort();
        assert_eq!(held, expected);
    }

    /// Publishes until nothing more is wanted; gives the topics, all of which the broker takes but `refused`.
    fn publish_but(retained: &mut Retained, refused: &str, rows: u64, now: Mono) -> (Vec<String>, bool) {
        let mut topics = Vec::new();
        while let Some(due) = retained.next((0, rows), now) {
            let is_refused = due.topic == refused;
            topics.push(due.topic);
            if is_refused {
                return (topics, true);
            }
            retained.on_answer(due.ticket, true);
        }
        (topics, false)
    }

    #[test]
    fn what_ends_the_connection_is_found_among_what_was_under_way_and_left_out_until_it_says_something_else() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        for topic in ["birth", "huge", "status"] {
            retained.bridge(topic.to_owned(), format!("{topic} 1"));
        }
        retained.on_connected(Mono(0));
        for _ in 0..3 {
            retained.next((0, 0), Mono(0)).unwrap();
        }
        // None of them is answered, and nobody can tell which it was.
        assert_eq!(retained.on_broken_off(true, (5, 0), Mono(0)), None);
        retained.on_connected(Mono(0));
        assert!(retained.wants_quiet(0, Mono(0)));
        assert_eq!(retained.next((1, 0), Mono(0)), None, "a row is under way");
        let (topics, is_ended) = publish_but(&mut retained, "huge", 0, Mono(0));
        assert_eq!((topics, is_ended), (vec!["birth".to_owned(), "huge".to_owned()], true), "one by one");
        assert_eq!((retained.next((0, 0), Mono(0)), retained.wants_quiet(0, at(1).mono)), (None, true));
        assert!(!retained.wants_quiet(0, at(2).mono), "rows do not wait for ever for an answer");
        assert_eq!(retained.on_broken_off(true, (0, 0), Mono(0)), Some(("huge".to_owned(), 6)));
        assert_eq!(retained.leaves_out(), Some("huge"));
        for body in ["huge 1", "huge 2"] {
            retained.on_connected(Mono(0));
            retained.bridge("huge".to_owned(), body.to_owned());
            let (topics, _) = publish_but(&mut retained, "", 0, Mono(0));
            assert_eq!(topics.contains(&"huge".to_owned()), body == "huge 2", "{topics:?}");
        }
        assert_eq!((retained.leaves_out(), retained.wants_quiet(0, Mono(0))), (None, false));
    }

    #[test]
    fn what_a_broker_only_may_have_closed_for_is_tried_three_times_and_rows_go_meanwhile() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.bridge("birth".to_owned(), "birth".to_owned());
        retained.on_connected(Mono(0));
        retained.next((0, 0), Mono(0)).unwrap();
        assert_eq!(retained.on_broken_off(false, (0, 0), Mono(0)), None);
        let mut rows = 0;
        for (number, seconds) in [(1, 0), (2, 6), (3, 12)] {
            retained.on_connected(Mono(0));
            let early = at(seconds - u64::from(seconds > 0)).mono;
            let (topics, is_ended) = publish_but(&mut retained, "birth", rows, early);
            assert_eq!(is_ended, seconds == 0, "{topics:?}");
            if seconds > 0 {
                assert!(!retained.wants_quiet(rows, early), "rows go meanwhile");
                assert!(!retained.wants_quiet(rows, at(seconds).mono), "the broker has taken nothing since");
                rows += 1;
                assert!(retained.wants_quiet(rows, at(seconds).mono));
                assert!(publish_but(&mut retained, "birth", rows, at(seconds).mono).1);
            }
            let found = retained.on_broken_off(false, (0, rows), at(seconds).mono);
            assert_eq!(found.is_some(), number == 3, "{number}");
        }
        assert_eq!(retained.leaves_out(), Some("birth"));
    }

    #[test]
    fn what_is_larger_than_this_broker_takes_is_tried_again_on_the_next_connection() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.document("large", "{}");
        for _ in 0..2 {
            retained.on_connected(Mono(0));
            assert_eq!(retained.leaves_out(), None);
            let due = retained.next((0, 0), Mono(0)).unwrap();
            retained.pass_over(due.ticket);
            assert_eq!((retained.next((0, 0), Mono(0)), retained.unanswered()), (None, 0));
            assert_eq!(retained.leaves_out(), Some("large"));
        }
    }
}
