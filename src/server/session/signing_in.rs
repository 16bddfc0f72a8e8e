//! Who a session is: the token it begins with, a newer one, and the end of it.

use std::time::Duration;

use super::{Action, EXPIRY_GRACE, EXPIRY_NOTICE, Session};
use crate::channel::{Operation, Pattern};
use crate::clock::{Stamp, Wall};
use crate::server::auth::Rights;
use crate::server::close::Close;
use crate::server::frames::{AuthErrorData, AuthenticatedData, TokenExpiringData};
use crate::wire;

impl Session {
    /// A token was checked, for `authenticate` or `refresh`.
    pub fn on_token(&mut self, checked: Result<Rights, String>, now: Stamp) -> Vec<Action> {
        let mut out = Vec::new();
        let correlation_id = self.signing_in.take();
        match checked {
            Ok(rights) => {
                let changed = self.rights.as_ref().is_some_and(|ours| ours.user != rights.user);
                if changed {
                    self.close(Close::TokenChangedSubject, &mut out, now);
                } else {
                    self.accept(rights, correlation_id.as_deref(), &mut out, now);
                }
            }
            Err(reason) => {
                let data = AuthErrorData { code: "invalid_token", message: reason, retryable: false };
                self.say(&mut out, &data, correlation_id.as_deref(), now);
                self.close(Close::InvalidToken, &mut out, now);
            }
        }
        out
    }

    pub(super) fn accept(&mut self, rights: Rights, correlation_id: Option<&str>, out: &mut Vec<Action>, now: Stamp) {
        let (user_id, expires_at) = (wire::user_id(&rights.user), rights.expires.to_string());
        let data = AuthenticatedData { user_id, role: rights.role, expires_at };
        self.scope = rights.scope(Operation::Subscribe);
        self.rights = Some(rights);
        self.expiry_told = false;
        self.say(out, &data, correlation_id, now);
        if self.listener.is_some() {
            // The new token may allow less: the hub is told, and so is the client.
            let lost: Vec<Pattern> = self.patterns.iter().filter(|p| !self.may_hear(p)).cloned().collect();
            out.push(self.join_action(Vec::new(), self.delivery, None));
            if !lost.is_empty() {
                self.unsubscribe(&lost, None, out, now);
            }
        }
    }

    pub(super) fn watch_expiry(&mut self, out: &mut Vec<Action>, now: Stamp) {
        let Some(expires) = self.rights.as_ref().map(|rights| rights.expires) else {
            return;
        };
        let later =
            |wall: Wall, span: Duration| Wall(wall.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(0)));
        if now.wall > later(expires, EXPIRY_GRACE) {
            self.close(Close::TokenExpired, out, now);
        } else if !self.expiry_told && later(now.wall, EXPIRY_NOTICE) > expires {
            self.expiry_told = true;
            self.say(out, &TokenExpiringData { expires_at: expires.to_string() }, None, now);
        }
    }
}
