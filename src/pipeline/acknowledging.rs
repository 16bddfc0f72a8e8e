//! How far users have acknowledged alerts' channels: kept here, in the store, and told to who comes back.

use super::Pipeline;
use crate::hub::Join;
use crate::ids::Seq;
use crate::notifier::Acked;

impl Pipeline {
    /// A client of a user's has everything of an alerts' channel up to an event.
    pub(super) fn on_acked(&mut self, user: &str, channel: &str, seq: Seq) {
        if self.notifier.acked.advance(user, channel, seq) {
            self.store.set_cursors(vec![(Acked::lane(user, channel), seq)]);
        }
    }

    /// Who acknowledges and does not resume gets what memory holds since the first event that was not acknowledged.
    pub(super) fn since_acked(&self, join: &Join) -> Option<Seq> {
        let user = join.user.as_ref().filter(|_| join.acks && join.since.is_none())?;
        self.notifier.acked.of(&user.name).into_values().min()
    }
}
