//! What somebody asked for again, as a part of the plan: when it is taken up, and when it has been sent. Pure.

use super::{Action, Lane, Plan};
use crate::ids::Seq;

impl Plan {
    /// Everything between `first` and `last` that is in the log goes out once more, with the backlog; what was parked of it
    /// is tried again. What the live lane has not passed goes out once it has. `false`: another such wish waits.
    pub fn resend(&mut self, first: Seq, last: Seq) -> bool {
        if self.is_resending() || first > last || first == Seq::ZERO {
            return false;
        }
        let passed = self.live.cursor();
        self.resend = (first <= passed).then_some((first, last.min(passed)));
        self.resend_later = (last > passed).then_some((first.max(passed.next()), last));
        self.outbox.push_back(Action::Unpark(first, last));
        self.take_up_resend();
        true
    }

    /// Something that was asked for again has not been sent yet.
    pub fn is_resending(&self) -> bool {
        self.resend.is_some() || self.resend_later.is_some() || self.pieces.has_wishes()
    }

    /// The pieces can change only while nothing of them is under way. True if they did.
    pub(super) fn take_up_resend(&mut self) -> bool {
        if self.resend.is_none() {
            let passed = self.live.cursor();
            self.resend = self.resend_later.take_if(|(_, last)| *last <= passed);
        }
        let is_idle = !self.flights.values().any(|flight| flight.lane == Lane::Backlog);
        let Some((first, last)) = self.resend.take_if(|_| is_idle) else { return false };
        self.pieces.passed(self.backlog.cursor());
        self.pieces.ask_again(first, last);
        self.begin_piece();
        true
    }
}
