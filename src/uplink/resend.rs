//! Ranges of the log that are sent again: one after the other, and also by the next run of the daemon.

use std::collections::VecDeque;

use tracing::info;

use super::plan::Plan;
use crate::ids::Seq;
use crate::pipeline::{MAX_ORDERED, ResendQueue};
use crate::store::{Reader, SeqRange, StoreError, StoreHandle};

/// The names under which the store keeps the ends of the range in this place.
fn names(place: usize) -> [String; 2] {
    [format!("resend.{place}.first"), format!("resend.{place}.last")]
}

/// What is being sent again, and what comes after it.
#[derive(Debug, Default)]
pub(super) struct Resend {
    /// The first one is under way if `is_under_way`. At most [`MAX_ORDERED`].
    ranges: VecDeque<SeqRange>,
    is_under_way: bool,
}

impl Resend {
    /// Takes up what an earlier run has not finished.
    pub(super) async fn begin(reader: &Reader) -> Result<Self, StoreError> {
        let mut resend = Self::default();
        for place in 0..MAX_ORDERED {
            let [first, last] = names(place);
            let range = SeqRange { first: reader.cursor(&first).await?, last: reader.cursor(&last).await? };
            if Seq::ZERO < range.first && range.first <= range.last {
                resend.ranges.push_back(range);
            }
        }
        Ok(resend)
    }

    /// Takes new wishes, has the plan take the next one, and remembers what is left.
    pub(super) fn turn(&mut self, plan: &mut Plan, queue: &ResendQueue, handle: &StoreHandle) {
        let mut is_news = false;
        while self.ranges.len() < MAX_ORDERED
            && let Some(range) = queue.take()
        {
            is_news = true;
            self.ranges.push_back(range);
        }
        loop {
            if self.is_under_way && !plan.is_resending() {
                self.is_under_way = false;
                is_news = true;
                if let Some(SeqRange { first, last }) = self.ranges.pop_front() {
                    info!(%first, %last, "a range was sent again");
                }
            }
            let Some(range) = self.ranges.front().copied().filter(|_| !self.is_under_way && !plan.is_resending())
            else {
                break;
            };
            if plan.resend(range.first, range.last) {
                info!(first = %range.first, last = %range.last, "a range goes to the broker again");
                // What the broker did not take is tried again with it.
                handle.unpark(range);
                self.is_under_way = true;
            } else {
                info!(first = %range.first, last = %range.last, "a range was not sent yet: it goes in its turn");
                self.ranges.pop_front();
                is_news = true;
            }
        }
        if is_news {
            handle.set_cursors(self.kept());
        }
    }

    /// What the store has to keep. Unused places are zero.
    fn kept(&self) -> Vec<(String, Seq)> {
        let none = SeqRange { first: Seq::ZERO, last: Seq::ZERO };
        let ranges = self.ranges.iter().copied().chain(std::iter::repeat(none));
        let named = (0..MAX_ORDERED).map(names).zip(ranges);
        named.flat_map(|([first, last], range)| [(first, range.first), (last, range.last)]).collect()
    }
}
