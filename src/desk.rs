//! Orders of people to sources: who may give them, what became of them, and the row of the audit trail for each.
//!
//! The pipeline owns the desk; it hands each order to its source and is told the end of it. No order is without its row,
//! also one that was refused.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Stamp;
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult, NotDone, Order, OrderKind};
use crate::hub::Scope;
use crate::ids::{DeviceId, PatientId, Seq, SourceId, WardId};
use crate::notifier::Request;
use crate::vitals::Mode;

/// A command that has not reached its device by then is not sent any more: whoever asked may have turned away.
pub const ORDER_LIFE: Duration = Duration::from_secs(10);

/// Longest serial number or name of a command in an order, in bytes. A longer one is refused.
pub const MAX_OBJECT_BYTES: usize = 64;

/// Why a wish was not carried out: a code for programs and a reason for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// A word such as `permission_denied`, `stale` or `refused`; docs/protocol.md lists them.
    pub code: &'static str,
    /// In words.
    pub reason: String,
}

/// The last event that a command caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Its number.
    pub seq: Seq,
    /// The store has taken it and all others of the command. If not, a later number on disk says nothing about them.
    pub is_kept: bool,
}

/// What a command is answered with.
pub type Reply = oneshot::Sender<Result<Done, Refusal>>;

/// A wish of a person about the device of a source.
#[derive(Debug)]
pub struct Wish {
    /// Which source.
    pub source: SourceId,
    /// What.
    pub kind: OrderKind,
    /// Who.
    pub by: Actor,
    /// On which channels the person may do that.
    pub scope: Scope,
    /// The answer.
    pub reply: Reply,
    /// The person's name for it, if there is one.
    pub request: Option<Request>,
}

/// A source that takes orders.
#[derive(Debug)]
pub struct Counter {
    /// Its device.
    pub device: DeviceId,
    /// Whose device.
    pub patient: Option<PatientId>,
    /// Real, demo or test.
    pub mode: Mode,
    /// The way to it.
    pub orders: mpsc::Sender<Order>,
}

/// An end that has to be written down and told.
#[derive(Debug)]
pub struct Ended {
    /// The row.
    pub audit: AuditEvent,
    /// Who is told its number, or why it was not done.
    pub reply: Reply,
    /// The answer, but for the number of the row.
    pub answer: Result<(), Refusal>,
    /// The person's name for it, if there is one.
    pub request: Option<Request>,
}

/// Everything ordered and not yet answered. No longer than the queues of all sources together, because an order that
/// finds its source's queue full is refused.
#[derive(Debug, Default)]
pub struct Desk {
    counters: BTreeMap<SourceId, Counter>,
    waiting: BTreeMap<u64, (AuditEvent, Reply, Option<Request>)>,
    last: u64,
}

impl Desk {
    /// Orders for this source are taken from now on.
    pub fn open(&mut self, source: SourceId, counter: Counter) {
        self.counters.insert(source, counter);
    }

    /// Hands a wish to its source. `Some`: it ended here, refused.
    pub fn order(&mut self, wish: Wish, ward: impl Fn(&PatientId) -> Option<WardId>, now: Stamp) -> Option<Ended> {
        let Wish { source, kind, by, scope, reply, request } = wish;
        let counter = self.counters.get(&source);
        let audit = row(&source, counter, &kind, by);
        let counter = match admit(counter, &kind, &scope, ward) {
            Ok(counter) => counter,
            Err(refusal) => return Some(refused(audit, reply, refusal, request)),
        };
        self.last += 1;
        let order = Order { number: self.last, kind, until: now.mono + ORDER_LIFE };
        match counter.orders.try_send(order) {
            Ok(()) => {
                self.waiting.insert(self.last, (audit, reply, request));
                None
            }
            Err(error) => {
                let busy = matches!(error, mpsc::error::TrySendError::Full(_));
                let reason = if busy { "the source has orders enough; ask again" } else { "the source has ended" };
                let code = if busy { "busy" } else { "unavailable" };
                Some(refused(audit, reply, Refusal { code, reason: reason.to_owned() }, request))
            }
        }
    }

    /// A source says what became of an order.
    pub fn on_answer(&mut self, order: u64, result: Result<(), NotDone>) -> Option<Ended> {
        let (mut audit, reply, request) = self.waiting.remove(&order)?;
        let answer = match result {
            Ok(()) => Ok(()),
            Err(NotDone { code, reason, was_tried }) => {
                audit.result = if was_tried { AuditResult::Failed } else { AuditResult::Refused };
                audit.reason = Some(reason.clone());
                Err(Refusal { code, reason })
            }
        };
        Some(Ended { audit, reply, answer, request })
    }
}

fn row(source: &SourceId, counter: Option<&Counter>, kind: &OrderKind, by: Actor) -> AuditEvent {
    let (action, object) = match kind {
        OrderKind::Confirm { serial_number } => (AuditAction::DeviceConfirmed, serial_number),
        OrderKind::Command { command } => (AuditAction::DeviceCommand, command),
    };
    AuditEvent {
        by: by.user,
        address: by.address,
        action,
        object: object.chars().take(MAX_OBJECT_BYTES).collect(),
        patient: counter.and_then(|counter| counter.patient.clone()),
        device: counter.map(|counter| counter.device.clone()),
        source: Some(source.clone()),
        result: AuditResult::Done,
        reason: None,
        mode: counter.map_or(Mode::Real, |counter| counter.mode),
    }
}

/// The source of a wish, if the person may command it.
fn admit<'c>(
    counter: Option<&'c Counter>,
    kind: &OrderKind,
    scope: &Scope,
    ward: impl Fn(&PatientId) -> Option<WardId>,
) -> Result<&'c Counter, Refusal> {
    let refuse = |code, reason: &str| Err(Refusal { code, reason: reason.to_owned() });
    let patient = counter.and_then(|counter| counter.patient.as_ref());
    let routes: Vec<String> = match (counter, patient) {
        (None, _) => vec!["device".to_owned()],
        (Some(counter), None) => vec![format!("device/{}/status", counter.device)],
        (Some(counter), Some(patient)) => {
            let own = [format!("device/{}/status", counter.device), format!("patient/{patient}/device_status")];
            let inner = ward(patient).map(|ward| own.clone().map(|route| format!("ward/{ward}/{route}")));
            own.into_iter().chain(inner.into_iter().flatten()).collect()
        }
    };
    // Who may do nothing here does not learn which sources there are either.
    if !scope.allows(&routes) {
        return refuse("permission_denied", "your role does not allow this for this device");
    }
    let Some(counter) = counter else {
        return refuse("unknown_source", "there is no source of this name that takes orders");
    };
    let (OrderKind::Confirm { serial_number: object } | OrderKind::Command { command: object }) = kind;
    if object.is_empty() || object.len() > MAX_OBJECT_BYTES {
        return refuse("validation", "a serial number or a command has 1 to 64 bytes");
    }
    Ok(counter)
}

fn refused(mut audit: AuditEvent, reply: Reply, refusal: Refusal, request: Option<Request>) -> Ended {
    audit.result = AuditResult::Refused;
    audit.reason = Some(refusal.reason.clone());
    Ended { audit, reply, answer: Err(refusal), request }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk(queue: usize) -> (Desk, mpsc::Receiver<Order>) {
        let (orders, queue) = mpsc::channel(queue);
        let mut desk = Desk::default();
        let counter = Counter {
            device: "monitor".parse().unwrap(),
            patient: Some("P-1".parse().unwrap()),
            mode: Mode::Test,
            orders,
        };
        desk.open("port".parse().unwrap(), counter);
        (desk, queue)
    }

    fn wish(source: &str, scope: &[&str]) -> (Wish, oneshot::Receiver<Result<Done, Refusal>>) {
        let (reply, answer) = oneshot::channel();
        let wish = Wish {
            source: source.parse().unwrap(),
            kind: OrderKind::Command { command: "nibp_start".to_owned() },
            by: "lena".to_owned().into(),
            scope: Scope::Only(scope.iter().map(|pattern| pattern.parse().unwrap()).collect()),
            reply,
            request: None,
        };
        (wish, answer)
    }

    fn code(ended: Option<Ended>) -> &'static str {
        let ended = ended.unwrap();
        assert_eq!((ended.audit.by.as_str(), ended.audit.object.as_str()), ("lena", "nibp_start"));
        assert_eq!(ended.audit.result, AuditResult::Refused);
        assert_eq!(ended.audit.reason.as_ref(), ended.answer.as_ref().err().map(|refusal| &refusal.reason));
        ended.answer.unwrap_err().code
    }

    #[test]
    fn every_refusal_has_its_row() {
        let now = Stamp::default();
        let ward = |_: &PatientId| Some("icu".parse().unwrap());
        for (source, scope, expected) in [
            ("port", &[][..], "permission_denied"),
            ("port", &["patient/P-2/#"], "permission_denied"),
            ("elsewhere", &["#"], "unknown_source"),
            ("elsewhere", &["patient/P-1/#"], "permission_denied"),
        ] {
            let (mut desk, mut queue) = desk(1);
            assert_eq!(code(desk.order(wish(source, scope).0, ward, now)), expected, "{source} {scope:?}");
            assert!(queue.try_recv().is_err(), "{source} {scope:?}: it reached the source");
        }
        let (mut desk, queue) = desk(1);
        for scope in ["patient/P-1/#", "ward/icu/#"] {
            let ended = desk.order(wish("port", &[scope]).0, ward, now);
            if scope.starts_with("ward") { assert_eq!(code(ended), "busy") } else { assert!(ended.is_none()) }
        }
        drop(queue);
        assert_eq!(code(desk.order(wish("port", &["#"]).0, ward, now)), "unavailable");
    }

    #[test]
    fn the_end_of_an_order_is_written_down_once() {
        for (result, expected) in [
            (Ok(()), AuditResult::Done),
            (Err(NotDone { code: "failed", reason: "lost".into(), was_tried: true }), AuditResult::Failed),
            (Err(NotDone { code: "not_allowed", reason: "no".into(), was_tried: false }), AuditResult::Refused),
        ] {
            let (mut desk, mut queue) = desk(1);
            assert!(desk.order(wish("port", &["#"]).0, |_| None, Stamp::default()).is_none());
            let order = queue.try_recv().unwrap();
            let ended = desk.on_answer(order.number, result.clone()).unwrap();
            assert_eq!((ended.audit.result, ended.answer.is_ok()), (expected, result.is_ok()));
            assert_eq!(ended.audit.patient, Some("P-1".parse().unwrap()));
            assert!(desk.on_answer(order.number, Ok(())).is_none());
        }
    }
}
