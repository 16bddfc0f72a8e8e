//! Emulated oximeters, byte for byte: what a Contec CMS50D+ (protocol V7.0) and a Nonin OEM III (data format 2) send.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Mono;

/// Frames a second of the Contec.
pub const CONTEC_HZ: u32 = 60;
/// Frames a second of the Nonin.
pub const NONIN_HZ: u32 = 75;
/// Without a keep-alive for longer than this the Contec stops sending (V7.0 asks for one each 5 s).
pub const CONTEC_PATIENCE: Duration = Duration::from_secs(10);
/// Frames in a Nonin packet, which carries each number once.
pub const NONIN_PACKET: u32 = 25;
/// The Nonin's display values keep the last numbers for ten seconds after the finger has gone.
const NONIN_HELD_FRAMES: u32 = 10 * NONIN_HZ;
/// Both search for three seconds before they show a number.
const SEARCH_S: u32 = 3;
/// Frames of a Nonin pulse in which the perfusion colour is shown.
const NONIN_PERFUSION_FRAMES: u32 = 12;

/// What the light through the finger shows at the moment of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensed {
    /// The finger is in the sensor.
    pub on_finger: bool,
    /// 1/min.
    pub pulse_rate: u16,
    /// Percent.
    pub spo2: u8,
    /// Height of the pulse wave, 0..=127.
    pub wave: u8,
    /// A pulse begins with this frame.
    pub beat: bool,
}

/// Counts the frames since the finger came, and says when the search is over.
#[derive(Debug, Clone, Copy, Default)]
struct Search {
    frames: u32,
}

impl Search {
    /// True while there is a finger and no number yet.
    const fn frame(&mut self, on_finger: bool, hz: u32) -> bool {
        self.frames = if on_finger { self.frames.saturating_add(1) } else { 0 };
        on_finger && self.frames <= SEARCH_S * hz
    }
}

/// Commands of protocol V7.0 that the emulated Contec knows.
mod contec_op {
    /// Undocumented in V7.0; vendor software sends it first.
    pub(super) const HELLO: u8 = 0xA0;
    /// Start sending live data.
    pub(super) const START_LIVE: u8 = 0xA1;
    /// Stop sending live data.
    pub(super) const STOP_LIVE: u8 = 0xA2;
    /// Stop sending stored data.
    pub(super) const STOP_STORED: u8 = 0xA7;
    /// Ask for the device's name.
    pub(super) const IDENTITY: u8 = 0xAA;
    /// Ask whether there is a perfusion index.
    pub(super) const HAS_PERFUSION_INDEX: u8 = 0xAC;
    /// Ask for the storage.
    pub(super) const STORAGE: u8 = 0xB0;
}

/// Bytes of a Contec command: `7D 81 op`, then six times `80`.
const CONTEC_COMMAND: usize = 9;

/// A Contec CMS50D+ with firmware 4.6 or later: silent until it is asked, and silent again when nobody is there.
#[derive(Debug, Clone, Default)]
pub struct Contec {
    streaming: bool,
    heard: Mono,
    received: VecDeque<u8>,
    search: Search,
}

impl Contec {
    /// A device that was just switched on.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the host and returns the replies.
    pub fn command(&mut self, bytes: &[u8], now: Mono) -> Vec<u8> {
        let mut replies = Vec::new();
        for byte in bytes {
            self.received.push_back(*byte);
            if self.received.len() > CONTEC_COMMAND {
                self.received.pop_front();
            }
            if let Some(op) = self.complete_command() {
                self.received.clear();
                self.heard = now;
                replies.extend_from_slice(self.obey(op));
            }
        }
        replies
    }

    fn complete_command(&self) -> Option<u8> {
        let mut bytes = self.received.iter().copied();
        let (start, group, op) = (bytes.next()?, bytes.next()?, bytes.next()?);
        let arguments: Vec<u8> = bytes.collect();
        (start == 0x7D && group == 0x81 && arguments == [0x80; CONTEC_COMMAND - 3]).then_some(op)
    }

    const fn obey(&mut self, op: u8) -> &'static [u8] {
        match op {
            contec_op::START_LIVE => {
                self.streaming = true;
                &[]
            }
            contec_op::STOP_LIVE => {
                self.streaming = false;
                &[0x0C, 0x80]
            }
            contec_op::STOP_STORED => &[0x0C, 0x80],
            contec_op::HELLO => &[0x06, 0x80, 0x80, 0x87],
            contec_op::IDENTITY => &[0x04, 0x80, 0xF5, 0xF3, 0xE5, 0xF2, 0xA0, 0xA0, 0xA0],
            contec_op::HAS_PERFUSION_INDEX => &[0x0E, 0x80, 0x81],
            contec_op::STORAGE => &[0x11, 0x80, 0x81, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80],
            // A keep-alive (AF) has no answer; other commands are not emulated.
            _ => &[],
        }
    }

    /// True while live data is being sent.
    pub const fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// The next live frame, 1/60 s after the last; `None` while nobody has asked for it.
    pub fn frame(&mut self, sensed: Sensed, now: Mono) -> Option<[u8; 9]> {
        let searching = self.search.frame(sensed.on_finger, CONTEC_HZ);
        if now.since(self.heard) > CONTEC_PATIENCE {
            self.streaming = false;
        }
        self.streaming.then(|| Self::live(sensed, searching))
    }

    /// V7.0, live data: type 01, then seven bytes whose bit 7 travels in the byte in front of them.
    fn live(sensed: Sensed, searching: bool) -> [u8; 9] {
        let measured = sensed.on_finger && !searching;
        let signal = if measured { 6 } else { 0 };
        let beep = if measured && sensed.beat { 0x40 } else { 0 };
        let finger_out = if sensed.on_finger { 0 } else { 0x80 };
        let wave = if sensed.on_finger { sensed.wave & 0x7F } else { 0 };
        let search_bit = if searching { 0x80 } else { 0 };
        let no_perfusion_index = 0x10;
        let payload = [
            signal | beep | finger_out,
            wave | search_bit,
            (wave >> 3) | no_perfusion_index,
            if measured { u8::try_from(sensed.pulse_rate).unwrap_or(0xFE).min(0xFE) } else { 0xFF },
            if measured { sensed.spo2.min(100) } else { 0x7F },
            0xFF,
            0xFF,
        ];
        let mut frame = [0x80; 9];
        let mut high_bits = 0x80;
        for (place, (slot, byte)) in frame.iter_mut().skip(2).zip(payload).enumerate() {
            *slot = byte | 0x80;
            high_bits |= (byte >> 7) << place;
        }
        let [kind, high, ..] = &mut frame;
        *kind = 0x01;
        *high = high_bits;
        frame
    }
}

/// A Nonin OEM III module that sends data format 2, from the moment it has power.
#[derive(Debug, Clone, Default)]
pub struct Nonin {
    /// Number of the next frame in its packet, 0..25.
    place: u32,
    /// Packets so far.
    packets: u16,
    /// The numbers of this packet, fixed when it begins: measured, and as the display would show them.
    measured: Option<(u16, u8)>,
    displayed: Option<(u16, u8)>,
    /// Frames since the finger left.
    off_for: u32,
    since_beat: u32,
    search: Search,
    /// The battery must be changed.
    pub low_battery: bool,
}

/// Pulse rate that means "missing" (9560 specification, HR format).
const NONIN_NO_PULSE: u16 = 511;
/// SpO2 that means "missing".
const NONIN_NO_SPO2: u8 = 127;

impl Nonin {
    /// A module that was just switched on.
    pub fn new() -> Self {
        Self { since_beat: NONIN_PERFUSION_FRAMES, ..Self::default() }
    }

    /// The next frame, 1/75 s after the last.
    pub fn frame(&mut self, sensed: Sensed) -> [u8; 5] {
        let searching = self.search.frame(sensed.on_finger, NONIN_HZ);
        self.off_for = if sensed.on_finger { 0 } else { self.off_for.saturating_add(1) };
        self.since_beat = if sensed.beat { 0 } else { self.since_beat.saturating_add(1) };
        if self.place == 0 {
            self.begin_packet(sensed, searching);
        }
        let status = self.status(sensed, searching);
        let wave = if sensed.on_finger { sensed.wave << 1 } else { 0 };
        let float = self.float();
        self.place = (self.place + 1) % NONIN_PACKET;
        let sum = [0x01, status, wave, float].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        [0x01, status, wave, float, sum]
    }

    fn begin_packet(&mut self, sensed: Sensed, searching: bool) {
        self.packets = self.packets.wrapping_add(1) & 0x3FFF;
        let numbers = (sensed.pulse_rate.min(321), sensed.spo2.min(100));
        self.measured = (sensed.on_finger && !searching).then_some(numbers);
        if self.measured.is_some() {
            self.displayed = self.measured;
        } else if searching || self.off_for > NONIN_HELD_FRAMES {
            self.displayed = None;
        }
    }

    fn status(&self, sensed: Sensed, searching: bool) -> u8 {
        let sync = u8::from(self.place == 0);
        let green = u8::from(sensed.on_finger && self.since_beat < NONIN_PERFUSION_FRAMES) << 1;
        let sensor_alarm = u8::from(!sensed.on_finger) << 3;
        let out_of_track = u8::from(searching) << 4;
        0x80 | out_of_track | sensor_alarm | green | sync
    }

    /// The byte that means something else in each frame of a packet (9560 specification, data format 2).
    fn float(&self) -> u8 {
        let pulse = |numbers: Option<(u16, u8)>| numbers.map_or(NONIN_NO_PULSE, |(pulse, _)| pulse);
        let spo2 = |numbers: Option<(u16, u8)>| numbers.map_or(NONIN_NO_SPO2, |(_, spo2)| spo2);
        // A number of up to 14 bits goes in two bytes of seven.
        let high = |number: u16| u8::try_from(number >> 7 & 0x7F).unwrap_or(0);
        let low = |number: u16| u8::try_from(number & 0x7F).unwrap_or(0);
        match self.place + 1 {
            1 | 14 => high(pulse(self.measured)),
            2 | 15 => low(pulse(self.measured)),
            3 | 10 | 11 | 16 => spo2(self.measured),
            4 => 48,
            6 => high(self.packets),
            7 => low(self.packets),
            8 => u8::from(self.low_battery),
            9 | 17 => spo2(self.displayed),
            20 | 22 => high(pulse(self.displayed)),
            21 | 23 => low(pulse(self.displayed)),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGER: Sensed = Sensed { on_finger: true, pulse_rate: 65, spo2: 97, wave: 0x33, beat: false };
    const START: [u8; 9] = [0x7D, 0x81, 0xA1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];
    const KEEP_ALIVE: [u8; 9] = [0x7D, 0x81, 0xAF, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];

    #[test]
    fn a_contec_frame_is_laid_out_as_in_a_capture_of_the_device() {
        // A capture of a CMS50D+ reads 01 E0 85 B3 96 C1 E1 FF FF; only signal strength (5, here 6) is not modelled.
        assert_eq!(Contec::live(FINGER, false), [0x01, 0xE0, 0x86, 0xB3, 0x96, 0xC1, 0xE1, 0xFF, 0xFF]);
        let fast = Contec::live(Sensed { pulse_rate: 150, ..FINGER }, false);
        assert_eq!((fast[1] & 0x08, fast[5]), (0x08, 0x96), "bit 7 of the pulse rate travels in byte 1");
        let off = Contec::live(Sensed { on_finger: false, ..FINGER }, false);
        assert_eq!((off[1] & 0x01, off[5], off[6]), (0x01, 0xFF, 0xFF));
    }

    #[test]
    fn a_contec_sends_only_while_somebody_keeps_asking() {
        let (mut contec, second) = (Contec::new(), Duration::from_secs(1));
        let start = Mono::from_millis(60_000);
        assert_eq!(contec.frame(FINGER, start), None, "nobody has asked");
        for part in [&[0x00, 0x7D][..], &START[..4], &START[4..8]] {
            assert_eq!(contec.command(part, start), Vec::<u8>::new());
            assert_eq!(contec.frame(FINGER, start), None, "the command is not complete");
        }
        contec.command(&START[8..], start);
        assert!(contec.frame(FINGER, start + second * 9).is_some());
        contec.command(&KEEP_ALIVE, start + second * 9);
        assert!(contec.frame(FINGER, start + second * 18).is_some());
        assert_eq!(contec.frame(FINGER, start + second * 20), None, "no keep-alive for 11 s");
        contec.command(&START, start + second * 20);
        assert!(contec.frame(FINGER, start + second * 20).is_some());
        let stop = [0x7D, 0x81, 0xA2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];
        assert_eq!(contec.command(&stop, start + second * 20), [0x0C, 0x80]);
        assert_eq!(contec.frame(FINGER, start + second * 20), None);
    }

    fn packet(nonin: &mut Nonin, sensed: Sensed) -> Vec<[u8; 5]> {
        (0..NONIN_PACKET).map(|_| nonin.frame(sensed)).collect()
    }

    fn after_search(sensed: Sensed) -> Nonin {
        let mut nonin = Nonin::new();
        for _ in 0..=SEARCH_S * 3 {
            packet(&mut nonin, sensed);
        }
        nonin
    }

    #[test]
    fn a_nonin_packet_carries_each_number_in_its_frame_with_a_checksum() {
        let fast = Sensed { pulse_rate: 130, spo2: 96, wave: 0x20, ..FINGER };
        let frames = packet(&mut after_search(fast), fast);
        for (place, frame) in frames.iter().enumerate() {
            assert_eq!(frame[0], 1);
            assert_eq!(frame[1], if place == 0 { 0x81 } else { 0x80 }, "{place}");
            assert_eq!(frame[4], frame[..4].iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), "{place}");
        }
        let floats: Vec<u8> = frames.iter().map(|frame| frame[3]).collect();
        // 130 = 0b1_0000010 goes as 2 bits and 7 bits: 01 02.
        assert_eq!((floats[0], floats[1], floats[2], floats[8]), (1, 2, 0x60, 0x60));
        assert_eq!((floats[19], floats[20]), (1, 2));
    }

    #[test]
    fn a_nonin_holds_its_display_for_ten_seconds_after_the_finger_has_gone() {
        let mut nonin = after_search(FINGER);
        let off = Sensed { on_finger: false, ..FINGER };
        let held = packet(&mut nonin, off);
        assert_eq!((held[0][1], held[0][3], held[1][3], held[2][3]), (0x89, 3, 0x7F, 0x7F), "measured: missing");
        assert_eq!((held[8][3], held[20][3]), (97, 65), "displayed: held");
        for _ in 0..30 {
            packet(&mut nonin, off);
        }
        let gone = packet(&mut nonin, off);
        assert_eq!((gone[8][3], gone[19][3], gone[20][3]), (0x7F, 3, 0x7F));
        let back = packet(&mut nonin, FINGER);
        assert_eq!((back[0][1], back[8][3]), (0x91, 0x7F), "it searches before it shows a number");
    }
}
