//! A device as commands and the API show it: one JSON object, and the lines that add it to a configuration.

use serde::Serialize;
use uuid::Uuid;

use super::kind::kind_of;
use super::object::Device;
use crate::profile::Models;
use crate::profile::ble::Sighting;
use crate::profile::model::DeviceKind;

/// Names in the air have up to 248 bytes (Core 5.4, vol. 3 part C, 12.1); more than this says nothing to a person.
const MAX_NAME_CHARS: usize = 40;

/// What is known about a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the device")]
pub struct Record {
    /// Its address.
    pub address: String,
    /// Its advertised name, safe to print.
    pub name: Option<String>,
    /// The adapter that knows it.
    pub adapter: String,
    /// What it measures, in words; `None` if nothing says so.
    pub what: Option<&'static str>,
    /// The profile of its model, if one fits.
    pub profile: Option<String>,
    /// The model that the profile is of, in words.
    pub model: Option<String>,
    /// What whoever sets it up has to know or do, by its profile.
    pub hints: Vec<String>,
    /// Whether such devices usually have to be paired with.
    pub pairs: bool,
    /// Signal strength in dBm; only while it is heard.
    pub rssi: Option<i16>,
    /// Charge of its battery in percent.
    pub battery: Option<u8>,
    /// Whether keys are kept for it.
    pub bonded: bool,
    /// Whether it may use services without a question.
    pub trusted: bool,
    /// Whether a link stands.
    pub connected: bool,
    /// Whether an operator has blocked it.
    pub blocked: bool,
    /// Its services, as UUIDs.
    pub services: Vec<String>,
    /// The lines that add it to a configuration, if it is a sensor.
    pub config: Option<String>,
}

impl Record {
    /// What is known about this device, by what it advertises and the models that are known.
    pub fn of(device: &Device, models: &Models) -> Self {
        let kind = kind_of(device);
        let name = device.name.as_deref().map(printable).filter(|name| !name.is_empty());
        let companies: Vec<u16> = device.manufacturer_data.keys().copied().collect();
        let service_data: Vec<Uuid> = device.service_data.keys().copied().collect();
        let (seen_name, services) = (device.name.as_deref(), device.services.as_slice());
        let seen = Sighting {
            name: seen_name,
            services,
            service_data: &service_data,
            companies: &companies,
            ..Sighting::default()
        };
        let profile = models.find(&seen);
        let ble = profile.and_then(|profile| profile.ble());
        let mut record = Self {
            address: device.address.to_string(),
            name,
            adapter: device.peer.adapter.clone(),
            what: kind.map(|kind| kind.what).or_else(|| profile.map(|profile| words(profile.kind()))),
            profile: profile.map(|profile| profile.id().to_owned()),
            model: profile.map(|profile| profile.name().to_owned()),
            hints: ble.map(|ble| ble.hints.clone()).unwrap_or_default(),
            pairs: ble.map_or_else(|| kind.is_some_and(|kind| kind.pairs), |ble| ble.needs_bond),
            rssi: device.rssi,
            battery: device.battery,
            bonded: device.bonded,
            trusted: device.trusted,
            connected: device.connected,
            blocked: device.blocked,
            services: device.services.iter().map(ToString::to_string).collect(),
            config: None,
        };
        // Without a profile nothing here reads it.
        let is_source = ble.is_some();
        let word = kind.map(|kind| kind.word).or_else(|| profile.map(|profile| profile.kind().name()));
        record.config = word.filter(|_| is_source).map(|word| record.config_lines(word));
        record
    }

    /// Its services, as short as they can be written, for a person who knows no more of it.
    pub fn service_words(&self) -> String {
        const BASE: &str = "-0000-1000-8000-00805f9b34fb";
        let short = |uuid: &String| {
            let short = uuid.strip_prefix("0000").and_then(|rest| rest.strip_suffix(BASE));
            short.map_or_else(|| uuid.clone(), str::to_owned)
        };
        let all: Vec<String> = self.services.iter().map(short).collect();
        if all.is_empty() { "no services advertised".to_owned() } else { format!("services {}", all.join(", ")) }
    }

    /// Name and what it is, for a line of text.
    pub fn title(&self) -> String {
        let name = self.name.as_deref().unwrap_or("(no name)");
        self.what.map_or_else(|| name.to_owned(), |what| format!("{name}, {what}"))
    }

    /// States as words, such as `bonded, trusted`; `near` for one that is only heard.
    pub fn states(&self) -> String {
        let states = [
            (self.bonded, "bonded"),
            (self.trusted, "trusted"),
            (self.connected, "connected"),
            (self.blocked, "blocked"),
        ];
        let held: Vec<&str> = states.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word).collect();
        match (held.is_empty(), self.rssi) {
            (false, _) => held.join(", "),
            (true, Some(_)) => "near".to_owned(),
            (true, None) => "not heard".to_owned(),
        }
    }

    fn config_lines(&self, word: &str) -> String {
        let tail: String = self.address.chars().skip("C0:FF:EE:00:".len()).filter(|c| *c != ':').collect();
        let pairing = if self.pairs && !self.bonded {
            format!("# Pair it first: vitalbridge pair {}\n", self.address)
        } else {
            String::new()
        };
        let (title, id) = (self.title(), format!("{}-{}", word.replace('_', "-"), tail.to_lowercase()));
        let address = &self.address;
        let hints = self.hints.iter().fold(String::new(), |lines, hint| lines + "# " + hint + "\n");
        let profile = self.profile.as_ref().map(|id| format!("profile = \"{id}\"\n")).unwrap_or_default();
        format!(
            "# {title}\n{pairing}{hints}[[source]]\nid = \"{id}\"\nkind = \"ble\"\naddress = \"{address}\"\n{profile}\
             # patient = \"P-0001\"\n"
        )
    }
}

/// What a device of this kind measures, for a person.
const fn words(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::PulseOximeter => "pulse oximeter",
        DeviceKind::BloodPressure => "blood pressure",
        DeviceKind::MultiParameter => "monitor",
        DeviceKind::HeartRate => "heart rate",
        DeviceKind::Thermometer => "thermometer",
        DeviceKind::Capnograph => "capnograph",
        DeviceKind::Glucose => "glucose meter",
        DeviceKind::Scales => "scale",
    }
}

/// A name as it may be printed: whoever advertises chooses it, and a terminal or a configuration file must not obey it.
pub fn printable(name: &str) -> String {
    // Controls; and characters that are not seen, or turn the text around them.
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
    };
    let visible = name.chars().map(|c| if hides(c) { char::REPLACEMENT_CHARACTER } else { c });
    visible.take(MAX_NAME_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_air_cannot_move_the_cursor_or_end_a_comment() {
        assert_eq!(printable("Polar H10 1234"), "Polar H10 1234");
        assert_eq!(printable("\u{1b}[2J\nkind = \"serial\""), "\u{FFFD}[2J\u{FFFD}kind = \"serial\"");
        assert_eq!(printable("a\u{202E}b"), "a\u{FFFD}b");
        assert_eq!(printable(&"x".repeat(300)).len(), MAX_NAME_CHARS);
    }
}
