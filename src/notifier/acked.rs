//! How far each user has acknowledged each alerts' channel: what is newer has not arrived for sure.

use std::collections::BTreeMap;

use crate::ids::Seq;

/// Most places of users on channels. One more forgets the one that is the furthest behind.
pub const MAX_ACKED: usize = 4096;

/// How the lanes of these places begin in the store.
const LANE: &str = "ack:";

/// The places of all users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked {
    places: BTreeMap<(String, String), Seq>,
}

impl Acked {
    /// With what the store has; other lanes are left out.
    pub fn restored<'l>(lanes: impl Iterator<Item = (&'l str, Seq)>) -> Self {
        let mut acked = Self::default();
        for (lane, seq) in lanes {
            // A channel has no colon, a user may.
            if let Some((channel, user)) = lane.strip_prefix(LANE).and_then(|rest| rest.split_once(':')) {
                acked.advance(user, channel, seq);
            }
        }
        acked
    }

    /// A user's client has everything of a channel up to an event. False if that was known.
    pub fn advance(&mut self, user: &str, channel: &str, seq: Seq) -> bool {
        let key = (user.to_owned(), channel.to_owned());
        if self.places.get(&key).is_some_and(|known| *known >= seq) {
            return false;
        }
        if self.places.len() >= MAX_ACKED && !self.places.contains_key(&key) {
            let last = self.places.iter().min_by_key(|(_, seq)| **seq).map(|(key, _)| key.clone());
            last.and_then(|key| self.places.remove(&key));
        }
        self.places.insert(key, seq);
        true
    }

    /// The places of one user.
    pub fn of(&self, user: &str) -> BTreeMap<String, Seq> {
        let own = self.places.range((user.to_owned(), String::new())..).take_while(|((name, _), _)| name == user);
        own.map(|((_, channel), seq)| (channel.clone(), *seq)).collect()
    }

    /// The name of a place in the store.
    pub fn lane(user: &str, channel: &str) -> String {
        format!("{LANE}{channel}:{user}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_forwards_only_and_comes_back_from_the_store() {
        let mut acked = Acked::default();
        assert!(acked.advance("a:b", "alerts/P-1", Seq(5)));
        assert!(!acked.advance("a:b", "alerts/P-1", Seq(4)));
        assert!(acked.advance("a", "alerts/P-1", Seq(9)));
        assert_eq!(acked.of("a:b"), BTreeMap::from([("alerts/P-1".to_owned(), Seq(5))]));
        let lanes = [
            (Acked::lane("a:b", "alerts/P-1"), Seq(5)),
            (Acked::lane("a", "alerts/P-1"), Seq(9)),
            ("mqtt".to_owned(), Seq(3)),
        ];
        assert_eq!(Acked::restored(lanes.iter().map(|(lane, seq)| (lane.as_str(), *seq))), acked);
    }

    #[test]
    fn the_place_that_is_furthest_behind_makes_room() {
        let mut acked = Acked::default();
        for number in 0..=MAX_ACKED {
            acked.advance(&number.to_string(), "alerts/P-1", Seq(u64::try_from(number).unwrap() + 1));
        }
        assert!(acked.of("0").is_empty() && acked.of("1").len() == 1);
    }
}
