//! `vitalbridge decode`: turns captured bytes into readings, one JSON line each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;

use super::payload::{self, Payload};
use crate::config::{DEFAULT_DEVICES_DIR, Devices};
use crate::decode::{Decoded, Decoder, FailedMeasurement};
use crate::profile::model::Rule;
use crate::profile::{MAX_PROFILE_BYTES, Profile, hex};
use crate::vitals::{Absent, Metric};
use crate::wire::ReadingData;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Turn captured bytes into readings, one JSON line each
///
/// Every reading is printed, not one a second. Status changes and the counters go to standard error.
///
/// Payloads of a characteristic, of an advertisement or of a maker's record are given with --hex, or one a line in
/// hexadecimal digits in FILE; each ends with a line of everything else that it says.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  vitalbridge decode --characteristic 2A37 --hex 103b5304\n  \
        vitalbridge decode --characteristic 2A35 --profile beurer-bm85 payloads.txt\n  \
        vitalbridge decode --service-data 181D --hex 229e43e507040b101301\n  \
        vitalbridge decode --profile contec-v7 capture.bin",
    group = clap::ArgGroup::new("how").required(true).multiple(true)
        .args(["profile", "characteristic", "service_data", "manufacturer_data", "record"])
)]
pub struct Args {
    /// Id of a profile (see `profile list`), or the path of a profile; with --characteristic for its quirks
    #[arg(long, value_name = "ID|FILE.toml", conflicts_with_all = ["service_data", "manufacturer_data", "record"])]
    pub profile: Option<String>,
    /// Directory of further profiles [default: /etc/vitalbridge/devices, if it exists]
    #[arg(long, value_name = "DIR")]
    pub devices: Option<PathBuf>,
    /// A GATT characteristic, for example 2A37 or 00002a37-0000-1000-8000-00805f9b34fb
    #[arg(long, value_name = "UUID", conflicts_with_all = ["waves", "service_data", "manufacturer_data", "record"])]
    pub characteristic: Option<String>,
    /// Advertised data of a service, for example 181D
    #[arg(long, value_name = "UUID", conflicts_with_all = ["waves", "manufacturer_data", "record"])]
    pub service_data: Option<String>,
    /// Advertised data of a manufacturer, by the company's number, for example 006B
    #[arg(long, value_name = "COMPANY", conflicts_with_all = ["waves", "record"])]
    pub manufacturer_data: Option<String>,
    /// A maker's record: microlife, omron-be, omron-le or tempsitter
    #[arg(long, value_name = "NAME", conflicts_with = "waves")]
    pub record: Option<String>,
    /// The bytes as hexadecimal digits, instead of a file
    #[arg(long, value_name = "BYTES", conflicts_with = "file")]
    pub hex: Option<String>,
    /// Print the samples of waves too
    #[arg(long)]
    pub waves: bool,
    /// The captured bytes; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// Decodes as `args` say: readings to `out`, everything else to `notes`.
///
/// # Errors
/// An unknown profile or characteristic, hex that is no bytes, a file that cannot be read, or an output that is closed.
pub fn run(args: &Args, input: &mut dyn Read, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    if let Some(kind) = Payload::of(args)? {
        return payload::run(&kind, args, input, out, notes);
    }
    let bytes = args.hex.as_ref().map(|text| hex::bytes(text).context("--hex")).transpose()?;
    let profile = find_profile(args.profile.as_deref().unwrap_or_default(), &devices(args.devices.as_deref())?)?;
    let mut decoder = Decoder::new(Arc::clone(&profile));
    match bytes {
        Some(bytes) => feed(&mut decoder, &mut bytes.as_slice(), args.waves, out, notes)?,
        None if matches!(profile.framing().rule, Rule::Payload { .. }) => {
            bail!(
                "profile {} reads single notifications, which a file cannot tell apart: give one with --hex",
                profile.id()
            )
        }
        None if args.file.as_os_str() == "-" => feed(&mut decoder, input, args.waves, out, notes)?,
        None => {
            let mut file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
            feed(&mut decoder, &mut file, args.waves, out, notes)
                .with_context(|| format!("decode {}", args.file.display()))?;
        }
    }
    let counters = decoder.counters();
    writeln!(
        notes,
        "{} frames, {} with a wrong checksum, {} bytes skipped, {} resyncs",
        counters.frames, counters.bad_checksum, counters.skipped_bytes, counters.resyncs
    )?;
    Ok(())
}

fn feed(
    decoder: &mut Decoder,
    input: &mut dyn Read,
    with_waves: bool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut decoded = Vec::new();
    loop {
        let length = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        decoder.push(chunk.get(..length).unwrap_or(&[]), &mut decoded);
        print_all(&decoded, with_waves, out, notes)?;
        decoded.clear();
    }
    decoder.finish(&mut decoded);
    print_all(&decoded, with_waves, out, notes)
}

#[derive(Serialize)]
struct WaveLine<'a> {
    wave: &'a str,
    hz: f64,
    baseline: i32,
    saturated: usize,
    after_gap: bool,
    samples: &'a [i32],
}

fn print_all(decoded: &[Decoded], with_waves: bool, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    for item in decoded {
        match item {
            Decoded::Vital(vital) => {
                let data = ReadingData::decoded(&vital.vital, vital.quality, vital.mdc, vital.device_time.as_deref());
                write_line(&data, out)?;
            }
            Decoded::MeasurementFailed(failed) => write_line(&FailedLine::new(failed), out)?,
            Decoded::Wave(wave) if with_waves => {
                let line = WaveLine {
                    wave: &wave.name,
                    hz: wave.hz,
                    baseline: wave.baseline,
                    saturated: wave.saturated,
                    after_gap: wave.after_gap,
                    samples: &wave.samples,
                };
                write_line(&line, out)?;
            }
            Decoded::Status(statuses) => {
                let names: Vec<&str> = statuses.iter().map(|status| status.name()).collect();
                writeln!(notes, "status: {}", if names.is_empty() { "none".to_owned() } else { names.join(" ") })?;
            }
            Decoded::SerialNumber(number) => writeln!(notes, "serial number: {number}")?,
            Decoded::Event { name } => writeln!(notes, "event: {name}")?,
            Decoded::Wave(_) | Decoded::Beat => {}
        }
    }
    Ok(())
}

/// A measurement that failed.
#[derive(Serialize)]
pub(super) struct FailedLine<'a> {
    event: &'static str,
    metric: Metric,
    absent: Absent,
    causes: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time: Option<&'a str>,
}

impl<'a> FailedLine<'a> {
    pub(super) fn new(failed: &'a FailedMeasurement) -> Self {
        Self {
            event: Absent::MeasurementFailed.name(),
            metric: failed.metric,
            absent: failed.reason,
            causes: &failed.causes,
            device_time: failed.device_time.as_deref(),
        }
    }
}

/// An error of `out` stays an [`io::Error`], so that a closed pipe is known.
pub(super) fn write_line(line: &impl Serialize, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// The profiles of a directory, or of the default one, beside the built-in ones. Who may not look into the default one, as
/// everybody but root and the service's user, is told so and has the built-in ones.
pub(super) fn devices(dir: Option<&Path>) -> anyhow::Result<Devices> {
    match dir {
        Some(dir) => {
            Devices::read(dir).with_context(|| format!("cannot read the directory of profiles {}", dir.display()))
        }
        None => match Devices::of_default_dir() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let why = "this user may not look into it; there are the built-in profiles alone (with sudo, those of it too)";
                super::note(&format!("vitalbridge: {DEFAULT_DEVICES_DIR}: {why}"));
                Ok(Devices::default())
            }
            read => read.with_context(|| format!("cannot read {DEFAULT_DEVICES_DIR}")),
        },
    }
}

/// True if a profile is named by the path of its file.
pub(super) fn is_path(name: &str) -> bool {
    name.contains(std::path::MAIN_SEPARATOR)
        || Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// A profile by its id, or by the path of its file.
pub(super) fn find_profile(name: &str, devices: &Devices) -> anyhow::Result<Arc<Profile>> {
    if is_path(name) {
        let text = read_profile(name)?;
        return Profile::parse(&text).map(Arc::new).with_context(|| format!("profile {name}"));
    }
    match devices.find(name) {
        Some(found) => found.with_context(|| format!("profile {name}")),
        None => Err(unknown(name, devices)),
    }
}

/// The error for an id that no profile has.
pub(super) fn unknown(name: &str, devices: &Devices) -> anyhow::Error {
    let near = devices.nearest(name).join(", ");
    anyhow::anyhow!("there is no profile `{name}`; the nearest are {near} (all: vitalbridge profile list)")
}

/// The text of a profile file, within its bound.
pub(super) fn read_profile(path: &str) -> anyhow::Result<String> {
    if Path::new(path).is_dir() {
        anyhow::bail!("Is a directory: use --devices {path}");
    }
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    let mut text = String::new();
    let limit = u64::try_from(MAX_PROFILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).with_context(|| format!("read {path}"))?;
    Ok(text)
}
