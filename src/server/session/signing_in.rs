//! Who a session is: the token it begins with, a newer one, and the end of it.

use std::time::Duration;

use super::{Action, EXPIRY_GRACE, EXPIRY_NOTICE, Session};
use crate::channel::{Operation, Pattern};
use crate::clock::{Stamp, Wall};
use crate::hub::Scope;
use crate::server::auth::Rights;
use crate::server::close::Close;
use crate::server::frames::{AuthErrorData, AuthenticatedData, TokenExpiringData, UnsubscribedData};
use crate::wire;

/// The token's end is looked at this long after the moment at which something is due: milliseconds are cut off.
const ROUNDING: Duration = Duration::from_millis(2);

impl Session {
    /// A token was checked, for `authenticate` or `refresh`.
    pub fn on_token(&mut self, checked: Result<Rights, String>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        match checked {
            Ok(rights) => {
                let correlation_id = self.signing_in.take();
                let changed = self.rights.as_ref().is_some_and(|ours| ours.user != rights.user);
                if changed {
                    self.close(Close::TokenChangedSubject, &mut out, now);
                } else {
                    self.accept(rights, correlation_id.as_deref(), &mut out, now);
                }
            }
            Err(reason) => self.refuse("invalid_token", reason, Close::InvalidToken, &mut out, now),
        }
        out
    }

    /// The token of `authenticate` or `refresh` was revoked.
    pub fn on_revoked_token(&mut self, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        self.refuse("token_revoked", "the token was revoked".to_owned(), Close::TokenRevoked, &mut out, now);
        out
    }

    fn refuse(&mut self, code: &'static str, message: String, close: Close, out: &mut Vec<Action>, now: Stamp) {
        let correlation_id = self.signing_in.take();
        let data = AuthErrorData { code, message, retryable: false };
        self.say(out, &data, correlation_id.as_deref(), now);
        self.close(close, out, now);
    }

    pub(super) fn accept(&mut self, rights: Rights, correlation_id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        let (user_id, expires_at) = (wire::user_id(&rights.user), rights.expires.to_string());
        let data = AuthenticatedData { user_id, role: rights.role, expires_at };
        let before = std::mem::replace(&mut self.scope, rights.scope(Operation::Subscribe));
        let past = rights.scope(Operation::History);
        if self.rights.as_ref().is_some_and(|before| before.scope(Operation::History) != past) {
            self.histories_outdated = self.histories;
        }
        self.rights = Some(rights);
        self.expiry_told = false;
        self.say(out, &data, correlation_id, now);
        self.watch_expiry(out, now);
        if self.listener.is_some() {
            self.narrowings = self.narrowings.saturating_add(1);
            // The new token may allow less: the hub is told, and so is the client.
            let gone: Vec<Pattern> = self.patterns.iter().filter(|p| !self.may_hear(p)).cloned().collect();
            let narrowed = self.narrowed(&before);
            out.push(self.join_action(Vec::new(), (None, self.delivery), None));
            if !gone.is_empty() {
                self.unsubscribe(&gone, None, out, now);
            }
            self.forget_newest();
            self.forget_unheard(now);
            if !narrowed.is_empty() {
                let channels = narrowed.iter().map(String::as_str).collect();
                self.say(out, &UnsubscribedData { channels, narrowed: Some(true) }, None, now);
            }
        }
    }

    /// What is lost of subscriptions that stay: whoever watches `patient/+/+` has to know that a patient is gone. What is
    /// open through the ward is open, and lost with it.
    fn narrowed(&self, before: &Scope) -> Vec<String> {
        let staying: Vec<&Pattern> = self.patterns.iter().filter(|pattern| self.may_hear(pattern)).collect();
        let stays = |route: &Pattern| staying.iter().any(|staying| staying.overlaps(route));
        let is_lost = |routes: &[Pattern]| {
            routes.iter().any(|route| before.overlaps(route))
                && !routes.iter().any(|route| self.scope.overlaps(route))
                && routes.iter().any(stays)
        };
        let of_patient = |patient: &crate::patient::Patient| {
            let (id, ward) = (&patient.id, &patient.ward);
            [format!("patient/{id}/#"), format!("alerts/{id}"), format!("waveform/{id}/#")].map(|own| {
                // Waves have no route through the ward.
                let of_ward = (!own.starts_with("waveform/")).then(|| format!("ward/{ward}/{own}"));
                [Some(own), of_ward].into_iter().flatten().filter_map(|route| route.parse().ok()).collect()
            })
        };
        let others = ["system", "audit"].map(|own| own.parse().into_iter().collect());
        let known = self.shared.patients.iter().flat_map(of_patient).chain(others);
        let lost = known.filter(|routes: &Vec<Pattern>| is_lost(routes)).filter_map(|routes| routes.into_iter().next());
        let mut lost: Vec<Pattern> = lost.collect();
        for known in self.newest.iter().filter(|known| !self.scope.allows(&known.routes)) {
            let is_told = lost.iter().any(|pattern| pattern.matches(known.channel()));
            let stays = known.routes.iter().any(|route| staying.iter().any(|pattern| pattern.matches(route)));
            if let (false, true, Ok(pattern)) = (is_told, stays, known.channel().parse()) {
                lost.push(pattern);
            }
        }
        lost.iter().map(ToString::to_string).collect()
    }

    /// Tells that the token ends, and ends the session after the grace.
    pub(super) fn watch_expiry(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let Some(expires) = self.rights.as_ref().map(|rights| rights.expires) else {
            return;
        };
        let (notice, end) = (expires.0.saturating_sub(millis(EXPIRY_NOTICE)), later(expires, EXPIRY_GRACE));
        if now.wall > end {
            self.expiry_due = None;
            self.close(Close::TokenExpired, out, now);
            return;
        }
        if !self.expiry_told && now.wall.0 > notice {
            self.expiry_told = true;
            self.say(out, &TokenExpiringData { expires_at: expires.to_string() }, None, now);
        }
        let next = if self.expiry_told { end } else { Wall(notice) };
        let wait = u64::try_from(next.0.saturating_sub(now.wall.0)).unwrap_or(0);
        self.expiry_due = Some(now.mono + Duration::from_millis(wait) + ROUNDING);
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(0)
}

fn later(wall: Wall, span: Duration) -> Wall {
    Wall(wall.0.saturating_add(millis(span)))
}
