//! What a session orders its socket to do, and what it is answered with.

use bytes::Bytes;

use crate::channel::Pattern;
use crate::command::Command;
use crate::hub::{Join, ListenerId, Scope};
use crate::ids::{Epoch, Seq};
use crate::outbox::Frame;
use crate::pipeline::{ChatAct, Receipt, Sign};
use crate::secret::Secret;
use crate::server::close::Close;
use crate::server::history::Query;
#[cfg(doc)]
use crate::server::session::Session;
use crate::store::PageWanted;

/// What the socket has to do.
#[derive(Debug)]
pub enum Action {
    /// Write a text message.
    Send(String),
    /// Write a message that many listeners share.
    SendShared(Frame),
    /// Write a binary message that many listeners share.
    SendBinary(Bytes),
    /// Write a ping.
    Ping,
    /// Check a token; answer with [`Session::on_token`].
    Verify(Secret),
    /// Find where to go on after an event; answer with [`Session::on_located`].
    Locate(Epoch, Seq),
    /// Join the hub; answer with [`Session::on_joined`].
    Join(Box<Join>),
    /// Read these events from disk, oldest first; answer with [`Session::on_replay`] and [`Session::on_replayed`].
    Replay {
        /// The event before the first.
        after: Seq,
        /// The last.
        through: Seq,
        /// Readings too; else only what is not one.
        readings: bool,
    },
    /// Read what was, while everything else goes on; answer with [`Session::on_history`]. One after the other.
    History(Box<Query>),
    /// Tell the pipeline that this user's client has everything of an alerts' channel up to this event.
    Acked(String, String, Seq),
    /// Leave these channels.
    Unsubscribe(ListenerId, Vec<Pattern>),
    /// Ask the pipeline; answer with [`Session::on_command_done`].
    Command(Box<CommandRequest>),
    /// Tell the pipeline that this listener shows alerts to people.
    Annunciate(ListenerId),
    /// Tell the pipeline what this listener says about alerts.
    Receipt(Receipt),
    /// Tell the pipeline that this user's client has these messages.
    Delivered(String, Vec<uuid::Uuid>),
    /// Ask the pipeline; answer with [`Session::on_chat_done`].
    Chat(Box<ChatOrder>),
    /// Tell the pipeline.
    Sign(Sign),
    /// Read a page of a conversation once everything up to an event is on disk; answer with [`Session::on_conversation`].
    Conversation {
        /// Answered under this.
        correlation_id: String,
        /// Which page.
        wanted: Box<PageWanted>,
        /// Wait for this event.
        through: Seq,
    },
    /// Ask the pipeline what this user has chosen; answer with [`Session::on_preferences`] and this correlation id.
    Preferences(String, String),
    /// Write the close frame and end.
    Close(Close),
}

/// What somebody does in a room that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatOrder {
    /// Answered under this.
    pub correlation_id: String,
    /// What.
    pub act: ChatAct,
    /// Who.
    pub by: String,
    /// On which channels that user may do it.
    pub scope: Scope,
}

/// What a person wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// Answered under this.
    pub correlation_id: String,
    /// Under this it is done once.
    pub key: String,
    /// What.
    pub command: Command,
    /// Who.
    pub by: String,
    /// On which channels that user may do it.
    pub scope: Scope,
}

/// Where a resume goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Everything after this one is replayed. `None`: the epoch is unknown here.
    pub after: Option<Seq>,
    /// Ranges after it that are no longer on disk.
    pub lost: Vec<(Seq, Seq)>,
}
