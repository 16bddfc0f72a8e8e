//! What the radio and each sensor are doing, for people and for Prometheus.

use std::fmt::Write as _;

use serde::Serialize;

use super::policy::{RadioState, SensorState};
use crate::ids::{DeviceId, SourceId};

/// The radio and all sensors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AirStatus {
    /// The adapter in use.
    pub adapter: Option<String>,
    /// The radio; `None`: no source uses it.
    pub radio: Option<RadioState>,
    /// Match rules at the bus that btleplug has left there since the start of the daemon.
    pub match_rules_leaked: u64,
    /// Tasks that live on the Bluetooth thread.
    pub radio_tasks: usize,
    /// The sensors.
    pub sensors: Vec<SensorStatus>,
}

/// One sensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SensorStatus {
    /// Its source.
    pub source: SourceId,
    /// The device.
    pub device: DeviceId,
    /// What it measures: a [`super::SensorKind`], or the kind of device that its profile is for.
    pub sensor: &'static str,
    /// The profile by which its stream of bytes is read, if it sends one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How it is.
    #[serde(flatten)]
    pub state: SensorState,
}

/// A number of a sensor at a time, in milliseconds since boot.
type Number = fn(&SensorState, u64) -> Option<i64>;

impl AirStatus {
    /// The text that Prometheus reads (exposition format 0.0.4), one line a sensor and number. Nothing without a radio.
    pub fn to_prometheus(&self, now: crate::clock::Stamp) -> String {
        let mut text = String::new();
        let Some(radio) = &self.radio else { return text };
        let counts = &radio.counts;
        for (name, kind, help, value) in [
            ("up", "gauge", "1 while the Bluetooth radio can be used.", u64::from(radio.obstacle.is_none())),
            ("connects_total", "counter", "Attempts to connect to a Bluetooth sensor.", counts.connects),
            ("failures_total", "counter", "Attempts that failed, and links that fell silent.", counts.failures),
            ("generations_total", "counter", "Bluetooth threads that were started.", counts.generations),
            ("silent_scans_total", "counter", "Scans started again because nothing was heard.", counts.silent_scans),
            ("removals_total", "counter", "Devices that BlueZ was made to forget.", counts.removals),
            ("power_cycles_total", "counter", "Times the adapter was switched off and on.", counts.power_cycles),
            (
                "match_rules_leaked_total",
                "counter",
                "Match rules left at the bus by btleplug.",
                self.match_rules_leaked,
            ),
            ("tasks", "gauge", "Tasks on the Bluetooth thread.", u64::try_from(self.radio_tasks).unwrap_or(u64::MAX)),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP vitalbridge_ble_{name} {help}\n# TYPE vitalbridge_ble_{name} {kind}\nvitalbridge_ble_{name} {value}"
            );
        }
        let per_sensor: [(&str, &str, Number); 5] = [
            ("attempts_total", "Attempts to connect to this sensor.", |state, _| i64::try_from(state.attempts).ok()),
            ("failures", "Failures in a row.", |state, _| Some(i64::from(state.failures))),
            ("rssi_dbm", "Signal strength when it was last heard.", |state, _| state.rssi.map(i64::from)),
            ("battery_percent", "Battery level as last read.", |state, _| state.battery.map(i64::from)),
            ("last_seen_seconds", "Time since it was last heard.", |state, now| {
                let seen = state.last_seen?.mono.as_millis();
                i64::try_from(now.saturating_sub(seen) / 1000).ok()
            }),
        ];
        for (name, help, value) in per_sensor {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _ = writeln!(
                text,
                "# HELP vitalbridge_ble_sensor_{name} {help}\n# TYPE vitalbridge_ble_sensor_{name} {kind}"
            );
            for sensor in &self.sensors {
                if let Some(value) = value(&sensor.state, now.mono.as_millis()) {
                    let _ = writeln!(text, "vitalbridge_ble_sensor_{name}{{source=\"{}\"}} {value}", sensor.source);
                }
            }
        }
        text
    }
}
