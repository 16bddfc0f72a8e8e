//! Collects the slots of a multiplexed byte: one value a frame, a packet every so many frames.

use crate::profile::model::Superframe;

/// The slots so far.
#[derive(Debug, Default)]
pub(super) struct Collector {
    slots: Vec<u8>,
}

impl Collector {
    pub(super) fn new(superframe: Option<&Superframe>) -> Self {
        Self { slots: Vec::with_capacity(superframe.map_or(0, |superframe| superframe.frames)) }
    }

    /// Drops what was collected: a frame is missing, so every later slot would be another one.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// Takes a frame; true if the superframe is complete.
    pub(super) fn take(&mut self, superframe: &Superframe, frame: &[u8]) -> bool {
        let Some(slot) = frame.get(superframe.slot_at) else {
            self.slots.clear();
            return false;
        };
        if superframe.first.holds(frame) || self.slots.len() >= superframe.frames {
            self.slots.clear();
        }
        if self.slots.is_empty() && !superframe.first.holds(frame) {
            return false;
        }
        self.slots.push(*slot);
        self.slots.len() == superframe.frames
    }

    /// The slots of a complete superframe.
    pub(super) fn slots(&self) -> &[u8] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::model::Predicate;

    const THREE: Superframe = Superframe { frames: 3, first: Predicate { at: 0, mask: 1, value: 1 }, slot_at: 1 };

    #[test]
    fn a_packet_counts_only_from_its_first_frame_to_its_last() {
        let mut collector = Collector::new(Some(&THREE));
        let taken: Vec<bool> = [[0, 9], [1, 1], [0, 2], [1, 3], [0, 4], [0, 5], [0, 6], [1, 7]]
            .iter()
            .map(|frame| collector.take(&THREE, frame))
            .collect();
        // The second packet lost a frame, which shows because the next first frame comes too early.
        assert_eq!(taken, [false, false, false, false, false, true, false, false]);
    }

    #[test]
    fn a_gap_drops_the_packet() {
        let mut collector = Collector::new(Some(&THREE));
        collector.take(&THREE, &[1, 1]);
        collector.clear();
        assert!(!collector.take(&THREE, &[0, 2]));
        assert!(!collector.take(&THREE, &[0, 3]));
    }
}
