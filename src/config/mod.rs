//! The validated configuration: what the daemon is built from, with every problem of the file reported together.

mod alerts;
mod auth;
mod build;
mod clock;
mod devices;
mod file;
mod model;
mod news2;
mod ports;
mod server;
mod uplink;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::alerts::RuleSet;
use crate::alerts::escalation::Route;
use crate::derive::live::News2Settings;
use crate::document::Problems;
use crate::fallback::Action;
use crate::ids::{BridgeId, Epoch, PatientId, SiteId};
use crate::logging;
use crate::patient::Patient;
use crate::server::ServerConfig;
use crate::server::bounds::{CloseCodes, ServerLimits};
use crate::server::hosts::Hosts;
use crate::server::tokens::TokenSettings;
use crate::sources::ble::{Air, AirSettings};
use crate::sources::replay::Speed;
use crate::sources::{SourceConfig, SourceError, SourceKind};
use crate::store::StoreOptions;
use crate::timeline::Trust;
use crate::uplink::{About, Access, BrokerAddress, Limits, TopicTemplate, UplinkConfig};
use crate::wire::KnownDevice;

pub use devices::{DEFAULT_DEVICES_DIR, Devices, OwnProfile};

/// Largest configuration file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where the daemon listens unless it is told otherwise: dashboards of the same machine only.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

/// Where state is kept unless it is told otherwise; systemd makes it.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vitalbridge";

/// Everything a run needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// This bridge.
    pub bridge: BridgeId,
    /// Its place.
    pub site: SiteId,
    /// The server.
    pub server: ServerConfig,
    /// Database, secrets and the like.
    pub state_dir: PathBuf,
    /// The file with the secret that signs tokens.
    pub secret_file: PathBuf,
    /// What is logged.
    pub log_filter: String,
    /// The alert rules.
    pub rules: RuleSet,
    /// Alerts have to be shown by somebody; one that is not raises an alarm of its own.
    pub confirms_delivery: bool,
    /// What is on while nobody is shown an alert.
    pub fallback: Option<Action>,
    /// Where alerts go that nobody acknowledges.
    pub escalation: Vec<Route>,
    /// The file that they were read from; `None`: the default set alone.
    pub rules_file: Option<PathBuf>,
    /// Who is believed about the time of day.
    pub clock_trust: Trust,
    /// The broker, if there is one.
    pub broker: Option<Broker>,
    /// Who lies where.
    pub patients: Vec<Patient>,
    /// For whom an early warning score is computed, and how.
    pub news2: BTreeMap<PatientId, News2Settings>,
    /// Where readings come from.
    pub sources: Vec<SourceConfig>,
    /// The profiles that sources can name.
    pub devices: Devices,
    /// What may not be as it was meant, with its line. Nothing of it is wrong.
    pub warnings: Problems,
    /// Those among the warnings that are about credentials which could not be looked at, since the service does not run.
    pub credentials_away: Problems,
    /// The radio that the Bluetooth sources among them share.
    pub air: Air,
    /// The SHA-256 of the configuration file and the rule file; `None`: there is none.
    pub hash: Option<String>,
    store: StoreOptions,
}

/// The way to the backend.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Where it is.
    pub address: BrokerAddress,
    /// As whom.
    pub client_id: String,
    /// For the broker.
    pub username: Option<String>,
    /// Version, TLS, password.
    pub access: Access,
    /// Where messages go.
    pub topic: TopicTemplate,
    /// The commands that are taken from it; none: nothing is listened to.
    pub commands: Vec<String>,
    /// Bounds and times.
    pub limits: Limits,
    /// Less room than this without the broker is an alert; `None`: never.
    pub buffer_low: Option<Duration>,
    /// The prefix under which Home Assistant learns of the bridge; `None`: it does not.
    pub home_assistant: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file has problems: all of them.
    #[error("{} has {}:\n{problems}", file.display(), count(problems))]
    Problems {
        /// Which.
        file: PathBuf,
        /// What is wrong, with lines.
        problems: Problems,
        /// What is allowed and dangerous beside it.
        warnings: Problems,
    },
}

fn count(problems: &Problems) -> String {
    match problems.as_slice().len() {
        1 => "a problem".to_owned(),
        more => format!("{more} problems"),
    }
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// Where to keep state.
    pub state_dir: Option<PathBuf>,
}

impl Config {
    /// Reads a file. Paths in it are relative to it.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong with it.
    pub fn load(file: &Path, place: &Place) -> Result<Self, ConfigError> {
        Self::read(file, place, false).0
    }

    /// Reads a file to look at it and not to run by it: a credential of a service that does not run is a warning. Beside
    /// it the profiles that its sources can name: there also if the file has problems, so that those of both can be told
    /// at once.
    pub fn look(file: &Path, place: &Place) -> (Result<Self, ConfigError>, Devices) {
        Self::read(file, place, true)
    }

    fn read(file: &Path, place: &Place, only_looks: bool) -> (Result<Self, ConfigError>, Devices) {
        let text = match read_bounded(file) {
            Ok(text) => text,
            Err(error) => {
                return (Err(ConfigError::Unreadable { file: file.to_owned(), error }), Devices::default());
            }
        };
        let folder = file.parent().unwrap_or(Path::new("."));
        let builder = build::Builder::new(&text, folder, place);
        let builder = if only_looks { builder.only_looking() } else { builder };
        let (config, devices) = builder.build();
        let refused =
            |build::Refused { problems, warnings }| ConfigError::Problems { file: file.to_owned(), problems, warnings };
        (config.map_err(refused), devices)
    }

    /// Reads the text of a file that lies in `folder`.
    ///
    /// # Errors
    /// Every problem, with its line.
    pub fn parse(text: &str, folder: &Path, place: &Place) -> Result<Self, Problems> {
        build::Builder::new(text, folder, place).build().0.map_err(|refused| refused.problems)
    }

    /// A bridge without patients, sources and broker.
    pub fn empty(place: &Place) -> Self {
        let state_dir = place.state_dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
        Self {
            bridge: build::fixed("vitalbridge"),
            site: build::fixed("home"),
            server: ServerConfig {
                listen: place.listen.unwrap_or(DEFAULT_LISTEN),
                hosts: Hosts::default(),
                issuer: "vitalbridge".to_owned(),
                audience: "vitalbridge".to_owned(),
                tokens: TokenSettings::default(),
                tls: None,
                limits: ServerLimits::default(),
                close_codes: CloseCodes::Own,
            },
            secret_file: build::secret_in(&state_dir),
            state_dir,
            log_filter: logging::DEFAULT_FILTER.to_owned(),
            rules: RuleSet::built_in(),
            confirms_delivery: true,
            fallback: None,
            escalation: Vec::new(),
            rules_file: None,
            clock_trust: Trust::Synchronised,
            broker: None,
            patients: Vec::new(),
            news2: BTreeMap::new(),
            sources: Vec::new(),
            devices: Devices::default(),
            warnings: Problems::default(),
            credentials_away: Problems::default(),
            air: Air::new(AirSettings::default()),
            hash: None,
            store: StoreOptions::default(),
        }
    }

    /// The demo ward.
    ///
    /// # Errors
    /// A built-in profile of the demo is broken: a defect of the build.
    pub fn demo(seed: u64, place: &Place) -> Result<Self, SourceError> {
        build::demo(seed, place)
    }

    /// One patient whose numbers come from a recording.
    pub fn replay(file: PathBuf, speed: Speed, place: &Place) -> Self {
        build::replay(file, speed, place)
    }

    /// How readings are kept. What the broker has not confirmed holds rows back, if there is one.
    pub fn store_options(&self) -> StoreOptions {
        let mut options = self.store.clone();
        if self.broker.is_some() {
            options.holding_lanes = crate::uplink::plan::HOLDING.map(str::to_owned).to_vec();
        }
        options
    }

    /// What the file says of the bridge; nothing of it is secret.
    fn about(&self, home_assistant: Option<String>) -> About {
        let known = |source: &SourceConfig| {
            let (kind, profile) = match &source.kind {
                SourceKind::Ble(ble) => ("ble", ble.profile.as_ref().map(|profile| profile.id().to_owned())),
                SourceKind::Serial(serial) => ("serial", Some(serial.profile.id().to_owned())),
                SourceKind::Simulator(_) => ("simulator", None),
                SourceKind::Replay(_) => ("replay", None),
                SourceKind::Unusable { .. } => ("unusable", None),
            };
            KnownDevice {
                source_id: source.id.clone(),
                device_id: source.device.clone(),
                patient_id: source.patient.clone(),
                kind,
                profile,
                mode: source.mode.name(),
            }
        };
        let devices = self.sources.iter().map(known).collect();
        About { devices, patients: self.patients.clone(), home_assistant, ..About::default() }
    }

    /// What the uplink needs in this epoch, if a broker is configured.
    pub fn uplink(&self, epoch: &Epoch) -> Option<UplinkConfig> {
        let broker = self.broker.as_ref()?;
        Some(UplinkConfig {
            broker: broker.address.clone(),
            client_id: broker.client_id.clone(),
            username: broker.username.clone(),
            access: Access {
                timesync: crate::systemd::time_sync_directory().map(Path::to_owned),
                ..broker.access.clone()
            },
            site: self.site.clone(),
            bridge: self.bridge.clone(),
            epoch: epoch.clone(),
            topic: broker.topic.clone(),
            limits: broker.limits.clone(),
            about: self.about(broker.home_assistant.clone()),
            downlink: None,
        })
    }
}

/// A text file up to [`MAX_FILE_BYTES`].
fn read_bounded(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}
