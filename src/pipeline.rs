//! The heart: gives every event its number, runs the alert rules, publishes, and hands the event to the store.
//!
//! The safety path never waits for disk or network: numbering, alerting and publishing are plain calls, and the store's
//! queue is only ever tried.

mod acknowledging;
mod annunciation;
mod chatting;
mod clocking;
mod computed;
mod folding;
mod keeping;
mod limits;
mod people;
mod repeating;
mod resending;
mod restoring;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use self::annunciation::Annunciators;
pub use self::annunciation::{Annunciation, NOT_CONFIRMED, Receipt, SELF_CHECK_EVERY};
pub use self::chatting::{ChatAct, ChatDone, ChatWish, Sign, chat, members};
pub use self::resending::{MAX_ORDERED, ResendQueue, Resending};
use crate::alerts::{AlertCommand, BridgeCondition, EffectiveLimit, Engine, RuleSet};
use crate::channel::{Pattern, routes};
use crate::clock::{Clock, Mono, Stamp};
use crate::command::{AlertOperation, Command};
use crate::derive::live::{Derivation, News2Settings};
use crate::desk::{Counter, Desk, Ended, Wish};
pub use crate::desk::{Done, Refusal, Reply};
use crate::event::{
    Actor, AlertChange, AlertEvent, AuditAction, AuditEvent, AuditResult, Event, EventBody, ObservationEvent,
    Preferences, SignalPresence, SourceMessage, SystemEvent, SystemKind, WaveBlock,
};
use crate::hub::{Hub, Join, Joined, ListenerId, Scope};
use crate::ids::{AlertId, DeviceId, Epoch, PatientId, Seq, SourceId};
use crate::metrics::Metrics;
use crate::notifier::Notifier;
use crate::outbox::{Forms, Frame, Published, PublishedWave};
use crate::patient::Patient;
use crate::record::RecordEvent;
use crate::rooms::{Members, Rooms};
use crate::signal_times::SignalTimes;
use crate::store::{KeptChanges, KeptObservation, StoreHandle};
use crate::timeline::{ClockNews, Timeline};
use crate::vitals::{Metric, Mode, Reading};
use crate::{waveform, wire};
use computed::Observations;
use folding::Refusals;
use keeping::Unkept;
use repeating::Known;

/// Messages from sources that may wait for the pipeline. A full queue makes sources wait, which they can.
pub const SOURCE_QUEUE: usize = 4096;

/// Wishes of sessions that may wait for the pipeline. A full queue makes the session wait.
pub const CONTROL_QUEUE: usize = 256;

/// How long a command is waited for; shorter than the patience of a client for a heartbeat.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(4);

/// After so many wishes, timers and readings have their turn.
const WISHES_IN_A_ROW: usize = 16;

/// Readings that are taken between two rows of wishes.
const READINGS_BETWEEN_WISHES: usize = 256;

/// The loop turns at least this often, so that the watchdog and a stepped clock are noticed.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// A wish of a session, the uplink or the daemon.
#[derive(Debug)]
pub enum Control {
    /// Listen.
    Join(Join, oneshot::Sender<Option<Joined>>),
    /// Stop listening to some channels.
    Unsubscribe(ListenerId, Vec<Pattern>),
    /// Stop listening.
    Leave(ListenerId),
    /// Do what a person wants.
    Command(CommandWish),
    /// A listener shows alerts to people from now on.
    Annunciate(ListenerId),
    /// What a listener says about alerts that it got.
    Receipt(Receipt),
    /// A client of this user has these messages.
    Delivered(String, Vec<uuid::Uuid>),
    /// Write into a room, or clear it.
    Chat(ChatWish),
    /// A sign of the moment: somebody types, reads, looks.
    Sign(Sign),
    /// Who is in a room?
    Members(String, oneshot::Sender<Members>),
    /// A client of this user has everything of an alerts' channel up to an event.
    Acked(String, String, Seq),
    /// What this user wants to be told of.
    Preferences(String, oneshot::Sender<Preferences>),
    /// A condition of the bridge itself began or ended.
    Condition(BridgeCondition, bool),
    /// The rules were read again.
    Rules(Box<RuleSet>),
    /// Answered with the limits in force for a patient, if there is such a patient.
    Limits(PatientId, oneshot::Sender<Option<Vec<EffectiveLimit>>>),
    /// Answered with the ages from which numbers are old and gone.
    SignalTimes(oneshot::Sender<SignalTimes>),
    /// Answered with the present, as far as somebody with this scope may see it.
    Present(Scope, oneshot::Sender<Vec<Arc<Published>>>),
    /// The clock was set, or more is known of it.
    Clock(ClockNews),
    /// Something to be logged as an event.
    System(SystemEvent),
    /// A row for the audit trail.
    Audit(AuditEvent),
    /// Answered once the loop has turned.
    Ping(oneshot::Sender<()>),
    /// Answered with the newest number once everything has one that sources had handed on before this was asked.
    Settle(oneshot::Sender<Seq>),
}

/// What a person wants, with who and where.
#[derive(Debug)]
pub struct CommandWish {
    /// What.
    pub command: Command,
    /// Who.
    pub by: Actor,
    /// On which channels that person may do it.
    pub scope: Scope,
    /// The person's own name for it: under the same one the same command is done once.
    pub key: Option<String>,
    /// The answer: the number of the last event that it caused; of a device's command that of its row in the audit trail.
    pub reply: Reply,
}

/// Has the pipeline carry out a command, and waits for the answer: the number of the last event that it caused. A client
/// is answered once that event is on disk; where the store has not taken it, at once that it is not.
///
/// A source answers as soon as it has sent a command to its device, or cannot; what takes longer is answered as unknown,
/// and the audit trail has the end of it.
///
/// # Errors
/// The refusal with its code, `unavailable` while the daemon stops, `store_full` (nothing was done) while the disk is too
/// far behind, `unknown` after [`COMMAND_DEADLINE`].
pub async fn carry_out(
    control: &mpsc::Sender<Control>,
    command: Command,
    by: impl Into<Actor>,
    scope: Scope,
) -> Result<Done, Refusal> {
    carry_out_once(control, command, by, scope, None).await
}

/// As [`carry_out`], and once only under this key of the person's: the same command under the same key is answered for a
/// day with what became of it, also by another run of the daemon.
///
/// # Errors
/// Those of [`carry_out`], `conflict` for another command under the same key, `busy` while the first is under way.
pub async fn carry_out_once(
    control: &mpsc::Sender<Control>,
    command: Command,
    by: impl Into<Actor>,
    scope: Scope,
    key: Option<String>,
) -> Result<Done, Refusal> {
    let (reply, answer) = oneshot::channel();
    let by = by.into();
    let asked = async {
        control.send(Control::Command(CommandWish { command, by, scope, key, reply })).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(COMMAND_DEADLINE, asked).await {
        Ok(Some(done)) => done,
        Ok(None) => Err(Refusal { code: "unavailable", reason: "the bridge is stopping".to_owned() }),
        Err(_) => {
            let reason = "it was not done in time; the audit trail says what became of it".to_owned();
            Err(Refusal { code: "unknown", reason })
        }
    }
}

/// What this user wants to be told of; `None` if the pipeline does not answer.
pub async fn preferences(control: &mpsc::Sender<Control>, user: String) -> Option<Preferences> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        control.send(Control::Preferences(user, reply)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(COMMAND_DEADLINE, asked).await.ok().flatten()
}

/// A device of a patient, and what it is to deliver as far as that is known before it has: what never comes is then missed
/// by its name. Alerts of the last run about a device and a patient that are not named together end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The device.
    pub device: DeviceId,
    /// Whose.
    pub patient: PatientId,
    /// The metrics; none: not known.
    pub metrics: BTreeSet<Metric>,
    /// It measures now and then: nothing of it is missed.
    pub is_spot: bool,
    /// Several people share it: it is named once for each of them.
    pub is_shared: bool,
    /// Real, demo or test.
    pub mode: Mode,
}

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Parts {
    /// This run.
    pub epoch: Epoch,
    /// The number of its first event.
    pub first: Seq,
    /// Everybody.
    pub patients: Vec<Patient>,
    /// The alert engine.
    pub engine: Engine,
    /// All devices of all patients, and what they are to deliver.
    pub expected: Vec<Expected>,
    /// Alerts that had not ended when the last run did.
    pub open_alerts: Vec<AlertEvent>,
    /// Changes of limits that held when the last run ended.
    pub limit_changes: KeptChanges,
    /// Messages for people.
    pub notifier: Notifier,
    /// For whom an early warning score is computed, and how.
    pub news2: BTreeMap<PatientId, News2Settings>,
    /// What people entered in the runs before.
    pub observations: Vec<KeptObservation>,
    /// Where events are kept.
    pub store: StoreHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What time it is.
    pub clock: Clock,
}

/// True while an alert asks for attention by sound.
fn sounds(alert: &AlertEvent) -> bool {
    alert.audio.presence == SignalPresence::On
}

/// The one owner of the patients' live state, the alert engine and the hub.
#[derive(Debug)]
pub struct Pipeline {
    epoch: Epoch,
    next: Seq,
    patients: BTreeMap<PatientId, Patient>,
    modes: BTreeMap<PatientId, Mode>,
    /// Limits of an earlier run that could not be read.
    unreadable_limits: Vec<String>,
    engine: Engine,
    derivation: Derivation,
    observations: Observations,
    /// What people entered before the machine was switched off: nobody knows how long ago, until the clock has been set.
    waiting_observations: Vec<ObservationEvent>,
    hub: Hub,
    notifier: Notifier,
    rooms: Rooms,
    desk: Desk,
    /// Where wishes to send the log again go; `None`: there is no broker.
    resending: Option<Resending>,
    /// The last event of each present alert at which it began to alarm (again).
    alarmed: BTreeMap<AlertId, Seq>,
    annunciators: Annunciators,
    /// When messages for later were last looked at.
    looked: Mono,
    /// What the store could not take.
    unkept: Unkept,
    /// Who was refused what lately.
    refusals: Refusals,
    store: StoreHandle,
    /// What is known of clocks.
    timeline: Arc<Timeline>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Pipeline {
    /// A pipeline that has published the start of this run and what restored alerts became.
    pub fn new(parts: Parts) -> Self {
        let before = Seq(parts.first.0.saturating_sub(1));
        let now = parts.clock.now();
        let mut pipeline = Self {
            epoch: parts.epoch,
            next: parts.first,
            patients: parts.patients.into_iter().map(|patient| (patient.id.clone(), patient)).collect(),
            modes: BTreeMap::new(),
            unreadable_limits: Vec::new(),
            engine: parts.engine,
            derivation: Derivation::default(),
            observations: Observations::default(),
            waiting_observations: Vec::new(),
            hub: Hub::new(before, Arc::clone(&parts.metrics)),
            notifier: parts.notifier,
            rooms: Rooms::default(),
            desk: Desk::default(),
            resending: None,
            alarmed: BTreeMap::new(),
            annunciators: Annunciators::new(Annunciation::default(), now),
            looked: Mono(0),
            unkept: Unkept::default(),
            refusals: Refusals::default(),
            timeline: Arc::clone(&parts.store.timeline().borrow()),
            store: parts.store,
            metrics: parts.metrics,
            clock: parts.clock,
        };
        let message = format!("vitalbridge {} started", env!("CARGO_PKG_VERSION"));
        pipeline.on_system(SystemEvent { kind: SystemKind::Started, message, first: None, last: None }, now);
        pipeline.take_back_limits(parts.limit_changes, now);
        pipeline.restore(parts.open_alerts, parts.expected, now);
        pipeline.start_scores(&parts.news2, parts.observations, now);
        pipeline.tell_unreadable_limits(now);
        pipeline
    }

    /// Orders for this source are taken from now on.
    pub fn take_orders_for(&mut self, source: SourceId, counter: Counter) {
        self.desk.open(source, counter);
    }

    /// What comes within this time goes out to each listener in one write, instead of within [`crate::hub::TICK`].
    pub fn write_every(&mut self, tick: Duration) {
        self.hub.set_tick(tick);
    }

    /// Turns until every source has hung up, then says that this run ends.
    ///
    /// # Errors
    /// None today; a vital task returns a result.
    pub async fn run(
        mut self,
        mut sources: mpsc::Receiver<SourceMessage>,
        mut control: mpsc::Receiver<Control>,
    ) -> anyhow::Result<()> {
        let (mut control_open, mut wishes) = (true, 0);
        loop {
            if wishes >= WISHES_IN_A_ROW {
                wishes = 0;
                self.serve_the_patients(&mut sources);
            }
            let now = self.clock.now();
            self.send_what_is_due(now);
            self.on_tick(now);
            let longest = now.mono + LONGEST_TURN;
            let due = self.hub.next_tick().map_or(longest, |tick| tick.min(longest));
            let wait = self.next_deadline().min(due).since(now.mono);
            tokio::select! {
                biased;
                // Wishes are few and somebody waits for each of them.
                wish = control.recv(), if control_open => match wish {
                    Some(wish) => {
                        wishes += 1;
                        if matches!(wish, Control::Settle(_)) {
                            self.settle(&mut sources);
                        }
                        self.on_control(wish, self.clock.now());
                    }
                    None => control_open = false,
                },
                // Timers before readings, so that a flood cannot hold back an alarm.
                () = tokio::time::sleep(wait) => self.on_deadline(self.clock.now()),
                message = sources.recv() => match message {
                    Some(message) => self.on_source_message(message, self.clock.now()),
                    None => break,
                },
            }
        }
        let now = self.clock.now();
        self.write_what_is_owed(now);
        for row in self.refusals.finish() {
            self.publish(EventBody::Audit(row), now);
        }
        let message = "vitalbridge is stopping".to_owned();
        self.on_system(SystemEvent { kind: SystemKind::Stopping, message, first: None, last: None }, self.clock.now());
        Ok(())
    }

    /// What waits to go out together goes out, if its time has come.
    pub fn on_tick(&mut self, now: Stamp) {
        self.hub.on_tick(now.mono);
    }

    /// When [`Pipeline::on_deadline`] has something to do.
    pub fn next_deadline(&self) -> Mono {
        let next = self.annunciators.next_deadline();
        let due = [self.engine.next_deadline(), self.derivation.next_deadline(), self.rooms.next_deadline()];
        due.into_iter().flatten().fold(next, Mono::min)
    }

    /// Time has passed: what is computed comes first, because alerts follow it.
    pub fn on_deadline(&mut self, now: Stamp) {
        let computed = self.derivation.on_deadline(now);
        self.publish_computed(computed, now);
        let changes = self.engine.on_deadline(now);
        self.publish_alerts(changes, now);
        self.write_what_is_owed(now);
        for row in self.refusals.due(now.mono) {
            self.publish(EventBody::Audit(row), now);
        }
        let moments = self.rooms.on_deadline(now);
        self.tell(moments);
        self.settle_annunciation(now);
    }

    /// Due timers and waiting readings, without waiting: many wishing dashboards must not hold back an alarm.
    fn serve_the_patients(&mut self, sources: &mut mpsc::Receiver<SourceMessage>) {
        let now = self.clock.now();
        if self.next_deadline() <= now.mono {
            self.on_deadline(now);
        }
        for _ in 0..READINGS_BETWEEN_WISHES {
            let Ok(message) = sources.try_recv() else { return };
            self.on_source_message(message, self.clock.now());
        }
    }

    /// Takes what waits now: who asks whether his readings are on disk has put them there before he asked.
    fn settle(&mut self, sources: &mut mpsc::Receiver<SourceMessage>) {
        for _ in 0..sources.len() {
            let Ok(message) = sources.try_recv() else { return };
            self.on_source_message(message, self.clock.now());
        }
    }

    /// Something from a source.
    pub fn on_source_message(&mut self, message: SourceMessage, now: Stamp) {
        match message {
            SourceMessage::Reading(reading) => {
                if self.mixes_modes(reading.patient.as_ref(), reading.mode) {
                    return;
                }
                self.on_reading(reading, now);
            }
            SourceMessage::Record { record, readings } => self.on_record(record, readings, now),
            SourceMessage::Link(source) => {
                if self.mixes_modes(source.patient.as_ref(), source.mode) {
                    return;
                }
                let changes = self.engine.on_source(&source, now);
                self.derivation.on_source(&source);
                self.publish(EventBody::Source(source), now);
                self.publish_alerts(changes, now);
            }
            SourceMessage::Audit(audit) => _ = self.publish_audit(audit, now),
            SourceMessage::Answer { order, result } => {
                let ended = self.desk.on_answer(order, result);
                self.tell_the_end(ended, now);
            }
            SourceMessage::Wave(block) => {
                if !self.mixes_modes(block.patient.as_ref(), block.mode) {
                    self.publish_wave(&block, now);
                }
            }
        }
        self.settle_annunciation(now);
    }

    fn on_reading(&mut self, reading: Reading, now: Stamp) -> Seq {
        self.metrics.readings_total.add_one();
        let changes = self.engine.on_reading(&reading, now);
        let computed = self.derivation.on_reading(&reading, now);
        let seq = self.publish(EventBody::Reading(reading), now);
        self.publish_alerts(changes, now);
        self.publish_computed(computed, now);
        seq
    }

    /// The record comes after its readings: what is known of it is on disk with them or not at all.
    fn on_record(&mut self, mut record: RecordEvent, readings: Vec<Reading>, now: Stamp) {
        if self.mixes_modes(record.patient.as_ref(), record.mode) {
            return;
        }
        for reading in readings {
            let seq = self.on_reading(reading, now);
            record.readings = Some((record.readings.map_or(seq, |(first, _)| first), seq));
        }
        self.publish(EventBody::Record(record), now);
    }

    /// Samples go to whoever watches this wave now, and nowhere else.
    fn publish_wave(&mut self, block: &WaveBlock, now: Stamp) {
        let channel = waveform::channel_of(block);
        if !self.hub.watches_wave(&channel) {
            return;
        }
        match waveform::message(block, &self.epoch, now) {
            Ok(message) => self.hub.publish_wave(&Arc::new(PublishedWave { channel, message })),
            Err(error) => error!(%error, channel, "samples cannot be written"),
        }
    }

    /// Writes down what became of an order, and tells whoever gave it.
    fn tell_the_end(&mut self, ended: Option<Ended>, now: Stamp) {
        let Some(Ended { audit, reply, answer, request }) = ended else { return };
        let before = self.unkept.count();
        self.store.begin_group();
        let seq = self.publish_audit(audit, now);
        let done = Done { seq, is_kept: self.unkept.count() == before };
        self.order_ended(request, answer.as_ref().err().map(|refusal| refusal.code), done, now);
        self.store.end_group();
        // Nobody waits any more if the session went away; what was done stands all the same.
        let _ = reply.send(answer.map(|()| done));
    }

    /// A wish.
    pub fn on_control(&mut self, wish: Control, now: Stamp) {
        match wish {
            Control::Join(join, reply) => {
                if let Err(Some(joined)) = reply.send(self.join(join, now)) {
                    // The session went away while it waited.
                    self.leave(joined.listener, now);
                }
            }
            Control::Unsubscribe(listener, patterns) => {
                self.hub.unsubscribe(listener, &patterns);
                if !self.hub.hears_own(listener) {
                    self.notifier.on_left(listener.number());
                }
                let moments = self.rooms.on_unsubscribed(listener.number(), &patterns, now);
                self.tell(moments);
            }
            Control::Leave(listener) => {
                self.leave(listener, now);
                self.on_annunciator_left(listener, now);
            }
            Control::Delivered(user, ids) => {
                let changes = self.notifier.on_delivered(&user, &ids);
                self.publish_all(changes, now);
            }
            Control::Chat(wish) => self.on_chat(wish, now),
            Control::Sign(sign) => self.on_sign(sign, now),
            Control::Members(room, reply) => {
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(self.rooms.members(&room));
            }
            Control::Acked(user, channel, seq) => self.on_acked(&user, &channel, seq),
            Control::Preferences(user, reply) => {
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(self.notifier.preferences(&user));
            }
            Control::Annunciate(listener) => self.on_annunciator(listener),
            Control::Receipt(receipt) => self.on_receipt(&receipt),
            Control::Command(wish) => self.on_command(wish, now),
            Control::Condition(condition, present) => {
                let present = present || self.has_error_of_its_own(condition);
                let changes = self.engine.on_condition(condition, present, now);
                self.publish_alerts(changes, now);
                if condition == BridgeCondition::ClockUnsynchronised && !present {
                    self.on_clock_set(now);
                }
            }
            Control::Rules(rules) => {
                // Whoever has the rules read again has seen what was told.
                self.unreadable_limits.clear();
                let changes = self.engine.replace_rules(*rules, now);
                self.publish_alerts(changes, now);
            }
            Control::Limits(patient, reply) => {
                let known = self.patients.contains_key(&patient);
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(known.then(|| self.engine.limits(&patient, now)));
            }
            Control::SignalTimes(reply) => {
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(self.engine.signal_times(self.patients.keys(), now));
            }
            Control::Present(scope, reply) => {
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(self.hub.present(&scope));
            }
            Control::Clock(news) => self.on_clock(news, now),
            Control::System(system) => self.on_system(system, now),
            Control::Audit(audit) => _ = self.publish_audit(audit, now),
            Control::Ping(reply) => {
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(());
            }
            Control::Settle(reply) => {
                let newest = Seq(self.next.0.saturating_sub(1));
                // The asker gave up waiting; nothing is owed.
                let _ = reply.send(newest);
            }
        }
        self.settle_annunciation(now);
    }

    fn on_system(&mut self, system: SystemEvent, now: Stamp) {
        self.publish(EventBody::System(system), now);
    }

    fn on_command(&mut self, wish: CommandWish, now: Stamp) {
        let CommandWish { command, by, scope, key, reply } = wish;
        let request = match self.recognise(&command, &by.user, key, now) {
            Known::New(request) => request,
            Known::Answered(answer) => {
                // Nobody waits any more if the session went away; it was answered before.
                let _ = reply.send(answer);
                return;
            }
        };
        if let Err(refused) = self.store.takes_a_command() {
            // Nobody waits any more if the session went away; nothing was done.
            let _ = reply.send(Err(self.not_begun(refused)));
            return;
        }
        let before = self.unkept.count();
        // On disk the command and the word that it was done come together or not at all.
        self.store.begin_group();
        let done = match command {
            Command::Device { source, kind } => {
                self.order_begins(request.as_ref(), now);
                self.store.end_group();
                let patients = &self.patients;
                let ward = |patient: &PatientId| patients.get(patient).map(|patient| patient.ward.clone());
                let ended = self.desk.order(Wish { source, kind, by, scope, reply, request }, ward, now);
                self.tell_the_end(ended, now);
                return;
            }
            Command::Alert { alert, operation, expected_seq } => {
                self.on_alert_command(alert, operation, expected_seq, by, &scope, now)
            }
            Command::Observe { patient, oxygen, consciousness } => {
                self.on_observe(&patient, (oxygen, consciousness), by, &scope, now)
            }
            Command::Limits(wish) => self.on_limit_wish(&wish, &by, &scope, now),
            Command::Resend(wish) => self.on_resend(&wish, by, &scope, now),
            Command::Notify(_) | Command::Withdraw(_) | Command::Prefer(_) => {
                self.on_message_command(command, &by, &scope, now)
            }
        };
        let is_kept = self.unkept.count() == before;
        if let (Ok(seq), Some(request)) = (&done, request) {
            self.remember_done(request, *seq, is_kept, now);
        }
        self.store.end_group();
        // Nobody waits any more if the session went away; what was done stands all the same.
        let _ = reply.send(done.map(|seq| Done { seq, is_kept }));
    }

    /// The row of the audit trail for a command about an alert, as long as nothing has gone wrong.
    fn alert_row(&self, alert: AlertId, operation: AlertOperation, by: &Actor) -> AuditEvent {
        let known = self.hub.alert(alert).and_then(|published| match &published.event.body {
            EventBody::Alert(alert) => Some(alert),
            _ => None,
        });
        let (action, reason) = match operation {
            AlertOperation::Acknowledge => (AuditAction::AlertAcknowledge, None),
            AlertOperation::PauseAudio { seconds } => (AuditAction::AlertPauseAudio, Some(format!("for {seconds} s"))),
            AlertOperation::Reset => (AuditAction::AlertReset, None),
        };
        AuditEvent {
            by: by.user.clone(),
            address: by.address.clone(),
            action,
            object: alert.to_string(),
            patient: known.and_then(|alert| alert.patient.clone()),
            device: None,
            source: None,
            result: AuditResult::Done,
            reason,
            mode: known.map_or(Mode::Real, |alert| alert.mode),
        }
    }

    fn on_alert_command(
        &mut self,
        alert: AlertId,
        operation: AlertOperation,
        expected_seq: Option<Seq>,
        by: Actor,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Seq, Refusal> {
        let row = self.alert_row(alert, operation, &by);
        let done = self.try_alert_command(alert, operation, expected_seq, by.user, scope, now);
        self.publish_outcome(row, done.as_ref().err(), now);
        self.publish_alerts(done?, now);
        Ok(Seq(self.next.0.saturating_sub(1)))
    }

    /// What became of what a person wanted, for the audit trail.
    fn publish_outcome(&mut self, row: AuditEvent, refused: Option<&Refusal>, now: Stamp) {
        let row = match refused {
            Some(refusal) => AuditEvent { result: AuditResult::Refused, reason: Some(refusal.reason.clone()), ..row },
            None => row,
        };
        self.publish_audit(row, now);
    }

    /// Writes a row of the audit trail, or counts it. The answer is the newest event.
    fn publish_audit(&mut self, row: AuditEvent, now: Stamp) -> Seq {
        for row in self.refusals.fold(row, now.mono) {
            self.publish(EventBody::Audit(row), now);
        }
        Seq(self.next.0.saturating_sub(1))
    }

    fn try_alert_command(
        &mut self,
        alert: AlertId,
        operation: AlertOperation,
        expected_seq: Option<Seq>,
        by: String,
        scope: &Scope,
        now: Stamp,
    ) -> Result<Vec<AlertEvent>, Refusal> {
        let refuse = |code, reason: &str| Err(Refusal { code, reason: reason.to_owned() });
        let Some(published) = self.hub.alert(alert) else {
            return refuse("unknown_alert", "this alert is not present (any more)");
        };
        if !scope.allows(&published.routes) {
            return refuse("permission_denied", "your role does not allow this for this patient");
        }
        let alarmed = self.alarmed.get(&alert).copied().unwrap_or(Seq::ZERO);
        if expected_seq.is_some_and(|seen| seen < alarmed) {
            return refuse("stale", "the alert has alarmed again since; look at it first");
        }
        let command = match operation {
            AlertOperation::Acknowledge => AlertCommand::Acknowledge { alert, by },
            AlertOperation::PauseAudio { seconds } => AlertCommand::PauseAudio { alert, by, seconds },
            AlertOperation::Reset => AlertCommand::Reset { alert, by },
        };
        self.engine
            .on_command(&command, now)
            .map_err(|refused| Refusal { code: "refused", reason: refused.to_string() })
    }

    /// Alerts of the last run that did not change at the start of this one: dashboards know only what was published.
    fn publish_what_stands(&mut self, now: Stamp) {
        let silent: Vec<AlertEvent> =
            self.engine.present().into_iter().filter(|alert| self.hub.alert(alert.alert).is_none()).collect();
        let again = silent.into_iter().map(|alert| AlertEvent { change: AlertChange::Update, ..alert });
        self.publish_alerts(again.collect(), now);
    }

    fn publish_alerts(&mut self, changes: Vec<AlertEvent>, now: Stamp) {
        self.publish_limit_news(None, now);
        for (patient, device) in self.engine.take_left_out() {
            let device = device.map(|device| device.to_string()).unwrap_or_default();
            error!(%patient, device, "not watched: the bridge has no room for more patients or devices (alert_limit)");
        }
        for change in changes {
            let (alert, is_present, sounds) = (change.alert, change.is_present(), sounds(&change));
            // It alarms (again) when its sound comes on: at the start, after a pause, by the reminder, at a recurrence.
            let sounded = self.hub.alert(alert).is_some_and(|known| match &known.event.body {
                EventBody::Alert(known) => self::sounds(known),
                _ => false,
            });
            let again = matches!(change.change, AlertChange::Recur | AlertChange::Escalate);
            self.metrics.alerts_total.add_one();
            let is_about_delivery = self.engine.is_about_delivery(&change.rule);
            self.annunciators.on_alert(&change, is_about_delivery, self.next, now);
            // The alert goes first: what is said about it comes after it, also when the machine dies between the two.
            let messages = self.notifier.on_alert(&change, now);
            let seq = self.publish(EventBody::Alert(change), now);
            self.publish_all(messages, now);
            if !is_present {
                self.alarmed.remove(&alert);
            } else if sounds && (again || !sounded) {
                self.alarmed.insert(alert, seq);
            }
        }
    }

    /// Numbers, stores and publishes one event.
    fn publish(&mut self, body: EventBody, now: Stamp) -> Seq {
        let event = Arc::new(Event { epoch: self.epoch.clone(), seq: self.next, at: now, body });
        let seq = event.seq;
        self.next = seq.next();
        if let EventBody::Notification(notification) = &event.body {
            self.notifier.on_published(notification.id, seq);
        }
        self.metrics.events_total.add_one();
        self.keep(&event);
        let event = self.timeline.shown(&event);
        let ward = event.patient().and_then(|patient| self.patients.get(patient)).map(|patient| &patient.ward);
        let routes = routes(&event, ward);
        match wire::push(&event) {
            Ok(text) => {
                let (text, forms) = (Frame::text(&text), Forms::default());
                self.hub.publish(&Arc::new(Published { event, routes, text, forms }));
            }
            Err(error) => error!(%seq, %error, "event could not be serialised; it is stored but not shown"),
        }
        seq
    }

    /// True, and counted, if a patient has readings of another mode: demo is never taken for real.
    fn mixes_modes(&mut self, patient: Option<&PatientId>, mode: Mode) -> bool {
        let Some(patient) = patient else { return false };
        let known = *self.modes.entry(patient.clone()).or_insert(mode);
        if known != mode {
            self.metrics.readings_mode_mixed_total.add_one();
            warn!(%patient, %mode, %known, "reading refused: its mode is not that of the patient's other readings");
        }
        known != mode
    }
}
