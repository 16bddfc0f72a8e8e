//! `vitalbridge decode --characteristic` and its like: single payloads, each a few JSON lines.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde::Serialize;
use uuid::Uuid;

use super::decode::{Args, FailedLine, devices, find_profile, write_line};
use crate::decode::gatt::advert::{self, Advertised};
use crate::decode::gatt::{self, Characteristic, Details, Report};
use crate::decode::vendor::{RECORDS, Record};
use crate::decode::{Decoded, Decoder};
use crate::profile::ble::Quirk;
use crate::profile::{Profile, built_in, built_in_ids, hex};
use crate::vitals::Status;
use crate::wire::ReadingData;

/// Longest line of a file, in bytes: an attribute of 512 bytes with a separator after each.
const MAX_LINE_BYTES: u64 = 2 * 1024;

/// What a payload is of.
pub(super) enum Payload {
    /// A standard characteristic, of a model with these quirks.
    Standard(&'static Characteristic, Vec<Quirk>),
    /// A characteristic that a profile reads.
    Own(Uuid, Arc<Profile>),
    /// Advertised data of a service.
    Service(u16),
    /// Advertised data of a company.
    Manufacturer(u16),
    /// A maker's record.
    Record(&'static Record),
}

impl Payload {
    /// What `args` name; `None`: a stream of bytes by a profile.
    pub(super) fn of(args: &Args) -> anyhow::Result<Option<Self>> {
        if let Some(name) = &args.characteristic {
            return characteristic(name, args).map(Some);
        }
        if let Some(text) = &args.service_data {
            return Ok(Some(Self::Service(number(text).with_context(|| format!("--service-data {text}"))?)));
        }
        if let Some(text) = &args.manufacturer_data {
            return Ok(Some(Self::Manufacturer(number(text).with_context(|| format!("--manufacturer-data {text}"))?)));
        }
        let Some(name) = &args.record else { return Ok(None) };
        let known = || RECORDS.iter().map(|record| format!("{} ({})", record.name, record.about)).collect::<Vec<_>>();
        let found = RECORDS.iter().find(|record| record.name == name);
        let record = found.ok_or_else(|| anyhow!("record `{name}` is not known; known are {}", known().join(", ")))?;
        Ok(Some(Self::Record(record)))
    }

    fn report(&self, bytes: &[u8]) -> anyhow::Result<Report> {
        Ok(match self {
            Self::Standard(characteristic, quirks) => gatt::decode_with(characteristic.uuid, bytes, quirks)?,
            Self::Service(uuid) => advert::decode(Advertised::Service { uuid: *uuid, data: bytes })?,
            Self::Manufacturer(company) => advert::decode(Advertised::Manufacturer { company: *company, data: bytes })?,
            Self::Record(record) => record.decode(bytes)?,
            Self::Own(_, profile) => by_profile(profile, bytes)?,
        })
    }

    /// Its number and its name.
    fn title(&self) -> (String, Option<&str>) {
        match self {
            Self::Standard(known, _) => (format!("{:04X}", known.uuid), Some(known.name)),
            Self::Own(uuid, profile) => (uuid.to_string(), Some(profile.name())),
            Self::Service(uuid) => (format!("service data {uuid:04X}"), None),
            Self::Manufacturer(company) => (format!("manufacturer data {company:04X}"), None),
            Self::Record(record) => (record.name.to_owned(), Some(record.about)),
        }
    }
}

/// What whole frames of a maker's own protocol say.
fn by_profile(profile: &Arc<Profile>, bytes: &[u8]) -> anyhow::Result<Report> {
    let (mut decoder, mut decoded) = (Decoder::new(Arc::clone(profile)), Vec::new());
    decoder.push(bytes, &mut decoded);
    decoder.finish(&mut decoded);
    let counters = decoder.counters();
    if counters.frames == 0 {
        bail!("there is no whole frame of profile {} in {} bytes", profile.id(), bytes.len());
    }
    let trailing_bytes = usize::try_from(counters.skipped_bytes).unwrap_or(usize::MAX);
    Ok(Report { decoded, trailing_bytes, raw: bytes.to_vec(), ..Report::default() })
}

/// A number of 16 bits in hexadecimal digits, with or without `0x`, or a whole UUID on the Bluetooth base.
fn number(text: &str) -> anyhow::Result<u16> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let short = (digits.len() <= 4).then(|| u16::from_str_radix(digits, 16).ok()).flatten();
    let whole = || Uuid::try_parse(text).ok().and_then(gatt::short_form);
    short.or_else(whole).ok_or_else(|| anyhow!("`{text}` is no number of 16 bits such as 181D"))
}

fn characteristic(name: &str, args: &Args) -> anyhow::Result<Payload> {
    let devices = devices(args.devices.as_deref())?;
    let profile = args.profile.as_deref().map(|id| find_profile(id, &devices)).transpose()?;
    if let Some(known) = number(name).ok().and_then(gatt::characteristic) {
        let quirks = profile.as_ref().map(|profile| profile.quirks().to_vec()).unwrap_or_default();
        return Ok(Payload::Standard(known, quirks));
    }
    let uuid = Uuid::try_parse(name).ok();
    let notifies = |profile: &Profile| profile.gatt().is_some_and(|gatt| Some(gatt.notify) == uuid);
    if let (Some(uuid), Some(profile)) = (uuid, profile.as_ref().filter(|profile| notifies(profile))) {
        return Ok(Payload::Own(uuid, Arc::clone(profile)));
    }
    let is_reader = |id: &&str| built_in(id).and_then(Result::ok).is_some_and(|profile| notifies(&profile));
    let readers: Vec<&str> = built_in_ids().filter(is_reader).collect();
    if readers.is_empty() {
        let known = gatt::CHARACTERISTICS.iter().map(|known| format!("{:04X} {}", known.uuid, known.name));
        bail!("characteristic `{name}` is not known; known are {}", known.collect::<Vec<_>>().join(", "));
    }
    bail!("characteristic {name} is a maker's own: name the model by --profile {}", readers.join(" or --profile "))
}

/// Prints what each payload says. A payload that cannot be decoded is told in `notes`, and the others go on.
///
/// # Errors
/// No payload, one that cannot be decoded, a file that cannot be read, or an output that is closed.
pub(super) fn run(
    kind: &Payload,
    args: &Args,
    input: &mut dyn Read,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> anyhow::Result<()> {
    if let Some(text) = &args.hex {
        return print_report(kind, &kind.report(&hex::bytes(text).context("--hex")?)?, out);
    }
    if args.file.as_os_str() == "-" {
        return lines(kind, input, out, notes);
    }
    let mut file = File::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    lines(kind, &mut file, out, notes).with_context(|| format!("decode {}", args.file.display()))
}

/// One payload a line; empty lines and lines that begin with `#` are none.
fn lines(kind: &Payload, input: &mut dyn Read, out: &mut dyn Write, notes: &mut dyn Write) -> anyhow::Result<()> {
    let mut input = BufReader::new(input);
    let (mut payloads, mut bad) = (0_usize, 0_usize);
    let mut line = String::new();
    for number in 1_usize.. {
        line.clear();
        if input.by_ref().take(MAX_LINE_BYTES + 1).read_line(&mut line).with_context(|| format!("line {number}"))? == 0
        {
            break;
        }
        if u64::try_from(line.len()).unwrap_or(u64::MAX) > MAX_LINE_BYTES {
            bail!("line {number} is longer than {MAX_LINE_BYTES} bytes, which no payload is");
        }
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        payloads += 1;
        // A closed output ends everything; what is wrong with one payload is told of it alone.
        let report = hex::bytes(text).map_err(Into::into).and_then(|bytes| kind.report(&bytes));
        match report {
            Ok(report) => print_report(kind, &report, out)?,
            Err(error) => {
                bad += 1;
                writeln!(notes, "line {number}: {error:#}")?;
            }
        }
    }
    if payloads == 0 {
        bail!("there is no payload: give one with --hex, or one a line in hexadecimal digits");
    }
    if bad > 0 {
        bail!("{bad} of {payloads} payloads could not be decoded");
    }
    Ok(())
}

#[derive(Serialize)]
struct EventLine<'a> {
    event: &'a str,
}

/// The last line of a payload: what it says beside its vitals.
#[derive(Serialize)]
struct RestLine<'a> {
    payload: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Absent where the payload says nothing of the sensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_time: Option<&'a str>,
    details: &'a Details,
    rfu_bits: u32,
    trailing_bytes: usize,
    raw: String,
}

fn print_report(kind: &Payload, report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut status = None;
    for decoded in &report.decoded {
        match decoded {
            Decoded::Vital(vital) => {
                let time = vital.device_time.as_deref();
                write_line(&ReadingData::decoded(&vital.vital, vital.quality, vital.mdc, time), out)?;
            }
            Decoded::MeasurementFailed(failed) => write_line(&FailedLine::new(failed), out)?,
            Decoded::Event { name } => write_line(&EventLine { event: name }, out)?,
            Decoded::Status(statuses) => status = Some(statuses.iter().copied().map(Status::name).collect()),
            // Among the details; the others do not come from single payloads.
            Decoded::SerialNumber(_) | Decoded::Wave(_) | Decoded::Beat => {}
        }
    }
    let (payload, name) = kind.title();
    let rest = RestLine {
        payload,
        name,
        status,
        user: report.user,
        record: report.record,
        device_time: report.device_time.as_deref(),
        details: &report.details,
        rfu_bits: report.rfu_bits,
        trailing_bytes: report.trailing_bytes,
        raw: report.raw_hex(),
    };
    write_line(&rest, out)
}
