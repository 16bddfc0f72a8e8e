//! The fast half of a MEDIBUS line: samples of waves, in bytes from 80H on that may come anywhere.

use std::sync::Arc;

use super::super::gap;
use super::super::tally::Tally;
use super::answer::Offer;
use crate::decode::Decoded;
use crate::decode::waves::Block;
use crate::profile::WaveInfo;
use crate::vitals::Decimal;

/// The sync byte announces four streams by itself (9028258, p. 21); more are not asked for.
pub(super) const MAX_STREAMS: usize = 4;
/// Two bytes for each of the 12 streams that there can be.
const MAX_VALUES: usize = 24;

/// The codes of each wave, the most wanted first (9028329, realtime data).
const CODES: [(&str, &[u8]); 6] = [
    ("airway_pressure", &[0x00]),
    ("airway_flow", &[0x01]),
    ("pleth", &[0x02]),
    ("airway_volume", &[0x03]),
    ("o2", &[0x05]),
    // In mmHg, kPa and %.
    ("co2", &[0x06, 0x07, 0x08]),
];

/// A wave that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stream {
    /// Its code.
    pub(super) code: u8,
    info: WaveInfo,
}

/// Of the waves that are wanted, those that the device offers.
pub(super) fn choose(wanted: &[&str], offers: &[Offer]) -> Vec<Stream> {
    let stream = |name: &&str| {
        let (_, codes) = CODES.iter().find(|(known, _)| known == name)?;
        let offer = codes.iter().find_map(|code| offers.iter().find(|offer| offer.code == *code))?;
        let info = WaveInfo {
            name: Arc::from(*name),
            hz: 1_000_000.0 / f64::from(offer.interval_us),
            baseline: baseline(offer),
            saturated: Some((0, i32::from(offer.max_binary))),
        };
        Some(Stream { code: offer.code, info })
    };
    wanted.iter().filter_map(stream).take(MAX_STREAMS).collect()
}

/// The binary value of 0: p. 20, v = min + x * (max - min) / maxbin.
fn baseline(offer: &Offer) -> i32 {
    let tenths = |number: Decimal| super::super::converted(number, 10, 0, 0).map_or(0, Decimal::mantissa);
    let (min, max) = (tenths(offer.min), tenths(offer.max));
    let zero = (-min).saturating_mul(i64::from(offer.max_binary)).checked_div(max.saturating_sub(min)).unwrap_or(0);
    i32::try_from(zero.clamp(0, i64::from(offer.max_binary))).unwrap_or(0)
}

/// A record from its sync byte on.
#[derive(Debug)]
struct Record {
    bytes: usize,
    /// Bit n: a value of stream n comes.
    first_four: u8,
    /// The first byte of a sync command.
    command: Option<u8>,
    values: Vec<u8>,
    is_broken: bool,
}

/// Puts the samples of the chosen streams together.
///
/// The values carry no checksum. A record counts when the next one begins and exactly as many bytes lay between them as
/// were announced: a lost or an added byte costs its record and never moves half a value to another stream.
#[derive(Debug, Default)]
pub(super) struct Realtime {
    blocks: Vec<Block>,
    record: Option<Record>,
    /// Which of the streams from the fifth on come, as the device said last.
    later: u16,
}

impl Realtime {
    /// The streams that are sent from now on.
    pub(super) fn set(&mut self, streams: &[Stream]) {
        self.blocks = streams.iter().map(|stream| Block::new(&stream.info)).collect();
        self.record = None;
        self.later = 0;
    }

    /// Takes one byte from 80H on.
    pub(super) fn take(&mut self, byte: u8, tally: &mut Tally, out: &mut Vec<Decoded>) {
        if byte & 0xF0 == 0xD0 {
            self.commit(tally, out);
            let first_four = byte & 0x0F;
            self.record = Some(Record { bytes: 1, first_four, command: None, values: Vec::new(), is_broken: false });
            return;
        }
        let Some(record) = &mut self.record else {
            tally.skip(1);
            return;
        };
        record.bytes += 1;
        match (byte & 0xF0, record.command.take()) {
            (0xC0, None) if record.values.is_empty() => record.command = Some(byte),
            (0xC0, Some(command)) => self.command(command & 0x0F, byte & 0x0F, out),
            (0x80..=0xBF, None) if record.values.len() < MAX_VALUES => record.values.push(byte & 0x3F),
            _ => record.is_broken = true,
        }
    }

    /// p. 23.
    fn command(&mut self, code: u8, argument: u8, out: &mut Vec<Decoded>) {
        let cycle = |name: &str| Decoded::Event { name: Arc::from(name) };
        match (code, argument) {
            (4, streams) => self.later = self.later & 0xF0 | u16::from(streams),
            (5, streams) => self.later = self.later & 0x0F | u16::from(streams) << 4,
            (6, 0) => out.push(cycle("inspiration")),
            (6, 1) => out.push(cycle("expiration")),
            _ => {}
        }
    }

    fn commit(&mut self, tally: &mut Tally, out: &mut Vec<Decoded>) {
        let Some(record) = self.record.take() else { return };
        let streams = u16::from(record.first_four) | self.later << 4;
        let announced = usize::try_from(streams.count_ones()).unwrap_or(0) * 2;
        // p. 21: a sync byte never comes alone.
        let is_whole =
            record.bytes > 1 && !record.is_broken && record.command.is_none() && record.values.len() == announced;
        if !is_whole || (announced > 0 && self.blocks.is_empty()) {
            tally.skip(record.bytes);
            gap(self.blocks.iter_mut(), out);
            return;
        }
        let present = (0..12_usize).filter(|stream| streams >> stream & 1 == 1);
        for (stream, value) in present.zip(record.values.chunks_exact(2)) {
            if let ([low, high], Some(block)) = (value, self.blocks.get_mut(stream)) {
                let sample = i32::from(*low) | i32::from(*high) << 6;
                block.push(sample, out);
            }
        }
    }

    /// The end of a recording.
    pub(super) fn finish(&mut self, tally: &mut Tally, out: &mut Vec<Decoded>) {
        self.commit(tally, out);
        out.extend(self.blocks.iter_mut().filter_map(Block::take).map(Decoded::Wave));
    }

    /// Samples were lost.
    pub(super) fn pause(&mut self, out: &mut Vec<Decoded>) {
        self.record = None;
        gap(self.blocks.iter_mut(), out);
    }
}
