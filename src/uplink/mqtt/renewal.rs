//! When a connection is made anew because its password ends: shortly before, once what is under way has been answered.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::clock::{Clock, Wall};
use crate::secret::Secret;
use crate::uplink::access::{Credential, Password};

/// Longest time before the end of a password at which the connection is made anew; a short life gives a quarter of it.
const BEFORE_END: Duration = Duration::from_mins(1);

/// Pause between two looks at a file whose token ends and has not been replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Longest wait for the answers to what is under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Publish nothing more.
    Drain,
    /// Say farewell, although something is not answered.
    Part,
    /// The broker has not closed the connection.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Draining,
    Parting,
}

/// The end of one connection's password.
#[derive(Debug)]
pub(super) struct Renewal {
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    password: Password,
    current: Secret,
    clock: Clock,
}

impl Renewal {
    /// For a password that says when it ends.
    pub(super) fn of(password: Option<&Password>, credential: Option<&Credential>, clock: &Clock) -> Option<Self> {
        let (password, credential) = (password?.clone(), credential?);
        let wait = wait(credential.begins, credential.ends?, clock.now().wall);
        let (current, clock) = (credential.secret.clone(), clock.clone());
        Some(Self { stage: Stage::Waiting, timer: Box::pin(sleep(wait)), password, current, clock })
    }

    /// True once nothing new may be published.
    pub(super) fn has_begun(&self) -> bool {
        self.stage != Stage::Waiting
    }

    /// True while answers are waited for.
    pub(super) fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// True after the farewell.
    pub(super) fn is_parting(&self) -> bool {
        self.stage == Stage::Parting
    }

    /// The farewell has been said; the broker closes within this time.
    pub(super) fn part(&mut self, timeout: Duration) {
        self.enter(Stage::Parting, timeout);
    }

    fn enter(&mut self, stage: Stage, span: Duration) {
        self.stage = stage;
        self.timer = Box::pin(sleep(span));
    }

    /// A new password is there, or will be made.
    fn has_other(&self) -> bool {
        match &self.password {
            Password::Made(_) => true,
            // A file that cannot be read now gives nothing better than what the connection has.
            Password::File(_) => {
                self.password.get(self.clock.now().wall).is_ok_and(|credential| credential.secret != self.current)
            }
        }
    }
}

/// How long the connection stands before it is made anew.
fn wait(begins: Option<Wall>, ends: Wall, now: Wall) -> Duration {
    let span = |from: Wall| Duration::from_millis(u64::try_from(ends.0.saturating_sub(from.0)).unwrap_or(0));
    let life = span(begins.unwrap_or(now).min(now));
    let left = span(now).saturating_sub(BEFORE_END.min(life / 4));
    // A token from elsewhere that has come too late is looked at again, not at once.
    if left.is_zero() { LOOK_AGAIN } else { left }
}

/// Waits until something is to be done; may be dropped at any time.
pub(super) async fn due(renewal: &mut Option<Renewal>) -> Due {
    let Some(renewal) = renewal else { return std::future::pending().await };
    loop {
        renewal.timer.as_mut().await;
        match renewal.stage {
            Stage::Waiting if renewal.has_other() => {
                renewal.enter(Stage::Draining, DRAIN_TIMEOUT);
                return Due::Drain;
            }
            Stage::Waiting => renewal.enter(Stage::Waiting, LOOK_AGAIN),
            Stage::Draining => return Due::Part,
            Stage::Parting => return Due::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_made_anew_before_its_password_ends() {
        let wall = |seconds: i64| Wall(seconds * 1000);
        for (begins, ends, now, seconds) in [
            // An hour, of which a minute is left at the new connection.
            (Some(0), 3600, 0, 3540),
            (Some(0), 3600, 600, 2940),
            // Two minutes: a quarter is left.
            (Some(0), 120, 0, 90),
            // What is left counts if the beginning is not known, or lies ahead.
            (None, 100, 0, 75),
            (Some(50), 100, 0, 75),
            // Too late: not again and again without a pause.
            (Some(0), 3600, 3590, 10),
            (Some(0), 3600, 9999, 10),
        ] {
            let wait = wait(begins.map(wall), wall(ends), wall(now));
            assert_eq!(wait, Duration::from_secs(seconds), "{begins:?} {ends} {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_still_has_the_old_token_keeps_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        // {"exp":10}
        std::fs::write(&file, "e30.eyJleHAiOjEwfQ.x").unwrap();
        let clock = Clock::System;
        let password = Password::File(file.clone());
        let credential = password.get(clock.now().wall).unwrap();
        assert_eq!(credential.ends, Some(Wall(10_000)));
        let mut renewal = Renewal::of(Some(&password), Some(&credential), &clock);
        let long = Duration::from_mins(10);
        assert!(tokio::time::timeout(long, due(&mut renewal)).await.is_err(), "nothing better is there");
        assert!(renewal.as_ref().is_some_and(|renewal| !renewal.has_begun()));
        std::fs::write(&file, "e30.eyJleHAiOjIwfQ.x").unwrap();
        assert_eq!(tokio::time::timeout(long, due(&mut renewal)).await, Ok(Due::Drain));
        assert_eq!(tokio::time::timeout(long, due(&mut renewal)).await, Ok(Due::Part));
        renewal.as_mut().unwrap().part(Duration::from_secs(1));
        assert_eq!(tokio::time::timeout(long, due(&mut renewal)).await, Ok(Due::Over));
    }
}
