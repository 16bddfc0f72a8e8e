//! Changes of limits: who may make them, and the event and the row of the audit trail for each beginning and end.

use super::{Pipeline, Refusal};
use crate::alerts::BridgeCondition;
use crate::clock::Stamp;
use crate::command::{LimitOperation, LimitWish};
use crate::event::{
    Actor, AuditAction, AuditEvent, AuditResult, EventBody, LimitAction, LimitsEvent, SystemEvent, SystemKind,
};
use crate::hub::Scope;
use crate::ids::{PatientId, Seq};
use crate::store::KeptChanges;
use crate::vitals::Mode;

/// Most changes that one message names.
const MAX_NAMED: usize = 16;

impl Pipeline {
    /// The changes of an earlier run hold again, and what became of the others is told.
    pub(super) fn take_back_limits(&mut self, kept: KeptChanges, now: Stamp) {
        if let Some(at) = kept.last_run {
            self.engine.last_run_ended(at);
        }
        let changed = self.engine.take_back_changes(kept.changes, now);
        self.publish_alerts(changed, now);
        self.unreadable_limits = kept.unreadable;
    }

    /// Limits that a person set and that are lost are a configuration error until somebody has the rules read again.
    pub(super) fn tell_unreadable_limits(&mut self, now: Stamp) {
        if self.unreadable_limits.is_empty() {
            return;
        }
        let named = self.unreadable_limits.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let count = self.unreadable_limits.len();
        let message = format!(
            "{count} changes of limits cannot be read, and what the rule file says holds in their place: set them again: {named}"
        );
        self.on_system(SystemEvent { kind: SystemKind::LimitsUnreadable, message, first: None, last: None }, now);
        let changes = self.engine.on_condition(BridgeCondition::ConfigurationError, true, now);
        self.publish_alerts(changes, now);
    }

    /// True if what others report as right is wrong all the same.
    pub(super) fn has_error_of_its_own(&self, condition: BridgeCondition) -> bool {
        condition == BridgeCondition::ConfigurationError && !self.unreadable_limits.is_empty()
    }

    /// Does what a person wants of a patient's limits; they hold at once. The answer is the last event of it.
    pub(super) fn on_limit_wish(
        &mut self,
        wish: &LimitWish,
        by: &Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Seq, Refusal> {
        let changes = match self.admit(wish, scope) {
            Ok(()) => self
                .engine
                .change_limits(wish, &by.user, now)
                .map_err(|problems| Refusal { code: "validation", reason: problems.join("; ") }),
            Err(refusal) => Err(refusal),
        };
        match changes {
            Ok(changes) => {
                // The news, with its row, goes before the alerts that it changes.
                self.publish_limit_news(by.address.as_deref(), now);
                self.publish_alerts(changes, now);
                Ok(Seq(self.next.0.saturating_sub(1)))
            }
            Err(refusal) => {
                let action = match wish.operation {
                    LimitOperation::Set { .. } => AuditAction::LimitsSet,
                    LimitOperation::Clear => AuditAction::LimitsClear,
                    LimitOperation::Disable { .. } => AuditAction::RuleDisable,
                    LimitOperation::Enable => AuditAction::RuleEnable,
                };
                let row = self.limits_row(by, action, wish.rule.as_str(), &wish.patient);
                self.publish_outcome(row, Some(&refusal), now);
                Err(refusal)
            }
        }
    }

    /// Whether the person may change the limits of this patient. Who may not learns nothing of who lies here.
    fn admit(&self, wish: &LimitWish, scope: &Scope) -> Result<(), Refusal> {
        let patient = &wish.patient;
        let known = self.patients.get(patient);
        let own = [format!("alerts/{patient}"), format!("patient/{patient}/limits")];
        let inner = known.map(|known| own.clone().map(|route| format!("ward/{}/{route}", known.ward)));
        let routes: Vec<String> = own.into_iter().chain(inner.into_iter().flatten()).collect();
        if !scope.allows(&routes) {
            let reason = "your role does not allow this for this patient".to_owned();
            return Err(Refusal { code: "permission_denied", reason });
        }
        if known.is_none() {
            return Err(Refusal { code: "unknown_patient", reason: format!("there is no patient {patient}") });
        }
        Ok(())
    }

    /// Publishes what became of changes of limits, each with its row; `address`: from where a person changed them just now.
    pub(super) fn publish_limit_news(&mut self, address: Option<&str>, now: Stamp) {
        for news in self.engine.take_limit_news() {
            if let Some(action) = audited(news.action) {
                let LimitsEvent { change, by, reason, before, after, .. } = &news;
                let by = Actor { user: by.clone(), address: address.map(str::to_owned) };
                let row = self.limits_row(&by, action, change.rule.as_str(), &change.patient);
                let reason = Some(format!("{before} -> {after}; {reason}"));
                self.publish(EventBody::Audit(AuditEvent { reason, ..row }), now);
            }
            self.publish(EventBody::Limits(news), now);
        }
    }

    fn limits_row(&self, by: &Actor, action: AuditAction, rule: &str, patient: &PatientId) -> AuditEvent {
        AuditEvent {
            by: by.user.clone(),
            address: by.address.clone(),
            action,
            object: rule.to_owned(),
            patient: Some(patient.clone()),
            device: None,
            source: None,
            result: AuditResult::Done,
            reason: None,
            mode: self.modes.get(patient).copied().unwrap_or(Mode::Real),
        }
    }
}

/// What the audit trail calls it. What stands after a restart was written down when it was set.
const fn audited(action: LimitAction) -> Option<AuditAction> {
    match action {
        LimitAction::Set => Some(AuditAction::LimitsSet),
        LimitAction::Cleared => Some(AuditAction::LimitsClear),
        LimitAction::Disabled => Some(AuditAction::RuleDisable),
        LimitAction::Enabled => Some(AuditAction::RuleEnable),
        LimitAction::Expired | LimitAction::Replaced | LimitAction::Unfit => Some(AuditAction::LimitsEnd),
        LimitAction::Stands => None,
    }
}
