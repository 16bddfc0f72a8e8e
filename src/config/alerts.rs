//! `[alerts]` beside the rules: who has to show alerts, the local fallback, and the routes of escalation.

use std::time::Duration;

use toml::Spanned;

use super::build::Builder;
use super::{Config, file};
use crate::alerts::escalation::{MAX_ROUTES, Route};
use crate::event::Priority;
use crate::fallback::{Action, DEFAULT_LIMIT};
use crate::server::auth::Role;

/// Most arguments of a fallback's command, its program included.
const MAX_ARGUMENTS: usize = 32;

/// Most users and roles of one route.
const MAX_TARGETS: usize = 32;

/// Longest name of a user, in bytes.
const MAX_USER_BYTES: usize = 128;

/// A fallback may take this long.
const LIMITS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(1);

/// A route may begin this soon: before that nobody can have come.
const SOONEST: Duration = Duration::from_secs(10);

/// Longest text that is written into a line.
const MAX_LINE_TEXT: usize = 64;

impl Builder<'_> {
    pub(super) fn annunciation(&mut self, alerts: &file::Alerts, config: &mut Config) {
        if let Some(annunciators) = &alerts.annunciators {
            match annunciators.get_ref().as_str() {
                "required" => {}
                "none" => {
                    config.confirms_delivery = false;
                    let said = "nobody has to confirm that alerts are shown: one that nobody sees raises no alarm";
                    config.warnings.add(self.text, &annunciators.span(), said);
                }
                _ => self.problem(annunciators, "annunciators is `required` or `none`"),
            }
        }
        config.fallback = alerts.fallback.as_ref().and_then(|fallback| self.fallback(fallback));
        if alerts.escalation.len() > MAX_ROUTES
            && let Some(beyond) = alerts.escalation.get(MAX_ROUTES)
        {
            self.problem(beyond, format!("there are at most {MAX_ROUTES} routes of escalation"));
        }
        let has_fallback = alerts.fallback.is_some();
        for route in alerts.escalation.iter().take(MAX_ROUTES) {
            config.escalation.extend(self.route(route, has_fallback));
        }
    }

    fn fallback(&mut self, place: &Spanned<file::Fallback>) -> Option<Action> {
        let fallback = place.get_ref();
        match (&fallback.command, &fallback.line) {
            (Some(command), None) => {
                if fallback.on.is_some() || fallback.off.is_some() {
                    self.problem(place, "`on` and `off` belong to `line`; a command is told by its environment");
                }
                let argv = command.get_ref();
                let is_whole = argv.first().is_some_and(|program| program.starts_with('/'));
                if !is_whole || argv.len() > MAX_ARGUMENTS || argv.iter().any(|argument| argument.contains('\0')) {
                    let form =
                        "command is a list such as [\"/usr/local/bin/alarm\", \"--loud\"]: a program by its whole path";
                    self.problem(command, format!("{form}, and at most {MAX_ARGUMENTS} members"));
                    return None;
                }
                let limit = fallback.timeout.as_ref().map_or(DEFAULT_LIMIT, |limit| limit.get_ref().0);
                if let Some(place) = fallback.timeout.as_ref().filter(|_| !LIMITS.contains(&limit)) {
                    self.problem(place, "timeout is 1s to 1m");
                }
                Some(Action::Command { argv: argv.clone(), limit })
            }
            (None, Some(line)) => {
                if fallback.timeout.is_some() {
                    self.problem(place, "`timeout` belongs to `command`");
                }
                let text = |written: &Option<String>, default: &str| written.clone().unwrap_or(default.to_owned());
                let (on, off) = (text(&fallback.on, "1"), text(&fallback.off, "0"));
                if on == off || on.len().max(off.len()) > MAX_LINE_TEXT {
                    self.problem(place, format!("`on` and `off` differ and have at most {MAX_LINE_TEXT} bytes"));
                }
                Some(Action::Line { path: self.path(line.get_ref()), on, off })
            }
            _ => {
                self.problem(place, "a fallback has either a `command` or a `line`");
                None
            }
        }
    }

    fn route(&mut self, place: &Spanned<file::Escalation>, has_fallback: bool) -> Option<Route> {
        let written = place.get_ref();
        let after = written.after.get_ref().0;
        if after < SOONEST {
            self.problem(&written.after, "after is at least 10s");
        }
        let priority = match written.priority.as_ref().map(|name| (name, Priority::from_name(name.get_ref()))) {
            None => Some(Priority::High),
            Some((_, Some(priority))) if priority > Priority::Info => Some(priority),
            Some((name, _)) => {
                self.problem(name, "priority is high, medium or low: the least that takes this route");
                None
            }
        };
        let mut route = Route { after, priority: priority?, users: Vec::new(), roles: Vec::new(), fallback: false };
        let targets = written.to.get_ref();
        if targets.is_empty() || targets.len() > MAX_TARGETS {
            self.problem(&written.to, format!("to has 1 to {MAX_TARGETS} members"));
        }
        for target in targets.iter().take(MAX_TARGETS) {
            let text = target.get_ref().as_str();
            let is_user = |user: &str| !user.trim().is_empty() && user.len() <= MAX_USER_BYTES;
            match (text.strip_prefix("user:"), text.strip_prefix("role:")) {
                (Some(user), _) if is_user(user) => route.users.push(user.to_owned()),
                (_, Some(role)) if Role::from_name(role).is_some() => route.roles.push(role.to_owned()),
                _ if text == "fallback" && has_fallback => route.fallback = true,
                _ if text == "fallback" => self.problem(target, "there is no [alerts.fallback] for this route"),
                _ => {
                    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
                    let known = format!("`user:NAME`, `role:ROLE` ({}) or `fallback`", roles.join(", "));
                    self.problem(target, format!("`{text}` is not {known}"));
                }
            }
        }
        Some(route)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Place;

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        let parsed = Config::parse(text, Path::new("/etc/vitalbridge"), &Place::default());
        parsed.map_err(|problems| problems.as_slice().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_is_the_safe_way() {
        let config = parse("").unwrap();
        assert!(config.confirms_delivery && config.fallback.is_none() && config.escalation.is_empty());
    }

    #[test]
    fn a_whole_section_is_read() {
        let config = parse(
            "[alerts]\nannunciators = 'none'\n[alerts.fallback]\nline = '/sys/class/leds/alarm/brightness'\non = '255'\n\
             [[alerts.escalation]]\nafter = '2m'\nto = ['user:anna', 'role:clinician']\n\
             [[alerts.escalation]]\nafter = '5m'\npriority = 'medium'\nto = ['fallback']\n",
        )
        .unwrap();
        assert!(!config.confirms_delivery);
        assert!(config.warnings.as_slice()[0].to_string().contains("nobody has to confirm"), "{:?}", config.warnings);
        let line = "/sys/class/leds/alarm/brightness".into();
        assert_eq!(config.fallback, Some(Action::Line { path: line, on: "255".into(), off: "0".into() }));
        let [first, second] = config.escalation.as_slice() else { panic!() };
        assert_eq!(
            (first.after.as_secs(), first.priority, first.targets().as_str()),
            (120, Priority::High, "user:anna, role:clinician")
        );
        assert_eq!(
            (second.after.as_secs(), second.priority, second.targets().as_str()),
            (300, Priority::Medium, "fallback")
        );
    }

    #[test]
    fn a_command_has_no_shell_and_a_limit() {
        let config =
            parse("[alerts.fallback]\ncommand = ['/usr/local/bin/alarm', '$HOME; x']\ntimeout = '20s'\n").unwrap();
        let argv = vec!["/usr/local/bin/alarm".to_owned(), "$HOME; x".to_owned()];
        assert_eq!(config.fallback, Some(Action::Command { argv, limit: Duration::from_secs(20) }));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_line() {
        for (text, expected) in [
            ("[alerts]\nannunciators = 'some'", "line 2: annunciators is `required` or `none`"),
            ("[alerts.fallback]\ncommand = ['alarm']", "line 2: command is a list such as"),
            ("[alerts.fallback]\ncommand = []", "line 2: command is a list such as"),
            (
                "[alerts.fallback]\ncommand = ['/a']\nline = 'b'",
                "line 1: a fallback has either a `command` or a `line`",
            ),
            ("[alerts.fallback]", "line 1: a fallback has either a `command` or a `line`"),
            ("[alerts.fallback]\ncommand = ['/a']\non = '1'", "line 1: `on` and `off` belong to `line`"),
            ("[alerts.fallback]\ncommand = ['/a']\ntimeout = '2m'", "line 3: timeout is 1s to 1m"),
            ("[alerts.fallback]\nline = 'b'\ntimeout = '2s'", "line 1: `timeout` belongs to `command`"),
            ("[alerts.fallback]\nline = 'b'\non = '0'", "line 1: `on` and `off` differ"),
            ("[[alerts.escalation]]\nafter = '1s'\nto = ['user:a']", "line 2: after is at least 10s"),
            ("[[alerts.escalation]]\nafter = '1m'\nto = []", "line 3: to has 1 to 32 members"),
            ("[[alerts.escalation]]\nafter = '1m'\nto = ['fallback']", "line 3: there is no [alerts.fallback]"),
            ("[[alerts.escalation]]\nafter = '1m'\nto = ['role:boss']", "line 3: `role:boss` is not"),
            ("[[alerts.escalation]]\nafter = '1m'\nto = ['user:']", "line 3: `user:` is not"),
            (
                "[[alerts.escalation]]\nafter = '1m'\nto = ['user:a']\npriority = 'info'",
                "line 4: priority is high, medium",
            ),
        ] {
            let problems = parse(text).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{text}: {problems:?}");
        }
        let many = "[[alerts.escalation]]\nafter = '1m'\nto = ['user:a']\n".repeat(MAX_ROUTES + 1);
        let problems = parse(&many).unwrap_err();
        assert_eq!(problems, [format!("line {}: there are at most 16 routes of escalation", 3 * MAX_ROUTES + 1)]);
    }
}
