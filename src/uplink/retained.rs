//! What the bridge keeps on the broker: one retained message a topic, put right after each connection. Pure.
//!
//! The broker's memory is never trusted: it may have been empty, or older than the last word of the bridge. Each
//! connection publishes everything that stands once more and removes once more what ended lately. What is to be removed
//! and was not yet, of whatever run, is found again in the log after [`Retained::cursor`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::ids::Seq;

/// Announcements that wait for the broker's answer at the same time.
pub(super) const AT_ONCE: usize = 16;

/// An alert is removed so long after its end.
const AFTER_END: Duration = Duration::from_mins(1);

/// So long after its end an alert is removed again at each new connection: a broker that dies may come back with what it
/// had saved last, which Mosquitto does every 30 minutes.
const REMOVED_AGAIN: Duration = Duration::from_hours(1);

/// Most ended alerts that are remembered. More are read again from the log when these are done.
const MAX_ENDED: usize = 1024;

/// Most messages that are left out because they ended a connection.
const MAX_REFUSED: usize = 64;

/// Which message may have ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// That on this topic.
    One(String),
    /// One of those under way.
    Several,
}

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
}

impl Entry {
    const fn new(rank: Rank, body: String, seq: Seq, ended: Option<Ended>) -> Self {
        Self { rank, body, seq, ended, is_due: true, ticket: None, is_taken: false }
    }

    /// It has ended, and the broker has said that it is gone.
    fn is_removed(&self) -> bool {
        self.ended.is_some() && self.body.is_empty() && !self.is_due && self.ticket.is_none() && self.is_taken
    }
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
    flights: BTreeMap<u64, String>,
    next_ticket: u64,
    is_connected: bool,
    /// One of several ended a connection: they go one by one until all of them went.
    is_careful: bool,
    /// What ended a connection by itself: the topic, and what it said. It is left out until it says something else.
    refused: BTreeMap<String, String>,
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
            is_connected: false,
            is_careful: false,
            refused: BTreeMap::new(),
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
    pub(super) fn on_connected(&mut self) {
        self.on_disconnected();
        self.is_connected = true;
    }

    /// There is no connection, or it shall carry nothing more of this.
    pub(super) fn on_disconnected(&mut self) {
        self.is_connected = false;
        self.flights.clear();
        self.due.clear();
        for (topic, entry) in &mut self.entries {
            (entry.is_due, entry.ticket, entry.is_taken) = (true, None, false);
            self.due.insert((entry.rank, topic.clone()));
        }
    }

    /// What to publish now, if anything.
    pub(super) fn next(&mut self, now: Mono) -> Option<Due> {
        self.turn(now);
        let at_once = if self.is_careful { 1 } else { AT_ONCE };
        if !self.is_connected || self.flights.len() >= at_once {
            return None;
        }
        let entries = &mut self.entries;
        self.due.retain(|(_, topic)| match entries.get_mut(topic) {
            Some(entry) if self.refused.get(topic) == Some(&entry.body) => {
                entry.is_due = false;
                false
            }
            _ => true,
        });
        let Some((_, topic)) = self.due.pop_first() else {
            self.is_careful &= !self.flights.is_empty();
            return None;
        };
        let entry = self.entries.get_mut(&topic)?;
        self.next_ticket = self.next_ticket.saturating_add(1);
        (entry.is_due, entry.ticket) = (false, Some(self.next_ticket));
        self.flights.insert(self.next_ticket, topic.clone());
        Some(Due { ticket: self.next_ticket, rank: entry.rank, topic, body: entry.body.clone() })
    }

    /// The broker has ended the connection because of a message and does not say which. It may be one of these that were
    /// under way: one alone is left out until it says something else, of several the one is looked for. `None`: none was,
    /// so that it was something else, also when one of these was suspected before.
    pub(super) fn on_refused(&mut self) -> Option<Suspicion> {
        let mut flights = self.flights.values();
        let Some(topic) = flights.next() else {
            self.refused.clear();
            return None;
        };
        if flights.next().is_some() {
            self.is_careful = true;
            return Some(Suspicion::Several);
        }
        let entry = self.entries.get(topic)?;
        // Of too many each is tried again.
        if self.refused.len() < MAX_REFUSED {
            self.refused.insert(topic.clone(), entry.body.clone());
        }
        Some(Suspicion::One(topic.clone()))
    }

    /// The broker has answered. Refused or not: the same again would have the same answer on this connection. Gives the
    /// topic, if it was one of these.
    pub(super) fn on_answer(&mut self, ticket: u64, is_taken: bool) -> Option<String> {
        let topic = self.flights.remove(&ticket)?;
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
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Every alert that ended up to here is gone from the broker for good.
    pub(super) const fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Ends found no room, and now there is: the log is to be read again from the cursor.
    pub(super) fn take_missed(&mut self) -> bool {
        if self.missed.is_none() || !self.is_connected || !self.due.is_empty() || !self.flights.is_empty() {
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
        }
        if entry.ticket.is_none() {
            self.due.insert((entry.rank, topic.clone()));
        }
        self.entries.insert(topic, entry);
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
            while let Some(Due { ticket, topic, body, .. }) = retained.next(at(seconds).mono) {
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
        retained.on_connected();
        stands(&mut retained, "a", "start", 1);
        assert_eq!(broker.serve(&mut retained, 0), ["a=start"]);
        assert_eq!(broker.serve(&mut retained, 1), Vec::<String>::new());
        stands(&mut retained, "a", "acknowledged", 2);
        assert_eq!(broker.serve(&mut retained, 2), ["a=acknowledged"]);
        ends(&mut retained, "a", 3, 2, 10);
        assert_eq!(broker.serve(&mut retained, 10), ["a=end"]);
        assert_eq!(retained.next_deadline(), Some(at(68).mono), "60 s after the end, which was at 8");
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
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 1), ["a=stood", "b=start"]);
        retained.on_disconnected();
        ends(&mut retained, "b", 7, 0, 10);
        // The broker comes back without a memory.
        broker.0.clear();
        assert_eq!(broker.serve(&mut retained, 20), Vec::<String>::new());
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 20), ["a=stood", "b=end"]);
        assert_eq!(broker.serve(&mut retained, 70), ["-b"]);
    }

    #[test]
    fn what_ended_while_the_bridge_was_away_is_removed_and_never_shown_as_standing_again() {
        // The last run announced `a`; it ended, unheard, with event 8. This run begins at event 10.
        let (mut retained, mut broker) = (Retained::new(Seq(2), Seq(10)), kept());
        broker.0.insert("a".to_owned(), "start".to_owned());
        retained.on_connected();
        stands(&mut retained, "a", "start", 3);
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new(), "news of before the end are no news");
        ends(&mut retained, "a", 8, 100, 0);
        assert_eq!(broker.serve(&mut retained, 0), ["-a"]);
        assert_eq!(broker.holds(), Vec::<String>::new());
    }

    #[test]
    fn the_end_is_told_again_for_an_hour_to_a_broker_that_comes_back_with_an_older_memory() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected();
        stands(&mut retained, "a", "start", 1);
        broker.serve(&mut retained, 0);
        let saved = broker.0.clone();
        ends(&mut retained, "a", 2, 0, 10);
        broker.serve(&mut retained, 10);
        assert_eq!(broker.serve(&mut retained, 70), ["-a"]);
        retained.looked_through(Seq(9));
        assert_eq!(retained.cursor(), Seq(1), "a killed bridge would have to remove it again as well");

        broker.0 = saved;
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 1800), ["-a"]);
        assert_eq!(broker.holds(), Vec::<String>::new());

        assert_eq!(broker.serve(&mut retained, 10 + 3600), Vec::<String>::new());
        assert_eq!(retained.cursor(), Seq(2));
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 4000), Vec::<String>::new(), "it is forgotten");
    }

    #[test]
    fn what_the_broker_did_not_confirm_is_said_again() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.on_connected();
        ends(&mut retained, "a", 1, 7200, 0);
        let lost = retained.next(at(0).mono).unwrap();
        assert!(lost.body.is_empty());
        assert_eq!(retained.next(at(7200).mono), None, "it is under way");
        assert_eq!(retained.cursor(), Seq::ZERO);
        retained.on_connected();
        assert_eq!(retained.on_answer(lost.ticket, true), None, "that was another connection");
        let again = retained.next(at(7201).mono).unwrap();
        assert_eq!((again.topic.as_str(), again.body.as_str()), ("a", ""));
        // A refusal is no confirmation; the next connection tries again.
        retained.on_answer(again.ticket, false);
        assert_eq!((retained.next(at(9000).mono), retained.cursor()), (None, Seq::ZERO));
        retained.on_connected();
        let third = retained.next(at(9000).mono).unwrap();
        retained.on_answer(third.ticket, true);
        assert_eq!((retained.next(at(9000).mono), retained.cursor()), (None, Seq(1)));
    }

    #[test]
    fn one_message_a_topic_is_under_way_and_a_change_meanwhile_follows_it() {
        let mut retained = Retained::new(Seq::ZERO, Seq::ZERO);
        retained.on_connected();
        stands(&mut retained, "a", "1", 1);
        let first = retained.next(at(0).mono).unwrap();
        stands(&mut retained, "a", "2", 2);
        stands(&mut retained, "a", "3", 3);
        assert_eq!(retained.next(at(0).mono), None);
        retained.on_answer(first.ticket, true);
        let second = retained.next(at(0).mono).unwrap();
        assert_eq!(second.body, "3");
        retained.on_answer(second.ticket, true);
        assert_eq!(retained.next(at(0).mono), None);
    }

    #[test]
    fn no_more_is_under_way_than_the_connection_has_room_for_and_alerts_go_first() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected();
        retained.document("doc", "d");
        for number in 1..=40 {
            ends(&mut retained, &format!("old-{number:02}"), number, 7200, 0);
        }
        stands(&mut retained, "now", "start", 50);
        let mut sent = Vec::new();
        while let Some(due) = retained.next(at(0).mono) {
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
    fn what_ends_each_connection_is_found_and_left_out_until_it_says_something_else() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        for (topic, body) in [("a", "one"), ("b", "far too large"), ("c", "three")] {
            retained.document(topic, body);
        }
        let mut connections = 0;
        let said = loop {
            retained.on_connected();
            connections += 1;
            assert!(connections < 5, "it is not found");
            let mut under_way = Vec::new();
            // A broker that answers in order, and the bridge sends all it may before the first answer.
            let is_cut = loop {
                while let Some(due) = retained.next(at(0).mono) {
                    under_way.push(due);
                }
                if under_way.is_empty() {
                    break false;
                }
                let first = under_way.remove(0);
                if first.body == "far too large" {
                    break true;
                }
                broker.0.insert(first.topic, first.body);
                retained.on_answer(first.ticket, true);
            };
            if !is_cut {
                break connections;
            }
            let expected = if connections == 1 { Suspicion::Several } else { Suspicion::One("b".to_owned()) };
            assert_eq!(retained.on_refused(), Some(expected));
            retained.on_disconnected();
        };
        assert_eq!((said, broker.holds()), (3, vec!["a=one".to_owned(), "c=three".to_owned()]));
        retained.document("b", "small");
        assert_eq!(broker.serve(&mut retained, 0), ["b=small"]);
        // With none of these under way it was a row, and none of these is suspected any more.
        retained.document("b", "far too large");
        assert_eq!(retained.on_refused(), None);
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 0).len(), 3);
    }

    #[test]
    fn a_document_stands_until_it_is_taken_back() {
        let (mut retained, mut broker) = (Retained::new(Seq::ZERO, Seq::ZERO), kept());
        retained.on_connected();
        retained.document("doc", "one");
        assert_eq!(broker.serve(&mut retained, 0), ["doc=one"]);
        retained.document("doc", "one");
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new());
        retained.again(Rank::Document);
        assert_eq!(broker.serve(&mut retained, 0), ["doc=one"]);
        retained.document("doc", "");
        assert_eq!(broker.serve(&mut retained, 0), ["-doc"]);
        retained.on_connected();
        assert_eq!(broker.serve(&mut retained, 0), Vec::<String>::new());
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
        retained.on_connected();
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
                0 => retained.on_connected(),
                1 => retained.on_disconnected(),
                2 => broker.0.clear(),
                _ => {}
            }
            for _ in 0..random.usize(0..3) {
                if let Some(Due { ticket, topic, body, .. }) = retained.next(at(seconds).mono) {
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
        retained.on_connected();
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
}
