//! What Home Assistant must know to show patients' numbers and the bridge: one discovery document a device. Pure.
//!
//! The form is device discovery, which Home Assistant has since 2024.11. A document names our own topics and has templates
//! that take one number out of our own messages.

use std::collections::{BTreeMap, BTreeSet};

use super::UplinkConfig;
use crate::ids::{DeviceId, PatientId};
use crate::vitals::{Metric, Mode, Rhythm};
use crate::wire::{DiscoveredAvailability, DiscoveredComponent, DiscoveredDevice, Discovery, DiscoveryOrigin};

/// Most devices of patients that are described; further ones are not.
const MAX_DEVICES: usize = 512;

/// A number that comes about once a second is unknown after so many seconds without a message of its device.
const CONTINUOUS_EXPIRES_S: u32 = 30;

/// A number that comes now and then is unknown after so many seconds.
const OTHERS_EXPIRE_S: u32 = 3600;

/// A number that was seen, or is expected: whose, from where, which.
pub(super) type Seen = (PatientId, DeviceId, Metric, Mode);

/// The numbers that there are.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    devices: BTreeMap<(PatientId, DeviceId), (Mode, BTreeSet<Metric>)>,
}

impl Catalogue {
    /// Everything that is known before the first reading. A device may have no number yet.
    pub(super) fn expected(config: &UplinkConfig) -> Self {
        let mut all = Self::default();
        for device in &config.about.expected {
            let key = (device.patient.clone(), device.device.clone());
            all.devices.insert(key, (device.mode, device.metrics.clone()));
        }
        all
    }

    /// True if the number is new.
    pub(super) fn add(&mut self, (patient, device, metric, mode): Seen) -> bool {
        let is_full = self.devices.len() >= MAX_DEVICES;
        let key = (patient, device);
        if is_full && !self.devices.contains_key(&key) {
            return false;
        }
        let (known_mode, metrics) = self.devices.entry(key).or_insert((mode, BTreeSet::new()));
        let is_other = *known_mode != mode;
        *known_mode = mode;
        metrics.insert(metric) || is_other
    }

    /// The topics and texts of all documents. One without a number yet is empty: what stood there is taken back.
    pub(super) fn documents(
        &self,
        config: &UplinkConfig,
        prefix: &str,
    ) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let mut all = BTreeMap::new();
        for ((patient, device), (mode, metrics)) in &self.devices {
            let document = of_device(config, (patient, device), *mode, metrics);
            let text = document.map_or_else(|| Ok(String::new()), |document| serde_json::to_string(&document))?;
            // The length tells where the patient ends and the device begins.
            let object = format!("{}-{patient}-{device}", patient.as_str().len());
            all.insert(topic(config, prefix, &object), text);
        }
        all.insert(topic(config, prefix, "bridge"), serde_json::to_string(&bridge(config))?);
        Ok(all)
    }
}

/// Where Home Assistant says that it has started.
pub(super) fn birth_topic(prefix: &str) -> String {
    format!("{prefix}/status")
}

fn topic(config: &UplinkConfig, prefix: &str, object: &str) -> String {
    format!("{prefix}/device/{}/{object}/config", bridge_id(config))
}

fn bridge_id(config: &UplinkConfig) -> String {
    format!("vitalbridge-{}", config.bridge)
}

fn status_topic(config: &UplinkConfig) -> String {
    config.topic.topic(&config.site, &config.bridge, "status", None)
}

fn document(
    device: DiscoveredDevice,
    components: BTreeMap<String, DiscoveredComponent>,
    availability: Option<Vec<DiscoveredAvailability>>,
) -> Discovery {
    let origin = DiscoveryOrigin { name: "vitalbridge", sw_version: env!("CARGO_PKG_VERSION") };
    Discovery { device, origin, availability, components, qos: 1 }
}

/// A device of a patient; `None`: it has no number yet.
fn of_device(
    config: &UplinkConfig,
    (patient, device): (&PatientId, &DeviceId),
    mode: Mode,
    metrics: &BTreeSet<Metric>,
) -> Option<Discovery> {
    let components = components(config, patient, device, metrics);
    let name = match mode {
        Mode::Real => format!("Patient {patient}"),
        other => format!("{} patient {patient}", other.name().to_uppercase()),
    };
    let about = DiscoveredDevice {
        identifiers: vec![format!("vitalbridge-{}-patient-{patient}", config.bridge)],
        name,
        manufacturer: "vitalbridge",
        sw_version: None,
        via_device: Some(bridge_id(config)),
    };
    let value_template = "{{ value_json.data.state }}";
    let availability = vec![DiscoveredAvailability { topic: status_topic(config), value_template }];
    (!components.is_empty()).then(|| document(about, components, Some(availability)))
}

/// Whether the bridge is connected. It has no availability: that it is away is what it shows.
fn bridge(config: &UplinkConfig) -> Discovery {
    let id = bridge_id(config);
    let status = DiscoveredComponent::BinarySensor {
        unique_id: format!("{id}-status"),
        name: "Connection",
        device_class: "connectivity",
        entity_category: "diagnostic",
        state_topic: status_topic(config),
        value_template: "{{ 'ON' if value_json.data.state == 'online' else 'OFF' }}",
    };
    let about = DiscoveredDevice {
        identifiers: vec![id],
        name: format!("vitalbridge {}", config.bridge),
        manufacturer: "vitalbridge",
        sw_version: Some(env!("CARGO_PKG_VERSION")),
        via_device: None,
    };
    document(about, BTreeMap::from([("status".to_owned(), status)]), None)
}

fn components(
    config: &UplinkConfig,
    patient: &PatientId,
    device: &DeviceId,
    metrics: &BTreeSet<Metric>,
) -> BTreeMap<String, DiscoveredComponent> {
    let mut all = BTreeMap::new();
    for metric in metrics {
        for (part, member) in parts(*metric) {
            let name = if part.is_empty() { metric.name().to_owned() } else { format!("{}_{part}", metric.name()) };
            let component = DiscoveredComponent::Sensor {
                unique_id: format!("{}-{}-{patient}-{device}-{name}", bridge_id(config), patient.as_str().len()),
                name: format!("{} ({device})", name.replace('_', " ")),
                state_topic: config.topic.topic(&config.site, &config.bridge, "health_update", Some(device)),
                value_template: template(patient, device, *metric, member),
                unit_of_measurement: metric.info().unit,
                state_class: "measurement",
                expire_after: expires(*metric),
                device_class: device_class(*metric),
            };
            all.insert(name, component);
        }
    }
    all
}

/// The numbers of a metric and where they stand in the message. Times between beats are no number.
fn parts(metric: Metric) -> &'static [(&'static str, &'static str)] {
    match metric {
        Metric::RrInterval => &[],
        Metric::BloodPressure | Metric::ArterialPressure => &[
            ("systolic", "(d.components or {}).systolic"),
            ("diastolic", "(d.components or {}).diastolic"),
            ("mean", "(d.components or {}).mean"),
        ],
        _ => &[("", "d.value")],
    }
}

/// `None` is Home Assistant's unknown; an empty text changes nothing, so that other numbers of the topic are passed over.
/// What waited for the broker is not of the present.
fn template(patient: &PatientId, device: &DeviceId, metric: Metric, member: &str) -> String {
    format!(
        "{{% set d = value_json.data %}}{{% if value_json.type == 'health_update' and d.patient_id == '{patient}' \
         and d.device_id == '{device}' and d.metric == '{metric}' and not (value_json.historical | default(false)) %}}\
         {{% set v = {member} %}}{{{{ 'None' if v is undefined or v is none else v }}}}{{% endif %}}"
    )
}

const fn expires(metric: Metric) -> u32 {
    match metric.info().rhythm {
        Rhythm::Continuous | Rhythm::Accompanying | Rhythm::Beats => CONTINUOUS_EXPIRES_S,
        Rhythm::Spot | Rhythm::Status | Rhythm::Computed => OTHERS_EXPIRE_S,
    }
}

/// The classes whose units Home Assistant knows as we write them.
const fn device_class(metric: Metric) -> Option<&'static str> {
    match metric {
        Metric::Temperature => Some("temperature"),
        Metric::Battery => Some("battery"),
        Metric::Weight => Some("weight"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::birth::About;
    use super::*;

    fn seen(patient: &str, device: &str, metric: Metric, mode: Mode) -> Seen {
        (patient.parse().unwrap(), device.parse().unwrap(), metric, mode)
    }

    fn documents(all: &[Seen]) -> BTreeMap<String, Json> {
        let mut catalogue = Catalogue::default();
        for one in all {
            catalogue.add(one.clone());
        }
        let texts = catalogue.documents(&UplinkConfig::for_tests(About::default()), "homeassistant").unwrap();
        texts.into_iter().map(|(topic, text)| (topic, serde_json::from_str(&text).unwrap_or_default())).collect()
    }

    #[test]
    fn each_number_of_a_patient_is_a_sensor_on_our_own_topic() {
        let all = documents(&[
            seen("P-1", "strap", Metric::HeartRate, Mode::Real),
            seen("P-1", "strap", Metric::Battery, Mode::Real),
            seen("P-1", "strap", Metric::RrInterval, Mode::Real),
        ]);
        let topics: Vec<&String> = all.keys().collect();
        assert_eq!(
            topics,
            [
                "homeassistant/device/vitalbridge-b1/3-P-1-strap/config",
                "homeassistant/device/vitalbridge-b1/bridge/config"
            ]
        );
        let document = &all[topics[0]];
        let sensor = &document["components"]["heart_rate"];
        assert_eq!(sensor["state_topic"], "vitals/v1/icu/b1/health_update/strap");
        assert_eq!((&sensor["expire_after"], &sensor["unit_of_measurement"]), (&json!(30), &json!("bpm")));
        let template = sensor["value_template"].as_str().unwrap();
        for part in [
            "d.patient_id == 'P-1'",
            "d.metric == 'heart_rate'",
            "set v = d.value %}{{ 'None' if v is undefined or v is none else v }}",
            "not (value_json.hist",
        ] {
            assert!(template.contains(part), "{template}");
        }
        assert_eq!(document["components"]["battery"]["device_class"], "battery");
        assert!(document["components"].get("rr_interval").is_none());
        assert_eq!(document["availability"][0]["topic"], "vitals/v1/icu/b1/status");
        assert_eq!(all[topics[1]]["components"]["status"]["state_topic"], "vitals/v1/icu/b1/status");
        assert!(all[topics[1]].get("availability").is_none());
    }

    #[test]
    fn a_pressure_is_three_sensors_and_a_demo_is_called_one() {
        let all = documents(&[seen("P-1", "cuff", Metric::BloodPressure, Mode::Demo)]);
        let document = &all["homeassistant/device/vitalbridge-b1/3-P-1-cuff/config"];
        let names: Vec<&String> = document["components"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["blood_pressure_diastolic", "blood_pressure_mean", "blood_pressure_systolic"]);
        let template = document["components"]["blood_pressure_systolic"]["value_template"].as_str().unwrap();
        assert!(template.contains("{% set v = (d.components or {}).systolic %}"), "{template}");
        assert_eq!(document["device"]["name"], "DEMO patient P-1");
    }

    #[test]
    fn two_devices_never_share_a_topic_whatever_they_are_called() {
        let all = documents(&[seen("a", "b-c", Metric::Spo2, Mode::Real), seen("a-b", "c", Metric::Spo2, Mode::Real)]);
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn only_what_is_new_makes_new_documents_and_their_number_is_bounded() {
        let mut catalogue = Catalogue::default();
        assert!(catalogue.add(seen("P-1", "d", Metric::Spo2, Mode::Real)));
        assert!(!catalogue.add(seen("P-1", "d", Metric::Spo2, Mode::Real)));
        assert!(catalogue.add(seen("P-1", "d", Metric::PulseRate, Mode::Real)));
        for number in 0..2 * MAX_DEVICES {
            catalogue.add(seen("P-1", &format!("d{number}"), Metric::Spo2, Mode::Real));
        }
        assert_eq!(catalogue.devices.len(), MAX_DEVICES);
    }
}
