//! `vitalbridge profile`: lists, shows, checks and begins device profiles.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::json;

use super::decode::{devices, is_path, read_profile, unknown};
use super::skeleton::{self, Frame};
use crate::config::Devices;
use crate::decode::self_test;
use crate::document::{Problem, Problems};
use crate::profile::ble::{Ble, Speaks};
use crate::profile::model::DeviceKind;
use crate::profile::{MAX_PROFILE_BYTES, Profile};

/// List, show, check and begin device profiles
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: vitalbridge profile new --kind pulse_oximeter --frame packet acme-ox1.toml")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// Where further profiles are.
#[derive(Debug, Clone, clap::Args)]
pub struct Where {
    /// Directory of further profiles [default: /etc/vitalbridge/devices, if it exists]
    #[arg(long, value_name = "DIR")]
    pub devices: Option<PathBuf>,
}

/// What to do with profiles.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Action {
    /// List the profiles
    #[command(after_help = "Example: vitalbridge profile list --json")]
    List {
        /// Where further profiles are
        #[command(flatten)]
        at: Where,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the TOML of a profile
    #[command(after_help = "Example: vitalbridge profile show nonin-df2")]
    Show {
        /// Its id, or the path of its file
        #[arg(value_name = "ID|FILE.toml")]
        id: String,
        /// Where further profiles are
        #[command(flatten)]
        at: Where,
    },
    /// Check profiles and run the tests they carry: as they are, byte by byte, after noise, and with each byte lost
    ///
    /// Exits with 78 if there are problems. Warnings alone are no problem.
    #[command(after_help = "Example: vitalbridge profile check acme-ox1.toml")]
    Check {
        /// Profile files, or ids; without any, the built-in profiles and those of the directory
        files: Vec<String>,
        /// Where further profiles are
        #[command(flatten)]
        at: Where,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the beginning of a profile, with the places to fill in marked
    #[command(after_help = "Example: vitalbridge profile new --kind pulse_oximeter --frame packet acme-ox1.toml")]
    New {
        /// What kind of device it is
        #[arg(long, value_name = "KIND", help = kinds(), default_value = "pulse_oximeter", value_parser = kind)]
        kind: DeviceKind,
        /// How its frames are found: by fixed bytes and a length, as text lines, between two marks, or as notifications
        #[arg(long, value_enum, default_value_t = Frame::Packet)]
        frame: Frame,
        /// The profile's id; without it, the name of the file
        #[arg(long)]
        id: Option<String>,
        /// The file to write; one that exists is left alone
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
}

/// Profiles have problems, and all of them have been told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bad} of {all} profiles have problems")]
pub struct Refused {
    bad: usize,
    all: usize,
}

fn kinds() -> String {
    let known: Vec<&str> = DeviceKind::ALL.iter().map(|kind| kind.name()).collect();
    format!("What kind of device it is: {}", known.join(", "))
}

fn kind(name: &str) -> Result<DeviceKind, String> {
    DeviceKind::from_name(name).ok_or_else(kinds)
}

/// Does it: the result to `out`, problems to `notes`.
///
/// # Errors
/// An unknown id; a file that exists or cannot be written; a directory that cannot be read; [`Refused`] after all
/// problems of the profiles have been written to `notes`.
pub fn run(args: &Args, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    match &args.action {
        Action::List { at, json } => list(&devices(at.devices.as_deref())?, *json, out),
        Action::Show { id, at } => show(id, &devices(at.devices.as_deref())?, out),
        Action::Check { files, at, json } => check(files, &devices(at.devices.as_deref())?, *json, out, notes),
        Action::New { kind, frame, id, file } => new(*kind, *frame, id.as_deref(), file, out),
    }
}

fn list(devices: &Devices, as_json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for id in devices.ids() {
        let own = devices.own_of(id);
        let replaces = devices.replacing().any(|own| own.id == id);
        let profile = match devices.find(id) {
            Some(Ok(profile)) => profile,
            broken => {
                let problems = broken.and_then(Result::err).unwrap_or_default();
                let file = own.map(|own| own.file.display().to_string()).unwrap_or_default();
                let problems: Vec<String> = problems.as_slice().iter().map(|problem| problem.at(&file)).collect();
                if as_json {
                    rows.push(json!({"id": id, "file": file, "replaces": replaces, "problems": problems}));
                } else {
                    writeln!(out, "{id}\n    BROKEN, see: vitalbridge profile check {id}\n    {file}")?;
                }
                continue;
            }
        };
        let metrics: Vec<&str> = self_test::metrics(&profile).iter().map(|metric| metric.name()).collect();
        let settings: Vec<String> = profile
            .serial()
            .map_or_else(Vec::new, |serial| serial.settings.iter().map(ToString::to_string).collect::<Vec<_>>());
        if as_json {
            rows.push(json!({
                "id": id, "name": profile.name(), "kind": profile.kind().name(), "settings": settings,
                "transports": transports(&profile), "ble": profile.ble().map(ble_words),
                "tried_on_hardware": profile.is_tried_on_hardware(),
                "metrics": metrics, "tests": profile.tests().len(),
                "file": own.map(|own| &own.file), "replaces": replaces, "problems": [],
            }));
            continue;
        }
        let serial = (!settings.is_empty()).then(|| format!("serial {}", settings.join(", ")));
        let ways: Vec<String> = serial.into_iter().chain(profile.ble().map(ble_words)).collect();
        let tail = if metrics.is_empty() { String::new() } else { format!("; {}", metrics.join(", ")) };
        writeln!(out, "{id}\n    {}\n    {}{tail}", profile.name(), ways.join("; "))?;
        if let Some(own) = own {
            let replaces = if replaces { ", replaces the built-in one" } else { "" };
            writeln!(out, "    {}{replaces}", own.file.display())?;
        }
    }
    if as_json {
        writeln!(out, "{}", serde_json::Value::Array(rows))?;
    }
    Ok(())
}

fn transports(profile: &Profile) -> Vec<&'static str> {
    let ways = [(profile.serial().is_some(), "serial"), (profile.ble().is_some(), "ble")];
    ways.into_iter().filter(|(has, _)| *has).map(|(_, way)| way).collect()
}

/// What a Bluetooth model speaks and wants, in a few words.
fn ble_words(ble: &Ble) -> String {
    let speaks = match &ble.speaks {
        Speaks::Standard(sensor) => format!("BLE {sensor}"),
        Speaks::Stream(_) => "BLE, its maker's protocol".to_owned(),
        Speaks::Advertised(_) => "BLE, advertisements only".to_owned(),
    };
    let pairing = match (ble.needs_bond, ble.pair_method) {
        (false, _) => String::new(),
        (true, None) => ", to be paired".to_owned(),
        (true, Some(method)) => format!(", to be paired ({})", method.name().replace('_', " ")),
    };
    let deletes = if ble.deletes_on_transfer { ", deletes what it hands over" } else { "" };
    format!("{speaks}{pairing}{deletes}")
}

fn show(id: &str, devices: &Devices, out: &mut dyn Write) -> anyhow::Result<()> {
    if is_path(id) {
        let text = read_profile(id)?;
        // No more than the bound was read: half a profile must not look like one.
        if text.len() > MAX_PROFILE_BYTES {
            bail!("{id} is larger than {MAX_PROFILE_BYTES} bytes, which no profile may be");
        }
        return Ok(out.write_all(text.as_bytes())?);
    }
    let text = devices.text(id).ok_or_else(|| unknown(id, devices))?;
    Ok(out.write_all(text.as_bytes())?)
}

/// What was found about one profile.
struct Report {
    /// Its file, or the id of a built-in one.
    name: String,
    tests: usize,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

fn check(
    files: &[String],
    devices: &Devices,
    as_json: bool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    let ids: Vec<String> = devices.ids().into_iter().map(str::to_owned).collect();
    let names = if files.is_empty() { &ids[..] } else { files };
    let mut reports = Vec::new();
    for name in names {
        reports.push(report(name, devices)?);
    }
    if as_json {
        let place = |problem: &Problem| json!({"line": problem.line, "message": problem.message});
        let places = |problems: &[Problem]| problems.iter().map(place).collect::<Vec<_>>();
        let one = |report: &Report| {
            json!({
                "profile": report.name, "ok": report.problems.is_empty(), "tests": report.tests,
                "problems": places(&report.problems), "warnings": places(&report.warnings),
            })
        };
        let ok = reports.iter().all(|report| report.problems.is_empty());
        writeln!(out, "{}", json!({"ok": ok, "profiles": reports.iter().map(one).collect::<Vec<_>>()}))?;
    } else {
        tell(&reports, out, notes)?;
    }
    let bad = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if bad > 0 { Err(Refused { bad, all: reports.len() }.into()) } else { Ok(()) }
}

fn tell(reports: &[Report], out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    for Report { name, tests, problems, warnings } in reports {
        for warning in warnings {
            writeln!(notes, "{}", Problem { message: format!("warning: {}", warning.message), ..*warning }.at(name))?;
        }
        for problem in problems {
            writeln!(notes, "{}", problem.at(name))?;
        }
        if problems.is_empty() {
            match tests {
                0 => writeln!(out, "{name}: ok (no tests)")?,
                tests => writeln!(out, "{name}: ok ({tests} tests)")?,
            }
        }
    }
    Ok(())
}

/// Everything that is wrong with a profile: first with what it says, then, if that is sound, with what it does.
fn report(name: &str, devices: &Devices) -> anyhow::Result<Report> {
    let own = devices.own_of(name);
    let text = match own {
        // What the directory asks beside the schema (the id is the file's name) is among its problems.
        Some(own) => Ok(own.text.clone()),
        None if is_path(name) => read_profile(name),
        // A name that is no profile's may be a folder of the current one.
        None if devices.text(name).is_none() && Path::new(name).is_dir() => read_profile(name),
        None => Ok(devices.text(name).ok_or_else(|| unknown(name, devices))?.to_owned()),
    };
    let name = own.map_or_else(|| name.to_owned(), |own| own.file.display().to_string());
    let mut problems = own.and_then(|own| own.parsed.as_ref().err().cloned()).unwrap_or_default();
    let (mut tests, mut warnings) = (0, Problems::default());
    match text.map(|text| Profile::parse(&text)) {
        Ok(Ok(profile)) => {
            tests = profile.tests().len();
            warnings = profile.warnings().clone();
            for failure in self_test::run(&Arc::new(profile)) {
                problems.add_at_line(failure.line, failure.message);
            }
        }
        Ok(Err(found)) if own.is_none() => problems.extend(found),
        // They are there already.
        Ok(Err(_)) => {}
        Err(error) => problems.add_at_line(0, format!("{error:#}")),
    }
    Ok(Report { name, tests, problems: problems.as_slice().to_vec(), warnings: warnings.as_slice().to_vec() })
}

fn new(kind: DeviceKind, frame: Frame, id: Option<&str>, file: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let id = id.unwrap_or(&stem);
    let text = skeleton::text(kind, frame, id)?;
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .with_context(|| format!("write {}", file.display()))?;
    opened.write_all(text.as_bytes()).with_context(|| format!("write {}", file.display()))?;
    let marks = text.matches(skeleton::MARK).count() - 1;
    writeln!(out, "{}: {marks} places are marked with {}; then:", file.display(), skeleton::MARK)?;
    writeln!(out, "    vitalbridge profile check {}", file.display())?;
    Ok(())
}
