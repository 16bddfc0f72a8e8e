//! Decoders written by hand for three protocols: what the profile interpreter is measured against.
//!
//! They do all that the interpreter does with these protocols and give the very same: they search byte by byte after
//! damage, count what they skip, drop what a gap has spoilt, put samples into blocks that know gaps and saturation,
//! tell statuses only when they change, and make a value absent for its reason. They know at compile time what the
//! interpreter reads from a profile, and nothing else is left out or added.

use std::collections::BTreeSet;
use std::sync::Arc;

use vitalbridge::decode::{Decoded, DecodedVital, FrameCounters, WaveSamples};
use vitalbridge::vitals::{Absent, Decimal, Metric, Quality, Status, Value, Vital};

/// A decoder written for one protocol.
pub(crate) trait ByHand {
    /// Takes bytes in pieces of any size, and adds what they say.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>);

    /// What was counted.
    fn counters(&self) -> FrameCounters;
}

/// The decoder of a protocol, by the profile's name.
pub(crate) fn by_hand(id: &str) -> Box<dyn ByHand> {
    match id {
        "nonin-df2" => Box::new(NoninDf2::new()),
        "contec-v7" => Box::new(ContecV7::new()),
        _ => Box::new(Pm6750::new()),
    }
}

fn vital(metric: Metric, value: Value) -> Decoded {
    let quality = if value.valid().is_some() { Quality::Valid } else { Quality::NotAvailable };
    let vital = Vital::scalar(metric, value);
    Decoded::Vital(DecodedVital { vital, mdc: None, quality, device_time: None })
}

/// Bytes that wait, and what was counted.
#[derive(Default)]
struct Line {
    buffer: Vec<u8>,
    counters: FrameCounters,
    is_locked: bool,
    is_lost: bool,
}

impl Line {
    /// Drops one byte.
    fn skip(&mut self, bad_checksum: bool) {
        self.counters.skipped_bytes += 1;
        self.counters.bad_checksum += u64::from(bad_checksum);
        self.counters.resyncs += u64::from(!self.is_lost);
        (self.is_locked, self.is_lost) = (false, true);
    }

    /// Counts a good frame; true if bytes were skipped before it.
    fn accept(&mut self) -> bool {
        self.counters.frames += 1;
        self.is_locked = true;
        std::mem::take(&mut self.is_lost)
    }
}

/// Collects samples: a quarter of a second in a block.
struct Block {
    name: Arc<str>,
    hz: f64,
    baseline: i32,
    saturated_at: Option<(u8, u8)>,
    full: usize,
    samples: Vec<i32>,
    saturated: usize,
    after_gap: bool,
}

impl Block {
    fn new(name: &str, hz: f64, full: usize) -> Self {
        Self {
            name: Arc::from(name),
            hz,
            baseline: 0,
            saturated_at: None,
            full,
            samples: Vec::with_capacity(full),
            saturated: 0,
            after_gap: false,
        }
    }

    fn push(&mut self, sample: u8, out: &mut Vec<Decoded>) {
        self.samples.push(i32::from(sample));
        if let Some((low, high)) = self.saturated_at {
            self.saturated += usize::from(sample <= low || sample >= high);
        }
        if self.samples.len() == self.full {
            self.hand_over(out);
        }
    }

    fn hand_over(&mut self, out: &mut Vec<Decoded>) {
        out.push(Decoded::Wave(WaveSamples {
            name: Arc::clone(&self.name),
            hz: self.hz,
            baseline: self.baseline,
            samples: std::mem::replace(&mut self.samples, Vec::with_capacity(self.full)),
            saturated: std::mem::take(&mut self.saturated),
            after_gap: std::mem::take(&mut self.after_gap),
        }));
    }

    fn gap(&mut self, out: &mut Vec<Decoded>) {
        if !self.samples.is_empty() {
            self.hand_over(out);
        }
        self.after_gap = true;
    }
}

/// Nonin data format 2: frames of 5 bytes with a sum. The numbers are in 25 frames, which count only once the next
/// first frame has come at the right distance; the flags of any of them count for all.
struct NoninDf2 {
    line: Line,
    slots: Vec<u8>,
    /// Bits 3 to 5 of the status bytes since the last packet.
    latched: u8,
    /// The latched bits of the last packet, and bit 0: low battery.
    flags: u8,
    told: u8,
    pleth: Block,
}

impl NoninDf2 {
    fn new() -> Self {
        Self {
            line: Line::default(),
            slots: Vec::with_capacity(25),
            latched: 0,
            flags: 0,
            told: 0,
            pleth: Block::new("pleth", 75.0, 18),
        }
    }

    fn tell(&mut self, out: &mut Vec<Decoded>) {
        if self.flags != self.told {
            self.told = self.flags;
            let all = [
                (0x08, Status::SensorOff),
                (0x10, Status::SignalLost),
                (0x20, Status::Artifact),
                (0x01, Status::LowBattery),
            ];
            let set = all.into_iter().filter(|(bit, _)| self.flags & bit != 0).map(|(_, status)| status);
            out.push(Decoded::Status(set.collect()));
        }
    }

    /// 25 frames between two first ones.
    fn packet(&mut self, out: &mut Vec<Decoded>) {
        self.flags = (self.flags & 1) | std::mem::take(&mut self.latched);
        self.tell(out);
        self.flags = (self.flags & !1) | (self.slots[7] & 1);
        self.tell(out);
        let rate = (i32::from(self.slots[19] & 3) << 7) | i32::from(self.slots[20] & 0x7F);
        let spo2 = i32::from(self.slots[8] & 0x7F);
        for (metric, number, none, range) in
            [(Metric::PulseRate, rate, 511, 18..=321), (Metric::Spo2, spo2, 127, 0..=127)]
        {
            let value = match number {
                _ if self.flags & 0x08 != 0 => Value::Absent(Absent::SensorOff),
                _ if self.flags & 0x10 != 0 => Value::Absent(Absent::SignalLost),
                number if number == none => Value::Absent(Absent::NotANumber),
                number if number != 0 && !range.contains(&number) => Value::Absent(Absent::OutOfRange),
                number => Value::reported(metric, Decimal::integer(number)),
            };
            out.push(vital(metric, value));
        }
    }
}

impl ByHand for NoninDf2 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        self.line.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[start, status, pleth, slot, sum]) = self.line.buffer.get(at..at + 5) {
            let is_start = start == 1 && status & 0x80 != 0;
            if !is_start || start.wrapping_add(status).wrapping_add(pleth).wrapping_add(slot) != sum {
                self.line.skip(is_start);
                at += 1;
                continue;
            }
            at += 5;
            if self.line.accept() {
                self.slots.clear();
                self.pleth.gap(out);
            }
            let (is_first, is_full) = (status & 1 == 1, self.slots.len() == 25);
            if is_first && is_full {
                self.packet(out);
            }
            self.latched |= status & 0x38;
            self.pleth.push(pleth, out);
            if is_first || is_full {
                self.slots.clear();
            }
            if is_first || !self.slots.is_empty() {
                self.slots.push(slot);
            }
        }
        self.line.buffer.drain(..at);
    }

    fn counters(&self) -> FrameCounters {
        self.line.counters
    }
}

/// Contec V7: packets whose first byte tells their length and alone has bit 7 clear; byte 1 carries bit 7 of the others.
/// Without a checksum the first packet after damage counts only if another one follows.
struct ContecV7 {
    line: Line,
    /// The status bits of bytes 2 and 3.
    flags: (u8, u8),
    told: (u8, u8),
    serial_number: String,
    pleth: Block,
}

/// What begins at a place of the buffer.
enum Begins {
    Packet(usize),
    Nothing,
    Unknown,
}

impl ContecV7 {
    fn new() -> Self {
        Self {
            line: Line::default(),
            flags: (0, 0),
            told: (0, 0),
            serial_number: String::new(),
            pleth: Block::new("pleth", 60.0, 15),
        }
    }

    fn check(bytes: &[u8]) -> Begins {
        let length = match bytes.first() {
            None => return Begins::Unknown,
            Some(0x01 | 0x04 | 0x11) => 9,
            Some(0x08) => 8,
            Some(0x09) => 6,
            Some(0x06 | 0x0A | 0x0B) => 4,
            Some(0x0D | 0x0E) => 3,
            Some(0x0C) => 2,
            Some(_) => return Begins::Nothing,
        };
        match bytes.get(1..length) {
            Some(rest) if rest.iter().all(|byte| byte & 0x80 != 0) => Begins::Packet(length),
            None if bytes[1..].iter().all(|byte| byte & 0x80 != 0) => Begins::Unknown,
            _ => Begins::Nothing,
        }
    }

    fn live(&mut self, frame: [u8; 9], out: &mut Vec<Decoded>) {
        let byte = |place: usize| (frame[place] & 0x7F) | (((frame[1] >> (place - 2)) & 1) << 7);
        let flags = (byte(2) & 0xF0, byte(3) & 0x80);
        if flags != self.flags {
            if flags.0 & !self.flags.0 & 0x40 != 0 {
                out.push(Decoded::Beat);
            }
            self.flags = flags;
            self.tell(out);
        }
        let (is_off, is_searching, has_index) = (flags.0 & 0x80 != 0, flags.1 != 0, byte(4) & 0x10 == 0);
        let searches_too_long = flags.0 & 0x10 != 0;
        let index = i64::from(u16::from_le_bytes([byte(7), byte(8)]));
        let (rate, spo2) = (i64::from(byte(5)), i64::from(byte(6)));
        for (metric, number, places, is_none) in [
            (Metric::PulseRate, rate, 0, rate == 0xFF),
            (Metric::Spo2, spo2, 0, spo2 == 0x7F || spo2 == 0xFF),
            (Metric::PerfusionIndex, index, -2, index == 0xFFFF),
        ] {
            let value = match Decimal::new(number, places) {
                _ if is_off => Value::Absent(Absent::SensorOff),
                _ if is_searching => Value::Absent(Absent::Searching),
                _ if searches_too_long => Value::Absent(Absent::SignalLost),
                _ if metric == Metric::PerfusionIndex && !has_index => Value::Absent(Absent::NotMeasured),
                Some(number) if !is_none => Value::reported(metric, number),
                _ => Value::Absent(Absent::NotANumber),
            };
            out.push(vital(metric, value));
        }
        self.pleth.push(byte(3) & 0x7F, out);
    }

    fn tell(&mut self, out: &mut Vec<Decoded>) {
        let shown = (self.flags.0 & 0xB0, self.flags.1);
        if shown != self.told {
            self.told = shown;
            let all = [
                (shown.0 & 0x10, Status::SignalLost),
                (shown.0 & 0x20, Status::DeviceAlarm),
                (shown.0 & 0x80, Status::SensorOff),
                (shown.1, Status::Searching),
            ];
            let set: BTreeSet<Status> =
                all.into_iter().filter(|(bit, _)| *bit != 0).map(|(_, status)| status).collect();
            out.push(Decoded::Status(set));
        }
    }

    fn identifier(&mut self, frame: [u8; 9], out: &mut Vec<Decoded>) {
        let byte = |place: usize| (frame[place] & 0x7F) | (((frame[1] >> (place - 2)) & 1) << 7);
        let printable = (2..9).map(byte).take_while(|byte| (0x20..0x7F).contains(byte));
        let text = printable.map(char::from).collect::<String>().trim_end().to_owned();
        if !text.is_empty() && text != self.serial_number {
            self.serial_number.clone_from(&text);
            out.push(Decoded::SerialNumber(text));
        }
    }
}

impl ByHand for ContecV7 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        let mut buffer = std::mem::take(&mut self.line.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &buffer[at..];
            let length = match Self::check(rest) {
                Begins::Packet(length) if self.line.is_locked => length,
                Begins::Packet(length) => match Self::check(&rest[length..]) {
                    Begins::Packet(_) => length,
                    Begins::Nothing => 0,
                    Begins::Unknown => break,
                },
                Begins::Nothing => 0,
                Begins::Unknown => break,
            };
            if length == 0 {
                self.line.skip(false);
                at += 1;
                continue;
            }
            at += length;
            if self.line.accept() {
                self.pleth.gap(out);
            }
            match rest.first_chunk() {
                Some(frame) if frame[0] == 0x01 => self.live(*frame, out),
                Some(frame) if frame[0] == 0x04 => self.identifier(*frame, out),
                _ => {}
            }
        }
        buffer.drain(..at);
        self.line.buffer = buffer;
    }

    fn counters(&self) -> FrameCounters {
        self.line.counters
    }
}

/// Berry PM6750: packets with a mark, a length and a sum. Its waves and its oximeter, which is all that the stream of
/// this benchmark has.
struct Pm6750 {
    line: Line,
    oximeter: u8,
    told: Option<Status>,
    ecg: Vec<Block>,
    pleth: Block,
    resp: Block,
}

impl Pm6750 {
    fn new() -> Self {
        let lead = |name: &&str| Block {
            baseline: 128,
            saturated_at: Some((0, 250)),
            ..Block::new(&format!("ecg_{name}"), 250.0, 62)
        };
        Self {
            line: Line::default(),
            oximeter: 0,
            told: None,
            ecg: ["I", "II", "III", "aVR", "aVL", "aVF", "V"].iter().map(lead).collect(),
            pleth: Block::new("pleth", 50.0, 12),
            resp: Block::new("resp", 50.0, 12),
        }
    }

    fn oximeter(&mut self, state: u8, spo2: u8, rate: u8, out: &mut Vec<Decoded>) {
        if state != self.oximeter {
            self.oximeter = state;
            let status = match state {
                1 => Some(Status::NoSensor),
                2 => Some(Status::SensorOff),
                3 => Some(Status::Searching),
                4 => Some(Status::SignalLost),
                _ => None,
            };
            if status != self.told {
                self.told = status;
                out.push(Decoded::Status(status.into_iter().collect()));
            }
        }
        for (metric, number, none) in [(Metric::Spo2, spo2, 127), (Metric::PulseRate, rate, 255)] {
            let value = match state {
                0 if number == none => Value::Absent(Absent::NotANumber),
                0 => Value::reported(metric, Decimal::integer(i32::from(number))),
                _ => Value::Absent(self.told.map_or(Absent::Reserved, Absent::from)),
            };
            out.push(vital(metric, value));
        }
    }

    fn packet(&mut self, packet: &[u8], out: &mut Vec<Decoded>) {
        match packet[3] {
            0x01 => self.ecg.iter_mut().zip(&packet[4..]).for_each(|(lead, sample)| lead.push(*sample, out)),
            0x04 if packet.len() >= 7 => self.oximeter(packet[4], packet[5], packet[6], out),
            0xFE => self.pleth.push(packet[4], out),
            0xFF => self.resp.push(packet[4], out),
            _ => {}
        }
    }
}

impl ByHand for Pm6750 {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<Decoded>) {
        let mut buffer = std::mem::take(&mut self.line.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = buffer.get(at..at + 3) {
            let length = usize::from(head[2]) + 2;
            if head[0] != 0x55 || head[1] != 0xAA || !(6..=20).contains(&length) {
                self.line.skip(false);
                at += 1;
                continue;
            }
            let Some(packet) = buffer.get(at..at + length) else { break };
            let sum = packet[2..length - 1].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            if !sum != packet[length - 1] {
                self.line.skip(true);
                at += 1;
                continue;
            }
            at += length;
            if self.line.accept() {
                let waves = self.ecg.iter_mut().chain([&mut self.pleth, &mut self.resp]);
                waves.for_each(|wave| wave.gap(out));
            }
            self.packet(packet, out);
        }
        buffer.drain(..at);
        self.line.buffer = buffer;
    }

    fn counters(&self) -> FrameCounters {
        self.line.counters
    }
}
