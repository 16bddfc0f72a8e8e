//! Joins the parts of one measurement: scales send the weight with user and time, and the body composition after it
//! without them, or one body composition in two indications (BCS 1.0.1, 3.2.1.1).

use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::decode::Decoded;
use crate::decode::gatt::Report;

/// A part belongs to what came before it for so long.
const TOGETHER: Duration = Duration::from_secs(5);

/// Whose and of when the part before was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    received: Mono,
    user: Option<u8>,
    device_time: Option<String>,
}

/// The joining of one sensor, over all its visits.
#[derive(Debug, Default)]
pub(super) struct Join {
    before: Option<Part>,
}

impl Join {
    /// A new link: nothing from before belongs to what comes now.
    pub(super) fn reset(&mut self) {
        self.before = None;
    }

    /// Gives a report that says neither user nor time those of the part before it.
    pub(super) fn complete(&mut self, report: &mut Report, now: Stamp) {
        let before = self.before.take().filter(|part| now.mono.since(part.received) <= TOGETHER);
        if let Some(part) = before.filter(|_| report.user.is_none() && report.device_time.is_none()) {
            report.user = part.user;
            for decoded in &mut report.decoded {
                if let Decoded::Vital(vital) = decoded {
                    vital.device_time.clone_from(&part.device_time);
                }
            }
            report.device_time = part.device_time;
        }
        let (user, device_time) = (report.user, report.device_time.clone());
        self.before = Some(Part { received: now.mono, user, device_time });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::decode::gatt;
    use crate::profile::hex;

    fn at(seconds: u64) -> Stamp {
        Stamp { mono: Mono(0) + Duration::from_secs(seconds), wall: Wall(0) }
    }

    /// The two indications of a BF720, ble-scale-sync, issue 168: only the weight has user and time.
    fn parts() -> (Report, Report) {
        let decode = |uuid, text| gatt::decode(uuid, &hex::bytes(text).unwrap()).unwrap();
        (decode(0x2A9D, "0e783eea07050c12353601ee002607"), decode(0x2A9C, "9803c200df1a9701cc2fca21a811"))
    }

    fn times(report: &Report) -> Vec<Option<&str>> {
        let mut times = Vec::new();
        for decoded in &report.decoded {
            if let Decoded::Vital(vital) = decoded {
                times.push(vital.device_time.as_deref());
            }
        }
        times
    }

    #[test]
    fn a_composition_right_after_a_weight_has_its_user_and_its_time() {
        let (mut weight, mut composition) = parts();
        assert_eq!((weight.user, composition.user), (Some(1), None));
        let mut join = Join::default();
        join.complete(&mut weight, at(0));
        join.complete(&mut composition, at(5));
        assert_eq!((weight.user, composition.user), (Some(1), Some(1)));
        let times = times(&composition);
        assert!(!times.is_empty() && times.iter().all(|time| *time == Some("2026-05-12T18:53:54")), "{times:?}");
    }

    #[test]
    fn what_comes_late_or_over_another_link_or_says_its_own_user_is_not_joined() {
        let joined = |wait, is_new_link| {
            let (mut weight, mut composition) = parts();
            let mut join = Join::default();
            join.complete(&mut weight, at(0));
            if is_new_link {
                join.reset();
            }
            join.complete(&mut composition, at(wait));
            composition.user
        };
        assert_eq!((joined(4, false), joined(6, false), joined(1, true)), (Some(1), None, None));
        let (mut weight, mut other) = parts();
        other.user = Some(2);
        let mut join = Join::default();
        join.complete(&mut weight, at(0));
        join.complete(&mut other, at(1));
        assert_eq!((other.user, other.device_time), (Some(2), None));
    }
}
