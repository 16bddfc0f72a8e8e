//! Taking a sensor's records: the way of each through the intake to whom it belongs, and what a meter is told meanwhile.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tracing::{debug, warn};

use super::client::Report as Wish;
use super::racp::{Fetch, Step};
use super::records::{Measurement, Taken};
use super::sensor::RECORD_ACCESS;
use super::{Reader, parts};
use crate::clock::Stamp;
use crate::decode::gatt::{self, Report};
use crate::event::{AuditAction, LinkState};
use crate::record::{MALFORMED, RecordKey};
use crate::sources::SourceError;
use crate::sources::output::{RecordBytes, SourceCounters, SourceOutput, When};
use crate::vitals::Status;

/// How long records may take to the disk before the sensor is let go of without its records being deleted.
const COMMIT_LIMIT: Duration = Duration::from_secs(15);
/// GSS, User ID: the sensor's word for somebody it does not know. The configuration cannot give the number to anybody.
pub(super) const STRANGER: u8 = 0xFF;

/// Pause before the disk is asked again that has not answered.
const BETWEEN_CHECKS: Duration = Duration::from_secs(30);

/// A question to the disk, which goes on beside everything else.
pub(super) struct Check {
    asked: Vec<RecordKey>,
    answer: Pin<Box<dyn Future<Output = Option<Vec<RecordKey>>> + Send + Sync>>,
}

/// Which of the records that were asked for are not on disk; never while nothing was asked.
pub(super) async fn answered(check: &mut Option<Check>) -> Option<Vec<RecordKey>> {
    match check {
        Some(check) => check.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Reader<'_> {
    /// Asks whether what was handed on is on disk, unless that is being asked already.
    pub(super) fn check_disk(&mut self) {
        if self.check.is_some() || self.known.unsure().is_empty() {
            return;
        }
        let asked = self.known.unsure().to_vec();
        let Some(answer) = self.client.committed(self.output.device(), asked.clone(), COMMIT_LIMIT) else { return };
        let pause = std::mem::take(&mut self.check_later).then_some(BETWEEN_CHECKS);
        let answer = async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            answer.await
        };
        self.check = Some(Check { asked, answer: Box::pin(answer) });
    }

    /// The disk has answered, or nobody could tell; what is missing is taken when it comes again.
    pub(super) fn on_answer(&mut self, missing: Option<Vec<RecordKey>>) {
        let Some(Check { asked, .. }) = self.check.take() else { return };
        match missing {
            Some(missing) => self.known.settle(&asked, &missing),
            None => self.check_later = true,
        }
    }

    /// Counts what a payload has and nobody can read.
    pub(super) fn count_ignored(&self, report: &Report) {
        let counters = self.output.counters();
        SourceCounters::add(&counters.rfu_bits, u64::from(report.rfu_bits));
        SourceCounters::add(&counters.trailing_bytes, u64::try_from(report.trailing_bytes).unwrap_or(u64::MAX));
    }

    /// A single measurement has come.
    pub(super) async fn on_record(&mut self, uuid: u16, report: Report, received: Stamp) -> Result<(), SourceError> {
        SourceCounters::add(&self.output.counters().records, 1);
        let (number, mut ready) = (report.record, vec![]);
        let (key, is_known) = match self.intake.take(self.known, uuid, report, &mut ready, received) {
            Taken::New(key) => (key, false),
            Taken::Again(key) => {
                SourceCounters::add(&self.output.counters().records_again, 1);
                debug!(device = %self.output.device(), number, "a record that is known came again");
                (Some(key), true)
            }
        };
        self.client.understood(!is_known);
        if let Some(fetch) = &mut self.fetch {
            fetch.on_record(number, key, is_known);
        }
        // It has to wait, but that data comes can be told.
        if self.output.link_state() == Some(LinkState::Waiting) {
            self.tell_live(&BTreeSet::new(), self.unassigned).await?;
        }
        self.hand_on_records(ready).await
    }

    /// What belongs to a single measurement has come.
    pub(super) async fn on_context(&mut self, context: &Report) -> Result<(), SourceError> {
        let mut ready = vec![];
        if !self.intake.take_context(context, &mut ready) {
            debug!(device = %self.output.device(), number = context.record, "a context whose record does not wait");
        }
        self.hand_on_records(ready).await
    }

    /// A single measurement that cannot be read is kept as it came: a better decoder may read it one day.
    pub(super) async fn on_malformed_record(
        &mut self,
        characteristic: u16,
        payload: &[u8],
        received: Stamp,
    ) -> Result<(), SourceError> {
        SourceCounters::add(&self.output.counters().records, 1);
        if let Some(fetch) = &mut self.fetch {
            fetch.on_malformed();
        }
        let raw = gatt::hex_digits(payload);
        if let Some(key) = RecordKey::of_malformed(characteristic, &raw) {
            if self.known.contains(&key) {
                SourceCounters::add(&self.output.counters().records_again, 1);
                return Ok(());
            }
            self.known.hand_on(key);
        }
        let bytes = RecordBytes {
            characteristic,
            number: None,
            user: None,
            device_time: None,
            raw,
            context: None,
            found: vec![MALFORMED.to_owned()],
            is_late: false,
        };
        // Whose it is stands in it, where nobody can read it.
        self.nobody.record(bytes, vec![], When::OnArrival, received).await
    }

    /// Something has waited for long enough.
    pub(super) async fn on_deadline(&mut self) -> Result<(), SourceError> {
        let (now, mut ready) = (self.output.now(), vec![]);
        if self.device_clock.deadline().is_some_and(|due| due <= now.mono) {
            self.on_untold().await?;
        }
        self.intake.on_deadline(&mut ready, now);
        self.hand_on_records(ready).await?;
        match self.fetch.as_mut().filter(|fetch| fetch.deadline().is_some_and(|due| due <= now.mono)) {
            Some(fetch) => {
                let step = fetch.on_deadline();
                self.carry_out(step).await
            }
            None => Ok(()),
        }
    }

    /// Nothing more comes of this visit.
    pub(super) async fn finish_records(&mut self) -> Result<(), SourceError> {
        let mut ready = vec![];
        self.intake.finish(&mut ready);
        self.device_clock.on_untold();
        self.hand_on_records(ready).await
    }

    /// Hands measurements on, once it is known what the sensor's clock says.
    pub(super) async fn hand_on_records(&mut self, ready: Vec<Measurement>) -> Result<(), SourceError> {
        self.intake.hold(ready);
        let is_awaited = self.device_clock.deadline().is_some();
        while let Some(mut measurement) = self.intake.next_held(is_awaited) {
            measurement.remember(self.known);
            let when = measurement.dated(&self.device_clock, &mut self.visits);
            let Measurement { decoded, bytes, received, is_stranger, .. } = measurement;
            if bytes.is_late {
                SourceCounters::add(&self.output.counters().records_late, 1);
            }
            let (status, observations) = parts(decoded);
            let user = if is_stranger { Some(STRANGER) } else { bytes.user };
            self.tell_live(&status, user).await?;
            self.output_of(user).record(bytes, observations, when, received).await?;
        }
        Ok(())
    }

    /// Whose the measurements of a user are; [`STRANGER`] is nobody. A number that the configuration does not know is nobody's, also where it
    /// knows none: the source's patient need not be whom a sensor of several users has measured. `None`: the sensor names
    /// nobody.
    pub(super) fn output_of(&self, user: Option<u8>) -> &SourceOutput {
        match user {
            Some(user) => self.users.get(&user).unwrap_or(&self.nobody),
            None if self.users.is_empty() => self.output,
            None => &self.nobody,
        }
    }

    /// Tells that data comes, what the sensor says of itself, and whether somebody has measured who is not known. What
    /// arrives after the end of its link does not make that look live.
    pub(super) async fn tell_live(&mut self, status: &BTreeSet<Status>, user: Option<u8>) -> Result<(), SourceError> {
        let stranger = user.filter(|user| !self.users.contains_key(user));
        if let Some(user) = stranger.filter(|_| stranger != self.unassigned) {
            warn!(device = %self.output.device(), user, "measurements of a user of whom `users` says nothing are nobody's");
        }
        self.unassigned = stranger;
        if let Some((link, words)) = self.gone.clone() {
            let reason = self.with_stranger(words);
            return self.output.link(link, &BTreeSet::new(), reason.as_deref()).await;
        }
        let reason = self.with_stranger(None);
        let state = if status.contains(&Status::SensorOff) { LinkState::SensorOff } else { LinkState::Live };
        self.output.link(state, status, reason.as_deref()).await
    }

    /// Adds to a reason that the last measurement is nobody's.
    pub(super) fn with_stranger(&self, reason: Option<String>) -> Option<String> {
        let stranger = self.unassigned.map(|user| match user {
            STRANGER => "the last measurement is nobody's: the sensor does not know of whom it is".to_owned(),
            user => format!("user {user} is nobody's: `users` does not say who it is"),
        });
        match (reason, stranger) {
            (Some(reason), Some(stranger)) => Some(format!("{reason}; {stranger}")),
            (reason, stranger) => reason.or(stranger),
        }
    }

    /// Goes on with the fetching until it waits for the meter.
    pub(super) async fn carry_out(&mut self, step: Step) -> Result<(), SourceError> {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            match step {
                Step::Write(bytes) => self.client.report(Wish::Write(RECORD_ACCESS, bytes)).await,
                Step::Commit(records) => {
                    // All that was asked for has come.
                    self.finish_records().await?;
                    let is_on_disk = self.is_on_disk(records).await;
                    let now = self.output.now();
                    next = self.fetch.as_mut().map(|fetch| fetch.on_committed(is_on_disk, now));
                }
                Step::Taken(through) => {
                    self.known.through = Some(through);
                    self.output.audit(AuditAction::RecordsTaken, through.to_string()).await?;
                    next = self.go_on();
                }
                Step::Deleted(through) => {
                    self.known.through = None;
                    self.output.audit(AuditAction::RecordsDeleted, through.to_string()).await?;
                    next = self.go_on();
                }
                Step::Done(result) => {
                    if let Err(reason) = &result {
                        warn!(device = %self.output.device(), reason, "stored records");
                    }
                    self.client.report(Wish::Finished(result)).await;
                }
            }
        }
        Ok(())
    }

    /// Waits until all that was handed on is on disk; false if some of these records are not, or nobody can tell.
    async fn is_on_disk(&mut self, records: Vec<RecordKey>) -> bool {
        // What is being asked is asked again with the rest.
        self.check = None;
        let mut asked = records.clone();
        asked.extend_from_slice(self.known.unsure());
        let Some(answer) = self.client.committed(self.output.device(), asked.clone(), COMMIT_LIMIT) else {
            return false;
        };
        let Some(missing) = answer.await else {
            self.check_later = true;
            return false;
        };
        self.known.settle(&asked, &missing);
        !missing.iter().any(|key| records.contains(key))
    }

    fn go_on(&mut self) -> Option<Step> {
        let now = self.output.now();
        self.fetch.as_mut().map(|fetch: &mut Fetch| fetch.on_written_down(now))
    }
}
