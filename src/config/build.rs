//! From the file's mirror to a configuration that cannot be wrong.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::clock::hold_for_the_clock;
use super::devices::{DEFAULT_DEVICES_DIR, Devices, proven};
use super::file::{self, File};
use super::model;
use super::ports::{self, Ports};
use super::{Config, Place, read_bounded};
use crate::alerts::RuleSet;
use crate::derive::live::News2Settings;
use crate::desk::MAX_OBJECT_BYTES;
use crate::document::{self, Problems};
use crate::ids::{DeviceId, PatientId, SourceId, WardId};
use crate::logging;
use crate::patient::Patient;
use crate::profile::Profile;
use crate::profile::model::LineSettings;
use crate::sources::ble::{Air, AirSettings, BleConfig, MAX_USERS, SensorKind, Wanted};
use crate::sources::replay::{ReplayConfig, Speed};
use crate::sources::serial::{SerialConfig, SerialPort};
use crate::sources::simulator::{Links, SimulatorConfig, demo_sources, ward};
use crate::sources::{SourceConfig, SourceError, SourceKind};
use crate::systemd;
use crate::vitals::{DERIVED_SOURCE, Mode};

/// Most patients of one bridge.
pub(super) const MAX_PATIENTS: usize = 256;

/// Most sources of one bridge.
pub(super) const MAX_SOURCES: usize = 256;

/// The ward of patients whose ward is not named.
const DEFAULT_WARD: &str = "ward";

/// An identifier that this program itself has written.
pub(super) fn fixed<T: FromStr<Err: Display>>(text: &str) -> T {
    match text.parse() {
        Ok(id) => id,
        #[expect(clippy::panic, reason = "the texts are constants of this program and each is made by a test")]
        Err(error) => panic!("{error}"),
    }
}

/// The name of a credential of the service, if a member that names a file names one: `credential:NAME`.
pub(super) fn credential_name(path: &str) -> Option<&str> {
    path.strip_prefix("credential:")
}

/// The token secret's file, unless another is named.
pub(super) fn secret_in(state_dir: &Path) -> PathBuf {
    state_dir.join("token.secret")
}

/// The demo ward: one source for the simulated sensors, one for each emulated serial oximeter.
///
/// # Errors
/// A built-in profile of the demo is broken: a defect of the build.
pub(super) fn demo(seed: u64, place: &Place) -> Result<Config, SourceError> {
    let config = Config::empty(place);
    let patients = ward::beds().into_iter().map(|bed| Patient {
        id: bed.patient,
        name: bed.name.to_owned(),
        bed: bed.bed,
        ward: bed.ward,
        mode: Mode::Demo,
    });
    let patients: Vec<Patient> = patients.collect();
    // The made-up people are adults.
    let news2 = patients.iter().map(|patient| (patient.id.clone(), News2Settings::default())).collect();
    let links = Links::pty_in(&config.state_dir);
    let sources = demo_sources(&SimulatorConfig { seed, links })?;
    Ok(Config { bridge: fixed("demo"), patients, news2, sources, ..config })
}

/// One patient whose numbers come from a recording.
pub(super) fn replay(path: PathBuf, speed: Speed, place: &Place) -> Config {
    let patient = Patient {
        id: fixed("replay"),
        name: "Replay".to_owned(),
        bed: "1".to_owned(),
        ward: fixed(DEFAULT_WARD),
        mode: Mode::Test,
    };
    let source = SourceConfig {
        id: fixed("replay"),
        patient: Some(patient.id.clone()),
        device: fixed("replay"),
        mode: Mode::Test,
        kind: SourceKind::Replay(ReplayConfig { path, speed }),
    };
    Config { bridge: fixed("replay"), patients: vec![patient], sources: vec![source], ..Config::empty(place) }
}

/// The minutes of an offset from UTC: `+01:00`, `-03:30`. Zones reach from -12:00 to +14:00.
fn offset_minutes(text: &str) -> Option<i16> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':').filter(|(hours, minutes)| hours.len() == 2 && minutes.len() == 2)?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i16>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// Why there is no configuration.
pub(super) struct Refused {
    /// What is wrong.
    pub(super) problems: Problems,
    /// What is allowed and dangerous beside it.
    pub(super) warnings: Problems,
}

/// Builds a [`Config`] from a text and collects what is wrong with it.
pub(super) struct Builder<'a> {
    pub(super) text: &'a str,
    folder: &'a Path,
    place: &'a Place,
    devices: Devices,
    problems: Problems,
    /// A command that only looks: credentials of a service that does not run are told and are no problem.
    only_looks: bool,
    /// The credentials that could not be looked at.
    credentials_away: Problems,
}

/// The SHA-256 of texts in their order, in hexadecimal digits.
fn sha256(texts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for text in texts {
        // The length tells where one ends and the next begins.
        context.update(&text.len().to_be_bytes());
        context.update(text.as_bytes());
    }
    crate::server::codes::hex(context.finish().as_ref())
}

impl<'a> Builder<'a> {
    pub(super) fn new(text: &'a str, folder: &'a Path, place: &'a Place) -> Self {
        Self {
            text,
            folder,
            place,
            devices: Devices::default(),
            problems: Problems::default(),
            only_looks: false,
            credentials_away: Problems::default(),
        }
    }

    /// For a command that says what is wrong and starts nothing.
    pub(super) fn only_looking(self) -> Self {
        Self { only_looks: true, ..self }
    }

    /// The configuration, or every problem of the text; and the profiles, of which files may be broken.
    pub(super) fn build(mut self) -> (Result<Config, Refused>, Devices) {
        let mut config = Config::empty(self.place);
        config.hash = Some(sha256(&[self.text]));
        if let Some(file) = document::read::<File>(self.text, &mut self.problems) {
            self.bridge(&file.bridge, &mut config);
            self.server(&file.server, &mut config);
            self.store(&file.store, &mut config);
            self.auth(file.auth, &mut config);
            self.alerts(&file.alerts, &mut config);
            self.annunciation(&file.alerts, &mut config);
            self.log(&file.log, &mut config);
            self.clock(&file.clock, &mut config);
            let clock_hold = file.mqtt.as_ref().and_then(|mqtt| self.clock_hold(mqtt));
            config.broker = file.mqtt.and_then(|mqtt| self.broker(&mqtt, &mut config));
            self.patients(&file.patients, &mut config);
            self.devices(&file.profiles);
            self.air(&file.ble, &mut config);
            self.sources(&file.sources, &mut config);
            hold_for_the_clock(clock_hold, &mut config);
            self.overrides_of_nobody(&file.alerts, &config);
        }
        config.devices = self.devices.clone();
        let mut warnings = std::mem::take(&mut config.warnings);
        warnings.extend(self.credentials_away.clone());
        config.credentials_away = self.credentials_away;
        let built = if self.problems.is_empty() {
            Ok(Config { warnings, ..config })
        } else {
            Err(Refused { problems: self.problems, warnings })
        };
        (built, self.devices)
    }

    pub(super) fn problem<T>(&mut self, place: &Spanned<T>, message: impl Into<String>) {
        self.problems.add(self.text, &place.span(), message);
    }

    /// What is wrong with the file that a member names. A credential that nobody can look at now is not known to be wrong.
    pub(super) fn file_problem(&mut self, member: &Spanned<String>, message: impl Into<String>) {
        let name = credential_name(member.get_ref()).filter(|_| self.only_looks && systemd::credentials_are_away());
        match name {
            Some(name) => {
                let message = format!(
                    "the credential {name} has not been looked at: it is there while vitalbridge.service runs with it, which it \
                     does not now; a start tells whether it is right"
                );
                self.credentials_away.add(self.text, &member.span(), message);
            }
            None => self.problem(member, message),
        }
    }

    /// Reads a member as `T`; its own error text is the problem.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, member: &Spanned<String>) -> Option<T> {
        match member.get_ref().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(member, error.to_string());
                None
            }
        }
    }

    /// A number inside its bounds.
    pub(super) fn within(
        &mut self,
        name: &str,
        member: Option<&Spanned<u64>>,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let member = member?;
        let value = *member.get_ref();
        if bounds.contains(&value) {
            return Some(value);
        }
        self.problem(member, format!("{name} is {value}; it can be {} to {}", bounds.start(), bounds.end()));
        None
    }

    /// The file that a member names: a credential of the service, or a path relative to the configuration.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        credential_name(path).map_or_else(|| self.folder.join(path), systemd::credential)
    }

    fn bridge(&mut self, bridge: &file::Bridge, config: &mut Config) {
        if let Some(id) = bridge.id.as_ref().and_then(|id| self.parse(id)) {
            config.bridge = id;
        }
        if let Some(site) = bridge.site.as_ref().and_then(|site| self.parse(site)) {
            config.site = site;
        }
    }

    fn server(&mut self, server: &file::Server, config: &mut Config) {
        if let Some(listen) = &server.listen {
            match listen.get_ref().parse::<SocketAddr>() {
                Ok(address) => config.server.listen = self.place.listen.unwrap_or(address),
                Err(_) => {
                    self.problem(listen, format!("`{}` is not an address such as 127.0.0.1:8080", listen.get_ref()));
                }
            }
        }
        for origin in &server.allowed_origins {
            if !(origin.get_ref().starts_with("http://") || origin.get_ref().starts_with("https://")) {
                self.problem(origin, format!("`{}` is not an origin such as https://ward.example", origin.get_ref()));
            }
        }
        config.server.hosts.names.clone_from(&server.allowed_hosts);
        config.server.hosts.origins = server.allowed_origins.iter().map(|origin| origin.get_ref().clone()).collect();
        self.server_limits(&server.limits, config);
        self.close_codes(server, config);
        self.tls(server, config);
    }

    fn store(&mut self, store: &file::Store, config: &mut Config) {
        if let (Some(dir), None) = (&store.dir, &self.place.state_dir) {
            config.state_dir = self.path(dir);
            config.secret_file = secret_in(&config.state_dir);
        }
        if let Some(millis) = self.within("group_commit_ms", store.group_commit_ms.as_ref(), 100..=5000) {
            config.store.group_commit = Duration::from_millis(millis);
        }
        if let Some(hours) = self.within("retention_hours", store.retention_hours.as_ref(), 1..=24 * 366) {
            config.store.retention = Duration::from_secs(hours * 3600);
        }
        if let Some(mebibytes) = self.within("max_mib", store.max_mib.as_ref(), 8..=1024 * 1024) {
            config.store.max_bytes = Some(mebibytes * 1024 * 1024);
        }
    }

    fn alerts(&mut self, alerts: &file::Alerts, config: &mut Config) {
        let Some(place) = &alerts.rules else { return };
        let path = self.path(place.get_ref());
        match read_bounded(&path) {
            Ok(text) => match RuleSet::parse(&text) {
                Ok(rules) => {
                    config.hash = Some(sha256(&[self.text, &text]));
                    config.rules = rules;
                    config.rules_file = Some(path);
                }
                Err(problems) => {
                    for problem in problems.as_slice() {
                        self.problem(place, format!("{}, {problem}", path.display()));
                    }
                }
            },
            Err(error) => self.file_problem(place, format!("cannot read {}: {error}", path.display())),
        }
    }

    /// An override for a patient that this bridge does not have would never apply, and its author would not know.
    fn overrides_of_nobody(&mut self, alerts: &file::Alerts, config: &Config) {
        let Some(place) = &alerts.rules else { return };
        let path = self.path(place.get_ref());
        let is_known = |id: &PatientId| config.patients.iter().any(|patient| patient.id == *id);
        for (id, line) in config.rules.patients_with_overrides().filter(|(id, _)| !is_known(id)) {
            let message = format!(
                "{}, line {line}: there is no [[patient]] with the id `{id}` for this override",
                path.display()
            );
            self.problem(place, message);
        }
    }

    fn log(&mut self, log: &file::Log, config: &mut Config) {
        let Some(filter) = &log.filter else { return };
        if logging::is_filter(filter.get_ref()) {
            config.log_filter.clone_from(filter.get_ref());
        } else {
            self.problem(
                filter,
                format!("`{}` is not a log filter such as info,vitalbridge::sources=debug", filter.get_ref()),
            );
        }
    }

    /// The radio. An adapter that is not there (yet) is no mistake: it may be plugged in.
    fn air(&mut self, ble: &file::Ble, config: &mut Config) {
        let Some(adapter) = &ble.adapter else { return };
        let number = adapter.get_ref().strip_prefix("hci").unwrap_or("");
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            self.problem(adapter, format!("`{}` is not an adapter such as hci0", adapter.get_ref()));
        }
        config.air = Air::new(AirSettings { adapter: Some(adapter.get_ref().clone()), ..AirSettings::default() });
    }

    /// The directory of profiles. A broken file in it is no problem of the configuration: it stops the sources that name
    /// it and no others.
    fn devices(&mut self, profiles: &file::Profiles) {
        let read = match &profiles.dir {
            Some(dir) => Devices::read(&self.path(dir.get_ref())),
            None => Devices::of_default_dir(),
        };
        match (read, &profiles.dir) {
            (Ok(devices), _) => self.devices = devices,
            (Err(error), Some(dir)) => {
                let path = self.path(dir.get_ref());
                self.problem(dir, format!("cannot read the directory of profiles {}: {error}", path.display()));
            }
            (Err(error), None) => {
                let message = format!("cannot read the directory of profiles {DEFAULT_DEVICES_DIR}: {error}");
                self.problems.add_at_line(0, message);
            }
        }
    }

    fn patients(&mut self, patients: &[file::Patient], config: &mut Config) {
        for patient in patients {
            let ward: Option<WardId> = match &patient.ward {
                Some(ward) => self.parse(ward),
                None => Some(fixed(DEFAULT_WARD)),
            };
            let id: Option<PatientId> = self.parse(&patient.id);
            let (Some(ward), Some(id)) = (ward, id) else { continue };
            if config.patients.iter().any(|known| known.id == id) {
                self.problem(&patient.id, format!("the patient `{id}` is there twice"));
            } else if config.patients.len() >= MAX_PATIENTS {
                self.problem(&patient.id, format!("a bridge has at most {MAX_PATIENTS} patients"));
                return;
            }
            let name = patient.name.clone().unwrap_or_else(|| id.to_string());
            self.news2(patient.news2.as_ref(), &id, config);
            let bed = patient.bed.clone().unwrap_or_else(|| id.to_string());
            config.patients.push(Patient { id, name, bed, ward, mode: Mode::Real });
        }
    }

    fn sources(&mut self, sources: &[Spanned<file::Source>], config: &mut Config) {
        let mut ports = Ports::default();
        for place in sources {
            let source = place.get_ref();
            if config.sources.len() >= MAX_SOURCES {
                return self.problem(place, format!("a bridge has at most {MAX_SOURCES} sources"));
            }
            let Some(built) = self.source(source, config) else { continue };
            if config.sources.iter().any(|known| known.id == built.id) {
                self.problem(&source.id, format!("the source `{}` is there twice", built.id));
            }
            if let (Some(place), SourceKind::Serial(serial)) = (&source.port, &built.kind) {
                if let Some(problem) = ports.claim(&serial.port, &built.id) {
                    self.problem(place, problem);
                }
                for warning in ports::warnings(&serial.port) {
                    config.warnings.add(self.text, &place.span(), warning);
                }
            }
            if let (Some(place), SourceKind::Ble(BleConfig { profile: Some(profile), .. })) =
                (&source.profile, &built.kind)
            {
                for warning in model::warnings(profile) {
                    config.warnings.add(self.text, &place.span(), warning);
                }
            }
            if let (Some(place), SourceKind::Ble(_)) = (&source.set_clock, &built.kind) {
                config.warnings.add(self.text, &place.span(), model::FIXED_OFFSET);
            }
            self.shared_device(source, &built, config);
            self.mode_of_patient(source, &built, config);
            config.sources.push(built);
        }
    }

    /// One device has one source: of two, the alert engine would give the device to the other's patient at each reading,
    /// and no rule with a delay would ever alarm.
    fn shared_device(&mut self, source: &file::Source, built: &SourceConfig, config: &Config) {
        // What has the same id has been refused for that.
        let others = || config.sources.iter().filter(|other| other.id != built.id);
        if let Some(other) = others().find(|other| other.device == built.device) {
            let place = source.device.as_ref().unwrap_or(&source.id);
            self.problem(place, format!("the device `{}` belongs to the source `{}` already", built.device, other.id));
        }
        let SourceKind::Ble(strap) = &built.kind else { return };
        let same_strap =
            |other: &&SourceConfig| matches!(&other.kind, SourceKind::Ble(known) if known.wanted == strap.wanted);
        if let Some(other) = others().find(same_strap) {
            let place = source.address.as_ref().or(source.name.as_ref()).unwrap_or(&source.id);
            self.problem(place, format!("the strap {} belongs to the source `{}` already", strap.wanted, other.id));
        }
    }

    /// Demo, test and real never meet on one patient; the patient takes the mode of its sources.
    fn mode_of_patient(&mut self, source: &file::Source, built: &SourceConfig, config: &mut Config) {
        let mut patients: Vec<&PatientId> = built.patient.iter().collect();
        if let SourceKind::Ble(sensor) = &built.kind {
            patients.extend(sensor.users.values());
        }
        for id in patients {
            self.mode_of_one(id, source, built, config);
        }
    }

    fn mode_of_one(&mut self, id: &PatientId, source: &file::Source, built: &SourceConfig, config: &mut Config) {
        let other = config.sources.iter().find(|known| known.patient.as_ref() == Some(id) && known.mode != built.mode);
        if let Some(other) = other {
            let message =
                format!("`{}` is {}, but `{}` of the same patient is {}", built.id, built.mode, other.id, other.mode);
            self.problem(&source.id, message);
        }
        if let Some(patient) = config.patients.iter_mut().find(|known| known.id == *id) {
            patient.mode = built.mode;
        }
    }

    fn source(&mut self, source: &file::Source, config: &Config) -> Option<SourceConfig> {
        let id: Option<SourceId> = self.parse(&source.id);
        if source.id.get_ref() == DERIVED_SOURCE {
            self.problem(
                &source.id,
                format!("`{DERIVED_SOURCE}` is the source of what the bridge computes: choose another id"),
            );
        }
        let device: Option<DeviceId> = self.parse(source.device.as_ref().unwrap_or(&source.id));
        let patient = match &source.patient {
            Some(patient) => Some(self.known_patient(patient, config)?),
            None => None,
        };
        let (kind, usual_mode) = self.kind(source, config)?;
        let mode = match &source.mode {
            Some(mode) => Mode::from_name(mode.get_ref()).or_else(|| {
                self.problem(mode, format!("`{}` is not a mode: real, demo or test", mode.get_ref()));
                None
            })?,
            None => usual_mode,
        };
        if mode == Mode::Real && usual_mode != Mode::Real {
            self.problem(&source.id, "what is replayed is never real: leave `mode` out");
        }
        Some(SourceConfig { id: id?, patient, device: device?, mode, kind })
    }

    fn known_patient(&mut self, place: &Spanned<String>, config: &Config) -> Option<PatientId> {
        let id: PatientId = self.parse(place)?;
        if config.patients.iter().any(|patient| patient.id == id) {
            return Some(id);
        }
        self.problem(place, format!("there is no [[patient]] with the id `{id}`"));
        None
    }

    fn kind(&mut self, source: &file::Source, config: &Config) -> Option<(SourceKind, Mode)> {
        let kind = source.kind.get_ref().as_str();
        self.foreign_members(source, kind);
        match kind {
            "serial" => {
                Some((self.unusable(source).or_else(|| self.serial(source).map(SourceKind::Serial))?, Mode::Real))
            }
            "ble" => {
                Some((self.unusable(source).or_else(|| self.ble(source, config).map(SourceKind::Ble))?, Mode::Real))
            }
            "replay" => Some((SourceKind::Replay(self.replay(source)?), Mode::Test)),
            other => {
                self.problem(&source.kind, format!("`{other}` is not a kind of source: serial, ble or replay"));
                None
            }
        }
    }

    /// Members that another kind of source has.
    fn foreign_members(&mut self, source: &file::Source, kind: &str) {
        let text_members = [
            ("port", &source.port, "serial"),
            ("settings", &source.settings, "serial"),
            ("serial_number", &source.serial_number, "serial"),
            ("address", &source.address, "ble"),
            ("name", &source.name, "ble"),
            ("sensor", &source.sensor, "ble"),
            ("set_clock", &source.set_clock, "ble"),
            ("file", &source.file, "replay"),
        ];
        for (name, member, owner) in text_members {
            if let Some(place) = member
                && owner != kind
            {
                self.problem(place, format!("`{name}` belongs to a source of kind {owner}, this is {kind}"));
            }
        }
        if let Some(place) = source.profile.as_ref().filter(|_| !matches!(kind, "serial" | "ble")) {
            self.problem(place, format!("`profile` belongs to a source of kind serial or ble, this is {kind}"));
        }
        if let Some(place) = source.allow_commands.as_ref().filter(|_| kind != "serial") {
            self.problem(place, format!("`allow_commands` belongs to a source of kind serial, this is {kind}"));
        }
        if let Some(place) = source.users.values().next().filter(|_| kind != "ble") {
            self.problem(place, format!("`users` belongs to a source of kind ble, this is {kind}"));
        }
        if let Some(place) = source.delete_records.as_ref().filter(|_| kind != "ble") {
            self.problem(place, format!("`delete_records` belongs to a source of kind ble, this is {kind}"));
        }
        if let Some(place) = source.speed.as_ref().filter(|_| kind != "replay") {
            self.problem(place, format!("`speed` belongs to a source of kind replay, this is {kind}"));
        }
    }

    /// A member without which the kind makes no sense.
    fn needed<'s>(
        &mut self,
        source: &'s file::Source,
        name: &str,
        member: Option<&'s Spanned<String>>,
    ) -> Option<&'s Spanned<String>> {
        if member.is_none() {
            self.problem(&source.kind, format!("a source of kind {} needs `{name}`", source.kind.get_ref()));
        }
        member
    }

    /// A source whose profile is a broken file of the directory: it is there and says why it is not live.
    fn unusable(&self, source: &file::Source) -> Option<SourceKind> {
        let own = self.devices.own_of(source.profile.as_ref()?.get_ref())?;
        let problems = own.parsed.as_ref().err()?;
        let first = problems.as_slice().first().map_or_else(String::new, |problem| {
            let more = problems.as_slice().len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more; vitalbridge check)") };
            format!("{}{more}", problem.at(&own.file.display().to_string()))
        });
        Some(SourceKind::Unusable { reason: format!("its profile cannot be used: {first}") })
    }

    fn serial(&mut self, source: &file::Source) -> Option<SerialConfig> {
        let port = self.needed(source, "port", source.port.as_ref()).and_then(|port| self.parse(port));
        let profile = self.needed(source, "profile", source.profile.as_ref()).and_then(|place| self.profile(place));
        if let (Some(place), Some(profile)) = (&source.profile, &profile)
            && profile.serial().is_none()
        {
            let message =
                format!("the profile {} is of a Bluetooth device: its source has kind = \"ble\"", profile.id());
            self.problem(place, message);
            return None;
        }
        let mut serial = SerialConfig::new(port?, profile?);
        self.line_settings(source, &mut serial);
        self.identity(source, &mut serial);
        self.allowed_commands(source, &mut serial);
        Some(serial)
    }

    /// The one line settings that the monitor is set to.
    fn line_settings(&mut self, source: &file::Source, serial: &mut SerialConfig) {
        let Some(place) = &source.settings else { return };
        if matches!(serial.port, SerialPort::Tcp { .. }) {
            return self.problem(place, "a serial server has its line settings itself: leave `settings` out");
        }
        serial.settings = LineSettings::parse(place.get_ref());
        if serial.settings.is_none() {
            let message = format!("`{}` is no line settings: write them as `9600 8N1`", place.get_ref());
            self.problem(place, message);
        }
    }

    /// The serial number that the device must tell.
    fn identity(&mut self, source: &file::Source, serial: &mut SerialConfig) {
        let Some(place) = &source.serial_number else { return };
        let number = place.get_ref().trim();
        if number.is_empty() || number.len() > MAX_OBJECT_BYTES {
            return self.problem(place, format!("a serial number has 1 to {MAX_OBJECT_BYTES} bytes"));
        }
        if !serial.profile.tells_serial_number() {
            let message = format!(
                "a device of the profile {} never tells a serial number, so that none of its values would be published",
                serial.profile.id()
            );
            return self.problem(place, message);
        }
        serial.serial_number = Some(number.to_owned());
    }

    /// The commands that may be sent although they move something on the patient.
    fn allowed_commands(&mut self, source: &file::Source, serial: &mut SerialConfig) {
        let commands = &serial.profile.link().commands;
        for place in source.allow_commands.iter().flat_map(Spanned::get_ref) {
            let name = place.get_ref();
            if commands.iter().any(|command| command.id == *name) {
                serial.allow_commands.insert(name.clone());
                continue;
            }
            let known: Vec<&str> = commands.iter().map(|command| command.id.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("the profile {} has no command `{name}`; it has {known}", serial.profile.id());
            self.problem(place, message);
        }
    }

    /// A profile by its id, built in or of the directory, or any file by its path.
    fn profile(&mut self, place: &Spanned<String>) -> Option<Arc<Profile>> {
        let name = place.get_ref();
        let found = if Path::new(name).extension().is_some_and(|extension| extension == "toml") {
            match read_bounded(&self.path(name)) {
                Ok(text) => proven(&text, None),
                Err(error) => {
                    self.problem(place, format!("cannot read the profile {}: {error}", self.path(name).display()));
                    return None;
                }
            }
        } else if let Some(found) = self.devices.find(name) {
            found
        } else {
            let near = self.devices.nearest(name).join(", ");
            self.problem(
                place,
                format!("there is no profile `{name}`; near are {near}; your own is named by its .toml"),
            );
            return None;
        };
        match found {
            Ok(profile) => Some(profile),
            Err(problems) => {
                for problem in problems.as_slice() {
                    self.problem(place, format!("the profile {name}, {problem}"));
                }
                None
            }
        }
    }

    fn ble(&mut self, source: &file::Source, config: &Config) -> Option<BleConfig> {
        // All of it is looked at before anything is given up: every problem is told at once.
        let wanted = match (&source.address, &source.name) {
            (Some(address), None) => self.parse(address).map(Wanted::Address),
            (None, Some(name)) => Some(Wanted::Name(name.get_ref().clone())),
            _ => {
                self.problem(&source.kind, "a source of kind ble needs either `address` or `name`");
                None
            }
        };
        let profile = source.profile.as_ref().map(|place| self.profile(place));
        let known = profile.as_ref().and_then(Option::as_deref);
        let mut found = Vec::new();
        let sensor = model::sensor(source, known, &mut found);
        if let Some(known) = known {
            found.extend(model::contradictions(source, known, &self.devices.models()));
        }
        for (span, message) in found {
            self.problems.add(self.text, &span, message);
        }
        let keeps_records = sensor.is_none_or(|sensor| sensor == SensorKind::Glucose);
        if let Some(place) = source.delete_records.as_ref().filter(|_| !keeps_records) {
            self.problem(place, "only a glucose meter's records can be deleted");
        }
        let users = self.users(source, config);
        let set_clock = source.set_clock.as_ref().and_then(|offset| self.offset(offset));
        let delete_records = source.delete_records.as_ref().is_some_and(|delete| *delete.get_ref());
        let profile = match profile {
            Some(found) => Some(found?),
            None => None,
        };
        let plain = BleConfig::new(wanted?, sensor?, config.air.clone());
        Some(BleConfig { profile, users, delete_records, set_clock, ..plain })
    }

    /// Whose the numbers are under which a sensor keeps its users.
    fn users(&mut self, source: &file::Source, config: &Config) -> BTreeMap<u8, PatientId> {
        let mut users = BTreeMap::new();
        for (number, patient) in &source.users {
            let slot = number.parse::<u8>().ok().filter(|slot| usize::from(*slot) < MAX_USERS);
            let patient_id = self.known_patient(patient, config);
            let Some(slot) = slot else {
                self.problem(patient, format!("`{number}` is not a user's number; it can be 0 to {}", MAX_USERS - 1));
                continue;
            };
            if let Some(patient_id) = patient_id {
                users.insert(slot, patient_id);
            }
        }
        users
    }

    /// An offset from UTC such as `+01:00`, in minutes.
    fn offset(&mut self, place: &Spanned<String>) -> Option<i16> {
        let offset = offset_minutes(place.get_ref());
        if offset.is_none() {
            self.problem(place, format!("`{}` is not an offset from UTC such as +01:00", place.get_ref()));
        }
        offset
    }

    fn replay(&mut self, source: &file::Source) -> Option<ReplayConfig> {
        let path = self.needed(source, "file", source.file.as_ref()).map(|file| self.path(file.get_ref()));
        let speed = match &source.speed {
            None => Some(Speed::REAL_TIME),
            Some(speed) => Speed::new(*speed.get_ref()).or_else(|| {
                self.problem(speed, format!("speed is {}; it can be 0.01 to 86400", speed.get_ref()));
                None
            }),
        };
        Some(ReplayConfig { path: path?, speed: speed? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_from_utc_has_a_sign_and_four_digits() {
        for (text, minutes) in [
            ("+01:00", Some(60)),
            ("-03:30", Some(-210)),
            ("+14:00", Some(840)),
            ("01:00", None),
            ("+1:00", None),
            ("+01:60", None),
            ("+15:00", None),
            ("+-1:00", None),
            ("", None),
            ("\u{20ac}01:00", None),
        ] {
            assert_eq!(offset_minutes(text), minutes, "{text}");
        }
    }

    fn parsed(ble: &str) -> Result<Config, String> {
        let text = format!(
            "[[patient]]\nid = \"P-1\"\n[[patient]]\nid = \"P-2\"\n[[source]]\nid = \"s\"\nkind = \"ble\"\n{ble}\n"
        );
        Config::parse(&text, Path::new("."), &Place::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_bluetooth_sensor_is_a_strap_unless_it_says_what_it_is_and_knows_its_users() {
        let config = parsed("name = \"Strap\"").unwrap();
        let SourceKind::Ble(ble) = &config.sources[0].kind else { panic!("not ble") };
        assert_eq!(
            (ble.sensor, ble.users.len(), ble.delete_records, ble.set_clock),
            (SensorKind::HeartRate, 0, false, None)
        );
        let cuff = "name = \"Cuff\"\nsensor = \"blood_pressure\"\nusers = { 1 = \"P-1\", 2 = \"P-2\" }\nset_clock = \"+02:00\"";
        let config = parsed(cuff).unwrap();
        let SourceKind::Ble(ble) = &config.sources[0].kind else { panic!("not ble") };
        assert_eq!((ble.users[&2].as_str(), ble.set_clock), ("P-2", Some(120)));
        assert!(config.warnings.to_string().contains("follows no daylight saving time"), "{}", config.warnings);
        for (bad, words) in [
            ("name = \"S\"\nsensor = \"ecg\"", "`ecg` is not a sensor"),
            ("name = \"S\"\nusers = { 255 = \"P-1\" }", "`255` is not a user's number"),
            ("name = \"S\"\nusers = { 1 = \"P-9\" }", "no [[patient]] with the id `P-9`"),
            ("name = \"S\"\ndelete_records = true", "only a glucose meter"),
            ("name = \"S\"\nset_clock = \"local\"", "not an offset from UTC"),
            ("address = \"zz\"\nusers = { 255 = \"P-1\" }", "`255` is not a user's number"),
            ("name = \"S\"\n[ble]\nadapter = \"usb\"", "not an adapter such as hci0"),
        ] {
            let problems = parsed(bad).unwrap_err();
            assert!(problems.contains(words), "{bad}: {problems}");
        }
    }
}
