//! Waveforms on their way to displays: the channel of a block of samples, and the binary message that carries it.
//!
//! Waves are shown while they happen and never stored: no number, no resume, no alert rule. A block that a display has
//! no room for is dropped whole; the number of its first sample tells the display so.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::Stamp;
use crate::event::WaveBlock;
use crate::ids::{DeviceId, Epoch, PatientId, SourceId};
use crate::vitals::Mode;
use crate::wire::shape::{Kind, Timestamp};

/// The first level of every channel of waves. Only a pattern that begins with it chooses them: whoever watches
/// everything else of a patient is not flooded by samples.
pub const WAVEFORM: &str = "waveform";

/// How samples are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "SampleFormat")]
#[serde(rename_all = "lowercase")]
enum Format {
    /// One byte, unsigned.
    U8,
    /// Two bytes, signed, least significant first.
    I16le,
    /// Four bytes, signed, least significant first.
    I32le,
}

/// The header of a binary message with samples: its length (2 bytes, least significant first) stands before it, the
/// samples behind it.
#[derive(Debug, Serialize, JsonSchema)]
struct Header<'a> {
    r#type: &'static str,
    channel: &'a str,
    #[schemars(with = "Epoch")]
    epoch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PatientId>")]
    patient_id: Option<&'a str>,
    #[schemars(with = "DeviceId")]
    device_id: &'a str,
    #[schemars(with = "SourceId")]
    source_id: &'a str,
    wave: &'a str,
    /// The number of the first sample since the source started.
    first: u64,
    /// Samples.
    n: usize,
    /// Samples a second, nominally.
    hz: f64,
    /// The sample that is zero signal.
    baseline: i32,
    format: Format,
    /// How many samples are at an end of the converter's range.
    saturated: usize,
    /// The device's own bytes were lost before the first sample.
    gap: bool,
    mode: Mode,
    /// When the last sample arrived.
    #[schemars(with = "Timestamp")]
    received: String,
    #[schemars(with = "Timestamp")]
    timestamp: String,
}

/// The header, for the contract.
pub const HEADER: Kind = Kind::of::<Header<'static>>(WAVEFORM);

/// The channel of a block.
pub fn channel_of(block: &WaveBlock) -> String {
    match &block.patient {
        Some(patient) => format!("{WAVEFORM}/{patient}/{}", block.name),
        // One level more than those of patients, so that leave for a patient of this name does not reach it.
        None => format!("{WAVEFORM}/device/{}/{}", block.device, block.name),
    }
}

/// The binary message of a block: the length of the header (2 bytes, least significant first), the header as JSON, the
/// samples.
///
/// # Errors
/// None for the types above; serde's signature has one.
pub fn message(block: &WaveBlock, epoch: &Epoch, now: Stamp) -> Result<Bytes, serde_json::Error> {
    let format = format_of(&block.samples);
    let header = serde_json::to_vec(&Header {
        r#type: WAVEFORM,
        channel: &channel_of(block),
        epoch: epoch.as_str(),
        patient_id: block.patient.as_ref().map(PatientId::as_str),
        device_id: block.device.as_str(),
        source_id: block.source.as_str(),
        wave: &block.name,
        first: block.first,
        n: block.samples.len(),
        hz: block.hz,
        baseline: block.baseline,
        format,
        saturated: block.saturated,
        gap: block.after_gap,
        mode: block.mode,
        received: block.received.wall.to_string(),
        timestamp: now.wall.to_string(),
    })?;
    let length = u16::try_from(header.len()).unwrap_or(u16::MAX);
    let mut message = Vec::with_capacity(2 + header.len() + 4 * block.samples.len());
    message.extend_from_slice(&length.to_le_bytes());
    message.extend_from_slice(&header);
    for sample in &block.samples {
        let bytes = sample.to_le_bytes();
        message.extend(bytes.iter().take(width(format)));
    }
    Ok(message.into())
}

const fn width(format: Format) -> usize {
    match format {
        Format::U8 => 1,
        Format::I16le => 2,
        Format::I32le => 4,
    }
}

/// The shortest form that holds every sample.
fn format_of(samples: &[i32]) -> Format {
    let (least, most) = samples.iter().fold((0, 0), |(least, most), sample| (*sample.min(&least), *sample.max(&most)));
    if least >= 0 && most <= i32::from(u8::MAX) {
        Format::U8
    } else if least >= i32::from(i16::MIN) && most <= i32::from(i16::MAX) {
        Format::I16le
    } else {
        Format::I32le
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn block(samples: Vec<i32>) -> WaveBlock {
        WaveBlock {
            patient: Some("P-1".parse().unwrap()),
            device: "nonin-1".parse().unwrap(),
            source: "bed-1".parse().unwrap(),
            mode: Mode::Demo,
            name: Arc::from("pleth"),
            hz: 75.0,
            baseline: 0,
            saturated: 0,
            after_gap: false,
            first: 18,
            samples,
            received: Stamp::default(),
        }
    }

    /// The header and the samples, read as a display does.
    fn read(message: &[u8]) -> (serde_json::Value, Vec<u8>) {
        let length = usize::from(u16::from_le_bytes([message[0], message[1]]));
        (serde_json::from_slice(&message[2..2 + length]).unwrap(), message[2 + length..].to_vec())
    }

    #[test]
    fn samples_are_written_as_short_as_they_all_fit() {
        for (samples, format, bytes) in [
            (vec![0, 127, 255], "u8", vec![0, 127, 255]),
            (vec![0, 256], "i16le", vec![0, 0, 0, 1]),
            (vec![-1], "i16le", vec![255, 255]),
            (vec![32768], "i32le", vec![0, 128, 0, 0]),
            (vec![-32769], "i32le", vec![255, 127, 255, 255]),
            (vec![], "u8", vec![]),
        ] {
            let count = samples.len();
            let message = message(&block(samples.clone()), &"k3f9".parse().unwrap(), Stamp::default()).unwrap();
            let (header, written) = read(&message);
            assert_eq!((header["format"].as_str(), &written), (Some(format), &bytes), "{samples:?}");
            assert_eq!(header["n"], count);
        }
    }

    #[test]
    fn a_header_places_the_samples() {
        let message = message(&block(vec![1]), &"k3f9".parse().unwrap(), Stamp::default()).unwrap();
        let (header, _) = read(&message);
        for (key, expected) in
            [("type", "waveform"), ("channel", "waveform/P-1/pleth"), ("mode", "demo"), ("patient_id", "P-1")]
        {
            assert_eq!(header[key], expected, "{key}");
        }
        assert_eq!((header["first"].as_u64(), header["hz"].as_f64()), (Some(18), Some(75.0)));
        assert_eq!(channel_of(&WaveBlock { patient: None, ..block(vec![]) }), "waveform/device/nonin-1/pleth");
    }
}
