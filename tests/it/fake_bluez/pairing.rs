//! How the fake pairs: agents, the questions that it asks them, and what comes of the answers.

use zbus::message::{Header, Message, Type};

use super::{ADAPTER1, AGENT1, DEVICE1, Dictionary, Reply, World, object_path, reply};

/// Where agents are registered.
pub(super) const AGENT_MANAGER: &str = "/org/bluez";
/// A peer that gives up does so after so many turns.
const PATIENCE_TURNS: u64 = 20;

/// How a sensor pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// Without anything to see or to type.
    JustWorks,
    /// It shows this passkey, which is to be typed at the bridge.
    ShowsPasskey(u32),
    /// Both show this number.
    Compares(u32),
    /// The bridge shows this passkey, which is typed at the sensor.
    TypesPasskey(u32),
    /// It is not in pairing mode.
    Refuses,
    /// It never goes on.
    NeverAnswers,
    /// It asks, and gives up before it gets the answer.
    GivesUp,
}

/// A registered agent.
#[derive(Debug, Clone)]
pub(crate) struct RegisteredAgent {
    /// The D-Bus name of its program.
    pub(crate) client: String,
    /// Its path there.
    pub(crate) path: String,
    /// As it was registered: `NoInputNoOutput` and the like.
    pub(crate) capability: String,
}

/// A pairing that goes on.
pub(super) struct Ongoing {
    /// The object of the sensor.
    pub(super) path: String,
    /// The `Pair` or `StartNotify` that waits for it.
    pub(super) call: Message,
    agent: Option<RegisteredAgent>,
    /// The number of the question that waits for its answer.
    asked: Option<u32>,
    /// When the peer gives up, or has typed its passkey.
    ends_at: Option<u64>,
}

impl World {
    pub(super) fn agent_call(&mut self, message: &Message, member: &str) -> Reply {
        let header = message.header();
        let client = header.sender().unwrap().to_string();
        let place = self.agents.iter().position(|agent| agent.client == client);
        match (member, place) {
            ("RegisterAgent", _) if self.refuses_agents => {
                return Err(("org.bluez.Error.NotPermitted", "not by this user"));
            }
            ("RegisterAgent", None) => {
                let (path, capability): (zbus::OwnedObjectPath, String) = message.body().deserialize().unwrap();
                self.agents.push(RegisteredAgent { client, path: path.to_string(), capability });
            }
            ("RegisterAgent", Some(_)) => return Err(("org.bluez.Error.AlreadyExists", "Already Exists")),
            (_, None) => return Err(("org.bluez.Error.DoesNotExist", "Does Not Exist")),
            ("RequestDefaultAgent", Some(_)) => {
                self.default_agents.retain(|other| *other != client);
                self.default_agents.push(client);
            }
            ("UnregisterAgent", Some(place)) => {
                self.agents.remove(place);
                self.default_agents.retain(|other| *other != client);
            }
            _ => return Err(("org.freedesktop.DBus.Error.UnknownMethod", "Method does not exist")),
        }
        reply(&header, &())
    }

    /// A program left the bus, and its agent with it.
    pub(super) fn agents_left(&mut self, client: &str) {
        self.agents.retain(|agent| agent.client != client);
        self.default_agents.retain(|other| *other != client);
    }

    /// The agent of this program; that of the system if it has none, as in BlueZ.
    fn agent_of(&self, client: Option<&str>) -> Option<RegisteredAgent> {
        let find = |name: &str| self.agents.iter().find(|agent| agent.client == name).cloned();
        client.and_then(find).or_else(|| find(self.default_agents.last()?))
    }

    /// `Pair`.
    pub(super) fn pair(&mut self, message: &Message, path: &str) -> Reply {
        if !self.powered {
            return Err(("org.bluez.Error.NotReady", "Resource Not Ready"));
        }
        if self.strap_at(path).bonded {
            return Err(("org.bluez.Error.AlreadyExists", "Already Exists"));
        }
        if self.pairing.is_some() {
            return Err(("org.bluez.Error.InProgress", "In Progress"));
        }
        let client = message.header().sender().unwrap().to_string();
        let agent = self.agent_of(Some(&client));
        if self.strap_at(path).in_range {
            self.link(path);
        }
        self.begin(message, path, agent)
    }

    /// A subscription to an encrypted characteristic: the sensor demands a pairing, which asks the default agent. Without
    /// one nobody answers, until BlueZ's own limit.
    pub(super) fn pair_for(&mut self, message: &Message, path: &str) -> Reply {
        let agent = self.agent_of(None);
        match (&agent, &self.pairing) {
            (Some(_), None) => self.begin(message, path, agent),
            _ => Ok(None),
        }
    }

    fn begin(&mut self, message: &Message, path: &str, agent: Option<RegisteredAgent>) -> Reply {
        let (pairs, in_range, turn) = (self.strap_at(path).pairs, self.strap_at(path).in_range, self.turn);
        let device = self.strap_at(path).path();
        let mut ongoing = Ongoing { path: device.clone(), call: message.clone(), agent, asked: None, ends_at: None };
        let path = object_path(&device);
        match pairs {
            _ if !in_range => {}
            Pairs::NeverAnswers => {}
            Pairs::Refuses => return Err(("org.bluez.Error.AuthenticationFailed", "Authentication Failed")),
            Pairs::JustWorks => self.ask(&mut ongoing, "RequestAuthorization", &path),
            Pairs::ShowsPasskey(_) => self.ask(&mut ongoing, "RequestPasskey", &path),
            Pairs::Compares(number) => self.ask(&mut ongoing, "RequestConfirmation", &(&path, number)),
            Pairs::TypesPasskey(passkey) => {
                self.ask(&mut ongoing, "DisplayPasskey", &(&path, passkey, 0_u16));
                ongoing.ends_at = Some(turn + PATIENCE_TURNS);
            }
            Pairs::GivesUp => {
                self.ask(&mut ongoing, "RequestPasskey", &path);
                ongoing.ends_at = Some(turn + PATIENCE_TURNS);
            }
        }
        self.pairing = Some(ongoing);
        Ok(None)
    }

    /// Asks the agent of this pairing. One that can neither show nor type is asked for nothing but authorization.
    fn ask<B: serde::Serialize + zbus::DynamicType>(&mut self, ongoing: &mut Ongoing, member: &str, body: &B) {
        let Some(agent) = &ongoing.agent else { return };
        let call = Message::method_call(agent.path.as_str(), member).and_then_build(agent, body);
        ongoing.asked = Some(call.primary_header().serial_num().get());
        self.outgoing.push(call);
    }

    /// An answer of an agent.
    pub(super) fn answered(&mut self, message: &Message) {
        let serial = message.header().reply_serial().map(std::num::NonZeroU32::get);
        let Some(ongoing) = self.pairing.take_if(|ongoing| ongoing.asked.is_some() && ongoing.asked == serial) else {
            return;
        };
        let accepted = message.message_type() == Type::MethodReturn;
        let right = match self.strap_at(&ongoing.path).pairs {
            // What counts is whether it is typed there; or it has stopped listening.
            Pairs::TypesPasskey(_) | Pairs::GivesUp => return self.pairing = Some(ongoing),
            Pairs::ShowsPasskey(passkey) => accepted && message.body().deserialize::<u32>().ok() == Some(passkey),
            _ => accepted,
        };
        let result =
            if right { Ok(()) } else { Err(("org.bluez.Error.AuthenticationFailed", "Authentication Failed")) };
        self.paired(&ongoing, result);
    }

    /// One turn of a pairing.
    pub(super) fn turn_pairing(&mut self) {
        let turn = self.turn;
        let Some(ongoing) = self.pairing.take_if(|ongoing| ongoing.ends_at.is_some_and(|at| at <= turn)) else {
            return;
        };
        if matches!(self.strap_at(&ongoing.path).pairs, Pairs::GivesUp) {
            self.tell_cancel(&ongoing);
            self.paired(&ongoing, Err(("org.bluez.Error.AuthenticationTimeout", "Authentication Timeout")));
        } else {
            self.paired(&ongoing, Ok(()));
        }
    }

    fn tell_cancel(&mut self, ongoing: &Ongoing) {
        if let Some(agent) = &ongoing.agent {
            self.outgoing.push(Message::method_call(agent.path.as_str(), "Cancel").and_then_build(agent, &()));
        }
    }

    /// `CancelPairing`, or the link has gone.
    pub(super) fn cancel_pairing(&mut self, path: &str) -> Result<(), (&'static str, &'static str)> {
        let Some(ongoing) = self.pairing.take_if(|ongoing| path.starts_with(&ongoing.path)) else {
            return Err(("org.bluez.Error.DoesNotExist", "Does Not Exist"));
        };
        self.tell_cancel(&ongoing);
        self.paired(&ongoing, Err(("org.bluez.Error.AuthenticationCanceled", "Authentication Canceled")));
        Ok(())
    }

    /// The end of a pairing.
    fn paired(&mut self, ongoing: &Ongoing, result: Result<(), (&'static str, &'static str)>) {
        let is_pair = ongoing.call.header().member().is_some_and(|member| member == "Pair");
        if result.is_ok() {
            self.strap_at(&ongoing.path).bonded = true;
            let changed = Dictionary::from([("Paired", true.into()), ("Bonded", true.into())]);
            self.changed(&ongoing.path, DEVICE1, changed);
        }
        let call_path = ongoing.call.header().path().unwrap().to_string();
        let answer = match result {
            Ok(()) if is_pair => reply(&ongoing.call.header(), &()),
            Ok(()) => self.start_notify(&ongoing.call, &call_path),
            Err(error) if is_pair => Err(error),
            Err(_) => Err(("org.bluez.Error.Failed", "Operation failed with ATT error: 0x05")),
        };
        self.send_reply(&ongoing.call, answer);
    }

    /// `Set` of a property that may be set.
    pub(super) fn set(&mut self, message: &Message, path: &str) -> Reply {
        let body = message.body();
        let (interface, name, value): (String, String, zbus::Variant<'_>) = body.deserialize().unwrap();
        let header: Header<'_> = message.header();
        match (interface.as_str(), name.as_str(), bool::try_from(&value)) {
            (ADAPTER1, "Powered", Ok(_)) if self.rfkill => {
                return Err(("org.bluez.Error.Blocked", "Blocked through rfkill"));
            }
            (ADAPTER1, "Powered", Ok(on)) => self.power(on),
            (DEVICE1, "Trusted", Ok(on)) => {
                self.strap_at(path).trusted = on;
                self.changed(path, DEVICE1, Dictionary::from([("Trusted", on.into())]));
            }
            _ => return Err(("org.freedesktop.DBus.Error.InvalidArgs", "No such property")),
        }
        reply(&header, &())
    }
}

/// A method call to an agent.
trait ToAgent {
    fn and_then_build<B: serde::Serialize + zbus::DynamicType>(self, agent: &RegisteredAgent, body: &B) -> Message;
}

impl ToAgent for zbus::message::Builder<'_> {
    fn and_then_build<B: serde::Serialize + zbus::DynamicType>(self, agent: &RegisteredAgent, body: &B) -> Message {
        self.destination(agent.client.clone()).interface(AGENT1).build(body).unwrap()
    }
}
