//! How a session confirms alerts: the client's receipts, and the self-check that it gets.

use std::sync::Arc;

use super::{Action, Session};
use crate::channel::Pattern;
use crate::clock::Stamp;
use crate::command::BadMember;
use crate::filter::Filter;
use crate::ids::{AlertId, Epoch, Seq};
use crate::outbox::{CheckedAlert, SelfCheck};
use crate::pipeline::Receipt;
use crate::server::frames::{AlertSystemData, CheckedAlertData};
use crate::server::message::Unreadable;

impl Session {
    /// The client has some alerts, or shows them. It is not answered: the next self-check says what counts.
    pub(super) fn receipt(
        &mut self,
        shown: bool,
        alerts: Vec<(AlertId, Seq)>,
        epoch: Option<&Epoch>,
        id: Option<&str>,
        out: &mut Vec<Action>,
        now: Stamp,
    ) {
        let Some(listener) = self.listener else {
            let first = BadMember::new("alert_receipt", "needs a subscribe first: nothing was sent to you");
            return self.wrong(out, &Unreadable::Member(first), id, now);
        };
        // Another run of the daemon has used these numbers for other events.
        if epoch.is_none_or(|epoch| *epoch == self.shared.epoch) {
            out.push(Action::Receipt(Receipt { listener, shown, alerts, scope: self.scope.clone() }));
        }
    }

    /// Tells the client that alerting works, and which of the alerts that it subscribed to are present.
    pub(super) fn tell_check(&mut self, check: &SelfCheck, out: &mut Vec<Action>, now: Stamp) {
        let chosen = |checked: &&CheckedAlert| {
            let routes = &checked.published.routes;
            let passes = |filter: &Arc<Filter>| filter.passes(&checked.published.event, routes);
            let is_wanted = |pattern: &Pattern| {
                routes.iter().any(|route| pattern.matches(route)) && self.filters.get(pattern).is_none_or(passes)
            };
            self.patterns.iter().any(is_wanted) && self.scope.allows(routes)
        };
        let told = |checked: &CheckedAlert| CheckedAlertData {
            alert_id: checked.alert.to_string(),
            seq: checked.published.event.seq,
            delivery: checked.delivery,
        };
        let common = Arc::clone(&self.shared);
        let data = AlertSystemData {
            self_check: check.number,
            every_ms: u64::try_from(check.every.as_millis()).unwrap_or(u64::MAX),
            through: check.through,
            epoch: &common.epoch,
            alerts: check.alerts.iter().filter(chosen).map(told).collect(),
            annunciators: check.annunciators,
            undelivered: check.undelivered,
            notice: check.notice,
        };
        self.say(out, &data, None, now);
    }
}
