//! `[clock]`, and how long readings wait for the clock: who is believed about the time of day.

use std::time::Duration;

use super::build::Builder;
use super::{Config, file};
use crate::timeline::Trust;
use crate::vitals::Mode;

/// Longest wait of readings for the clock.
const MAX_CLOCK_HOLD: Duration = Duration::from_hours(1);

impl Builder<'_> {
    pub(super) fn clock(&mut self, clock: &file::Clock, config: &mut Config) {
        let Some(name) = &clock.trust else { return };
        if let Some(trust) = Trust::from_name(name.get_ref()) {
            config.clock_trust = trust;
        } else {
            let problem = format!(
                "trust is `{}`; it can be \"synchronised\" (a clock counts once a time server has set it) or \"system\" \
                     (the system's clock counts as it is)",
                name.get_ref()
            );
            self.problem(name, problem);
        }
    }

    /// How long readings wait for the clock, if the file says so.
    pub(super) fn clock_hold(&mut self, mqtt: &file::Mqtt) -> Option<Duration> {
        let place = mqtt.clock_hold.as_ref()?;
        let hold = place.get_ref().0;
        if hold > MAX_CLOCK_HOLD {
            self.problem(place, "clock_hold is 0s (readings never wait for the clock) to 1h");
            return None;
        }
        Some(hold)
    }
}

/// What is shown and tried needs no right time: only where something real is measured it is waited for without a word of the
/// file.
pub(super) fn hold_for_the_clock(said: Option<Duration>, config: &mut Config) {
    let is_real = config.sources.iter().any(|source| source.mode == Mode::Real);
    if let Some(broker) = &mut config.broker {
        let usual = if is_real { broker.limits.clock_hold } else { Duration::ZERO };
        broker.limits.clock_hold = said.unwrap_or(usual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;
    use crate::uplink::DEFAULT_CLOCK_HOLD;

    fn parsed(text: &str) -> Result<Config, String> {
        let folder = std::path::Path::new("/nowhere");
        Config::parse(text, folder, &Place::default()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn readings_wait_for_the_clock_where_something_real_is_measured() {
        const REAL: &str = "[[source]]\nid = 'cuff'\nkind = 'ble'\nname = 'Cuff'\n";
        const PLAYED: &str = "[[source]]\nid = 'file'\nkind = 'replay'\nfile = 'x.csv'\n";
        for (mqtt, sources, expected) in [
            ("", REAL, DEFAULT_CLOCK_HOLD),
            ("", PLAYED, Duration::ZERO),
            ("clock_hold = '5s'\n", PLAYED, Duration::from_secs(5)),
            ("clock_hold = '0s'\n", REAL, Duration::ZERO),
        ] {
            let config = parsed(&format!("[mqtt]\nbroker = 'mqtt://localhost'\n{mqtt}{sources}")).unwrap();
            assert_eq!(config.broker.unwrap().limits.clock_hold, expected, "{mqtt}{sources}");
        }
        let problem = parsed("[mqtt]\nbroker = 'mqtt://localhost'\nclock_hold = '2h'\n").unwrap_err();
        assert!(problem.contains("clock_hold is 0s"), "{problem}");
    }

    #[test]
    fn who_is_believed_about_the_clock_has_two_names() {
        assert_eq!(parsed("").unwrap().clock_trust, Trust::Synchronised);
        assert_eq!(parsed("[clock]\ntrust = 'system'\n").unwrap().clock_trust, Trust::System);
        let problem = parsed("[clock]\ntrust = 'ntp'\n").unwrap_err();
        assert!(problem.contains("it can be \"synchronised\""), "{problem}");
    }
}
