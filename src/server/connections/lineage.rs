//! Who comes back: counts how often a client has connected again and asked for what it missed. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Mono;

/// A client that comes back later than this begins anew.
pub(super) const COMES_BACK_WITHIN: Duration = Duration::from_mins(5);

/// Clients that are remembered; one more takes the place of the one that was lost first.
pub(super) const MAX_CLIENTS: usize = 1024;

/// What one client is known by: user, address, and the name that its program tells.
pub(super) type Client = (String, Option<IpAddr>, Option<String>);

#[derive(Debug)]
struct Lost {
    /// When the newest of them was lost.
    at: Mono,
    /// Connections that have not come back.
    count: u32,
    retries: u32,
    recoveries: u32,
}

/// Clients whose connections were lost lately.
#[derive(Debug, Default)]
pub(super) struct Lineages {
    lost: BTreeMap<Client, Lost>,
}

impl Lineages {
    /// A connection of this client was lost, with what it had counted.
    pub(super) fn on_lost(&mut self, client: Client, (retries, recoveries): (u32, u32), now: Mono) {
        if self.lost.len() >= MAX_CLIENTS && !self.lost.contains_key(&client) {
            self.lost.retain(|_, lost| now.since(lost.at) < COMES_BACK_WITHIN);
        }
        if self.lost.len() >= MAX_CLIENTS
            && !self.lost.contains_key(&client)
            && let Some(first) = self.lost.iter().min_by_key(|(_, lost)| lost.at).map(|(client, _)| client.clone())
        {
            self.lost.remove(&first);
        }
        let lost = self.lost.entry(client).or_insert(Lost { at: now, count: 0, retries: 0, recoveries: 0 });
        if now.since(lost.at) >= COMES_BACK_WITHIN {
            *lost = Lost { at: now, count: 0, retries: 0, recoveries: 0 };
        }
        lost.at = now;
        lost.count = lost.count.saturating_add(1);
        (lost.retries, lost.recoveries) = (lost.retries.max(retries), lost.recoveries.max(recoveries));
    }

    /// This client has signed in: how often it has come back and asked for what it missed, this time included in the first.
    pub(super) fn on_signed_in(&mut self, client: &Client, now: Mono) -> (u32, u32) {
        let Some(lost) = self.lost.get_mut(client) else { return (0, 0) };
        lost.count = lost.count.saturating_sub(1);
        let counts = (lost.retries.saturating_add(1), lost.recoveries);
        let is_late = now.since(lost.at) >= COMES_BACK_WITHIN;
        if is_late || lost.count == 0 {
            self.lost.remove(client);
        }
        if is_late { (0, 0) } else { counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    fn client(user: &str) -> Client {
        (user.to_owned(), None, None)
    }

    #[test]
    fn a_client_that_comes_back_is_counted_and_a_second_window_is_not() {
        let (mut lineages, lena) = (Lineages::default(), client("lena"));
        assert_eq!(lineages.on_signed_in(&lena, at(0)), (0, 0));
        assert_eq!(lineages.on_signed_in(&lena, at(1)), (0, 0), "a second window");
        lineages.on_lost(lena.clone(), (0, 0), at(2));
        assert_eq!(lineages.on_signed_in(&client("otto"), at(3)), (0, 0));
        assert_eq!(lineages.on_signed_in(&lena, at(3)), (1, 0));
        assert_eq!(lineages.on_signed_in(&lena, at(3)), (0, 0), "one was lost, one came back");
        lineages.on_lost(lena.clone(), (1, 1), at(4));
        lineages.on_lost(lena.clone(), (0, 0), at(4));
        assert_eq!([(); 3].map(|()| lineages.on_signed_in(&lena, at(5))), [(2, 1), (2, 1), (0, 0)]);
    }

    #[test]
    fn who_stays_away_begins_anew() {
        let (mut lineages, lena) = (Lineages::default(), client("lena"));
        lineages.on_lost(lena.clone(), (7, 3), at(0));
        assert_eq!(lineages.on_signed_in(&lena, at(300)), (0, 0));
        lineages.on_lost(lena.clone(), (7, 3), at(400));
        assert_eq!(lineages.on_signed_in(&lena, at(699)), (8, 3));
    }

    #[test]
    fn the_clients_that_are_remembered_are_bounded() {
        let mut lineages = Lineages::default();
        for number in 0..3 * MAX_CLIENTS {
            lineages.on_lost(
                client(&number.to_string()),
                (0, 0),
                at(1) + Duration::from_millis(1) * u32::try_from(number).unwrap(),
            );
        }
        assert_eq!(lineages.lost.len(), MAX_CLIENTS);
        assert_eq!(lineages.on_signed_in(&client(&(3 * MAX_CLIENTS - 1).to_string()), at(5)), (1, 0));
        assert_eq!(lineages.on_signed_in(&client("0"), at(5)), (0, 0));
    }
}
