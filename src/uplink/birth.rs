//! What `birth` says of the bridge: its version and configuration, its devices, the limits in force, its clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::UplinkConfig;
use crate::clock::Stamp;
use crate::patient::Patient;
use crate::pipeline::{Control, Expected, ResendQueue};
use crate::timeline::{self, ClockEpoch, ClockState};
use crate::wire::{self, BirthClock, BirthData, KnownDevice, Threshold, Thresholds};

/// The `{kind}` of its topic, and its `type`.
pub(super) const BIRTH: &str = "birth";

/// The limits of all patients are asked for so long; without an answer they are told as unknown.
const LIMITS_DEADLINE: Duration = Duration::from_secs(2);

/// What a packet has beside its topic and its body, in bytes.
pub(super) const PACKET_OVERHEAD: usize = 128;

/// What the bridge knows of itself. Nothing of it is secret.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The SHA-256 of the configuration that was read last, which changes when it is read again.
    pub config_hash: Option<watch::Receiver<Option<String>>>,
    /// The sources.
    pub devices: Vec<KnownDevice>,
    /// Whose limits are told.
    pub patients: Vec<Patient>,
    /// What each device is to deliver.
    pub expected: Vec<Expected>,
    /// The pipeline, which knows the limits in force.
    pub control: Option<mpsc::Sender<Control>>,
    /// This boot of the machine.
    pub boot: String,
    /// How long the buffer lasts without the broker, as it was measured last; `None` inside: unknown.
    pub buffer: Option<watch::Receiver<Option<Duration>>>,
    /// Ranges of the log that are to be sent again.
    pub resends: ResendQueue,
    /// Home Assistant learns of the bridge under this prefix; `None`: it does not.
    pub home_assistant: Option<String>,
}

impl About {
    /// How long the buffer lasts without the broker, if that is known.
    pub(super) fn buffer_left(&self) -> Option<Duration> {
        self.buffer.as_ref().and_then(|buffer| *buffer.borrow())
    }
}

/// The limits in force of each patient; `None` if nobody answers.
pub(super) async fn thresholds(about: About) -> Option<Thresholds> {
    let control = about.control?;
    let asking = async {
        let mut all = BTreeMap::new();
        for patient in about.patients {
            let (reply, answer) = oneshot::channel();
            control.send(Control::Limits(patient.id.clone(), reply)).await.ok()?;
            let limits = answer.await.ok()?.unwrap_or_default();
            let shown = limits.iter().map(|limit| Threshold {
                rule: limit.rule.clone(),
                priority: limit.priority,
                metrics: limit.metrics.clone(),
                unit: limit.unit,
                low: limit.low,
                high: limit.high,
                delay_ms: limit.delay_ms,
                alarm_off: limit.off.is_some(),
                summary: limit.summary(),
            });
            all.insert(patient.id, shown.collect());
        }
        Some(all)
    };
    tokio::time::timeout(LIMITS_DEADLINE, asking).await.ok().flatten()
}

/// What is known of the clock.
fn clock(about: &About, epoch: Option<&ClockEpoch>, now: Stamp) -> BirthClock {
    let state = epoch.map_or(ClockState::Unknown, |epoch| epoch.state);
    let source = match state {
        ClockState::Synchronised | ClockState::Unsynchronised => Some("operating_system"),
        ClockState::Trusted => Some("configuration"),
        ClockState::Hardware => Some("hardware_clock"),
        ClockState::Unknown => None,
    };
    BirthClock {
        synchronised: state.synced(),
        state,
        source,
        uncertainty_ms: epoch.and_then(|epoch| epoch.uncertainty_ms),
        epoch: wire::ClockEpoch { boot: about.boot.clone(), offset_ms: timeline::offset_ms(now) },
    }
}

/// The text of the message. What does not fit into a packet of the broker is left out, and that is said.
pub(super) fn body(
    config: &UplinkConfig,
    epoch: Option<&ClockEpoch>,
    thresholds: Option<&Thresholds>,
    max_packet_bytes: u32,
    now: Stamp,
) -> Result<String, serde_json::Error> {
    let about = &config.about;
    let mut data = BirthData {
        version: env!("CARGO_PKG_VERSION"),
        schema: wire::SCHEMA,
        config_hash: about.config_hash.as_ref().and_then(|hash| hash.borrow().clone()),
        clock: clock(about, epoch, now),
        devices: Some(about.devices.clone()),
        thresholds: thresholds.cloned(),
        left_out: None,
    };
    let most = usize::try_from(max_packet_bytes).unwrap_or(usize::MAX).saturating_sub(PACKET_OVERHEAD);
    let text =
        |data: &BirthData| wire::bridge_message(BIRTH, data, (&config.site, &config.bridge, &config.epoch), now.wall);
    for (member, before) in [("thresholds", &[][..]), ("devices", &["thresholds"][..])] {
        let whole = text(&data)?;
        if whole.len() <= most {
            return Ok(whole);
        }
        if member == "thresholds" {
            data.thresholds = None;
        } else {
            data.devices = None;
        }
        data.left_out = Some(before.iter().copied().chain([member]).collect());
    }
    text(&data)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::clock::{Mono, Wall};
    use crate::event::Priority;

    fn config() -> UplinkConfig {
        let about = About {
            devices: vec![KnownDevice {
                source_id: "strap".parse().unwrap(),
                device_id: "strap-1".parse().unwrap(),
                patient_id: Some("P-0001".parse().unwrap()),
                kind: "ble",
                profile: Some("polar-h10".to_owned()),
                mode: "real",
            }],
            boot: "boot-1".to_owned(),
            ..About::default()
        };
        UplinkConfig::for_tests(about)
    }

    #[test]
    fn it_says_who_the_bridge_is_and_what_is_not_known_is_null() {
        let now = Stamp { mono: Mono::from_millis(5000), wall: Wall(1_795_219_200_000) };
        let birth: Json = serde_json::from_str(&body(&config(), None, None, u32::MAX, now).unwrap()).unwrap();
        assert_eq!((&birth["type"], &birth["bridge"], &birth["site"]), (&json!("birth"), &json!("b1"), &json!("icu")));
        let data = &birth["data"];
        assert_eq!(data["devices"][0]["profile"], "polar-h10");
        assert_eq!((&data["thresholds"], &data["config_hash"]), (&Json::Null, &Json::Null));
        let clock = json!({"synchronised": null, "state": "unknown", "source": null, "uncertainty_ms": null,
                           "epoch": {"boot": "boot-1", "offset_ms": 1_795_219_195_000_i64}});
        assert_eq!(data["clock"], clock);
    }

    #[test]
    fn what_the_broker_would_not_take_is_left_out_and_that_is_said() {
        let limit = Threshold {
            rule: "spo2_low".parse().unwrap(),
            priority: Priority::High,
            metrics: vec!["spo2".to_owned()],
            unit: "%",
            low: None,
            high: None,
            delay_ms: 0,
            alarm_off: false,
            summary: "x".repeat(5000),
        };
        let limits = Thresholds::from([("P-0001".parse().unwrap(), vec![limit])]);
        let birth = |most| -> Json {
            serde_json::from_str(&body(&config(), None, Some(&limits), most, Stamp::default()).unwrap()).unwrap()
        };
        let whole = birth(10_000);
        assert_eq!((&whole["data"]["thresholds"], whole["data"].get("left_out")), (&json!(limits), None));
        let less = birth(2000);
        assert_eq!((&less["data"]["thresholds"], &less["data"]["left_out"]), (&Json::Null, &json!(["thresholds"])));
        assert!(less["data"]["devices"].is_array());
        assert_eq!(birth(100)["data"]["left_out"], json!(["thresholds", "devices"]));
    }
}
