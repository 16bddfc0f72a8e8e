//! The TOML of a device profile as it is written: serde mirrors without meaning, checked by `build`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::vitals::Decimal;

/// A whole profile file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileDoc {
    pub(super) schema: Spanned<i64>,
    pub(super) id: Spanned<String>,
    pub(super) name: String,
    pub(super) kind: Spanned<super::model::DeviceKind>,
    /// Frames (or lines, or notifications) a second in normal operation.
    pub(super) nominal_hz: Spanned<f64>,
    /// Where the protocol is described, for whoever has to check the profile.
    #[serde(default)]
    pub(super) sources: Vec<String>,
    /// Whether it was read from the device itself, or only from descriptions and captures.
    pub(super) tried_on_hardware: Option<bool>,
    pub(super) serial: Option<Spanned<SerialDoc>>,
    pub(super) ble: Option<Spanned<BleDoc>>,
    pub(super) link: Option<Spanned<LinkDoc>>,
    pub(super) frame: Option<Spanned<FrameDoc>>,
    pub(super) driver: Option<Spanned<DriverDoc>>,
    pub(super) superframe: Option<Spanned<SuperframeDoc>>,
    #[serde(default)]
    pub(super) message: Vec<Spanned<MessageDoc>>,
    #[serde(default)]
    pub(super) test: Vec<Spanned<TestDoc>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SerialDoc {
    pub(super) settings: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) flow: super::model::Flow,
    pub(super) dtr: Option<super::model::Dtr>,
    /// USB adapters that the vendor uses, `vvvv:pppp` or `vvvv`.
    #[serde(default)]
    pub(super) usb: Vec<Spanned<String>>,
}

/// A protocol that is read by code instead of `[frame]` and `[[message]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DriverDoc {
    pub(super) name: Spanned<String>,
    /// How often numbers are asked for.
    pub(super) interval: Option<Spanned<String>>,
    /// The waves that are asked for.
    #[serde(default)]
    pub(super) waves: Vec<Spanned<String>>,
}

impl LinkDoc {
    /// Whether anything is ever sent.
    pub(super) const fn sends(&self) -> bool {
        let asks = !self.init.is_empty() || !self.poll.is_empty() || !self.stop.is_empty();
        asks || self.keep_alive.is_some() || !self.command.is_empty()
    }
}

/// A Bluetooth model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BleDoc {
    /// How it is recognised: any of these.
    #[serde(default, rename = "match")]
    pub(super) matches: Vec<Spanned<MatchDoc>>,
    /// The standard sensor that it is.
    pub(super) sensor: Option<Spanned<String>>,
    /// Or the service that carries the bytes of `[frame]`.
    pub(super) stream: Option<Spanned<StreamDoc>>,
    /// Or the advertised data that it sends without a connection.
    pub(super) advert: Option<Spanned<AdvertDoc>>,
    #[serde(default)]
    pub(super) quirks: Vec<Spanned<String>>,
    pub(super) presence: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) needs_bond: bool,
    pub(super) pair_method: Option<Spanned<String>>,
    pub(super) settle: Option<Spanned<String>>,
    pub(super) users: Option<Spanned<UsersDoc>>,
    pub(super) time_write: Option<Spanned<String>>,
    pub(super) stored: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) deletes_on_transfer: bool,
    pub(super) ends_link: Option<Spanned<String>>,
    pub(super) multi_packet: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) hints: Vec<String>,
}

/// One way to recognise a model: everything that is given must fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MatchDoc {
    pub(super) name: Option<Spanned<String>>,
    pub(super) service: Option<Spanned<String>>,
    pub(super) service_data: Option<Spanned<String>>,
    pub(super) company: Option<Spanned<String>>,
    pub(super) manufacturer: Option<Spanned<String>>,
    pub(super) model: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamDoc {
    pub(super) service: Spanned<String>,
    pub(super) notify: Spanned<String>,
    pub(super) write: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AdvertDoc {
    pub(super) service_data: Option<Spanned<String>>,
    pub(super) manufacturer_data: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsersDoc {
    pub(super) count: Spanned<u8>,
    #[serde(default)]
    pub(super) needs_consent: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkDoc {
    pub(super) silence: Spanned<String>,
    pub(super) gap: Option<Spanned<String>>,
    pub(super) checksum: Option<ChecksumDoc>,
    #[serde(default)]
    pub(super) init: Vec<Spanned<StepDoc>>,
    pub(super) keep_alive: Option<Spanned<RepeatDoc>>,
    #[serde(default)]
    pub(super) poll: Vec<Spanned<RepeatDoc>>,
    #[serde(default)]
    pub(super) stop: Vec<Spanned<StepDoc>>,
    #[serde(default)]
    pub(super) command: Vec<Spanned<CommandDoc>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepDoc {
    pub(super) send: Spanned<String>,
    pub(super) reply: Option<Spanned<String>>,
    pub(super) within: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RepeatDoc {
    pub(super) send: Spanned<String>,
    pub(super) every: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandDoc {
    pub(super) id: Spanned<String>,
    pub(super) send: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) actuates: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChecksumDoc {
    pub(super) kind: super::checksum::ChecksumKind,
    #[serde(default)]
    pub(super) from: i32,
    pub(super) to: Option<i32>,
    pub(super) at: Option<i32>,
    #[serde(default)]
    pub(super) endian: super::checksum::Endian,
    #[serde(default)]
    pub(super) encoding: super::checksum::Encoding,
    /// Frames shorter than this have no checksum.
    #[serde(default)]
    pub(super) absent_below: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FrameKindDoc {
    Packet,
    Delimited,
    Line,
    Payload,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameDoc {
    pub(super) kind: Spanned<FrameKindDoc>,
    pub(super) length: Option<Spanned<usize>>,
    pub(super) length_from: Option<Spanned<LengthFromDoc>>,
    pub(super) length_by: Option<Spanned<LengthByDoc>>,
    pub(super) magic: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) sync: Vec<Spanned<PredicateDoc>>,
    pub(super) rest: Option<Spanned<RestDoc>>,
    pub(super) unpack: Option<Spanned<UnpackDoc>>,
    pub(super) checksum: Option<Spanned<ChecksumDoc>>,
    pub(super) lock: Option<Spanned<usize>>,
    pub(super) start: Option<Spanned<String>>,
    /// Delimited: the end in hex. Line: the line ends, one or a list, as text.
    pub(super) end: Option<Spanned<OneOrMany>>,
    pub(super) escape: Option<Spanned<EscapeDoc>>,
    /// Bytes after `start` that are not searched for the end.
    pub(super) opaque: Option<Spanned<usize>>,
    pub(super) lines: Option<Spanned<LinesDoc>>,
    pub(super) min: Option<Spanned<usize>>,
    pub(super) max: Option<Spanned<usize>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LengthFromDoc {
    pub(super) at: usize,
    #[serde(default, rename = "type")]
    pub(super) kind: super::model::NumberKind,
    #[serde(default)]
    pub(super) add: i64,
    pub(super) min: usize,
    pub(super) max: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LengthByDoc {
    pub(super) at: usize,
    pub(super) lengths: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PredicateDoc {
    pub(super) at: usize,
    pub(super) mask: Option<u8>,
    pub(super) value: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestDoc {
    pub(super) from: usize,
    pub(super) mask: u8,
    pub(super) value: u8,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnpackDoc {
    /// The byte whose bit n is bit 7 of byte `from + n`.
    pub(super) high_bits_at: usize,
    pub(super) from: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EscapeDoc {
    pub(super) byte: u8,
    /// The byte after the escape is combined with this by exclusive or.
    pub(super) xor: Option<u8>,
    /// The byte after the escape is combined with this by or.
    pub(super) or: Option<u8>,
    /// The byte after the escape (hex) stands for this one.
    pub(super) replace: Option<BTreeMap<String, u8>>,
    /// The byte after the escape that aborts the frame.
    pub(super) abort: Option<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinesDoc {
    pub(super) from: usize,
    /// Bytes at the end of the frame that belong to no line (a checksum).
    #[serde(default)]
    pub(super) until: usize,
    pub(super) end: OneOrMany,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SuperframeDoc {
    pub(super) frames: usize,
    pub(super) first: PredicateDoc,
    pub(super) slot_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnDoc {
    Frame,
    Superframe,
    Line,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageDoc {
    pub(super) id: Spanned<String>,
    pub(super) on: Option<Spanned<OnDoc>>,
    #[serde(default)]
    pub(super) when: Vec<Spanned<PredicateDoc>>,
    #[serde(rename = "match")]
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) pairs: Option<PairsDoc>,
    #[serde(default)]
    pub(super) spot: bool,
    /// Set while what is sent was measured earlier.
    pub(super) historic: Option<Spanned<StatusDoc>>,
    pub(super) event: Option<Spanned<String>>,
    pub(super) serial_number: Option<Spanned<TextDoc>>,
    pub(super) device_time: Option<Spanned<TextDoc>>,
    #[serde(default)]
    pub(super) status: BTreeMap<String, Spanned<StatusDoc>>,
    #[serde(default)]
    pub(super) state: Vec<Spanned<StateDoc>>,
    #[serde(default)]
    pub(super) field: Vec<Spanned<FieldDoc>>,
    #[serde(default)]
    pub(super) wave: Vec<Spanned<WaveDoc>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairsDoc {
    pub(super) sep: String,
    pub(super) assign: String,
    #[serde(default)]
    pub(super) strip: String,
}

/// A text: a group or a key of a line, ASCII bytes of a frame, or bytes in BCD.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TextDoc {
    pub(super) group: Option<String>,
    pub(super) key: Option<String>,
    pub(super) at: Option<usize>,
    pub(super) length: Option<usize>,
    #[serde(default)]
    pub(super) bcd: bool,
    /// A byte each for the year from 2000, month, day, hour, minute, and perhaps second.
    #[serde(default)]
    pub(super) clock: bool,
    /// Texts that mean "none".
    #[serde(default)]
    pub(super) invalid: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusDoc {
    pub(super) at: Option<usize>,
    pub(super) key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) radix: Option<u32>,
    pub(super) bit: Option<u32>,
    pub(super) mask: Option<u32>,
    pub(super) value: Option<u32>,
    /// A word of the group.
    pub(super) word: Option<String>,
    pub(super) maps: Option<Spanned<String>>,
    pub(super) event: Option<Spanned<String>>,
    pub(super) latch: Option<LatchDoc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LatchDoc {
    Superframe,
}

/// Where a number comes from; the keys are repeated in [`StateDoc`] and [`FieldDoc`], because serde's `flatten`
/// loses the places in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceDoc {
    pub(super) at: Option<usize>,
    pub(super) kind: Option<super::model::NumberKind>,
    pub(super) bytes: Option<usize>,
    pub(super) mask: Option<u32>,
    pub(super) bits: Vec<PieceDoc>,
    pub(super) sum: Vec<TermDoc>,
    pub(super) key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) radix: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PieceDoc {
    pub(super) at: usize,
    pub(super) bit: u32,
    pub(super) width: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermDoc {
    pub(super) at: usize,
    #[serde(default, rename = "type")]
    pub(super) kind: super::model::NumberKind,
    pub(super) scale: Option<Decimal>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateDoc {
    pub(super) name: Spanned<String>,
    pub(super) at: Option<usize>,
    #[serde(rename = "type")]
    pub(super) kind: Option<super::model::NumberKind>,
    pub(super) mask: Option<u32>,
    #[serde(default)]
    pub(super) bits: Vec<PieceDoc>,
    pub(super) key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) radix: Option<u32>,
    pub(super) values: BTreeMap<String, String>,
    /// The name of every number that is not in `values`.
    pub(super) other: Option<String>,
    /// Value -> status.
    #[serde(default)]
    pub(super) maps: BTreeMap<String, String>,
    /// Value -> reason of absence, where no status says it.
    #[serde(default)]
    pub(super) reason: BTreeMap<String, String>,
    /// Values in which a field that needs another value is not mentioned at all.
    #[serde(default)]
    pub(super) quiet: Vec<String>,
}

impl StateDoc {
    pub(super) fn source(&self) -> SourceDoc {
        SourceDoc {
            at: self.at,
            kind: self.kind,
            bytes: None,
            mask: self.mask,
            bits: self.bits.clone(),
            sum: Vec::new(),
            key: self.key.clone(),
            group: self.group.clone(),
            radix: self.radix,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldDoc {
    pub(super) metric: Spanned<String>,
    pub(super) part: Option<super::model::Part>,
    pub(super) mdc: Option<u32>,
    pub(super) unit: Option<Spanned<String>>,
    pub(super) at: Option<usize>,
    #[serde(rename = "type")]
    pub(super) kind: Option<super::model::NumberKind>,
    pub(super) bytes: Option<usize>,
    pub(super) mask: Option<u32>,
    #[serde(default)]
    pub(super) bits: Vec<PieceDoc>,
    #[serde(default)]
    pub(super) sum: Vec<TermDoc>,
    pub(super) key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) radix: Option<u32>,
    #[serde(default)]
    pub(super) invalid: Vec<i64>,
    pub(super) scale: Option<Decimal>,
    pub(super) offset: Option<Decimal>,
    pub(super) range: Option<Spanned<[Decimal; 2]>>,
    /// The clause that makes 0 a measurement.
    pub(super) zero_is_measured: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) unless: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) only: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    pub(super) optional: bool,
}

impl FieldDoc {
    pub(super) fn source(&self) -> SourceDoc {
        SourceDoc {
            at: self.at,
            kind: self.kind,
            bytes: self.bytes,
            mask: self.mask,
            bits: self.bits.clone(),
            sum: self.sum.clone(),
            key: self.key.clone(),
            group: self.group.clone(),
            radix: self.radix,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaveDoc {
    /// One name, or the names of interleaved waves.
    pub(super) name: OneOrMany,
    pub(super) at: usize,
    #[serde(default, rename = "type")]
    pub(super) kind: super::model::NumberKind,
    pub(super) mask: Option<u32>,
    /// Samples of each wave in one frame.
    #[serde(default = "one")]
    pub(super) count: usize,
    /// Samples of each wave a second; without it `nominal_hz * count`.
    pub(super) hz: Option<f64>,
    #[serde(default)]
    pub(super) baseline: i32,
    /// Lowest and highest number the converter can give.
    pub(super) saturated: Option<[i32; 2]>,
}

const fn one() -> usize {
    1
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestDoc {
    pub(super) name: String,
    pub(super) case: super::model::TestCase,
    pub(super) hex: Option<Spanned<String>>,
    pub(super) text: Option<String>,
    /// The bytes are played this often, one after the other.
    #[serde(default = "one")]
    pub(super) times: usize,
    #[serde(default)]
    pub(super) expect: Vec<Spanned<BTreeMap<String, ExpectDoc>>>,
    #[serde(default)]
    pub(super) waves: BTreeMap<String, Vec<i32>>,
    pub(super) status: Option<Spanned<Vec<String>>>,
    pub(super) beats: Option<u64>,
    #[serde(default)]
    pub(super) events: Vec<String>,
    pub(super) serial_number: Option<String>,
    pub(super) device_time: Option<String>,
    pub(super) frames: Option<u64>,
    pub(super) bad_checksum: Option<u64>,
    pub(super) skipped_bytes: Option<u64>,
}

/// What a metric must be: a number, the reason of its absence, or the parts of a pressure.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum ExpectDoc {
    Number(NumberDoc),
    Reason(String),
    Pressure(PressureDoc),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum NumberDoc {
    Integer(i64),
    Float(f64),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PressureDoc {
    pub(super) systolic: Option<PartDoc>,
    pub(super) diastolic: Option<PartDoc>,
    pub(super) mean: Option<PartDoc>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum PartDoc {
    Number(NumberDoc),
    Reason(String),
}
