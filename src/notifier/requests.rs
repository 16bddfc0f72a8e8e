//! What people asked for under a name of their own: the same request under the same name is done once.
//!
//! The store keeps this with the events of the request, so that it holds over a restart and a crash.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::clock::Wall;
use crate::command::Command;
use crate::ids::Seq;

/// A request that is repeated within this time, in ms, is the same one.
pub const KEPT_REQUESTS_MS: i64 = 24 * 3600 * 1000;

/// Most requests that are remembered. One more forgets the oldest.
pub const MAX_REQUESTS: usize = 10_000;

/// Longest name of a request, in characters.
pub const MAX_KEY: usize = 128;

/// A request: its identity, and what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Of the person and the person's name for it.
    pub id: Uuid,
    /// A digest of the command.
    pub digest: String,
}

impl Request {
    /// What `by` asks for under the name `key`.
    pub fn new(by: &str, key: &str, command: &Command) -> Self {
        // Every member of a command is in this text, and WebSocket, HTTP and the broker read the same command.
        Self { id: id_of(by, key), digest: Uuid::from_bytes(digest(&format!("{command:?}"))).simple().to_string() }
    }
}

/// A request that was done, or begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of the command; empty: not known, because an older version has stored it.
    pub digest: String,
    /// When.
    pub wall: Wall,
    /// The last event of what was done. `None`: it was begun, and nobody knows what became of it.
    pub seq: Option<Seq>,
    /// The store has taken it.
    pub is_kept: bool,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// It is new.
    New,
    /// It was done: its last event, and whether the store took that.
    Done(Seq, bool),
    /// It is being done.
    UnderWay,
    /// It was begun, and nobody knows what became of it.
    Unknown,
    /// The name stands for another request.
    Conflict,
}

/// All requests of a day.
#[derive(Debug, Default)]
pub struct Requests {
    kept: BTreeMap<Uuid, Kept>,
    under_way: BTreeSet<Uuid>,
}

impl Requests {
    /// With what the last run knew.
    pub(super) const fn new(kept: BTreeMap<Uuid, Kept>) -> Self {
        Self { kept, under_way: BTreeSet::new() }
    }

    /// What is known of a request.
    pub fn find(&mut self, request: &Request, now: Wall) -> Repeated {
        self.kept.retain(|_, kept| now.0.saturating_sub(kept.wall.0) < KEPT_REQUESTS_MS);
        match self.kept.get(&request.id) {
            None => Repeated::New,
            Some(kept) if !kept.digest.is_empty() && kept.digest != request.digest => Repeated::Conflict,
            Some(_) if self.under_way.contains(&request.id) => Repeated::UnderWay,
            Some(Kept { seq: Some(seq), is_kept, .. }) => Repeated::Done(*seq, *is_kept),
            Some(_) => Repeated::Unknown,
        }
    }

    /// It is begun and takes its time.
    pub fn begin(&mut self, request: &Request, now: Wall) {
        self.insert(request, None, true, now);
        self.under_way.insert(request.id);
    }

    /// It is done by this event.
    pub fn done(&mut self, request: &Request, seq: Seq, is_kept: bool, now: Wall) {
        self.under_way.remove(&request.id);
        self.insert(request, Some(seq), is_kept, now);
    }

    /// It has ended, and nobody knows how.
    pub fn lost(&mut self, request: &Request) {
        self.under_way.remove(&request.id);
    }

    /// Nothing was done: its name is free again.
    pub fn refused(&mut self, request: &Request) {
        self.under_way.remove(&request.id);
        self.kept.remove(&request.id);
    }

    fn insert(&mut self, request: &Request, seq: Option<Seq>, is_kept: bool, now: Wall) {
        if self.kept.len() >= MAX_REQUESTS && !self.kept.contains_key(&request.id) {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.wall).map(|(id, _)| *id);
            oldest.and_then(|id| self.kept.remove(&id));
        }
        self.kept.insert(request.id, Kept { digest: request.digest.clone(), wall: now, seq, is_kept });
    }
}

fn digest(text: &str) -> [u8; 16] {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.as_ref()).for_each(|(byte, digit)| *byte = *digit);
    bytes
}

/// The identity of what `by` asks for under a name of his own: the same name gives the same identity.
pub fn id_of(by: &str, key: &str) -> Uuid {
    // The lengths keep two pairs apart whose texts join to the same one.
    uuid::Builder::from_custom_bytes(digest(&format!("{}:{by}:{key}", by.len()))).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Preferences;

    fn request(by: &str, key: &str) -> Request {
        Request::new(by, key, &Command::Prefer(Preferences::default()))
    }

    #[test]
    fn a_request_is_known_for_a_day_by_its_person_and_name() {
        let mut requests = Requests::default();
        let (first, day) = (request("otto", "1"), KEPT_REQUESTS_MS);
        assert_eq!(requests.find(&first, Wall(0)), Repeated::New);
        requests.done(&first, Seq(7), true, Wall(0));
        assert_eq!(requests.find(&first, Wall(day - 1)), Repeated::Done(Seq(7), true));
        assert_eq!(requests.find(&request("anna", "1"), Wall(1)), Repeated::New, "another one's name");
        assert_eq!(requests.find(&request("otto", "2"), Wall(1)), Repeated::New);
        let other = Request::new("otto", "1", &Command::Withdraw(Uuid::nil()));
        assert_eq!(requests.find(&other, Wall(1)), Repeated::Conflict);
        assert_eq!(requests.find(&first, Wall(day)), Repeated::New, "a day later");
    }

    #[test]
    fn what_takes_its_time_is_not_begun_twice() {
        let mut requests = Requests::default();
        let order = request("otto", "1");
        requests.begin(&order, Wall(0));
        assert_eq!(requests.find(&order, Wall(1)), Repeated::UnderWay);
        requests.lost(&order);
        assert_eq!(requests.find(&order, Wall(1)), Repeated::Unknown);
        requests.refused(&order);
        assert_eq!(requests.find(&order, Wall(1)), Repeated::New, "nothing was done");
    }

    #[test]
    fn the_oldest_request_makes_room() {
        let mut requests = Requests::default();
        for number in 0..=MAX_REQUESTS {
            let wall = Wall(i64::try_from(number).unwrap());
            requests.done(&request("otto", &number.to_string()), Seq(1), true, wall);
        }
        let now = Wall(i64::try_from(MAX_REQUESTS).unwrap());
        assert_eq!(requests.find(&request("otto", "0"), now), Repeated::New);
        assert_eq!(requests.find(&request("otto", "1"), now), Repeated::Done(Seq(1), true));
    }
}
