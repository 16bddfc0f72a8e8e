//! How messages are written on a connection: JSON, CBOR, or JSON with readings made short. A subprotocol names each.

pub mod cbor;
pub mod compact;
#[cfg(test)]
mod tests;

use crate::outbox::{Frame, Published};
use crate::server::session::Action;

/// A form of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// JSON text; also where no subprotocol was asked for.
    #[default]
    Json,
    /// The same envelope as CBOR, in binary messages.
    Cbor,
    /// JSON text, and readings as short lists.
    Compact,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Json, Self::Cbor, Self::Compact];

    /// The subprotocol.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Json => "vitals.v1.json",
            Self::Cbor => "vitals.v1.cbor",
            Self::Compact => "vitals.v1.compact",
        }
    }

    /// The form of a subprotocol.
    pub fn of_protocol(protocol: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.protocol() == protocol)
    }

    /// Writes a frame that only one client gets.
    pub fn own(self, text: String) -> Action {
        match self {
            Self::Json | Self::Compact => Action::Send(text),
            // What this server writes is JSON, so it always has a form in CBOR.
            Self::Cbor => cbor::from_json(&text).map_or(Action::Send(text), |bytes| Action::SendBinary(bytes.into())),
        }
    }

    /// The CBOR of an event, made once for all who want it.
    pub fn shared_cbor(published: &Published) -> Option<Frame> {
        let make =
            || std::str::from_utf8(&published.text).ok().and_then(cbor::from_json).map(|bytes| Frame::binary(&bytes));
        published.forms.cbor.get_or_init(make).clone()
    }
}
