//! The decoders against payloads of real devices, and the commands that use them.

#![cfg(test)]

mod cli;
mod gatt;
mod known_defects;
mod layouts;
mod links;
mod resync;
mod vectors;

use std::sync::Arc;

use vitalbridge::decode::{Decoded, DecodedVital, Decoder, FrameCounters};
use vitalbridge::profile::{Profile, built_in};
use vitalbridge::vitals::{Metric, Value};

/// What a whole recording gives.
pub(crate) struct Recording {
    pub(crate) decoded: Vec<Decoded>,
    pub(crate) counters: FrameCounters,
}

impl Recording {
    pub(crate) fn vitals(&self) -> impl Iterator<Item = &DecodedVital> {
        self.decoded.iter().filter_map(|decoded| match decoded {
            Decoded::Vital(vital) => Some(vital),
            _ => None,
        })
    }

    /// The values of one metric: a number, or the name of the reason.
    pub(crate) fn values(&self, metric: Metric) -> Vec<String> {
        self.vitals().filter(|vital| vital.vital.metric() == metric).map(|vital| shown(vital.vital.leading())).collect()
    }
}

pub(crate) fn shown(value: Value) -> String {
    match value {
        Value::Valid(number) => number.to_string(),
        Value::Absent(reason) => reason.name().to_owned(),
    }
}

pub(crate) fn profile(id: &str) -> Arc<Profile> {
    built_in(id).unwrap_or_else(|| panic!("no profile {id}")).unwrap()
}

pub(crate) fn play(id: &str, bytes: &[u8]) -> Recording {
    let mut decoder = Decoder::new(profile(id));
    let mut decoded = Vec::new();
    decoder.push(bytes, &mut decoded);
    decoder.finish(&mut decoded);
    Recording { decoded, counters: decoder.counters() }
}

/// The vectors of a file, those whose `key` is one of `values`.
pub(crate) fn vectors(file: &str, key: &str, values: &[&str]) -> Vec<serde_json::Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = all["vectors"].as_array().unwrap();
    vectors.iter().filter(|vector| values.contains(&vector[key].as_str().unwrap())).cloned().collect()
}
