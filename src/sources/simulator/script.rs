//! What happens in the demo ward, and when: a timetable that repeats.

use std::time::Duration;

use super::physiology::Strain;

/// Everything repeats after this long.
pub const ROUND: Duration = Duration::from_mins(10);

/// Breath that is left during [`Happening::BreathingFails`]: SpO2 settles near 82 %.
const FAILING_VENTILATION: f64 = 0.12;
/// How much faster the heart beats during [`Happening::HeartRaces`], in 1/min.
const RACING_RISE: f64 = 68.0;

/// One kind of thing that can happen at a bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Happening {
    /// Breathing nearly stops; SpO2 follows.
    BreathingFails,
    /// The heart races, for no reason that breathing explains.
    HeartRaces,
    /// The oximeter falls off the finger.
    OximeterFallsOff,
    /// The strap loses its skin contact.
    StrapFallsOff,
    /// The oximeter's cable is pulled out.
    OximeterUnplugged,
    /// The strap's battery is nearly empty.
    StrapBatteryLow,
}

/// Something that happens at one bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// Which bed, from 0.
    pub bed: usize,
    /// What.
    pub what: Happening,
    /// When in the round.
    pub from: Duration,
    /// For how long; must end within the round.
    pub lasts: Duration,
}

const fn scene(bed: usize, what: Happening, from_s: u64, lasts_s: u64) -> Scene {
    Scene { bed, what, from: Duration::from_secs(from_s), lasts: Duration::from_secs(lasts_s) }
}

/// The timetable of the demo ward. The first patient's SpO2 is below 90 % within two minutes.
///
/// Breathing fails for 95 s so that SpO2, which follows late and levels off, is near 82 % for the last 45 s.
pub const DEMO: &[Scene] = &[
    scene(0, Happening::BreathingFails, 75, 95),
    scene(1, Happening::OximeterFallsOff, 150, 30),
    scene(2, Happening::HeartRaces, 210, 75),
    scene(0, Happening::OximeterUnplugged, 300, 25),
    scene(4, Happening::StrapBatteryLow, 330, 200),
    scene(6, Happening::StrapFallsOff, 390, 25),
    scene(5, Happening::BreathingFails, 450, 90),
    scene(3, Happening::OximeterFallsOff, 540, 20),
];

/// A timetable at work.
#[derive(Debug, Clone, Copy)]
pub struct Script(&'static [Scene]);

impl Script {
    /// The demo's timetable.
    pub const fn demo() -> Self {
        Self(DEMO)
    }

    /// Nothing ever happens.
    pub const fn quiet() -> Self {
        Self(&[])
    }

    /// Only these scenes.
    pub const fn of(scenes: &'static [Scene]) -> Self {
        Self(scenes)
    }

    /// True while this happens at this bed, `elapsed` after the start of the ward.
    pub fn is_on(&self, bed: usize, what: Happening, elapsed: Duration) -> bool {
        let in_round = Duration::from_millis(u64::try_from(elapsed.as_millis() % ROUND.as_millis()).unwrap_or(0));
        self.0.iter().any(|scene| {
            scene.bed == bed && scene.what == what && in_round >= scene.from && in_round < scene.from + scene.lasts
        })
    }

    /// What the body of the patient in this bed bears.
    pub fn strain(&self, bed: usize, elapsed: Duration) -> Strain {
        let fails = self.is_on(bed, Happening::BreathingFails, elapsed);
        let races = self.is_on(bed, Happening::HeartRaces, elapsed);
        Strain {
            ventilation: if fails { FAILING_VENTILATION } else { Strain::NONE.ventilation },
            heart_rate_rise: if races { RACING_RISE } else { Strain::NONE.heart_rate_rise },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_ends_within_the_round_and_comes_back_in_the_next() {
        for scene in DEMO {
            assert!(scene.from + scene.lasts <= ROUND, "{scene:?}");
            let script = Script::demo();
            for round in 0..3 {
                let start = ROUND * round + scene.from;
                let millisecond = Duration::from_millis(1);
                assert!(!script.is_on(scene.bed, scene.what, start.saturating_sub(millisecond)), "{scene:?}");
                assert!(script.is_on(scene.bed, scene.what, start), "{scene:?}");
                assert!(!script.is_on(scene.bed, scene.what, start + scene.lasts), "{scene:?}");
            }
        }
    }
}
