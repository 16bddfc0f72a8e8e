//! What the bridge computes, published like what sensors say; and what people enter for it.

use std::collections::BTreeMap;
use std::mem;

use super::{Pipeline, Refusal};
use crate::alerts::MAX_BY_BYTES;
use crate::channel;
use crate::clock::{Stamp, Wall};
use crate::command::Entry;
use crate::derive::live::{ENTRY_LIFE, News2Settings};
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult, Entered, Event, EventBody, ObservationEvent};
use crate::hub::Scope;
use crate::ids::{PatientId, Seq};
use crate::store::KeptObservation;
use crate::vitals::{Breathing, Consciousness, Mode, Reading};

/// What people entered, the latest of each patient.
pub(super) type Observations = BTreeMap<PatientId, ObservationEvent>;

impl Pipeline {
    /// The scores of this run begin with what people entered in earlier ones; alerts about a score that is computed no
    /// more end.
    pub(super) fn start_scores(
        &mut self,
        settings: &BTreeMap<PatientId, News2Settings>,
        observations: Vec<KeptObservation>,
        now: Stamp,
    ) {
        let patients: Vec<(PatientId, Mode)> =
            self.patients.values().map(|patient| (patient.id.clone(), patient.mode)).collect();
        for (patient, mode) in patients {
            if let Some(settings) = settings.get(&patient) {
                self.derivation.score(patient, mode, settings);
            } else {
                let changes = self.engine.without_score(&patient, now);
                self.publish_alerts(changes, now);
            }
        }
        for KeptObservation { event, is_of_this_boot } in observations {
            if !self.derivation.has_score(&event.patient) {
                continue;
            }
            if is_of_this_boot {
                self.take_back(event, now);
            } else {
                self.waiting_observations.push(event);
            }
        }
        let computed = self.derivation.on_deadline(now);
        self.publish_computed(computed, now);
    }

    /// The clock is right: how much is left of what people entered before the machine was switched off is known now. What
    /// somebody has entered since stands.
    pub(super) fn on_clock_set(&mut self, now: Stamp) {
        for kept in mem::take(&mut self.waiting_observations) {
            if !self.observations.contains_key(&kept.patient) {
                let oxygen = kept.oxygen.and_then(|entered| entered.after_boot(ENTRY_LIFE, now));
                let consciousness = kept.consciousness.and_then(|entered| entered.after_boot(ENTRY_LIFE, now));
                self.take_back(ObservationEvent { oxygen, consciousness, ..kept }, now);
            }
        }
    }

    fn take_back(&mut self, observation: ObservationEvent, now: Stamp) {
        let computed = self.derivation.on_observation(&observation, now);
        self.observations.insert(observation.patient.clone(), observation);
        self.publish_computed(computed, now);
    }

    /// Publishes what was computed; the rules see it as they see a measurement.
    pub(super) fn publish_computed(&mut self, computed: Vec<Reading>, now: Stamp) {
        for reading in computed {
            let changes = self.engine.on_reading(&reading, now);
            self.publish(EventBody::Reading(reading), now);
            self.publish_alerts(changes, now);
        }
    }

    /// A person enters what is breathed and how awake the patient is. Each wish has its row in the audit trail.
    pub(super) fn on_observe(
        &mut self,
        patient: &PatientId,
        (oxygen, consciousness): (Entry<Breathing>, Entry<Consciousness>),
        by: Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Seq, Refusal> {
        let mode = self.patients.get(patient).map_or(Mode::Real, |patient| patient.mode);
        let known = self.observations.get(patient);
        let observation = ObservationEvent {
            patient: patient.clone(),
            oxygen: entered(oxygen, known.and_then(|known| known.oxygen.as_ref()), &by.user, now),
            consciousness: entered(consciousness, known.and_then(|known| known.consciousness.as_ref()), &by.user, now),
            by: by.user.clone(),
            mode,
        };
        let admitted = self.admit_observation(&observation, scope, now);
        let words =
            [word("oxygen", oxygen, Breathing::name), word("consciousness", consciousness, Consciousness::name)];
        let audit = AuditEvent {
            by: by.user,
            address: by.address,
            action: AuditAction::ObservationSet,
            object: words.into_iter().flatten().collect::<Vec<_>>().join(" "),
            patient: Some(patient.clone()),
            device: None,
            source: None,
            result: if admitted.is_ok() { AuditResult::Done } else { AuditResult::Refused },
            reason: admitted.as_ref().err().map(|refusal| refusal.reason.clone()),
            mode,
        };
        self.publish_audit(audit, now);
        admitted?;
        let seq = self.publish(EventBody::Observation(observation.clone()), now);
        let computed = self.derivation.on_observation(&observation, now);
        self.observations.insert(patient.clone(), observation);
        self.publish_computed(computed, now);
        Ok(seq)
    }

    fn admit_observation(&self, observation: &ObservationEvent, scope: &Scope, now: Stamp) -> Result<(), Refusal> {
        let refuse = |code, reason: &str| Err(Refusal { code, reason: reason.to_owned() });
        let body = EventBody::Observation(observation.clone());
        let event = Event { epoch: self.epoch.clone(), seq: self.next, at: now, body };
        let ward = self.patients.get(&observation.patient).map(|patient| &patient.ward);
        // Who may do nothing here does not learn who lies here either.
        if !scope.allows(&channel::routes(&event, ward)) {
            return refuse("permission_denied", "your role does not allow this for this patient");
        }
        if ward.is_none() {
            return refuse("unknown_patient", "there is no patient of this name");
        }
        if !self.derivation.has_score(&observation.patient) {
            let reason =
                "NEWS2 is not switched on for this patient: `news2 = true` in the configuration says that it may be";
            return refuse("not_scored", reason);
        }
        if observation.by.trim().is_empty() || observation.by.len() > MAX_BY_BYTES {
            return refuse("refused", "an entry needs the name of a person");
        }
        Ok(())
    }
}

/// What holds once this was said.
fn entered<T: Copy>(said: Entry<T>, known: Option<&Entered<T>>, by: &str, now: Stamp) -> Option<Entered<T>> {
    let life = i64::try_from(ENTRY_LIFE.as_millis()).unwrap_or(0);
    match said {
        Entry::Unsaid => known.filter(|known| known.holds(now)).cloned(),
        Entry::Unknown => None,
        Entry::Is(value) => {
            let (until, until_mono) = (Wall(now.wall.0.saturating_add(life)), now.mono + ENTRY_LIFE);
            Some(Entered { value, by: by.to_owned(), at: now.wall, until, until_mono })
        }
    }
}

/// What was said, for the audit trail.
fn word<T>(what: &str, said: Entry<T>, name: impl Fn(T) -> &'static str) -> Option<String> {
    match said {
        Entry::Unsaid => None,
        Entry::Unknown => Some(format!("{what}=unknown")),
        Entry::Is(value) => Some(format!("{what}={}", name(value))),
    }
}
