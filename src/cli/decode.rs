//! `vitalbridge decode`: turns captured bytes into readings, one JSON line each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::config::{DEFAULT_DEVICES_DIR, Devices};
use crate::decode::{Decoded, Decoder, gatt};
use crate::profile::model::Rule;
use crate::profile::{MAX_PROFILE_BYTES, Profile, hex};
use crate::wire::ReadingData;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Turn captured bytes into readings, one JSON line each
///
/// Every reading is printed, not one a second. Status changes and the counters go to standard error.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: vitalbridge decode --profile nonin-df2 capture.bin")]
#[command(group = clap::ArgGroup::new("how").required(true).args(["profile", "characteristic"]))]
pub struct Args {
    /// Id of a profile (see `profile list`), or the path of one
    #[arg(long, value_name = "ID|FILE.toml")]
    pub profile: Option<String>,
    /// Directory of further profiles [default: /etc/vitalbridge/devices, if it exists]
    #[arg(long, value_name = "DIR")]
    pub devices: Option<PathBuf>,
    /// A standard GATT characteristic, for example 2A37; needs --hex
    #[arg(long, value_name = "UUID", conflicts_with = "file", requires = "hex")]
    pub characteristic: Option<String>,
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
    let bytes = args.hex.as_ref().map(|text| hex::bytes(text).context("--hex")).transpose()?;
    if let Some(characteristic) = &args.characteristic {
        let decoded = gatt::decode(short_uuid(characteristic)?, &bytes.unwrap_or_default())?;
        return print_all(&decoded, args.waves, out, notes);
    }
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

/// An error of `out` stays an [`io::Error`], so that a closed pipe is known.
fn write_line(line: &impl Serialize, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// A characteristic's 16-bit form, with or without `0x`.
fn short_uuid(text: &str) -> anyhow::Result<u16> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let known = || gatt::KNOWN.iter().map(|known| format!("{known:04X}")).collect::<Vec<_>>().join(", ");
    match u16::from_str_radix(digits, 16) {
        Ok(uuid) if gatt::KNOWN.contains(&uuid) => Ok(uuid),
        _ => bail!("characteristic `{text}` is not known; known are {}", known()),
    }
}

/// The profiles of a directory, or of the default one, beside the built-in ones.
pub(super) fn devices(dir: Option<&Path>) -> anyhow::Result<Devices> {
    match dir {
        Some(dir) => {
            Devices::read(dir).with_context(|| format!("cannot read the directory of profiles {}", dir.display()))
        }
        None => Devices::of_default_dir().with_context(|| format!("cannot read {DEFAULT_DEVICES_DIR}")),
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
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    let mut text = String::new();
    let limit = u64::try_from(MAX_PROFILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).with_context(|| format!("read {path}"))?;
    Ok(text)
}
