//! Tickets: what a browser puts into the address of a WebSocket instead of a token. Opaque, short-lived, one use.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::digest;

use crate::clock::Mono;
use crate::secret::Secret;
use crate::server::auth::Rights;
use crate::server::codes::{hex, random_bytes};

/// A ticket works so long.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);

/// Tickets of one user that wait to be used; one more ends the oldest.
pub const MAX_TICKETS_A_USER: usize = 32;

/// Tickets of everybody that wait to be used; one more is refused.
pub const MAX_TICKETS: usize = 4096;

/// Random bytes of a ticket: too many to guess.
const TICKET_BYTES: usize = 24;

/// A ticket is known by its digest: how far a guess matches a digest says nothing about the ticket.
type Digest = [u8; digest::SHA256_OUTPUT_LEN];

#[derive(Debug)]
struct Held {
    rights: Rights,
    until: Mono,
}

/// Tickets that wait to be used. They end with the daemon.
#[derive(Debug, Default)]
pub struct Tickets {
    /// Held for a look-up, never across an `.await`.
    held: Mutex<HashMap<Digest, Held>>,
}

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
pub enum NoTicket {
    /// [`MAX_TICKETS`] wait.
    #[error("too many tickets wait to be used; ask again in a moment")]
    TooMany,
    /// The system has no random numbers.
    #[error("{0}")]
    Random(#[from] io::Error),
}

impl Tickets {
    /// Makes a ticket that gives these rights once.
    ///
    /// # Errors
    /// Too many wait, or the system has no random numbers.
    pub fn make(&self, rights: Rights, now: Mono) -> Result<Secret, NoTicket> {
        let ticket = hex(&random_bytes::<TICKET_BYTES>()?);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, ticket| ticket.until > now);
        let theirs = held.iter().filter(|(_, other)| other.rights.user == rights.user);
        if theirs.clone().count() >= MAX_TICKETS_A_USER
            && let Some(oldest) = theirs.min_by_key(|(_, other)| other.until).map(|(digest, _)| *digest)
        {
            held.remove(&oldest);
        }
        if held.len() >= MAX_TICKETS {
            return Err(NoTicket::TooMany);
        }
        held.insert(digest_of(&ticket), Held { rights, until: now + TICKET_LIFE });
        Ok(Secret::new(ticket))
    }

    /// Uses a ticket up: the rights of the token that it was made with. `None` if it is unknown, used or too old.
    pub fn take(&self, ticket: &str, now: Mono) -> Option<Rights> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest_of(ticket))?;
        (now < held.until).then_some(held.rights)
    }
}

fn digest_of(ticket: &str) -> Digest {
    let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
    // Both are of this length.
    bytes.copy_from_slice(digest::digest(&digest::SHA256, ticket.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::auth::Role;
    use crate::server::jwt::Claims;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(1_000_000 + seconds * 1000)
    }

    fn rights(user: &str) -> Rights {
        let (role, exp) = (Role::Nurse, 1_800_000_000);
        Rights::from_claims(&Claims { sub: user.into(), role, caps: None, jti: None, iat: None, nbf: None, exp })
    }

    #[test]
    fn a_ticket_works_once_and_not_after_thirty_seconds() {
        let tickets = Tickets::default();
        let ticket = tickets.make(rights("lena"), at(0)).unwrap();
        assert_eq!(tickets.take("nonsense", at(0)), None);
        assert_eq!(tickets.take(ticket.expose(), at(29)).unwrap().user, "lena");
        assert_eq!(tickets.take(ticket.expose(), at(29)), None, "it was used");
        let late = tickets.make(rights("lena"), at(0)).unwrap();
        assert_eq!(tickets.take(late.expose(), at(30)), None);
        assert_eq!(tickets.take(late.expose(), at(1)), None, "a try that was too late uses it up too");
        let other = Tickets::default().make(rights("lena"), at(0)).unwrap();
        assert_eq!(tickets.take(other.expose(), at(0)), None, "another bridge's");
    }

    #[test]
    fn the_tickets_that_wait_are_bounded_for_each_user_and_for_all() {
        let tickets = Tickets::default();
        let first = tickets.make(rights("lena"), at(0)).unwrap();
        for second in 1..=MAX_TICKETS_A_USER {
            tickets.make(rights("lena"), at(1 + u64::try_from(second).unwrap() / 16)).unwrap();
        }
        assert_eq!(tickets.take(first.expose(), at(5)), None);
        assert_eq!(tickets.held.lock().unwrap().len(), MAX_TICKETS_A_USER);
        for user in 0..MAX_TICKETS - MAX_TICKETS_A_USER {
            tickets.make(rights(&user.to_string()), at(5)).unwrap();
        }
        assert!(matches!(tickets.make(rights("otto"), at(5)), Err(NoTicket::TooMany)));
        assert!(tickets.make(rights("otto"), at(36)).is_ok(), "what nobody used makes room");
    }
}
