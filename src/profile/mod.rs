//! Device profiles: one `devices/*.toml` says how a device is talked to, framed and decoded, and proves it with bytes.
//!
//! [`Profile::parse`] reads and checks one. docs/profiles.md teaches how to write one.

pub mod ble;
mod build;
mod build_ble;
mod build_frame;
mod build_message;
mod build_test;
mod built_in;
pub mod checksum;
pub mod driver;
pub mod hex;
pub mod model;
mod models;
mod overlap;
mod schema;
mod unasked;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use build::{nearest, parse_duration};
pub use build_frame::MAX_FRAME;
pub use built_in::{built_in, built_in_ids, built_in_text, nearest_ids, nearest_of};
pub use models::Models;

use crate::document::{self, Problems};
use crate::vitals::{Metric, Status};
use ble::{Ble, Gatt, Quirk};
use driver::DriverSettings;
use model::{DeviceKind, EmbeddedTest, Framing, Link, Message, Rule, Serial, Superframe};

/// Largest profile file that is read, in bytes.
pub const MAX_PROFILE_BYTES: usize = 256 * 1024;

/// A device that may be silent for so long measures now and then. How often it sends does not tell: an anaesthesia monitor
/// that answers every 5 s measures all the time.
const SPOT_CHECK_SILENCE: Duration = Duration::from_mins(1);

/// What a place begins with that `vitalbridge profile new` leaves to its author.
pub const MARK: &str = "FILL:";

/// What is known of one wave.
#[derive(Debug, Clone, PartialEq)]
pub struct WaveInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Samples a second, nominally.
    pub hz: f64,
    /// The number that is zero signal.
    pub baseline: i32,
    /// Lowest and highest number the converter can give.
    pub saturated: Option<(i32, i32)>,
}

/// A checked profile.
#[derive(Debug, Clone)]
pub struct Profile {
    id: String,
    name: String,
    kind: DeviceKind,
    nominal_hz: f64,
    sources: Vec<String>,
    serial: Option<Serial>,
    tried_on_hardware: bool,
    ble: Option<Ble>,
    link: Link,
    framing: Framing,
    driver: Option<DriverSettings>,
    superframe: Option<Superframe>,
    messages: Vec<Message>,
    flag_maps: Vec<Option<Status>>,
    state_count: usize,
    waves: Vec<WaveInfo>,
    tests: Vec<EmbeddedTest>,
    warnings: Problems,
}

impl Profile {
    /// Reads and checks a profile; all problems of the text at once, each with its line.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        if text.len() > MAX_PROFILE_BYTES {
            problems.add_at_line(0, format!("the profile has {} bytes, at most {MAX_PROFILE_BYTES}", text.len()));
            return Err(problems);
        }
        let is_marked = |line: &str| line.split(['"', '\'']).skip(1).any(|part| part.starts_with(MARK));
        for (number, line) in (1..).zip(text.lines()) {
            if is_marked(line) {
                problems.add_at_line(number, format!("this place is still to be filled in ({MARK})"));
            }
        }
        match document::read(text, &mut problems) {
            Some(doc) => build::profile(text, doc, problems),
            None => Err(problems),
        }
    }

    /// The name by which configuration and command line call it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The device in words.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of device it is.
    pub const fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// Frames, lines or notifications a second in normal operation.
    pub const fn nominal_hz(&self) -> f64 {
        self.nominal_hz
    }

    /// Where the protocol is described.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// The serial line, if the device has one.
    pub const fn serial(&self) -> Option<&Serial> {
        self.serial.as_ref()
    }

    /// Whether it was read from the device itself, or only from descriptions and captures.
    pub const fn is_tried_on_hardware(&self) -> bool {
        self.tried_on_hardware
    }

    /// The Bluetooth side, if the device has one.
    pub const fn ble(&self) -> Option<&Ble> {
        self.ble.as_ref()
    }

    /// The GATT service whose notifications carry the bytes of [`Profile::framing`], if the device has one.
    pub fn gatt(&self) -> Option<&Gatt> {
        self.ble.as_ref().and_then(Ble::stream)
    }

    /// In what it departs from the standard characteristics.
    pub fn quirks(&self) -> &[Quirk] {
        self.ble.as_ref().map_or(&[], |ble| &ble.quirks)
    }

    /// True if the program itself decodes what the device sends, payload by payload: standard characteristics, or
    /// advertised data.
    pub fn is_standard(&self) -> bool {
        self.ble.as_ref().is_some_and(|ble| ble.stream().is_none())
    }

    /// How the host talks to the device.
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// The driver that reads the device, where the profile names one instead of describing frames and messages.
    pub const fn driver(&self) -> Option<&DriverSettings> {
        self.driver.as_ref()
    }

    /// How frames are found; with a driver, what its messages look like.
    pub const fn framing(&self) -> &Framing {
        &self.framing
    }

    /// How multiplexed slots are collected.
    pub const fn superframe(&self) -> Option<&Superframe> {
        self.superframe.as_ref()
    }

    /// The kinds of message.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// What each status flag means, by its number.
    pub(crate) fn flag_maps(&self) -> &[Option<Status>] {
        &self.flag_maps
    }

    /// How many states there are.
    pub(crate) const fn state_count(&self) -> usize {
        self.state_count
    }

    /// The waves, by their number.
    pub fn waves(&self) -> &[WaveInfo] {
        &self.waves
    }

    /// The embedded tests.
    pub fn tests(&self) -> &[EmbeddedTest] {
        &self.tests
    }

    /// What is allowed and odd: bits that two parts of a message read.
    pub const fn warnings(&self) -> &Problems {
        &self.warnings
    }

    /// True if the device tells its serial number in some message.
    pub fn tells_serial_number(&self) -> bool {
        let by_driver = self.driver().is_some_and(|driver| driver.kind.tells_serial_number());
        by_driver || self.messages().iter().any(|message| message.serial_number.is_some())
    }

    /// True if the device measures now and then, so that nothing is missed between two measurements: it may be
    /// silent for a minute and more.
    pub fn is_spot_check(&self) -> bool {
        self.link.silence >= SPOT_CHECK_SILENCE
    }

    /// For each metric of its messages, what the device may say about itself that withholds it. Empty for a driver, which
    /// withholds by itself.
    pub fn withholding(&self) -> BTreeMap<Metric, BTreeSet<Status>> {
        let mut withholding: BTreeMap<Metric, BTreeSet<Status>> = BTreeMap::new();
        let states = || self.messages.iter().flat_map(|message| &message.states);
        for field in self.messages.iter().flat_map(|message| &message.fields) {
            let of_field = withholding.entry(field.metric).or_default();
            of_field.extend(field.unless.iter().filter_map(|gate| self.flag_maps.get(gate.flag).copied().flatten()));
            for gate in &field.only {
                let values = states().filter(|state| state.index == gate.state).flat_map(|state| &state.values);
                let refused = values.enumerate().filter(|(number, _)| !gate.allowed.contains(number));
                of_field.extend(refused.filter_map(|(_, value)| value.maps));
            }
        }
        withholding
    }

    /// True if each frame carries a checksum, so that damage is noticed.
    pub const fn has_checksum(&self) -> bool {
        self.framing.checksum.is_some()
    }

    /// True if the device sends lines of text.
    pub const fn is_text(&self) -> bool {
        matches!(self.framing.rule, Rule::Line { .. })
    }
}
