//! Waveform subrecords (8005313, 5.2): a header, then samples of 16 bits.

use std::sync::Arc;

use super::super::gap;
use super::record::{i16_at, u16_at};
use crate::decode::Decoded;
use crate::decode::waves::Block;
use crate::profile::WaveInfo;
use crate::profile::driver::DriverKind;

/// Subrecord types and the names of the waves (5.2, table of subrecord types).
const TYPES: [(u8, &str); 21] = [
    (1, "ecg1"),
    (2, "ecg2"),
    (3, "ecg3"),
    (4, "pressure1"),
    (5, "pressure2"),
    (6, "pressure3"),
    (7, "pressure4"),
    (8, "pleth"),
    (9, "co2"),
    (10, "o2"),
    (11, "n2o"),
    (12, "agent"),
    (13, "airway_pressure"),
    (14, "airway_flow"),
    (15, "resp"),
    (16, "pressure5"),
    (17, "pressure6"),
    (23, "airway_volume"),
    (36, "pressure7"),
    (37, "pressure8"),
    (38, "pleth2"),
];
/// Samples up to this are control codes (5.2.1).
const HIGHEST_CONTROL: i16 = -32000;

/// The types of the waves with these names.
pub(super) fn types(names: &[&str]) -> Vec<u8> {
    let of = |name: &&str| TYPES.iter().find(|(_, known)| known == name).map(|(kind, _)| *kind);
    names.iter().filter_map(of).collect()
}

/// The waves that are being received.
#[derive(Debug, Default)]
pub(super) struct Waves {
    blocks: Vec<(u8, Block)>,
}

impl Waves {
    /// Takes a subrecord; false if it is none.
    pub(super) fn take(&mut self, kind: u8, subrecord: &[u8], out: &mut Vec<Decoded>) -> bool {
        let header = i16_at(subrecord, 0).zip(u16_at(subrecord, 2)).zip(subrecord.get(6..));
        let Some(((count, status), data)) = header else { return false };
        let samples = usize::try_from(count).ok().and_then(|count| data.get(..count.checked_mul(2)?));
        let (Some(samples), Some(block)) = (samples, self.block(kind)) else { return false };
        // Bit 0: samples were lost before these. Bit 3: the ECG's electrode is off, so that they are nobody's.
        let is_off = status & 8 != 0;
        if status & 1 != 0 || is_off {
            out.extend(block.gap().map(Decoded::Wave));
        }
        for bytes in samples.chunks_exact(2).filter(|_| !is_off) {
            match i16_at(bytes, 0) {
                Some(sample) if sample > HIGHEST_CONTROL => {
                    block.push(i32::from(sample), out);
                }
                _ => out.extend(block.gap().map(Decoded::Wave)),
            }
        }
        true
    }

    /// The block of a wave, made when the wave first comes: there are at most as many as there are types.
    fn block(&mut self, kind: u8) -> Option<&mut Block> {
        if self.blocks.iter().all(|(known, _)| *known != kind) {
            let (_, name) = TYPES.iter().find(|(known, _)| *known == kind)?;
            let wave = DriverKind::DatexDri.waves().iter().find(|wave| wave.name == *name)?;
            let info = WaveInfo { name: Arc::from(*name), hz: f64::from(wave.hz), baseline: 0, saturated: None };
            self.blocks.push((kind, Block::new(&info)));
        }
        self.blocks.iter_mut().find(|(known, _)| *known == kind).map(|(_, block)| block)
    }

    pub(super) fn gap(&mut self, out: &mut Vec<Decoded>) {
        gap(self.blocks.iter_mut().map(|(_, block)| block), out);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Decoded>) {
        out.extend(self.blocks.iter_mut().filter_map(|(_, block)| block.take()).map(Decoded::Wave));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wave_that_a_profile_can_ask_for_has_a_type() {
        let names: Vec<&str> = DriverKind::DatexDri.waves().iter().map(|wave| wave.name).collect();
        assert_eq!(types(&names).len(), names.len());
        assert_eq!(names.len(), TYPES.len());
    }
}
