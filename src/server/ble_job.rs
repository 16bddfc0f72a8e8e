//! What somebody has started at Bluetooth over HTTP and comes back for: a scan or a pairing, one at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::bluez::{
    AgentRequest, Bluez, BluezError, Capability, Cause, Device, Named, Pairing, Question, Record, Scan, Step, find,
    parse_passkey,
};
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult};
use crate::pipeline::Control;
use crate::profile::Models;
use crate::tasks::{Role, Tasks};
use crate::vitals::Mode;

/// Answers that wait: there is one question at a time.
const ANSWERS: usize = 1;

/// What a job is to do.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Listen for what is near.
    Scan,
    /// Pair with this device.
    Pair(Named),
}

/// How a job is to be done.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// How long to listen.
    pub(super) listening: Duration,
    /// The adapter; the first one if `None`.
    pub(super) adapter: Option<String>,
    /// The models that are known.
    pub(super) models: Models,
}

/// Writes what somebody did into the audit trail.
#[derive(Debug, Clone)]
pub(super) struct Scribe {
    /// The user, and from where.
    pub(super) by: Actor,
    /// The pipeline, which keeps the trail.
    pub(super) control: mpsc::Sender<Control>,
}

impl Scribe {
    /// One row; `failure` says why it did not work.
    pub(super) async fn write(&self, action: AuditAction, object: String, failure: Option<String>) {
        let result = if failure.is_none() { AuditResult::Done } else { AuditResult::Failed };
        let audit = AuditEvent {
            by: self.by.user.clone(),
            address: self.by.address.clone(),
            action,
            object,
            patient: None,
            device: None,
            source: None,
            result,
            reason: failure,
            mode: Mode::Real,
        };
        if self.control.send(Control::Audit(audit)).await.is_err() {
            warn!("the pipeline has ended; the audit trail lacks a row");
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It goes on.
    Running,
    /// It waits for an answer.
    Question,
    /// It is done.
    Done,
    /// It has failed.
    Failed,
}

/// What is asked of the person, or to be shown to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Prompt {
    /// Does the device show this number?
    Compare {
        /// Six digits.
        passkey: String,
    },
    /// Which number does the device show?
    Passkey,
    /// Which code has the device?
    Pin,
    /// Type this at the device.
    TypeAtDevice {
        /// Digits.
        passkey: String,
    },
}

/// A job as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(super) struct View {
    kind: &'static str,
    pub(super) state: State,
    pub(super) prompt: Option<Prompt>,
    devices: Vec<Record>,
    error: Option<String>,
}

/// What a person answers.
#[derive(Debug)]
pub(super) enum Answer {
    Yes,
    No,
    Passkey(u32),
    Pin(String),
}

/// The one job, while it goes on and until the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk {
    current: Arc<Mutex<Option<Current>>>,
}

#[derive(Debug, Clone)]
pub(super) struct Current {
    view: watch::Receiver<View>,
    answers: mpsc::Sender<Answer>,
    /// Ends the job early.
    pub(super) stop: CancellationToken,
}

impl Current {
    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// False if an answer waits already.
    pub(super) fn answer(&self, answer: Answer) -> bool {
        self.answers.try_send(answer).is_ok()
    }
}

impl Desk {
    /// The job, going on or ended.
    pub(super) fn current(&self) -> Option<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a job, unless one goes on.
    pub(super) fn start(
        &self,
        order: Order,
        terms: Terms,
        tasks: &Tasks,
        scribe: Scribe,
        stop: CancellationToken,
    ) -> Option<View> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |current: &Current| matches!(current.view.borrow().state, State::Done | State::Failed);
        if !current.as_ref().is_none_or(is_over) {
            return None;
        }
        let kind = match order {
            Order::Scan => "scan",
            Order::Pair(_) => "pair",
        };
        let view = View { kind, state: State::Running, prompt: None, devices: vec![], error: None };
        let (views, shown) = watch::channel(view.clone());
        let (answers, answered) = mpsc::channel(ANSWERS);
        *current = Some(Current { view: shown, answers, stop: stop.clone() });
        tasks.spawn(format!("bluetooth {kind}"), Role::Helper, run(order, terms, views, answered, scribe, stop));
        Some(view)
    }
}

async fn run(
    order: Order,
    terms: Terms,
    views: watch::Sender<View>,
    answers: mpsc::Receiver<Answer>,
    scribe: Scribe,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let done = match &order {
        Order::Scan => scan(&terms, &views, &stop).await,
        Order::Pair(named) => pair(named, &terms, &views, answers, &stop).await,
    };
    // Before the end is shown: who sees it finds the row.
    if let Order::Pair(named) = order {
        let found = views.borrow().devices.first().map(|device| device.address.clone());
        let failure = done.as_ref().err().map(ToString::to_string);
        scribe.write(AuditAction::BluetoothPair, found.unwrap_or_else(|| named.to_string()), failure).await;
    }
    views.send_modify(|view| {
        view.prompt = None;
        view.state = if done.is_ok() { State::Done } else { State::Failed };
        view.error = done.err().map(|error| {
            warn!(job = view.kind, %error, "a Bluetooth job of the API failed");
            error.to_string()
        });
    });
    Ok(())
}

async fn scan(terms: &Terms, views: &watch::Sender<View>, stop: &CancellationToken) -> Result<(), BluezError> {
    let bluez = Bluez::connect().await?;
    let mut scan = Scan::start(&bluez, terms.adapter.as_deref()).await?;
    let listening = async {
        loop {
            let devices = scan.look().await?;
            show(views, &records(&devices, terms));
        }
    };
    tokio::select! {
        biased;
        // Ended early is as good as ended: what was heard is shown.
        () = stop.cancelled() => {}
        () = tokio::time::sleep(terms.listening) => {}
        failed = listening => return failed,
    }
    let devices = scan.end().await?;
    show(views, &records(&devices, terms));
    Ok(())
}

fn records(devices: &[Device], terms: &Terms) -> Vec<Record> {
    devices.iter().map(|device| Record::of(device, &terms.models)).collect()
}

fn show(views: &watch::Sender<View>, devices: &[Record]) {
    views.send_modify(|view| view.devices = devices.to_vec());
}

async fn pair(
    named: &Named,
    terms: &Terms,
    views: &watch::Sender<View>,
    mut answers: mpsc::Receiver<Answer>,
    stop: &CancellationToken,
) -> Result<(), BluezError> {
    let bluez = Bluez::connect().await?;
    let cancelled = || BluezError { doing: "pairing", cause: Cause::AuthenticationCanceled };
    let found = stop.run_until_cancelled(find(&bluez, terms.adapter.as_deref(), named, terms.listening)).await;
    let device = found.ok_or_else(cancelled)??;
    show(views, &[Record::of(&device, &terms.models)]);
    let mut pairing = Pairing::start(&bluez, device.peer.clone(), Capability::KeyboardDisplay).await?;
    let ended = stop.run_until_cancelled(drive(&mut pairing, views, &mut answers)).await;
    // Also after a stop: BlueZ would go on for a while, and refuse the next one meanwhile.
    pairing.end().await;
    ended.ok_or_else(cancelled)??;
    let device = bluez.device(&device.peer).await?;
    show(views, &records(device.as_slice(), terms));
    Ok(())
}

/// Follows the pairing to its end, showing questions and passing answers on.
async fn drive(
    pairing: &mut Pairing,
    views: &watch::Sender<View>,
    answers: &mut mpsc::Receiver<Answer>,
) -> Result<(), BluezError> {
    let mut asked: Option<AgentRequest> = None;
    loop {
        tokio::select! {
            biased;
            // The end comes first: after it no answer matters.
            step = pairing.next() => match step? {
                Step::Paired | Step::WasPaired => return Ok(()),
                Step::Asked(request) => asked = take(request, views).await?,
            },
            Some(answer) = answers.recv() => if let Some(request) = asked.take() {
                views.send_modify(|view| (view.state, view.prompt) = (State::Running, None));
                match answer {
                    Answer::Yes => request.accept().await?,
                    Answer::No => request.reject().await?,
                    Answer::Passkey(passkey) => request.passkey(passkey).await?,
                    Answer::Pin(pin) => request.pin(&pin).await?,
                }
            },
        }
    }
}

/// Answers what needs no person, and shows the rest.
async fn take(request: AgentRequest, views: &watch::Sender<View>) -> Result<Option<AgentRequest>, BluezError> {
    let (state, prompt) = match &request.question {
        // It is the device that was named in the request.
        Question::Authorize | Question::AuthorizeService { .. } => {
            request.accept().await?;
            return Ok(None);
        }
        Question::Confirm { passkey } => (State::Question, Some(Prompt::Compare { passkey: format!("{passkey:06}") })),
        Question::EnterPasskey => (State::Question, Some(Prompt::Passkey)),
        Question::EnterPin => (State::Question, Some(Prompt::Pin)),
        Question::ShowPasskey { passkey, .. } => {
            (State::Running, Some(Prompt::TypeAtDevice { passkey: format!("{passkey:06}") }))
        }
        Question::ShowPin { pin } => (State::Running, Some(Prompt::TypeAtDevice { passkey: pin.clone() })),
        Question::Cancelled => (State::Running, None),
    };
    views.send_modify(|view| (view.state, view.prompt) = (state, prompt));
    Ok((state == State::Question).then_some(request))
}

/// The answer to what is asked; words if it is none.
pub(super) fn answer_to(
    prompt: Option<&Prompt>,
    accept: Option<bool>,
    passkey: Option<&str>,
) -> Result<Answer, &'static str> {
    match (prompt, accept, passkey) {
        (Some(_), Some(false), None) => Ok(Answer::No),
        (Some(Prompt::Compare { .. }), Some(true), None) => Ok(Answer::Yes),
        (Some(Prompt::Passkey), None, Some(passkey)) => {
            parse_passkey(passkey).map(Answer::Passkey).ok_or("a passkey has up to six digits")
        }
        (Some(Prompt::Pin), None, Some(pin)) if !pin.is_empty() => Ok(Answer::Pin(pin.to_owned())),
        (Some(Prompt::Compare { .. }), ..) => Err("send {\"accept\": true} or {\"accept\": false}"),
        (Some(Prompt::Passkey | Prompt::Pin), ..) => Err("send {\"passkey\": \"...\"} or {\"accept\": false}"),
        (Some(Prompt::TypeAtDevice { .. }) | None, ..) => Err("nothing is asked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_to_fit_the_question() {
        let compare = Prompt::Compare { passkey: "000042".to_owned() };
        for (prompt, accept, passkey, fits) in [
            (Some(&compare), Some(true), None, true),
            (Some(&compare), Some(false), None, true),
            (Some(&compare), None, Some("42"), false),
            (Some(&Prompt::Passkey), None, Some("004711"), true),
            (Some(&Prompt::Passkey), None, Some("4711x"), false),
            (Some(&Prompt::Passkey), Some(true), None, false),
            (Some(&Prompt::Passkey), Some(false), None, true),
            (Some(&Prompt::Pin), None, Some("0000"), true),
            (Some(&Prompt::Pin), None, Some(""), false),
            (None, Some(true), None, false),
        ] {
            assert_eq!(answer_to(prompt, accept, passkey).is_ok(), fits, "{prompt:?} {accept:?} {passkey:?}");
        }
    }
}
