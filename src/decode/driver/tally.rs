//! Counts what a driver read: good messages, damaged ones, and bytes that belong to none.

use crate::decode::FrameCounters;

/// The counters, and whether bytes were skipped since the last good message.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counters: FrameCounters,
    is_lost: bool,
}

impl Tally {
    pub(super) const fn counters(&self) -> FrameCounters {
        self.counters
    }

    pub(super) fn good(&mut self) {
        self.counters.frames += 1;
        if std::mem::take(&mut self.is_lost) {
            self.counters.resyncs += 1;
        }
    }

    /// A message of so many bytes with a wrong sum.
    pub(super) fn damaged(&mut self, bytes: usize) {
        self.counters.bad_checksum += 1;
        self.skip(bytes);
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        if bytes > 0 {
            self.counters.skipped_bytes = self.counters.skipped_bytes.saturating_add(u64::try_from(bytes).unwrap_or(0));
            self.is_lost = true;
        }
    }
}
