//! What others may know of a session: its channels, its client, how far it has acknowledged, and what it asks for.

use super::Session;
use crate::channel::Pattern;
use crate::ids::{Epoch, Seq};
use crate::server::message::Unreadable;

/// Channels that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The channels.
    pub patterns: Vec<Pattern>,
    /// The last event that the client has, if it wants what came since.
    pub since: Option<(Epoch, Seq)>,
    /// Why it does not get them.
    pub refused: Option<String>,
}

impl Session {
    /// The channels it listens to.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// What the client calls itself in `authenticate`.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The newest event that the client has acknowledged: of those on alerts' channels that came to it, else as it says.
    pub fn acked_seq(&self) -> Option<Seq> {
        self.acking.newest_acked().or(self.acked)
    }

    /// What the client asked for since this was asked: it is written down.
    pub fn take_wanted(&mut self) -> Option<Wanted> {
        self.wanted.take().map(|wanted| *wanted)
    }

    /// Has it written down that the client asks for channels, or was refused them.
    pub(super) fn write_down(
        &mut self,
        patterns: &[Pattern],
        since: Option<&(Epoch, Seq)>,
        refused: Option<&Unreadable>,
    ) {
        let (patterns, since) = (patterns.to_vec(), since.cloned());
        self.wanted = Some(Box::new(Wanted { patterns, since, refused: refused.map(ToString::to_string) }));
    }
}
