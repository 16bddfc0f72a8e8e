//! Collects the slots of a multiplexed byte: one value a frame, a packet every so many frames.

use crate::profile::model::Superframe;

/// The slots so far.
///
/// The right number of frames is not enough: where one frame of a packet and the first of the next are lost without a
/// trace, the next packet's second frame makes up the number, and the later slots are each one frame off. So a packet
/// counts only once the frame after its last is seen to be a first one, or nothing follows at all.
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

    /// True if there are as many slots as a superframe has: it is whole if the next frame is a first one.
    pub(super) fn is_full(&self, superframe: &Superframe) -> bool {
        self.slots.len() == superframe.frames
    }

    /// True if `next`, which is not taken yet, shows that what was collected is a whole superframe.
    #[inline]
    pub(super) fn is_ended_by(&self, superframe: &Superframe, next: &[u8]) -> bool {
        self.is_full(superframe) && superframe.first.holds(next)
    }

    /// Takes a frame. What was collected before a first frame, or before one too many, is dropped.
    #[inline]
    pub(super) fn take(&mut self, superframe: &Superframe, frame: &[u8]) {
        let is_first = superframe.first.holds(frame);
        let Some(slot) = frame.get(superframe.slot_at) else {
            self.slots.clear();
            return;
        };
        if is_first || self.is_full(superframe) {
            self.slots.clear();
        }
        if is_first || !self.slots.is_empty() {
            self.slots.push(*slot);
        }
    }

    /// The slots that were collected.
    pub(super) fn slots(&self) -> &[u8] {
        &self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::model::Predicate;

    const THREE: Superframe = Superframe { frames: 3, first: Predicate { at: 0, mask: 1, value: 1 }, slot_at: 1 };

    /// The slots of each whole superframe among these frames (byte 0 is 1 in a first one), and whether one is full at
    /// the end.
    fn check(frames: &[[u8; 2]], expected: &[[u8; 3]], is_full_at_end: bool) {
        let mut collector = Collector::new(Some(&THREE));
        let mut whole = Vec::new();
        for frame in frames {
            if collector.is_ended_by(&THREE, frame) {
                whole.push(collector.slots().to_vec());
            }
            collector.take(&THREE, frame);
        }
        assert_eq!(whole, expected, "{frames:?}");
        assert_eq!(collector.is_full(&THREE), is_full_at_end, "{frames:?}");
    }

    #[test]
    fn a_packet_counts_only_between_two_first_frames_that_are_right_apart() {
        check(&[[0, 9], [1, 1], [0, 2], [0, 3], [1, 4]], &[[1, 2, 3]], false);
        // It may be whole, which nothing shows yet.
        check(&[[1, 1], [0, 2], [0, 3]], &[], true);
        // A lost frame shows because the next first frame comes too early, a lost first frame because it comes late.
        check(&[[1, 1], [0, 2], [1, 3], [0, 4], [0, 5], [1, 6]], &[[3, 4, 5]], false);
        check(&[[1, 1], [0, 2], [0, 3], [0, 5], [0, 6], [1, 7]], &[], false);
    }

    #[test]
    fn a_frame_of_the_next_packet_never_makes_up_the_number() {
        // 1 2 3, 4 5 6, 7 8 9 without 2 and the first frame 4, or without 3 and 4.
        check(&[[1, 1], [0, 3], [0, 5], [0, 6], [1, 7], [0, 8], [0, 9], [1, 10]], &[[7, 8, 9]], false);
        check(&[[1, 1], [0, 2], [0, 5], [0, 6], [1, 7], [0, 8], [0, 9], [1, 10]], &[[7, 8, 9]], false);
    }

    #[test]
    fn a_gap_drops_the_packet() {
        for frames in 1..=3 {
            let mut collector = Collector::new(Some(&THREE));
            for frame in [[1, 1], [0, 2], [0, 3]].iter().take(frames) {
                collector.take(&THREE, frame);
            }
            collector.clear();
            collector.take(&THREE, &[0, 4]);
            assert!(collector.slots().is_empty() && !collector.is_ended_by(&THREE, &[1, 5]));
        }
    }
}
