//! How a connection ends, and why nothing more is read of it.

use crate::server::close::Close;
use crate::server::strict::Violation;

/// Why no more is read.
pub enum Ending {
    /// The other side went away.
    Gone,
    /// It said so, with this code or none, and waits for the answer.
    Closed(Option<u16>),
    /// It broke the protocol, and is told so.
    Wrong(Violation),
}

/// Why a connection ended.
pub enum End {
    /// The other side closed, with this code or none.
    Left(Option<u16>),
    /// The other side went away.
    Peer,
    /// We closed, for this reason.
    Ours(Close),
    /// We closed, because the client broke the protocol.
    Broke(Violation),
    /// A write took too long or failed.
    Write,
}

impl End {
    /// In words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Left(_) => "the other side closed",
            Self::Peer => "the other side went away without a close frame",
            Self::Ours(close) => close.name(),
            Self::Broke(_) => "the client broke the protocol",
            Self::Write => "a write took too long or failed",
        }
    }

    /// The code of the close frame; 1005 stands for a frame without one (RFC 6455, 7.4.1).
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Left(Some(code)) => Some(*code),
            Self::Left(None) => Some(1005),
            Self::Ours(close) => Some(close.code()),
            Self::Broke(violation) => Some(violation.code()),
            Self::Peer | Self::Write => None,
        }
    }
}
