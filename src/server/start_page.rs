//! The page itself, which says before anybody has signed in whether the numbers behind it are of real patients.

use crate::patient::Patient;
use crate::vitals::Mode;

const PAGE: &str = include_str!("dashboard/index.html");

/// Where the page has the mode of the bridge.
const BLANK: &str = "data-mode=\"\"";

/// The page of a bridge with these patients.
pub(super) fn of(patients: &[Patient]) -> String {
    let mode = patients.iter().map(|patient| patient.mode).max().unwrap_or(Mode::Real);
    PAGE.replacen(BLANK, &format!("data-mode=\"{}\"", mode.name()), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_the_mode_before_anybody_has_signed_in() {
        let of_mode = |mode| Patient {
            id: "P-1".parse().unwrap(),
            name: String::new(),
            bed: String::new(),
            ward: "ward".parse().unwrap(),
            mode,
        };
        for (modes, said) in [
            (&[][..], "real"),
            (&[Mode::Real, Mode::Real], "real"),
            (&[Mode::Real, Mode::Demo], "demo"),
            (&[Mode::Demo, Mode::Test], "test"),
        ] {
            let patients: Vec<Patient> = modes.iter().map(|mode| of_mode(*mode)).collect();
            let page = of(&patients);
            assert!(
                page.starts_with(&format!("<!doctype html>\n<html lang=\"en\" data-mode=\"{said}\">")),
                "{modes:?}"
            );
            assert_eq!(page.matches("data-mode").count(), 1);
        }
    }
}
