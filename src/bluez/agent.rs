//! Answering BlueZ when a peer wants to pair (org.bluez.Agent1).
//!
//! Without an agent, an encrypted cuff cannot be read: BlueZ waits 30 s for one with each `StartNotify`.

use std::collections::BTreeSet;
use std::future::Future;
use std::num::NonZeroUsize;

use futures_util::StreamExt;
use tokio::sync::watch;
use tracing::{info, warn};
use zbus::message::{Message, Type};
use zbus::{DynamicType, MatchRule, MessageStream, OwnedObjectPath};

use super::address::BleAddress;
use super::client::Bluez;
use super::error::{BluezError, Cause};
use super::object::{Device, Peer, object_path};
use super::{AGENT_MANAGER1, AGENT1, BLUEZ, BUS};

/// Where BlueZ finds the agent on our connection.
const AGENT_PATH: &str = "/vitalbridge/agent";
/// Where BlueZ takes agents.
const MANAGER_PATH: &str = "/org/bluez";
/// Questions that wait; BlueZ asks one at a time.
const QUESTIONS_QUEUED: usize = 32;
/// Passkeys have six digits (Core 5.4, vol. 3 part C, 3.2.3).
const MAX_PASSKEY: u32 = 999_999;

/// What the agent can do, as BlueZ tells the peer (Core 5.4, vol. 3 part H, 2.3.5.1): it decides how they pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// Nobody is there: Just Works.
    NoInputNoOutput,
    /// A person reads and types: passkey either way, and comparison.
    KeyboardDisplay,
}

/// Whose questions come to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentRole {
    /// Those of every pairing that no other program has started: that of a sensor which demands encryption.
    Default,
    /// Only those of pairings that are started on its own connection.
    OwnPairings,
}

/// What BlueZ asks or tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Just Works: may it pair? Answer with [`AgentRequest::accept`].
    Authorize,
    /// Numeric comparison: does the device show this number? Answer with [`AgentRequest::accept`].
    Confirm {
        /// Six digits.
        passkey: u32,
    },
    /// Which number does the device show? Answer with [`AgentRequest::passkey`].
    EnterPasskey,
    /// Which code does the device (a classic one) have? Answer with [`AgentRequest::pin`].
    EnterPin,
    /// Show this number: it is to be typed at the device. Answered already.
    ShowPasskey {
        /// Six digits.
        passkey: u32,
        /// How many of them were typed so far.
        entered: u16,
    },
    /// Show this code: it is to be typed at the device. Answered already.
    ShowPin {
        /// The code.
        pin: String,
    },
    /// May it use a service? Answer with [`AgentRequest::accept`].
    AuthorizeService {
        /// The service.
        service: String,
    },
    /// The last question is void: the peer gave up, or BlueZ did. Answered already.
    Cancelled,
}

/// A question that waits for its answer. Dropping it leaves BlueZ waiting until its own limit of 60 s.
#[derive(Debug)]
pub struct AgentRequest {
    /// Who wants to pair; `None` for [`Question::Cancelled`].
    pub peer: Option<Peer>,
    /// What is asked.
    pub question: Question,
    call: Message,
    bluez: Bluez,
}

impl AgentRequest {
    /// Yes.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn accept(&self) -> Result<(), BluezError> {
        self.answer(&()).await
    }

    /// The number that the device shows.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn passkey(&self, passkey: u32) -> Result<(), BluezError> {
        self.answer(&passkey.min(MAX_PASSKEY)).await
    }

    /// The code of the device.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn pin(&self, pin: &str) -> Result<(), BluezError> {
        self.answer(&pin).await
    }

    /// No.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn reject(&self) -> Result<(), BluezError> {
        refuse(&self.bluez, &self.call, "org.bluez.Error.Rejected", "not wanted here").await
    }

    async fn answer<B: serde::Serialize + DynamicType + Sync>(&self, body: &B) -> Result<(), BluezError> {
        let sent = async { self.bluez.connection().reply(&self.call.header(), body).await };
        sending(&self.bluez, sent).await
    }
}

async fn refuse(bluez: &Bluez, call: &Message, name: &str, text: &str) -> Result<(), BluezError> {
    sending(bluez, async { bluez.connection().reply_error(&call.header(), name, &text).await }).await
}

async fn sending(bluez: &Bluez, sent: impl Future<Output = zbus::Result<()>>) -> Result<(), BluezError> {
    let doing = "answering BlueZ's pairing question";
    let limit = bluez.limits().call;
    match tokio::time::timeout(limit, sent).await {
        Ok(sent) => sent.map_err(|error| BluezError::from_bus(doing, &error)),
        Err(_) => Err(BluezError::new(doing, Cause::Timeout(limit))),
    }
}

/// The devices that may pair without anybody being asked: those that somebody has configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    /// By address.
    pub addresses: BTreeSet<BleAddress>,
    /// By advertised name, in full. Whoever advertises chooses it: an address is the safer choice.
    pub names: BTreeSet<String>,
    /// Those that had a bond once. Who has lost it is paired again by a person only: whoever imitates a sensor would
    /// say the same.
    pub bonded_before: BTreeSet<BleAddress>,
    /// The same of the names by which they are configured: under such a name nobody else is let in, whatever its address.
    pub bonded_names: BTreeSet<String>,
}

/// Why a device is not let in while nobody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// BlueZ does not know it, or cannot be asked.
    Unknown,
    /// It is in no configuration.
    NotConfigured,
    /// It had a bond, which one of the two sides has lost.
    BondedBefore,
    /// The method protects against a man in the middle by a person who looks.
    TakesAPerson,
}

impl Refusal {
    const fn words(self) -> &'static str {
        match self {
            Self::Unknown => "BlueZ does not tell who it is",
            Self::NotConfigured => "it is not configured; to add it: `vitalbridge pair ADDRESS`",
            Self::BondedBefore => {
                "it was bonded before, and a lost bond is not made again by itself: `vitalbridge devices remove ADDRESS`, \
                 then `vitalbridge pair ADDRESS`"
            }
            Self::TakesAPerson => "it wants a person to look or to type: `vitalbridge pair ADDRESS`",
        }
    }
}

impl Configured {
    /// Whether this device is one of them.
    pub fn has(&self, address: BleAddress, name: Option<&str>) -> bool {
        self.addresses.contains(&address) || name.is_some_and(|name| self.names.contains(name))
    }

    /// What is answered while nobody is there: yes to a first pairing by Just Works with a configured device, and to a
    /// service of one that is bonded.
    fn verdict(&self, question: &Question, device: Option<&Device>) -> Result<(), Refusal> {
        let device = device.ok_or(Refusal::Unknown)?;
        let identities = [device.peer.address, device.address];
        let name = device.name.as_deref();
        let by_address = identities.iter().any(|address| self.has(*address, None));
        if !by_address && !self.has(device.peer.address, name) {
            return Err(Refusal::NotConfigured);
        }
        match question {
            Question::AuthorizeService { .. } if device.bonded => Ok(()),
            Question::Authorize if device.bonded => Err(Refusal::BondedBefore),
            Question::Authorize if identities.iter().any(|address| self.bonded_before.contains(address)) => {
                Err(Refusal::BondedBefore)
            }
            Question::Authorize if !by_address && name.is_some_and(|name| self.bonded_names.contains(name)) => {
                Err(Refusal::BondedBefore)
            }
            Question::Authorize => Ok(()),
            _ => Err(Refusal::TakesAPerson),
        }
    }
}

/// A registered agent; ends with this value.
#[derive(Debug)]
pub struct Agent {
    bluez: Bluez,
    capability: Capability,
    role: AgentRole,
    calls: MessageStream,
    owners: MessageStream,
    /// The D-Bus name of the bluetoothd that knows this agent; empty while there is none.
    owner: String,
    /// bluetoothd is new, and does not know this agent yet.
    is_unknown: bool,
}

impl Agent {
    pub(super) async fn register(bluez: &Bluez, capability: Capability, role: AgentRole) -> Result<Self, BluezError> {
        let bluez = bluez.another().await?;
        let doing = "preparing the pairing agent";
        let failed = |error| BluezError::from_bus(doing, &error);
        let queued = NonZeroUsize::new(QUESTIONS_QUEUED);
        let calls = MatchRule::builder().msg_type(Type::MethodCall).interface(AGENT1).build().map_err(failed)?;
        let calls = MessageStream::for_match_rule(calls, bluez.connection(), queued).await.map_err(failed)?;
        let owners = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS)
            .interface(BUS)
            .member("NameOwnerChanged")
            .arg(0, BLUEZ)
            .build()
            .map_err(failed)?;
        let watching = MessageStream::for_match_rule(owners, bluez.connection(), queued);
        let owners = match tokio::time::timeout(bluez.limits().call, watching).await {
            Ok(watching) => watching.map_err(failed)?,
            Err(_) => return Err(BluezError::new(doing, Cause::Timeout(bluez.limits().call))),
        };
        let mut agent = Self { bluez, capability, role, calls, owners, owner: String::new(), is_unknown: false };
        agent.introduce().await?;
        Ok(agent)
    }

    /// Its connection: pairings that are started on it ask this agent.
    pub const fn bluez(&self) -> &Bluez {
        &self.bluez
    }

    /// Makes bluetoothd know this agent.
    async fn introduce(&mut self) -> Result<(), BluezError> {
        let limit = self.bluez.limits().call;
        let path = object_path(AGENT_PATH);
        let capability = match self.capability {
            Capability::NoInputNoOutput => "NoInputNoOutput",
            Capability::KeyboardDisplay => "KeyboardDisplay",
        };
        let doing = "registering the pairing agent";
        let body = (&path, capability);
        let call = self.bluez.call(doing, limit, MANAGER_PATH, AGENT_MANAGER1, "RegisterAgent", &body).await;
        // It may know it already, if this was asked before and the answer was not waited for.
        if let Err(error) = call
            && error.cause != Cause::AlreadyExists
        {
            return Err(error);
        }
        if self.role == AgentRole::Default {
            let doing = "becoming the default pairing agent";
            self.bluez.call(doing, limit, MANAGER_PATH, AGENT_MANAGER1, "RequestDefaultAgent", &path).await?;
        }
        self.owner = self.bluez.ask_bus("asking who bluetoothd is", "GetNameOwner", &BLUEZ).await?;
        self.is_unknown = false;
        Ok(())
    }

    /// The next question. A bluetoothd that comes back gets to know this agent again. May be dropped while it waits.
    ///
    /// # Errors
    /// The bus is gone; or a new bluetoothd does not take the agent, which the next call tries again.
    pub async fn next(&mut self) -> Result<AgentRequest, BluezError> {
        loop {
            if self.is_unknown {
                match self.introduce().await {
                    // It has gone again, and a signal says so.
                    Err(BluezError { cause: Cause::ServiceUnknown, .. }) => self.is_unknown = false,
                    introduced => introduced?,
                }
            }
            let message = tokio::select! {
                biased;
                // First, so that a question of a new bluetoothd is not taken for one of somebody else.
                change = self.owners.next() => {
                    self.owner_changed(&heard(change)?);
                    continue;
                }
                call = self.calls.next() => heard(call)?,
            };
            if let Some(request) = self.read(message).await? {
                return Ok(request);
            }
        }
    }

    fn owner_changed(&mut self, signal: &Message) {
        let body = signal.body();
        if let Ok((_, _, new)) = body.deserialize::<(String, String, String)>() {
            self.is_unknown = !new.is_empty() && new != self.owner;
            self.owner = new;
        }
    }

    /// A method call as a request, if it is one; what needs no answer of a person is answered here.
    async fn read(&self, call: Message) -> Result<Option<AgentRequest>, BluezError> {
        let header = call.header();
        let is_bluez = header.sender().is_some_and(|sender| sender.as_str() == self.owner);
        if !is_bluez || header.path().is_none_or(|path| path.as_str() != AGENT_PATH) {
            warn!("somebody who is not bluetoothd called the pairing agent");
            refuse(&self.bluez, &call, "org.bluez.Error.Rejected", "only BlueZ is answered").await?;
            return Ok(None);
        }
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        drop(header);
        let Some((peer, question)) = question(&member, &call) else {
            let unknown = "org.freedesktop.DBus.Error.UnknownMethod";
            // `Release` says that BlueZ has let go of the agent, as it does when it ends.
            if member == "Release" {
                sending(&self.bluez, async { self.bluez.connection().reply(&call.header(), &()).await }).await?;
            } else {
                refuse(&self.bluez, &call, unknown, "not a question to a pairing agent").await?;
            }
            return Ok(None);
        };
        let request = AgentRequest { peer, question, call, bluez: self.bluez.clone() };
        if matches!(request.question, Question::ShowPasskey { .. } | Question::ShowPin { .. } | Question::Cancelled) {
            request.accept().await?;
        }
        Ok(Some(request))
    }

    /// Answers as the daemon does, with nobody there: by what is configured at the moment of the question. Ends only with
    /// an error.
    ///
    /// # Errors
    /// The bus is gone; or a bluetoothd that came back does not take the agent.
    pub async fn serve(&mut self, configured: &watch::Receiver<Configured>) -> Result<(), BluezError> {
        loop {
            let request = self.next().await?;
            let Some(peer) = &request.peer else { continue };
            // A device that cannot be asked about is not known to be configured.
            let device = self.bluez.device(peer).await.unwrap_or_else(|error| {
                warn!(%peer, %error, "cannot find out who wants to pair");
                None
            });
            let verdict = configured.borrow().verdict(&request.question, device.as_ref());
            match verdict {
                Ok(()) => {
                    info!(%peer, question = ?request.question, "a configured device pairs");
                    request.accept().await?;
                }
                Err(refusal) => {
                    warn!(%peer, question = ?request.question, reason = refusal.words(), "a pairing was refused");
                    request.reject().await?;
                }
            }
        }
    }

    /// Ends it. Dropping does too, as soon as BlueZ notices that the connection has gone.
    ///
    /// # Errors
    /// See [`Cause`]; a bluetoothd that is gone is none.
    pub async fn unregister(self) -> Result<(), BluezError> {
        let (doing, limit) = ("unregistering the pairing agent", self.bluez.limits().call);
        let path = object_path(AGENT_PATH);
        let call = self.bluez.call(doing, limit, MANAGER_PATH, AGENT_MANAGER1, "UnregisterAgent", &path).await;
        match call {
            Err(BluezError { cause: Cause::ServiceUnknown | Cause::UnknownObject, .. }) => Ok(()),
            done => done.map(drop),
        }
    }
}

/// A passkey from its digits; `None` if it is none.
pub fn parse_passkey(text: &str) -> Option<u32> {
    let all = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|passkey| all && *passkey <= MAX_PASSKEY)
}

fn heard(message: Option<zbus::Result<Message>>) -> Result<Message, BluezError> {
    let doing = "waiting for BlueZ's pairing questions";
    match message {
        Some(message) => message.map_err(|error| BluezError::from_bus(doing, &error)),
        None => Err(BluezError::new(doing, Cause::NoBus("the connection was closed".to_owned()))),
    }
}

/// What a method call of Agent1 asks (BlueZ, doc/agent-api.txt).
fn question(member: &str, call: &Message) -> Option<(Option<Peer>, Question)> {
    let body = call.body();
    let device = |path: &OwnedObjectPath| Peer::from_path(path.as_str());
    let alone = |question: Question| {
        let path: OwnedObjectPath = body.deserialize().ok()?;
        Some((Some(device(&path)?), question))
    };
    match member {
        "RequestAuthorization" => alone(Question::Authorize),
        "RequestPasskey" => alone(Question::EnterPasskey),
        "RequestPinCode" => alone(Question::EnterPin),
        "RequestConfirmation" => {
            let (path, passkey): (OwnedObjectPath, u32) = body.deserialize().ok()?;
            Some((Some(device(&path)?), Question::Confirm { passkey }))
        }
        "DisplayPasskey" => {
            let (path, passkey, entered): (OwnedObjectPath, u32, u16) = body.deserialize().ok()?;
            Some((Some(device(&path)?), Question::ShowPasskey { passkey, entered }))
        }
        "DisplayPinCode" => {
            let (path, pin): (OwnedObjectPath, String) = body.deserialize().ok()?;
            Some((Some(device(&path)?), Question::ShowPin { pin }))
        }
        "AuthorizeService" => {
            let (path, service): (OwnedObjectPath, String) = body.deserialize().ok()?;
            Some((Some(device(&path)?), Question::AuthorizeService { service }))
        }
        "Cancel" => Some((None, Question::Cancelled)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn device(address: &str, name: &str) -> Device {
        let address: BleAddress = address.parse().unwrap();
        Device {
            peer: Peer { adapter: "hci0".to_owned(), address },
            address,
            name: Some(name.to_owned()),
            paired: false,
            bonded: false,
            trusted: false,
            blocked: false,
            connected: true,
            resolved: false,
            rssi: None,
            tx_power: None,
            battery: None,
            services: vec![],
            manufacturer_data: BTreeMap::new(),
            service_data: BTreeMap::new(),
        }
    }

    #[test]
    fn a_passkey_is_up_to_six_digits() {
        for (text, expected) in [("004711", Some(4711)), ("0", Some(0)), ("999999", Some(999_999))] {
            assert_eq!(parse_passkey(text), expected);
        }
        for bad in ["", "1000000", "+12345", "12 345", "12a"] {
            assert_eq!(parse_passkey(bad), None, "{bad}");
        }
    }

    #[test]
    fn with_nobody_there_only_a_first_pairing_by_just_works_with_a_configured_device_is_accepted() {
        let address = |text: &str| text.parse::<BleAddress>().unwrap();
        let configured = Configured {
            addresses: BTreeSet::from([address("C0:FF:EE:00:00:01"), address("C0:FF:EE:00:00:04")]),
            names: ["Cuff 1", "Cuff 5"].map(ToOwned::to_owned).into(),
            bonded_names: BTreeSet::from(["Cuff 5".to_owned()]),
            bonded_before: BTreeSet::from([address("C0:FF:EE:00:00:04")]),
        };
        let ours = device("C0:FF:EE:00:00:01", "whatever");
        let named = device("C0:FF:EE:00:00:02", "Cuff 1");
        let imitator = device("C0:FF:EE:00:00:05", "Cuff 5");
        let ours_of_that_name = device("C0:FF:EE:00:00:01", "Cuff 5");
        let foreign = device("C0:FF:EE:00:00:03", "Cuff 12");
        let bonded = Device { bonded: true, ..ours.clone() };
        let foreign_bonded = Device { bonded: true, ..foreign.clone() };
        let forgotten = device("C0:FF:EE:00:00:04", "Cuff 4");
        // A device with a random address has told who it is.
        let known_as = Device { address: address("C0:FF:EE:00:00:04"), ..ours.clone() };
        let service = || Question::AuthorizeService { service: String::new() };
        for (question, device, verdict) in [
            (Question::Authorize, Some(&ours), Ok(())),
            (Question::Authorize, Some(&named), Ok(())),
            (Question::Authorize, Some(&imitator), Err(Refusal::BondedBefore)),
            (Question::Authorize, Some(&ours_of_that_name), Ok(())),
            (Question::Authorize, Some(&foreign), Err(Refusal::NotConfigured)),
            (Question::Authorize, None, Err(Refusal::Unknown)),
            (Question::Authorize, Some(&bonded), Err(Refusal::BondedBefore)),
            (Question::Authorize, Some(&forgotten), Err(Refusal::BondedBefore)),
            (Question::Authorize, Some(&known_as), Err(Refusal::BondedBefore)),
            (Question::Confirm { passkey: 123_456 }, Some(&ours), Err(Refusal::TakesAPerson)),
            (Question::EnterPasskey, Some(&ours), Err(Refusal::TakesAPerson)),
            (service(), Some(&ours), Err(Refusal::TakesAPerson)),
            (service(), Some(&bonded), Ok(())),
            (service(), Some(&foreign_bonded), Err(Refusal::NotConfigured)),
        ] {
            assert_eq!(configured.verdict(&question, device), verdict, "{question:?} {device:?}");
        }
    }
}
