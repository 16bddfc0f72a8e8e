//! What Home Assistant is told about the bridge and the devices of its patients, as it stands in a discovery document.
//!
//! The form is device discovery, which Home Assistant has since 2024.11; the names of members are Home Assistant's.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// One document: a device and what it shows. It is no event and has no envelope.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Discovery {
    /// The device, as Home Assistant lists it.
    pub device: DiscoveredDevice,
    /// Who says so.
    pub origin: DiscoveryOrigin,
    /// Where it is told whether the numbers can be there at all; left out of the bridge's own document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability: Option<Vec<DiscoveredAvailability>>,
    /// What it shows, by names that are unique in the document.
    pub components: BTreeMap<String, DiscoveredComponent>,
    /// With which quality of service the topics are subscribed.
    #[schemars(range(min = 0, max = 2))]
    pub qos: u8,
}

/// A device of Home Assistant: a patient with all sensors, or the bridge.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiscoveredDevice {
    /// Documents with the same identifiers are about one device.
    #[schemars(length(min = 1))]
    pub identifiers: Vec<String>,
    /// For people. A patient of a demo or a test is called so.
    pub name: String,
    /// Who made it.
    pub manufacturer: &'static str,
    /// Of the bridge: its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sw_version: Option<&'static str>,
    /// Of a patient: the identifier of the bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via_device: Option<String>,
}

/// The program that wrote the document.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiscoveryOrigin {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub sw_version: &'static str,
}

/// A topic that says whether the device can be heard.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DiscoveredAvailability {
    /// Which: that of the bridge's `status`.
    pub topic: String,
    /// Takes `online` or `offline` out of the message.
    pub value_template: &'static str,
}

/// Something that Home Assistant shows.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "platform", rename_all = "snake_case")]
pub enum DiscoveredComponent {
    /// A number of a patient's device.
    Sensor {
        /// Unique in all of Home Assistant, for ever.
        unique_id: String,
        /// For people.
        name: String,
        /// Where the number comes.
        state_topic: String,
        /// Takes the number out of the message: `None` where it is not known, nothing where the message is about another.
        value_template: String,
        /// The unit as this bridge writes it.
        unit_of_measurement: &'static str,
        /// `measurement`.
        #[schemars(extend("enum" = ["measurement"]))]
        state_class: &'static str,
        /// The number is unknown after so many seconds without a message on the topic.
        #[schemars(range(min = 1))]
        expire_after: u32,
        /// A class whose units Home Assistant knows as this bridge writes them.
        #[serde(skip_serializing_if = "Option::is_none")]
        device_class: Option<&'static str>,
    },
    /// Whether the bridge is connected.
    BinarySensor {
        /// Unique in all of Home Assistant, for ever.
        unique_id: String,
        /// For people.
        name: &'static str,
        /// `connectivity`.
        device_class: &'static str,
        /// `diagnostic`.
        entity_category: &'static str,
        /// That of the bridge's `status`.
        state_topic: String,
        /// Makes `ON` or `OFF` of the message.
        value_template: &'static str,
    },
}
