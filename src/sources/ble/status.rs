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
        let scanning = u64::from(radio.scanning);
        for (name, kind, help, value) in [
            ("scanning", "gauge", "1 while the radio listens for sensors.", scanning),
            (
                "fruitless_generations",
                "gauge",
                "Bluetooth threads renewed in vain since data last came.",
                u64::from(radio.fruitless),
            ),
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
        let per_sensor: [(&str, &str, Number); 6] = [
            ("attempts_total", "Attempts to connect to this sensor.", |state, _| i64::try_from(state.attempts).ok()),
            ("failures", "Failures in a row.", |state, _| Some(i64::from(state.failures))),
            ("bonded", "1 if BlueZ keeps a bond with this sensor.", |state, _| Some(i64::from(state.bonded))),
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
        self.write_states(&mut text);
        text
    }

    /// States, which are no numbers: 1 with the state as a label.
    fn write_states(&self, text: &mut String) {
        head(text, "obstacle", "What keeps the Bluetooth radio from being used, as a label.");
        if let Some(obstacle) = self.radio.as_ref().and_then(|radio| radio.obstacle) {
            let _ = writeln!(text, "vitalbridge_ble_obstacle{{obstacle=\"{obstacle}\"}} 1");
        }
        head(text, "sensor_phase", "What is being done about this sensor, as a label.");
        for SensorStatus { source, state, .. } in &self.sensors {
            let phase = state.phase;
            let _ = writeln!(text, "vitalbridge_ble_sensor_phase{{source=\"{source}\",phase=\"{phase}\"}} 1");
        }
        head(text, "sensor_tried", "The last step against the failures of this sensor, as a label.");
        for SensorStatus { source, state, .. } in &self.sensors {
            if let Some(tried) = state.tried {
                let _ = writeln!(text, "vitalbridge_ble_sensor_tried{{source=\"{source}\",tried=\"{tried}\"}} 1");
            }
        }
    }
}

fn head(text: &mut String, name: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP vitalbridge_ble_{name} {help}\n# TYPE vitalbridge_ble_{name} gauge");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Mono, Stamp, Wall};
    use crate::sources::ble::SensorKind;
    use crate::sources::ble::policy::{Obstacle, RadioCounts, Rung, SensorPhase};

    #[test]
    fn all_that_is_known_of_the_radio_and_its_sensors_is_in_the_metrics() {
        let at = |millis: u64| Stamp { mono: Mono(millis * 1_000_000), wall: Wall(0) };
        let counts = RadioCounts { connects: 7, generations: 2, ..RadioCounts::default() };
        let (obstacle, reason) = (Some(Obstacle::PowerCycle), Some("being switched".to_owned()));
        let state = SensorState {
            phase: SensorPhase::Unavailable,
            address: None,
            last_seen: Some(at(1000)),
            rssi: Some(-71),
            battery: Some(88),
            attempts: 7,
            failures: 6,
            tried: Some(Rung::PowerCycled),
            bonded: true,
            reason: None,
        };
        let sensor = SensorStatus {
            source: "strap".parse().unwrap(),
            device: "strap".parse().unwrap(),
            sensor: SensorKind::HeartRate.name(),
            profile: None,
            state,
        };
        let status = AirStatus {
            adapter: None,
            radio: Some(RadioState { obstacle, reason, scanning: false, counts, fruitless: 1 }),
            match_rules_leaked: 3,
            radio_tasks: 5,
            sensors: vec![sensor],
        };
        let text = status.to_prometheus(at(5000));
        for line in [
            "vitalbridge_ble_up 0",
            "vitalbridge_ble_scanning 0",
            "vitalbridge_ble_fruitless_generations 1",
            "vitalbridge_ble_connects_total 7",
            "vitalbridge_ble_generations_total 2",
            "vitalbridge_ble_match_rules_leaked_total 3",
            "vitalbridge_ble_tasks 5",
            "vitalbridge_ble_obstacle{obstacle=\"power_cycle\"} 1",
            "vitalbridge_ble_sensor_phase{source=\"strap\",phase=\"unavailable\"} 1",
            "vitalbridge_ble_sensor_tried{source=\"strap\",tried=\"power_cycled\"} 1",
            "vitalbridge_ble_sensor_attempts_total{source=\"strap\"} 7",
            "vitalbridge_ble_sensor_failures{source=\"strap\"} 6",
            "vitalbridge_ble_sensor_bonded{source=\"strap\"} 1",
            "vitalbridge_ble_sensor_rssi_dbm{source=\"strap\"} -71",
            "vitalbridge_ble_sensor_battery_percent{source=\"strap\"} 88",
            "vitalbridge_ble_sensor_last_seen_seconds{source=\"strap\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
        // Each line of help is followed by its type, and no name comes twice.
        let helped: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let named: std::collections::BTreeSet<&str> = helped.iter().copied().collect();
        assert_eq!(named.len(), helped.len());
        assert_eq!(AirStatus::default().to_prometheus(at(0)), "");
    }
}
