//! What a checked profile means: the form that the decoder and the serial source work with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;

use super::checksum::Checksum;
use crate::named::named_enum;
use crate::vitals::{Absent, Decimal, Metric, Status};

named_enum! {
    /// What kind of device a profile is for.
    DeviceKind {
        /// A pulse oximeter.
        PulseOximeter = "pulse_oximeter",
        /// A cuff.
        BloodPressure = "blood_pressure",
        /// A monitor or module of several vitals.
        MultiParameter = "multi_parameter",
        /// An ECG or a heart-rate strap.
        HeartRate = "heart_rate",
        /// A thermometer.
        Thermometer = "thermometer",
        /// A capnograph.
        Capnograph = "capnograph",
        /// A glucose meter.
        Glucose = "glucose",
        /// Scales.
        Scales = "scales",
    }
}

/// Flow control of a serial line. XON/XOFF is not offered: it eats the data bytes 0x11 and 0x13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Flow {
    /// None.
    #[default]
    None,
    /// RTS and CTS wires.
    Rtscts,
}

impl TryFrom<String> for Flow {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "none" => Ok(Self::None),
            "rtscts" => Ok(Self::Rtscts),
            "xonxoff" | "xon_xoff" | "software" => {
                Err("XON/XOFF is not offered: it eats the data bytes 0x11 and 0x13; write none or rtscts".to_owned())
            }
            other => Err(format!("`{other}` is no flow control; write none or rtscts")),
        }
    }
}

/// What to do with DTR when the port is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtr {
    /// Asserted.
    On,
    /// Released, for boards that reset on DTR.
    Off,
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Speed and character format of a serial line, written `9600 8N1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSettings {
    /// Bits a second.
    pub baud: u32,
    /// 7 or 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

impl LineSettings {
    /// Reads `9600 8N1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (baud, format) = text.split_once(' ')?;
        let mut letters = format.chars();
        let data_bits = u8::try_from(letters.next()?.to_digit(10)?).ok()?;
        let parity = match letters.next()? {
            'N' => Parity::None,
            'O' => Parity::Odd,
            'E' => Parity::Even,
            _ => return None,
        };
        let stop_bits = u8::try_from(letters.next()?.to_digit(10)?).ok()?;
        let baud = baud.parse().ok().filter(|baud| (300..=4_000_000).contains(baud))?;
        let fits = letters.next().is_none() && (7..=8).contains(&data_bits) && (1..=2).contains(&stop_bits);
        fits.then_some(Self { baud, data_bits, parity, stop_bits })
    }
}

impl fmt::Display for LineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Odd => 'O',
            Parity::Even => 'E',
        };
        write!(f, "{} {}{}{}", self.baud, self.data_bits, parity, self.stop_bits)
    }
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    /// Settings that devices of this model use, the most usual first. Never empty.
    pub settings: Vec<LineSettings>,
    /// Flow control.
    pub flow: Flow,
    /// `None`: leave DTR alone.
    pub dtr: Option<Dtr>,
    /// USB adapters that the vendor builds in: vendor and, where given, product.
    pub usb: Vec<(u16, Option<u16>)>,
}

/// Bytes to send, and the answer to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is sent.
    pub send: Vec<u8>,
    /// The answer that shows it was understood.
    pub reply: Option<Vec<u8>>,
    /// How long to wait for the answer.
    pub within: Duration,
}

/// Bytes to send again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// What is sent.
    pub send: Vec<u8>,
    /// How often.
    pub every: Duration,
}

/// A command that somebody may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub id: String,
    /// What is sent, in this order, with the link's gap between.
    pub send: Vec<Vec<u8>>,
    /// True if it moves something on the patient (inflates a cuff): needs an operator's allow-list.
    pub actuates: bool,
}

/// How the host talks to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Without a good frame for this long the device counts as silent.
    pub silence: Duration,
    /// Shortest pause between two things that are sent.
    pub gap: Duration,
    /// Sent once after the port is open.
    pub init: Vec<Step>,
    /// Sent so that the device goes on.
    pub keep_alive: Option<Repeat>,
    /// Sent to get data.
    pub poll: Vec<Repeat>,
    /// Sent before the port is closed.
    pub stop: Vec<Step>,
    /// Sent on request.
    pub commands: Vec<Command>,
}

/// Silence that is assumed where a profile has no `[link]`.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(5);

impl Default for Link {
    fn default() -> Self {
        Self {
            silence: DEFAULT_SILENCE,
            gap: Duration::ZERO,
            init: Vec::new(),
            keep_alive: None,
            poll: Vec::new(),
            stop: Vec::new(),
            commands: Vec::new(),
        }
    }
}

/// One byte of a frame must have this value under this mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predicate {
    /// Which byte, from 0.
    pub at: usize,
    /// The bits that count.
    pub mask: u8,
    /// What they must be.
    pub value: u8,
}

impl Predicate {
    /// True if `byte`, the one at `at`, fits.
    pub const fn fits(&self, byte: u8) -> bool {
        byte & self.mask == self.value
    }

    /// True if the frame has the byte and it fits.
    pub fn holds(&self, frame: &[u8]) -> bool {
        frame.get(self.at).is_some_and(|byte| self.fits(*byte))
    }
}

/// A number in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberKind {
    /// Unsigned byte.
    #[default]
    U8,
    /// Signed byte.
    I8,
    /// Unsigned, 2 bytes, least significant first.
    U16le,
    /// Unsigned, 2 bytes, most significant first.
    U16be,
    /// Signed, 2 bytes, least significant first.
    I16le,
    /// Signed, 2 bytes, most significant first.
    I16be,
    /// Unsigned, 3 bytes, least significant first.
    U24le,
    /// Unsigned, 3 bytes, most significant first.
    U24be,
    /// Unsigned, 4 bytes, least significant first.
    U32le,
    /// Unsigned, 4 bytes, most significant first.
    U32be,
    /// Signed, 4 bytes, least significant first.
    I32le,
    /// Signed, 4 bytes, most significant first.
    I32be,
    /// Decimal digits, two a byte, most significant first; `bytes` of them.
    Bcd,
    /// IEEE 11073 SFLOAT, least significant byte first.
    Sfloat,
    /// IEEE 11073 FLOAT, least significant byte first.
    Float,
}

impl NumberKind {
    /// Bytes that it takes; BCD says its own number.
    pub const fn width(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bcd => 1,
            Self::U16le | Self::U16be | Self::I16le | Self::I16be | Self::Sfloat => 2,
            Self::U24le | Self::U24be => 3,
            Self::U32le | Self::U32be | Self::I32le | Self::I32be | Self::Float => 4,
        }
    }

    /// Bits of a signed number, by which its sign is extended; 0 for the others.
    pub const fn signed_bits(self) -> u32 {
        match self {
            Self::I8 => 8,
            Self::I16le | Self::I16be => 16,
            Self::I32le | Self::I32be => 32,
            _ => 0,
        }
    }
}

/// How long a packet is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Length {
    /// Always the same.
    Fixed(usize),
    /// Written in the packet, plus `add`; trusted only inside `min..=max`.
    Field {
        /// Where it is written.
        at: usize,
        /// Its type.
        kind: NumberKind,
        /// What has to be added to get the whole packet.
        add: i64,
        /// Shortest packet.
        min: usize,
        /// Longest packet.
        max: usize,
    },
    /// By the value of one byte; no other value begins a packet.
    ByType {
        /// The byte.
        at: usize,
        /// The lengths by its value; 0: not a packet.
        lengths: Box<[u16; 256]>,
    },
}

/// Packets: found by fixed bits and a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Bytes that every packet has, in the order of their places.
    pub sync: Vec<Predicate>,
    /// How long it is.
    pub length: Length,
    /// What every byte from `at` on has in common.
    pub rest: Option<Predicate>,
    /// 7-bit packing.
    pub unpack: Option<Unpack>,
}

/// Bit n of the byte at `high_bits_at` is bit 7 of byte `from + n`; every other bit 7 only marks the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpack {
    /// The byte with the high bits.
    pub high_bits_at: usize,
    /// The first byte they belong to.
    pub from: usize,
}

/// What the byte after an escape stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Escaped {
    /// Combined with this by exclusive or.
    Xor(u8),
    /// Combined with this by or.
    Or(u8),
    /// Looked up; any other byte breaks the frame.
    Replace(BTreeMap<u8, u8>),
}

/// An escape byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escape {
    /// The byte.
    pub byte: u8,
    /// The meaning of the next one.
    pub escaped: Escaped,
    /// The next byte that gives up the frame.
    pub abort: Option<u8>,
}

/// Text lines inside a delimited frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerLines {
    /// The first byte of text.
    pub from: usize,
    /// Bytes at the end of the frame that are no text.
    pub until: usize,
    /// Line ends.
    pub end: Vec<Vec<u8>>,
}

/// Frames between two marks. The decoder sees what is between them, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimited {
    /// The mark before.
    pub start: Vec<u8>,
    /// The mark after.
    pub end: Vec<u8>,
    /// How the marks are written inside.
    pub escape: Option<Escape>,
    /// Bytes after the start that are not searched for the end.
    pub opaque: usize,
    /// Shortest content.
    pub min: usize,
    /// Text lines inside.
    pub lines: Option<InnerLines>,
}

/// How frames are found in a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// By fixed bits and a length.
    Packet(Packet),
    /// Between two marks.
    Delimited(Delimited),
    /// Lines of text; the ends, longest first.
    Line {
        /// Line ends.
        end: Vec<Vec<u8>>,
    },
    /// Each notification is one frame.
    Payload {
        /// Shortest.
        min: usize,
        /// Bytes that every frame has.
        sync: Vec<Predicate>,
    },
}

/// Framing of a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing {
    /// How frames are found.
    pub rule: Rule,
    /// The checksum of a frame, if it has one.
    pub checksum: Option<Checksum>,
    /// So many good frames in a row are needed before the first of them counts.
    pub lock: usize,
    /// Longest frame, in bytes on the line.
    pub max: usize,
}

/// Slots of a multiplexed frame, collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superframe {
    /// Frames in one.
    pub frames: usize,
    /// True for the first frame, and only for it.
    pub first: Predicate,
    /// The byte that is multiplexed.
    pub slot_at: usize,
}

/// What a message is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A frame.
    Frame,
    /// The slots of a whole superframe.
    Superframe,
    /// A line of text.
    Line,
}

/// One piece of a number made of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The byte.
    pub at: usize,
    /// Its lowest bit that belongs to the number.
    pub bit: u32,
    /// How many bits, 1 to 8.
    pub width: u32,
}

/// One part of a number that is a sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Where.
    pub at: usize,
    /// Its type.
    pub kind: NumberKind,
    /// What one unit of it is worth.
    pub scale: Decimal,
}

/// Where a number comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Whole bytes.
    Number {
        /// The first byte.
        at: usize,
        /// The type.
        kind: NumberKind,
        /// Bytes, for BCD.
        bytes: usize,
        /// Bits that count.
        mask: Option<u32>,
    },
    /// Pieces of bits, most significant first.
    Bits(Vec<Piece>),
    /// A sum of numbers.
    Sum(Vec<Term>),
    /// The value of a key in a line.
    Key {
        /// The key.
        key: String,
        /// 10, or the base of a whole number.
        radix: u32,
    },
    /// A group of the line's pattern.
    Group {
        /// Its number.
        group: usize,
        /// 10, or the base of a whole number.
        radix: u32,
    },
}

/// A text in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// A group of the line's pattern.
    Group(usize),
    /// The value of a key.
    Key(String),
    /// ASCII bytes.
    Ascii {
        /// The first byte.
        at: usize,
        /// Bytes.
        length: usize,
    },
    /// Bytes as decimal digits.
    Bcd {
        /// The first byte.
        at: usize,
        /// Bytes.
        length: usize,
    },
    /// Year from 2000, month, day, hour, minute and perhaps second, a byte each.
    Clock {
        /// The first byte.
        at: usize,
        /// Bytes: 5 or 6.
        length: usize,
    },
}

/// A text and what means "none".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where.
    pub source: TextSource,
    /// Texts that mean "none".
    pub invalid: Vec<String>,
}

/// Something to tell when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// A heart beat.
    Beat,
    /// Anything else, by its name.
    Named(Arc<str>),
}

/// When a status flag is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// Bits of a byte of the frame.
    Byte(Predicate),
    /// Bits of a number.
    Number {
        /// Which number.
        source: Source,
        /// The bits that count.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// A word among the words of a group.
    Word {
        /// The group.
        group: usize,
        /// The word.
        word: String,
    },
    /// A key whose value is not empty and has no dashes.
    Present {
        /// The group.
        group: usize,
    },
}

/// A status flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Its name, for gates.
    pub name: String,
    /// Its number in the decoder's table.
    pub index: usize,
    /// When it is set.
    pub test: Test,
    /// What it means for every device.
    pub maps: Option<Status>,
    /// What happens when it begins to be set.
    pub event: Option<Happening>,
    /// True: set in any frame of a superframe counts for all of it.
    pub latched: bool,
}

/// One value of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateValue {
    /// The number in the frame; `None`: any that no other value has.
    pub number: Option<i64>,
    /// Its name.
    pub name: String,
    /// What it means for every device.
    pub maps: Option<Status>,
    /// Why there is no value while it lasts.
    pub reason: Option<Absent>,
    /// True: fields that need another value are not mentioned.
    pub quiet: bool,
}

/// An enumerated state of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Its name, for gates.
    pub name: String,
    /// Its number in the decoder's table.
    pub index: usize,
    /// Where it is.
    pub source: Source,
    /// Its values.
    pub values: Vec<StateValue>,
}

/// A part of a pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The highest in a beat.
    Systolic,
    /// The lowest in a beat.
    Diastolic,
    /// The mean.
    Mean,
}

/// A gate that withholds a field while a flag is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unless {
    /// The flag.
    pub flag: usize,
    /// Why there is no value then.
    pub reason: Absent,
}

/// A gate that withholds a field unless a state has one of these values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// The state.
    pub state: usize,
    /// Numbers of the allowed values in [`State::values`].
    pub allowed: Vec<usize>,
}

/// A vital in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it is.
    pub metric: Metric,
    /// Which part, for pressures.
    pub part: Option<Part>,
    /// Another code than the metric's own.
    pub mdc: Option<u32>,
    /// Where its number comes from.
    pub source: Source,
    /// Raw numbers that mean "no value".
    pub invalid: Vec<i64>,
    /// Multiplied with the raw number; its exponent gives the decimal places.
    pub scale: Option<Decimal>,
    /// Added after scaling.
    pub offset: Option<Decimal>,
    /// Bounds beside the metric's own.
    pub range: Option<(Decimal, Decimal)>,
    /// True if the profile cites why 0 is a measurement.
    pub zero_is_measured: bool,
    /// Flags that withhold it.
    pub unless: Vec<Unless>,
    /// States that it needs.
    pub only: Vec<Only>,
    /// True: where the frame has no such bytes, nothing is said.
    pub optional: bool,
}

/// A wave, or interleaved waves.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// Names and numbers in the decoder's table, in the order of the samples.
    pub names: Vec<(Arc<str>, usize)>,
    /// The first sample.
    pub at: usize,
    /// The type of a sample.
    pub kind: NumberKind,
    /// Bits that count.
    pub mask: Option<u32>,
    /// Samples of each wave in one frame.
    pub count: usize,
    /// Samples of each wave a second.
    pub hz: f64,
    /// The number that is zero signal.
    pub baseline: i32,
    /// Lowest and highest number the converter can give.
    pub saturated: Option<(i32, i32)>,
}

/// `KEY=VALUE` pairs in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairs {
    /// Between two pairs.
    pub separator: String,
    /// Between key and value.
    pub assign: String,
    /// Characters that are taken off the end of a value.
    pub strip: String,
}

/// One kind of frame, superframe or line, and what is in it.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its name.
    pub id: String,
    /// What it is read from.
    pub on: On,
    /// Bytes by which it is known.
    pub when: Vec<Predicate>,
    /// The pattern of a line.
    pub pattern: Option<Regex>,
    /// The pairs of a line.
    pub pairs: Option<Pairs>,
    /// True: the device repeats its last measurement, which counts once.
    pub spot: bool,
    /// Holds while what is sent was measured earlier.
    pub historic: Option<Test>,
    /// What its arrival tells.
    pub event: Option<Happening>,
    /// The device's serial number.
    pub serial_number: Option<Text>,
    /// The device's own time.
    pub device_time: Option<Text>,
    /// Flags.
    pub flags: Vec<Flag>,
    /// States.
    pub states: Vec<State>,
    /// Vitals.
    pub fields: Vec<Field>,
    /// Waves.
    pub waves: Vec<Wave>,
}

named_enum! {
    /// What an embedded test shows.
    TestCase {
        /// Values are read.
        Valid = "valid",
        /// Values are withheld because of what the device says (sensor off, no pulse, sentinel).
        SensorOff = "sensor_off",
        /// Damaged bytes give no value.
        Corrupted = "corrupted",
    }
}

/// What one metric must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// One number, or the reason why there is none.
    One(Result<Decimal, Absent>),
    /// The parts of a pressure; `None`: not looked at.
    Pressure {
        /// Systolic.
        systolic: Option<Result<Decimal, Absent>>,
        /// Diastolic.
        diastolic: Option<Result<Decimal, Absent>>,
        /// Mean.
        mean: Option<Result<Decimal, Absent>>,
    },
}

/// One embedded test.
#[derive(Debug, Clone)]
pub struct EmbeddedTest {
    /// What it shows.
    pub name: String,
    /// The line of the file it is on.
    pub line: usize,
    /// What kind of case it is.
    pub case: TestCase,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The vitals, message by message.
    pub expect: Vec<BTreeMap<Metric, Expected>>,
    /// The samples of waves.
    pub waves: BTreeMap<String, Vec<i32>>,
    /// The flags at the end.
    pub status: Option<Vec<Status>>,
    /// Heart beats.
    pub beats: Option<u64>,
    /// Other events, in their order.
    pub events: Vec<String>,
    /// The serial number.
    pub serial_number: Option<String>,
    /// The device's time in the last reading.
    pub device_time: Option<String>,
    /// Good frames.
    pub frames: Option<u64>,
    /// Frames with a wrong sum.
    pub bad_checksum: Option<u64>,
    /// Bytes that belong to no good frame.
    pub skipped_bytes: Option<u64>,
}
