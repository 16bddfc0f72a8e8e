//! The supply of a Raspberry Pi, as its firmware sees it: too little current looks like a broken radio or card.

use crate::doctor::{Area, Ended, Finding, blocking, output_of};

/// Where the kernel has the name of the board.
const MODEL: &str = "/sys/firmware/devicetree/base/model";

/// Bits of `get_throttled` (documentation of Raspberry Pi OS, vcgencmd): now, and 16 above it since boot.
const UNDER_VOLTAGE: u32 = 1;
const CAPPED: u32 = 1 << 1;
const THROTTLED: u32 = 1 << 2;
const HOT: u32 = 1 << 3;
const SINCE_BOOT: u32 = 16;

const SUPPLY: &str =
    "use the supply made for this model and a short cable, and a hub with its own supply for USB devices";
const COOLING: &str = "give it air or a heat sink: above 80 °C it computes more slowly";

pub(super) async fn check() -> Vec<Finding> {
    let model = blocking(|| std::fs::read_to_string(MODEL).unwrap_or_default()).await;
    vec![judge(output_of("vcgencmd", &["get_throttled"]).await, &model)]
}

fn judge(answer: Result<String, Ended>, model: &str) -> Finding {
    let warning = |check, message: &str, advice: &str| Finding::warning(Area::Power, check, message, advice);
    let text = match answer {
        Ok(text) => text,
        // As on one with a plain Debian.
        Err(Ended::NotThere) if model.contains("Raspberry Pi") => {
            let reason = "there is no vcgencmd, by which this Raspberry Pi could be asked for its supply";
            return Finding::skipped(Area::Power, "no_vcgencmd", reason);
        }
        Err(Ended::NotThere) => {
            return Finding::skipped(Area::Power, "no_raspberry_pi", "there is no vcgencmd: this is no Raspberry Pi");
        }
        Err(Ended::Failed(reason)) => {
            let message = format!("the firmware does not say how the supply is: {reason}");
            return warning("unknown", &message, "run this with sudo, or add the user to the group `video`");
        }
    };
    let bits = text.strip_prefix("throttled=0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(bits) = bits else {
        let message = format!("the firmware's answer is not understood: {text}");
        return warning("unknown", &message, "compare with `vcgencmd get_throttled`, which has to say 0x0");
    };
    let is = |bit: u32| bits & bit != 0;
    if is(UNDER_VOLTAGE) {
        return Finding::error(Area::Power, "under_voltage", "the supply voltage is too low now", SUPPLY);
    }
    if is(HOT) || is(CAPPED) || is(THROTTLED) {
        return warning("slowed_down", "the processor is slowed down now, by heat", COOLING);
    }
    if is(UNDER_VOLTAGE << SINCE_BOOT) {
        return warning("under_voltage_before", "the supply voltage was too low at a time since boot", SUPPLY);
    }
    if is((HOT | CAPPED | THROTTLED) << SINCE_BOOT) {
        return warning("slowed_down_before", "the processor was slowed down at a time since boot, by heat", COOLING);
    }
    Finding::ok(Area::Power, "good", "the supply is good")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn each_finding_about_the_supply_says_what_to_do() {
        for (answer, check, level, advice) in [
            (Ok("throttled=0x0"), "good", Level::Ok, ""),
            (Ok("throttled=0x50005"), "under_voltage", Level::Error, "supply made for this model"),
            (Ok("throttled=0x50000"), "under_voltage_before", Level::Warning, "supply made for this model"),
            (Ok("throttled=0xe0008"), "slowed_down", Level::Warning, "heat sink"),
            (Ok("throttled=0x4"), "slowed_down", Level::Warning, "heat sink"),
            (Ok("throttled=0x2"), "slowed_down", Level::Warning, "heat sink"),
            (Ok("throttled=0x80000"), "slowed_down_before", Level::Warning, "heat sink"),
            (Ok("error=1"), "unknown", Level::Warning, "vcgencmd get_throttled"),
            (Err(Ended::Failed("VCHI initialization failed".to_owned())), "unknown", Level::Warning, "group `video`"),
            (Err(Ended::NotThere), "no_raspberry_pi", Level::Skipped, ""),
        ] {
            let found = judge(answer.clone().map(str::to_owned), "");
            assert_eq!((found.check, found.level), (check, level), "{answer:?}");
            assert!(found.advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
        }
    }

    #[test]
    fn a_raspberry_pi_without_its_program_is_one_all_the_same() {
        let found = judge(Err(Ended::NotThere), "Raspberry Pi 4 Model B Rev 1.5\0");
        assert_eq!((found.check, found.level), ("no_vcgencmd", Level::Skipped));
    }
}
