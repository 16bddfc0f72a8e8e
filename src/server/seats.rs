//! Who may be here at once: connections in all and of an address, sessions that have not signed in, sessions of a user.
//!
//! A place is held by a value and given back when that is dropped, so that no path can forget it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Mono;
use crate::server::bounds::ServerLimits;
use crate::server::orders::Orders;

/// Connections beyond a limit that may say who they are, because places are reserved for admins; more are refused unheard.
pub const MAX_UNDECIDED: usize = 64;

/// Of them from one address.
pub const MAX_UNDECIDED_AN_ADDRESS: usize = 8;

/// A session without subscriptions that has said nothing for so long makes room for a new one of its user.
pub const IDLE_BEFORE_EVICTION: Duration = Duration::from_secs(5);

/// A session that gives no sign of life for so long when it is asked for one makes room too: its network is gone, and it
/// may be the very display that comes back.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// All places of the server.
#[derive(Debug)]
pub struct Seats {
    limits: ServerLimits,
    /// Bounded by the limits. Held for a look-up, never across an `.await`.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    regular: usize,
    admins: usize,
    undecided: usize,
    addresses: BTreeMap<IpAddr, AtAddress>,
    users: BTreeMap<String, Vec<Arc<Sitting>>>,
    next_number: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct AtAddress {
    regular: usize,
    undecided: usize,
    unauthenticated: usize,
}

/// How many places are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupied {
    /// Connections on ordinary places.
    pub connections: usize,
    /// Connections on places that are reserved for admins.
    pub admins: usize,
    /// Users with at least one session.
    pub users: usize,
}

impl Seats {
    /// All places are free.
    pub fn new(limits: ServerLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// How many there are.
    pub const fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// How many are taken.
    pub fn occupied(&self) -> Occupied {
        let taken = self.lock();
        Occupied { connections: taken.regular, admins: taken.admins, users: taken.users.len() }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection that has just been accepted; `None`: it is refused unheard.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        let kind = if taken.regular_is_free(&self.limits, address) {
            taken.count(address, Kind::Regular, 1);
            Kind::Regular
        } else {
            let of_address = taken.addresses.get(&address).map_or(0, |there| there.undecided);
            if taken.undecided >= MAX_UNDECIDED || of_address >= MAX_UNDECIDED_AN_ADDRESS {
                return None;
            }
            taken.count(address, Kind::Undecided, 1);
            Kind::Undecided
        };
        Some(Seat { seats: Arc::clone(self), address, kind: Mutex::new(kind) })
    }

    /// A place for a session that has not signed in; `None`: its address has too many of them.
    pub fn wait_for_sign_in(self: &Arc<Self>, address: IpAddr) -> Option<Waiting> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        let there = taken.addresses.entry(address).or_default();
        if there.unauthenticated >= self.limits.unauthenticated_per_address {
            taken.forget_if_empty(address);
            return None;
        }
        there.unauthenticated += 1;
        Some(Waiting { seats: Arc::clone(self), address })
    }

    /// A place among the sessions of a user. If all are taken, the idle session that has been silent longest is told to
    /// leave; `None`: none is idle.
    pub fn sit(self: &Arc<Self>, user: &str, now: Mono) -> Option<UserSeat> {
        self.sit_instead(user, now, |sitting| {
            // Whoever gets what it missed says nothing, and listens.
            let idle = !sitting.is_subscribed.load(Ordering::Relaxed) && !sitting.is_busy.load(Ordering::Relaxed);
            let said = mono(&sitting.said);
            (idle && now.since(said) >= IDLE_BEFORE_EVICTION).then_some(said)
        })
    }

    /// Asks every session of a user for a sign of life.
    pub fn probe(&self, user: &str) {
        for sitting in self.lock().users.get(user).into_iter().flatten() {
            sitting.orders.give(Order::Answer);
        }
    }

    /// As [`Seats::sit`], where a session that has not been heard since `probed` makes room.
    pub fn sit_instead_of_silent(self: &Arc<Self>, user: &str, probed: Mono, now: Mono) -> Option<UserSeat> {
        self.sit_instead(user, now, |sitting| {
            let heard = mono(&sitting.heard);
            // Whole milliseconds on both sides: an answer may come within the one of the question.
            let is_silent = heard.as_millis() < probed.as_millis() && !sitting.is_busy.load(Ordering::Relaxed);
            is_silent.then_some(heard)
        })
    }

    /// `leaves`: the smallest of what it gives makes room, if anybody has to.
    fn sit_instead(
        self: &Arc<Self>,
        user: &str,
        now: Mono,
        leaves: impl Fn(&Sitting) -> Option<Mono>,
    ) -> Option<UserSeat> {
        let mut taken = self.lock();
        taken.next_number += 1;
        let number = taken.next_number;
        let sessions = taken.users.entry(user.to_owned()).or_default();
        if sessions.len() >= self.limits.per_user {
            let oldest = sessions.iter().enumerate().filter_map(|(at, one)| leaves(one).map(|age| (age, at))).min();
            let (_, at) = oldest?;
            sessions.remove(at).orders.give(Order::Leave);
        }
        let now = AtomicU64::new(now.as_millis());
        let sitting = Arc::new(Sitting {
            number,
            said: AtomicU64::new(now.load(Ordering::Relaxed)),
            heard: now,
            is_subscribed: AtomicBool::new(false),
            is_busy: AtomicBool::new(false),
            orders: Arc::default(),
        });
        sessions.push(Arc::clone(&sitting));
        Some(UserSeat { seats: Arc::clone(self), user: user.to_owned(), sitting })
    }
}

impl Taken {
    fn regular_is_free(&self, limits: &ServerLimits, address: IpAddr) -> bool {
        let of_address = self.addresses.get(&address).map_or(0, |there| there.regular);
        self.regular < limits.connections && of_address < limits.per_address
    }

    /// One more (1) or one less (-1) of a kind.
    fn count(&mut self, address: IpAddr, kind: Kind, change: isize) {
        let there = self.addresses.entry(address).or_default();
        let (all, here) = match kind {
            Kind::Regular => (&mut self.regular, &mut there.regular),
            Kind::Undecided => (&mut self.undecided, &mut there.undecided),
            Kind::Admin => {
                self.admins = self.admins.saturating_add_signed(change);
                return self.forget_if_empty(address);
            }
        };
        *all = all.saturating_add_signed(change);
        *here = here.saturating_add_signed(change);
        self.forget_if_empty(address);
    }

    fn forget_if_empty(&mut self, address: IpAddr) {
        if self.addresses.get(&address) == Some(&AtAddress::default()) {
            self.addresses.remove(&address);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    /// Beyond the limit, until its token says whether it may take a place that is reserved for admins.
    Undecided,
    Admin,
}

/// The place of a connection.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    address: IpAddr,
    kind: Mutex<Kind>,
}

impl Seat {
    /// True while it is beyond the limit and nobody knows yet whose it is.
    pub fn is_undecided(&self) -> bool {
        *self.kind.lock().unwrap_or_else(PoisonError::into_inner) == Kind::Undecided
    }

    /// It is known whose it is: true if there is a place for it.
    pub fn settle(&self, is_admin: bool) -> bool {
        let mut kind = self.kind.lock().unwrap_or_else(PoisonError::into_inner);
        if *kind != Kind::Undecided {
            return true;
        }
        let mut taken = self.seats.lock();
        let settled = if taken.regular_is_free(&self.seats.limits, self.address) {
            Kind::Regular
        } else if is_admin && taken.admins < self.seats.limits.admin_connections {
            Kind::Admin
        } else {
            return false;
        };
        taken.count(self.address, Kind::Undecided, -1);
        taken.count(self.address, settled, 1);
        *kind = settled;
        true
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let kind = *self.kind.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.seats.lock().count(self.address, kind, -1);
    }
}

/// The place of a session that has not signed in.
#[derive(Debug)]
pub struct Waiting {
    seats: Arc<Seats>,
    address: IpAddr,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Some(there) = taken.addresses.get_mut(&self.address) {
            there.unauthenticated = there.unauthenticated.saturating_sub(1);
        }
        taken.forget_if_empty(self.address);
    }
}

/// What a session is told for the sake of another one of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Find out whether the client is still there.
    Answer,
    /// Make room.
    Leave,
}

/// One session of a user, as others see it. Times are in ms of [`Mono`].
#[derive(Debug)]
struct Sitting {
    number: u64,
    said: AtomicU64,
    heard: AtomicU64,
    is_subscribed: AtomicBool,
    is_busy: AtomicBool,
    orders: Arc<Orders<Order>>,
}

fn mono(millis: &AtomicU64) -> Mono {
    Mono::from_millis(millis.load(Ordering::Relaxed))
}

/// The place of a session among those of its user.
#[derive(Debug)]
pub struct UserSeat {
    seats: Arc<Seats>,
    user: String,
    sitting: Arc<Sitting>,
}

impl UserSeat {
    /// The client has said something.
    pub fn said(&self, now: Mono) {
        self.sitting.said.store(now.as_millis(), Ordering::Relaxed);
        self.heard(now);
    }

    /// Anything has come from the client, be it the answer to a ping.
    pub fn heard(&self, now: Mono) {
        self.sitting.heard.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Whether the session listens to anything.
    pub fn subscribed(&self, is_subscribed: bool) {
        self.sitting.is_subscribed.store(is_subscribed, Ordering::Relaxed);
    }

    /// While it is busy with a replay nothing is read, and silence means nothing.
    pub fn busy(&self, is_busy: bool) {
        self.sitting.is_busy.store(is_busy, Ordering::Relaxed);
    }

    /// Where orders come from.
    pub fn orders(&self) -> Arc<Orders<Order>> {
        Arc::clone(&self.sitting.orders)
    }
}

impl Drop for UserSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if let Entry::Occupied(mut sessions) = taken.users.entry(self.user.clone()) {
            sessions.get_mut().retain(|one| one.number != self.sitting.number);
            if sessions.get().is_empty() {
                sessions.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(change: impl FnOnce(&mut ServerLimits)) -> Arc<Seats> {
        let mut limits = ServerLimits::default();
        change(&mut limits);
        Seats::new(limits)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn beyond_the_limit_only_admins_sit_and_only_on_their_places() {
        let seats = seats(|limits| (limits.connections, limits.admin_connections) = (2, 1));
        let (first, second) = (seats.enter(ip(1)).unwrap(), seats.enter(ip(2)).unwrap());
        assert!(!first.is_undecided() && first.settle(false));
        let third = seats.enter(ip(3)).unwrap();
        assert!(third.is_undecided() && !third.settle(false) && third.is_undecided());
        let admin = seats.enter(ip(4)).unwrap();
        assert!(admin.settle(true) && !admin.is_undecided());
        let late_admin = seats.enter(ip(5)).unwrap();
        assert!(!late_admin.settle(true), "the reserved place is taken");
        assert_eq!(seats.occupied(), Occupied { connections: 2, admins: 1, users: 0 });
        drop(first);
        assert!(third.settle(false), "a place has become free");
        drop(admin);
        assert!(late_admin.settle(true));
        drop((third, late_admin, second));
        assert_eq!(seats.occupied(), Occupied { connections: 0, admins: 0, users: 0 });
        assert!(seats.lock().addresses.is_empty(), "nothing is remembered of who has gone");
    }

    #[test]
    fn an_address_has_its_share_and_those_that_wait_to_be_heard_are_few() {
        let seats = seats(|limits| limits.per_address = 3);
        let full: Vec<Seat> = (0..3).map(|_| seats.enter(ip(1)).unwrap()).collect();
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        let undecided: Vec<Seat> = std::iter::from_fn(|| seats.enter(mapped)).take(100).collect();
        assert_eq!(undecided.len(), MAX_UNDECIDED_AN_ADDRESS, "an address in two notations is one");
        assert!(undecided.iter().all(Seat::is_undecided));
        assert!(!seats.enter(ip(2)).unwrap().is_undecided());
        drop(full);
        assert!(!seats.enter(ip(1)).unwrap().is_undecided());
    }

    #[test]
    fn sessions_without_a_sign_in_are_few_an_address() {
        let seats = seats(|limits| limits.unauthenticated_per_address = 2);
        let two = [seats.wait_for_sign_in(ip(1)).unwrap(), seats.wait_for_sign_in(ip(1)).unwrap()];
        assert!(seats.wait_for_sign_in(ip(1)).is_none());
        assert!(seats.wait_for_sign_in(ip(2)).is_some());
        drop(two);
        assert!(seats.wait_for_sign_in(ip(1)).is_some());
    }

    #[test]
    fn the_session_that_has_been_idle_longest_makes_room_and_one_that_listens_does_not() {
        let seats = seats(|limits| limits.per_user = 3);
        let mut sitting: Vec<UserSeat> = (0..3).map(|start| seats.sit("lena", at(start)).unwrap()).collect();
        assert!(seats.sit("lena", at(4)).is_none(), "none has been silent for long enough");
        assert!(seats.sit("otto", at(4)).is_some(), "each user has his own places");
        sitting[0].subscribed(true);
        sitting[1].said(at(9));
        let new = seats.sit("lena", at(10)).unwrap();
        let told: Vec<Option<Order>> = sitting.iter().map(|seat| seat.orders().unheard()).collect();
        assert_eq!(told, [None, None, Some(Order::Leave)]);
        drop(sitting.pop());
        assert_eq!(seats.lock().users["lena"].len(), 3, "who was told to leave had given up the place already");
        for seat in &sitting {
            seat.subscribed(true);
        }
        new.busy(true);
        assert!(seats.sit("lena", at(1000)).is_none(), "who gets what it missed listens too");
        new.busy(false);
        new.subscribed(true);
        assert!(seats.sit("lena", at(1000)).is_none(), "nobody who listens is thrown out for being silent");
    }

    #[test]
    fn who_gives_no_sign_of_life_when_asked_makes_room() {
        let seats = seats(|limits| limits.per_user = 3);
        let sitting: Vec<UserSeat> = (0..3).map(|start| seats.sit("ward", at(start)).unwrap()).collect();
        for seat in &sitting {
            seat.subscribed(true);
        }
        seats.probe("ward");
        assert!(sitting.iter().all(|seat| seat.orders().unheard() == Some(Order::Answer)));
        sitting[0].busy(true);
        sitting[2].heard(at(21));
        let _new = seats.sit_instead_of_silent("ward", at(20), at(22)).unwrap();
        let told: Vec<Option<Order>> = sitting.iter().map(|seat| seat.orders().unheard()).collect();
        assert_eq!(told, [Some(Order::Answer), Some(Order::Leave), Some(Order::Answer)]);
        assert!(seats.sit_instead_of_silent("ward", at(20), at(22)).is_none(), "the others live or are busy");
    }
}
