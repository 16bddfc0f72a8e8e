//! Commands that come by the broker: those on the list, carried out by the pipeline and answered on a topic of their own.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::command::{Command, Members, NAMES};
use crate::event::{AuditAction, AuditEvent, AuditResult};
use crate::hub::Scope;
use crate::ids::Seq;
use crate::pipeline::{self, Control, Done, Refusal};
use crate::vitals::Mode;
use crate::wire::{self, CommandResult, No, RESULT, Refused, Yes};

/// The `{kind}` of the topic that is listened to.
pub(super) const COMMANDS: &str = "cmd";

/// The `{kind}` of the topic of answers.
pub(super) const RESULTS: &str = "cmd_result";

/// Commands under way at once. One more is answered as `busy`.
pub(super) const MAX_COMMANDS: usize = 16;

/// Answers that the broker has not confirmed. A command that would make more is dropped without one: a flood.
pub(super) const MAX_REPLIES: usize = 2 * MAX_COMMANDS;

/// Longest command, in bytes. A longer one is refused.
const MAX_COMMAND_BYTES: usize = 16 * 1024;

/// Longest name of a person, in bytes.
const MAX_BY_BYTES: usize = 100;

/// Longest `correlation_id` that is kept for the answer, in characters.
const MAX_CORRELATION_ID: usize = 64;

/// Longest name of a command that is noted, in characters.
const MAX_NAME: usize = 64;

/// An answer waits so long for the disk, and then says `durable: false`.
const DURABLE_DEADLINE: Duration = Duration::from_secs(5);

/// Who may do what by the broker.
#[derive(Debug, Clone)]
pub struct Downlink {
    /// The names of the commands that are taken.
    pub allow: Vec<String>,
    /// The pipeline.
    pub control: mpsc::Sender<Control>,
}

/// A message on the topic of commands.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Where it came.
    pub(super) topic: String,
    /// What it says.
    pub(super) payload: Bytes,
    /// The broker kept it: nobody asks for it now.
    pub(super) is_retained: bool,
}

/// Does what a message asks; gives the text of the answer.
pub(super) async fn answer(
    downlink: Downlink,
    incoming: Incoming,
    durable: watch::Receiver<Seq>,
    clock: Clock,
) -> Result<String, serde_json::Error> {
    let parsed = parsed(&incoming);
    let nothing = Json::Null;
    let json = parsed.as_ref().unwrap_or(&nothing);
    let id: String = Members(json).correlation_id().unwrap_or_default().chars().take(MAX_CORRELATION_ID).collect();
    let wanted = parsed.as_ref().map_err(Clone::clone).and_then(|json| Wanted::of(&downlink, json));
    let done = match wanted {
        Ok(wanted) => carry_out(&downlink, wanted, durable).await,
        Err(refusal) => {
            audit(&downlink, json, &refusal).await;
            Err(refusal)
        }
    };
    text(done, &id, &clock)
}

/// The answer to a message that comes while there are enough.
pub(super) fn busy(clock: &Clock) -> Result<String, serde_json::Error> {
    text(Err(refusal("busy", "too many commands at once; ask again")), "", clock)
}

fn text(done: Result<wire::Done, Refusal>, id: &str, clock: &Clock) -> Result<String, serde_json::Error> {
    let data = match done {
        Ok(done) => CommandResult::Done(done),
        Err(Refusal { code, reason }) => CommandResult::Refused(Refused { ok: No, code, message: reason.into() }),
    };
    wire::frame(RESULT, &data, id, clock.now().wall)
}

fn refusal(code: &'static str, reason: impl Into<String>) -> Refusal {
    Refusal { code, reason: reason.into() }
}

fn parsed(incoming: &Incoming) -> Result<Json, Refusal> {
    if incoming.is_retained {
        return Err(refusal("retained", "a command is not kept on the broker: publish it without `retain`"));
    }
    if incoming.payload.len() > MAX_COMMAND_BYTES {
        return Err(refusal("format", format!("a command has at most {MAX_COMMAND_BYTES} bytes")));
    }
    serde_json::from_slice(&incoming.payload).map_err(|_| refusal("format", "a command is an object in JSON"))
}

/// A command that may be carried out.
struct Wanted {
    command: Command,
    by: String,
    key: Option<String>,
}

impl Wanted {
    fn of(downlink: &Downlink, json: &Json) -> Result<Self, Refusal> {
        let members = Members(json);
        // The list is looked at first: what is not on it is nobody's business.
        let name = members.text("name").unwrap_or_default();
        if NAMES.contains(&name) && !downlink.allow.iter().any(|allowed| allowed == name) {
            return Err(refusal("not_allowed", format!("`{name}` is not in mqtt.commands of this bridge")));
        }
        let by = person(members);
        let by =
            by.ok_or_else(|| refusal("validation", format!("`by` is the person, of 1 to {MAX_BY_BYTES} bytes")))?;
        let command = Command::read(members).map_err(|bad| refusal("validation", bad.to_string()))?;
        // One that can be given elsewhere only.
        if !NAMES.contains(&name) {
            return Err(refusal("not_allowed", format!("`{name}` is not in mqtt.commands of this bridge")));
        }
        Ok(Self { command, by, key: members.correlation_id() })
    }
}

/// The person, told apart from a user of the same name who signed in here.
fn person(members: Members<'_>) -> Option<String> {
    let by = members.text("by").map(str::trim).filter(|by| (1..=MAX_BY_BYTES).contains(&by.len()))?;
    Some(format!("mqtt:{by}"))
}

/// Notes a command that the pipeline never sees.
async fn audit(downlink: &Downlink, json: &Json, refusal: &Refusal) {
    let members = Members(json);
    let name: String = members.text("name").unwrap_or("unreadable").chars().take(MAX_NAME).collect();
    let audit = AuditEvent {
        by: person(members).unwrap_or_else(|| "mqtt".to_owned()),
        address: None,
        action: AuditAction::RemoteCommand,
        object: name,
        patient: None,
        device: None,
        source: None,
        result: AuditResult::Refused,
        reason: Some(refusal.reason.clone()),
        mode: Mode::Real,
    };
    // A closed pipeline means that the daemon is about to end; the refusal stands.
    let _ = downlink.control.send(Control::Audit(audit)).await;
}

async fn carry_out(
    downlink: &Downlink,
    wanted: Wanted,
    mut durable: watch::Receiver<Seq>,
) -> Result<wire::Done, Refusal> {
    let Wanted { command, by, key } = wanted;
    let Done { seq, is_kept } =
        pipeline::carry_out_once(&downlink.control, command, by, Scope::Everything, key).await?;
    let waiting = durable.wait_for(|newest| *newest >= seq);
    let durable = is_kept && matches!(tokio::time::timeout(DURABLE_DEADLINE, waiting).await, Ok(Ok(_)));
    Ok(wire::Done { ok: Yes, seq, durable })
}

#[cfg(test)]
mod tests;
