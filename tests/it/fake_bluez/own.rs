//! What a sensor with a protocol of its maker's does: UUIDs of its own, answers to what is written, a stream that needs a command.

use std::collections::VecDeque;

use super::sensor::Strap;

/// The behaviour of such a sensor.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// The UUIDs behind the 16-bit numbers by which the test calls its services and characteristics.
    pub(crate) uuids: Vec<(u16, &'static str)>,
    /// Notifications that it sends one after the other and again from the beginning.
    pub(crate) cycle: Vec<Vec<u8>>,
    /// Turns from one notification to the next; `None`: as a strap.
    pub(crate) beat_turns: Option<u64>,
    /// What it sends when this is written to it.
    pub(crate) answers: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// It sends only so many turns after this was written to it.
    pub(crate) needs: Option<(Vec<u8>, u64)>,
    /// When it was told so last.
    pub(crate) told: Option<u64>,
    /// Writes of which it takes none.
    pub(crate) refuses_writes: bool,
    /// Writes without response that came.
    pub(crate) commands: usize,
    /// The place in the cycle.
    pub(crate) place: usize,
    /// Answers that are still to be sent.
    pub(crate) pending: VecDeque<Vec<u8>>,
}

impl Own {
    /// This was written to it.
    pub(super) fn on_write(&mut self, value: &[u8], turn: u64) {
        let answers = self.answers.iter().filter(|(command, _)| command == value);
        self.pending.extend(answers.flat_map(|(_, answer)| answer.clone()));
        if self.needs.as_ref().is_some_and(|(command, _)| command == value) {
            self.told = Some(turn);
        }
    }

    /// What it sends at this turn.
    pub(super) fn next(&mut self, turn: u64) -> Option<Vec<u8>> {
        if let Some(answer) = self.pending.pop_front() {
            return Some(answer);
        }
        if let Some((_, turns)) = &self.needs
            && self.told.is_none_or(|told| turn > told + turns)
        {
            return None;
        }
        let next = self.cycle.get(self.place)?.clone();
        self.place = (self.place + 1) % self.cycle.len();
        Some(next)
    }

    /// The link has gone.
    pub(super) fn unlink(&mut self) {
        self.told = None;
        self.pending.clear();
    }
}

impl Strap {
    /// The UUID behind a 16-bit number of this sensor.
    pub(super) fn uuid(&self, short: u16) -> String {
        let own = self.own.uuids.iter().find(|(number, _)| *number == short);
        own.map_or_else(|| super::uuid(short), |(_, uuid)| (*uuid).to_owned())
    }
}
