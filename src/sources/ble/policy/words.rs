//! What goes into the connection policy, what comes out of it, and what it shows of itself.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::bluez::BleAddress;
use crate::clock::{Mono, Stamp};
use crate::named::named_enum;
use crate::sources::ble::sensor::{Habit, Manner};
use crate::sources::ble::wanted::Wanted;

/// One wanted sensor, for as long as its source runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SensorKey(pub u32);

/// A sensor that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedSensor {
    /// How it is recognised.
    pub wanted: Wanted,
    /// How it comes and goes.
    pub habit: Habit,
    /// How else it wants to be treated.
    pub manner: Manner,
}

/// How long each step may take, and how often it may be tried. BlueZ and btleplug have limits too, but longer ones, and
/// without cleaning up after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BleLimits {
    /// One question to BlueZ.
    pub call: Duration,
    /// Reaching the bus, the adapter and its events.
    pub start: Duration,
    /// A sensor that was not heard for so long is told of.
    pub scan: Duration,
    /// No advertisement of anybody for so long: the scan has died silently.
    pub scan_watchdog: Duration,
    /// A sensor that was heard longer ago is not connected to: BlueZ forgets it 30 s after a scan, and BlueZ's own
    /// `Connect` to a sensor that has left blocks all others.
    pub fresh: Duration,
    /// `Connect`, until the services are resolved.
    pub connect: Duration,
    /// From the link to its services. Doubled for a sensor that has failed at this, up to `connect`: some are slow.
    pub resolve: Duration,
    /// From there to the subscription. A sensor that wants to be paired takes long here.
    pub subscribe: Duration,
    /// One read.
    pub read: Duration,
    /// `Disconnect`. BlueZ itself takes 2.5 s for it.
    pub disconnect: Duration,
    /// Overrides the silence after which a live sensor is given up; for tests.
    pub silence: Option<Duration>,
    /// The shortest and the longest pause after a failure.
    pub pause: (Duration, Duration),
    /// The pause after an episodic sensor has ended its link: many go on advertising.
    pub episode_pause: Duration,
    /// The longest such pause. It grows up to this with each visit that brought nothing new, while the sensor advertises
    /// on all the time.
    pub empty_pause: Duration,
    /// One that was not heard for so long and is heard again has come for something new.
    pub away: Duration,
    /// A link that has carried data for so long was a good one: pauses are short again.
    pub stable: Duration,
    /// Listening before a sensor that has failed is tried again, while another one has not been heard.
    pub listen: Duration,
    /// Most attempts at one sensor within a minute.
    pub attempts_a_minute: usize,
    /// Most attempts of the adapter within a minute.
    pub adapter_attempts_a_minute: usize,
    /// The shortest and the longest pause before a generation is started again.
    pub generation_pause: (Duration, Duration),
    /// Between two power cycles, and between two generations made for want of success.
    pub between_cures: Duration,
    /// Switching the adapter off and on again.
    pub power_cycle: Duration,
    /// The daemon is not ended for the radio's sake before it has run for so long.
    pub before_exit: Duration,
}

impl Default for BleLimits {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            start: Duration::from_secs(15),
            scan: Duration::from_secs(30),
            scan_watchdog: Duration::from_secs(90),
            fresh: Duration::from_secs(25),
            connect: Duration::from_secs(20),
            resolve: Duration::from_secs(5),
            subscribe: Duration::from_secs(30),
            read: Duration::from_secs(5),
            disconnect: Duration::from_secs(5),
            silence: None,
            pause: (Duration::from_millis(250), Duration::from_mins(1)),
            episode_pause: Duration::from_secs(5),
            empty_pause: Duration::from_mins(10),
            away: Duration::from_mins(1),
            stable: Duration::from_secs(30),
            listen: Duration::from_secs(2),
            attempts_a_minute: 8,
            adapter_attempts_a_minute: 30,
            generation_pause: (Duration::from_millis(500), Duration::from_secs(10)),
            between_cures: Duration::from_mins(10),
            power_cycle: Duration::from_secs(15),
            before_exit: Duration::from_hours(1),
        }
    }
}

/// One advertisement, or a device that BlueZ knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advert {
    /// From whom.
    pub address: BleAddress,
    /// Its name, if it has said one.
    pub name: Option<String>,
    /// Signal strength in dBm. `None`: BlueZ remembers the device and does not hear it.
    pub rssi: Option<i16>,
}

/// A device that BlueZ knew when a generation began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub advert: Advert,
    /// A link stands: left by a crash of ours or of bluetoothd, whose new run knows of the link but never resolves its
    /// services. While it stands, the sensor cannot be heard.
    pub connected: bool,
}

/// What kind of failure a step had; it decides what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Refused, not answered, or the link dropped.
    Ordinary,
    /// BlueZ no longer knows the device: it has to be heard again. Nobody's failure.
    Vanished,
    /// The device is of another kind than the configuration says.
    WrongDevice,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// In words, for people.
    pub words: String,
}

impl Failure {
    /// Refused, not answered, dropped.
    pub fn ordinary(words: impl Into<String>) -> Self {
        Self { kind: FailureKind::Ordinary, words: words.into() }
    }
}

named_enum! {
    /// Why the radio cannot be used.
    Obstacle {
        /// It is being started.
        Starting = "starting",
        /// The D-Bus system bus cannot be reached.
        NoBus = "no_bus",
        /// bluetoothd does not run.
        NoDaemon = "no_daemon",
        /// No adapter is plugged in, or its driver is missing.
        NoAdapter = "no_adapter",
        /// Somebody switched the adapter off. It stays off until somebody switches it on.
        SwitchedOff = "switched_off",
        /// The adapter is being switched off and on again.
        PowerCycle = "power_cycle",
        /// The Bluetooth thread ended by a defect or a limit of the bus, and is started again.
        Failed = "failed",
    }
}

/// How a generation ended, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What stands in the way.
    pub obstacle: Obstacle,
    /// In words, for people.
    pub words: String,
}

/// What happens to the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// A generation has found the adapter and hears its events.
    Up {
        /// Whether the adapter is switched on.
        powered: bool,
        /// What BlueZ knows of it.
        known: Vec<Known>,
    },
    /// A generation has ended by itself: a panic, a full table of match rules, a bus that died.
    Down(Ended),
    /// bluetoothd has left the bus.
    DaemonGone,
    /// bluetoothd is on the bus (again).
    DaemonBack,
    /// The adapter was unplugged.
    AdapterGone,
    /// An adapter was plugged in, or is used from now on.
    AdapterBack {
        /// Its own address.
        address: String,
        /// An earlier run of this program has switched it off and not on again.
        left_off: bool,
    },
    /// The adapter was switched on or off.
    Powered(bool),
    /// Something was heard.
    Advert(Advert),
    /// The answer to [`Order::StartScan`].
    ScanStarted(Result<(), String>),
    /// The answer to [`Order::StopScan`], whatever it was.
    ScanStopped,
    /// A link stands; its services are not resolved yet.
    LinkUp(SensorKey),
    /// A link stands that a new bluetoothd has found: its services are never resolved.
    LinkFound(SensorKey),
    /// A link has ended.
    LinkDown(SensorKey),
    /// The answer to [`Order::Connect`]: the services are resolved, or not.
    Connected(SensorKey, Result<(), Failure>),
    /// The answer to [`Order::Subscribe`].
    Subscribed(SensorKey, Result<(), Failure>),
    /// The source has understood data of this sensor.
    Data(SensorKey),
    /// The source has understood what this sensor sends, and knew it already: the sensor lives and brings nothing new.
    Again(SensorKey),
    /// The answer to [`Order::ReadBattery`]: that it lives, and its battery level in percent if it has told one.
    BatteryRead(SensorKey, Result<Option<u8>, String>),
    /// The sensor told its battery level, in percent.
    Battery(SensorKey, u8),
    /// The link may end: the source has all that the sensor had stored, and it is on disk; or why it has not.
    Finished(SensorKey, Result<(), String>),
    /// The answer to [`Order::Disconnect`], whatever it was.
    Disconnected(SensorKey),
    /// The answer to [`Order::Remove`], whatever it was.
    Removed(SensorKey),
    /// Whether the sensor is bonded: removing it would lose the bond.
    Bonded(SensorKey, bool),
    /// The answer to [`Order::PowerCycle`] and [`Order::PowerOn`].
    PowerCycled(Result<(), String>),
}

/// What the policy wants done. Every order but `EndGeneration` and `Exit` is answered by an [`Input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start a generation: a thread, a runtime, a connection to the bus. Answered by `Up` or `Down`.
    NewGeneration,
    /// End the generation. Its late answers no longer count.
    EndGeneration,
    /// Scan.
    StartScan,
    /// Stop scanning.
    StopScan,
    /// Connect and wait for the services.
    Connect(SensorKey, BleAddress),
    /// Discover, listen and subscribe.
    Subscribe(SensorKey),
    /// Read the battery level, or anything else if there is none: a sign of life.
    ReadBattery(SensorKey),
    /// End the link, or a `Connect` that is under way.
    Disconnect(SensorKey, BleAddress),
    /// Make BlueZ forget the device.
    Remove(SensorKey, BleAddress),
    /// Switch the adapter off and on again, if it is on.
    PowerCycle,
    /// Switch the adapter on, as it was before bluetoothd or the adapter went away.
    PowerOn,
    /// End the daemon, so that systemd starts it anew.
    Exit(String),
}

named_enum! {
    /// What is being done about a sensor.
    SensorPhase {
        /// The radio cannot be used; the reason says why.
        Unavailable = "unavailable",
        /// It is listened for.
        Searching = "searching",
        /// It was heard and waits for its turn, or for the end of a pause.
        Heard = "heard",
        /// The link is being made.
        Connecting = "connecting",
        /// The link stands, the subscription is being made.
        Subscribing = "subscribing",
        /// Subscribed; nothing readable has come yet.
        Waiting = "waiting",
        /// Data comes.
        Live = "live",
        /// The link stands and carries nothing; the battery is read as a sign of life.
        Silent = "silent",
        /// The link is being ended.
        Ending = "ending",
    }
}

named_enum! {
    /// What was tried for a sensor that cannot be connected, mildest first. A step that would harm a sensor which
    /// delivers, or was taken lately, is left out.
    Rung {
        /// BlueZ was made to forget it.
        Forgotten = "forgotten",
        /// The adapter was switched off and on.
        PowerCycled = "power_cycled",
        /// The Bluetooth thread was started anew.
        Renewed = "renewed",
    }
}

/// All that is known about one sensor, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SensorState {
    /// What is being done.
    pub phase: SensorPhase,
    /// Its address, once it was heard.
    #[serde(serialize_with = "text_of")]
    pub address: Option<BleAddress>,
    /// When it was last heard, by an advertisement or by data.
    #[serde(serialize_with = "wall_of")]
    pub last_seen: Option<Stamp>,
    /// Signal strength when it was last heard, in dBm.
    pub rssi: Option<i16>,
    /// Battery level in percent, as last read.
    pub battery: Option<u8>,
    /// Attempts to connect since the daemon started.
    pub attempts: u64,
    /// Failures since it last delivered: links that failed, and visits that were in vain.
    pub failures: u32,
    /// The last step that was taken against them.
    pub tried: Option<Rung>,
    /// Whether BlueZ keeps a bond with it.
    pub bonded: bool,
    /// Why it does not deliver, in words; of the last failure while another attempt is made.
    pub reason: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn wall_of<S: Serializer>(stamp: &Option<Stamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match stamp {
        Some(stamp) => serializer.collect_str(&stamp.wall),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference to the field")]
fn text_of<S: Serializer>(address: &Option<BleAddress>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_none(),
    }
}

/// What the radio did since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RadioCounts {
    /// Attempts to connect.
    pub connects: u64,
    /// Attempts that failed, and links that fell silent.
    pub failures: u64,
    /// Generations that found their adapter.
    pub generations: u64,
    /// Scans started again because nothing at all was heard.
    pub silent_scans: u64,
    /// Devices that BlueZ was made to forget.
    pub removals: u64,
    /// Times the adapter was switched off and on.
    pub power_cycles: u64,
}

/// One fact about the adapter for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RadioState {
    /// What stands in the way; `None`: the radio works.
    pub obstacle: Option<Obstacle>,
    /// In words.
    pub reason: Option<String>,
    /// Whether it scans.
    pub scanning: bool,
    /// What it did.
    pub counts: RadioCounts,
    /// Bluetooth threads renewed in vain since data last came: the daemon ends after a few, and systemd starts it anew.
    pub fruitless: u32,
}

/// Where the one connection attempt of an adapter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// Not scanning.
    Off,
    /// Asked for.
    Starting { since: Mono },
    /// Scanning.
    On { since: Mono, heard: Mono },
    /// Being stopped.
    Stopping { since: Mono },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}
