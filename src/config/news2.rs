//! For whom an early warning score is computed, and by which column of SpO2.

use toml::Spanned;

use super::Config;
use super::build::Builder;
use super::file::News2;
use crate::derive::live::News2Settings;
use crate::ids::PatientId;
use crate::vitals::Spo2Scale;

/// Longest reason and name of a person, in bytes.
const MAX_WORDS_BYTES: usize = 200;

impl Builder<'_> {
    /// Off unless it is switched on: the bridge does not know who is under 16 or pregnant.
    pub(super) fn news2(&mut self, place: Option<&Spanned<News2>>, patient: &PatientId, config: &mut Config) {
        let Some(place) = place else { return };
        let settings = match place.get_ref() {
            News2::Switch(false) => return,
            News2::Switch(true) => News2Settings::default(),
            News2::Settings(raw) => {
                let scale = match raw.spo2_scale {
                    1 => Spo2Scale::One,
                    2 => Spo2Scale::Two,
                    other => return self.problem(place, format!("spo2_scale is {other}; it can be 1 or 2")),
                };
                let words = raw.by.clone().zip(raw.reason.clone());
                let fits = |text: &str| !text.trim().is_empty() && text.len() <= MAX_WORDS_BYTES;
                let decision = words.filter(|(by, reason)| fits(by) && fits(reason));
                if scale == Spo2Scale::Two && decision.is_none() {
                    let why = "scale 2 makes a low saturation look better: say who prescribed it and why, in `by` and `reason` \
                               of 1 to 200 bytes";
                    return self.problem(place, why);
                }
                News2Settings { scale, decision }
            }
        };
        config.news2.insert(patient.clone(), settings);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Place};
    use crate::derive::live::News2Settings;
    use crate::vitals::Spo2Scale;

    fn read(news2: &str) -> Result<Option<News2Settings>, String> {
        let text = format!("[[patient]]\nid = \"P-1\"\n{news2}\n");
        let config = Config::parse(&text, Path::new("."), &Place::default());
        config.map(|config| config.news2.into_values().next()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_score_is_computed_for_whom_the_file_says_so_and_scale_2_needs_a_person_and_a_reason() {
        for (line, expected) in [("", None), ("news2 = false", None), ("news2 = true", Some(Spo2Scale::One))] {
            assert_eq!(read(line).unwrap().map(|settings| settings.scale), expected, "{line}");
        }
        let two =
            read("news2 = { spo2_scale = 2, by = \"dr-lee\", reason = \"COPD, target 88-92\" }").unwrap().unwrap();
        assert_eq!((two.scale, two.decision.unwrap().0.as_str()), (Spo2Scale::Two, "dr-lee"));
        for (line, expected) in [
            ("news2 = { spo2_scale = 2 }", "who prescribed it"),
            ("news2 = { spo2_scale = 2, by = \" \", reason = \"x\" }", "who prescribed it"),
            ("news2 = { spo2_scale = 3 }", "it can be 1 or 2"),
            ("news2 = \"yes\"", "news2 is true, false or"),
            ("news2 = { scale = 2 }", "news2 is true, false or"),
        ] {
            let problems = read(line).unwrap_err();
            assert!(problems.contains(expected) && problems.contains('3'), "{line}: {problems}");
        }
    }
}
