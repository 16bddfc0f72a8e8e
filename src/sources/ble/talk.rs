//! What is written to a sensor whose notifications are a stream of bytes, and when: a pure machine.
//!
//! It goes by the `[link]` of the profile, as a serial port does: the start commands once after each subscription, one
//! after the other and each with its answer if the profile names one, then the polls and the keep-alive. One write is
//! under way at a time, because BlueZ refuses a second one to the same characteristic.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, Stamp};
use crate::profile::Profile;
use crate::profile::model::{Link, Repeat};

/// How a write went is told within this; a radio that has let go of the link tells nothing.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes among which an answer is looked for.
const REPLY_WINDOW: usize = 512;

/// Where the talking stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody is subscribed.
    Off,
    /// The next thing may be written.
    Ready,
    /// A write is under way; of a start command, if `step` says which.
    Writing { since: Mono, step: Option<usize> },
    /// The answer to a start command is awaited.
    Awaiting { step: usize, until: Mono },
}

/// The talking with one sensor, over many links.
#[derive(Debug)]
pub(super) struct Talk {
    profile: Arc<Profile>,
    state: State,
    /// The start command that comes next.
    step: usize,
    /// When what is sent again and again is due, in the order of [`repeats`]; empty before the start commands are done.
    dues: Vec<Mono>,
    /// When something was written last.
    wrote: Option<Mono>,
    /// The end of what was received, while an answer is awaited.
    tail: Vec<u8>,
    trouble: Option<String>,
}

/// What is sent again and again, with whether it is due at once: a poll is, a keep-alive follows a start command.
fn repeats(link: &Link) -> impl Iterator<Item = (&Repeat, bool)> {
    link.poll.iter().map(|poll| (poll, true)).chain(link.keep_alive.iter().map(|repeat| (repeat, false)))
}

impl Talk {
    pub(super) const fn new(profile: Arc<Profile>) -> Self {
        Self { profile, state: State::Off, step: 0, dues: Vec::new(), wrote: None, tail: Vec::new(), trouble: None }
    }

    /// A subscription begins: the sensor is told to start.
    pub(super) fn on_subscribed(&mut self) {
        *self = Self { state: State::Ready, ..Self::new(Arc::clone(&self.profile)) };
    }

    /// The link has gone.
    pub(super) const fn on_link_lost(&mut self) {
        self.state = State::Off;
    }

    /// How the write that was under way went.
    pub(super) fn on_written(&mut self, result: Result<(), String>, now: Stamp) {
        let State::Writing { step, .. } = self.state else { return };
        self.wrote = Some(now.mono);
        self.state = State::Ready;
        match (result, step) {
            (Err(words), _) => self.trouble = Some(words),
            (Ok(()), None) => self.trouble = None,
            (Ok(()), Some(step)) => {
                let awaited = self.profile.link().init.get(step).filter(|step| step.reply.is_some());
                if let Some(awaited) = awaited {
                    self.state = State::Awaiting { step, until: now.mono + awaited.within };
                }
                // The answer may have come before the word that the write was taken.
                self.look_for_answer();
            }
        }
    }

    /// Bytes came.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Writing { step: Some(_), .. } | State::Awaiting { .. }) {
            return;
        }
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(REPLY_WINDOW);
        self.tail.drain(..surplus);
        self.look_for_answer();
    }

    fn look_for_answer(&mut self) {
        let State::Awaiting { step, .. } = self.state else { return };
        let reply = self.profile.link().init.get(step).and_then(|step| step.reply.as_ref());
        if reply.is_none_or(|reply| self.tail.windows(reply.len().max(1)).any(|window| window == reply)) {
            self.state = State::Ready;
            self.trouble = None;
        }
    }

    /// What is to be written now; its result is awaited by [`Talk::on_written`].
    pub(super) fn next(&mut self, now: Stamp) -> Option<Vec<u8>> {
        match self.state {
            State::Writing { since, .. } if now.mono >= since + WRITE_LIMIT => {
                self.on_written(Err(format!("no word of it within {} s", WRITE_LIMIT.as_secs())), now);
            }
            State::Awaiting { until, .. } if now.mono >= until => {
                self.trouble = Some("the sensor gave no answer to its start command".to_owned());
                self.state = State::Ready;
            }
            _ => {}
        }
        if self.due().is_none_or(|due| due > now.mono) {
            return None;
        }
        let profile = Arc::clone(&self.profile);
        let (bytes, step) = match profile.link().init.get(self.step) {
            Some(start) => {
                self.tail.clear();
                self.step += 1;
                (start.send.clone(), Some(self.step - 1))
            }
            None => (self.next_repeat(profile.link(), now.mono)?, None),
        };
        self.state = State::Writing { since: now.mono, step };
        Some(bytes)
    }

    fn next_repeat(&mut self, link: &Link, now: Mono) -> Option<Vec<u8>> {
        if self.dues.is_empty() {
            self.dues = repeats(link).map(|(repeat, at_once)| if at_once { now } else { now + repeat.every }).collect();
        }
        let due = self.dues.iter_mut().zip(repeats(link)).find(|(at, _)| **at <= now);
        let (at, (repeat, _)) = due?;
        *at = now + repeat.every;
        Some(repeat.send.clone())
    }

    /// When [`Talk::next`] has something to write.
    fn due(&self) -> Option<Mono> {
        if self.state != State::Ready {
            return None;
        }
        let link = self.profile.link();
        let is_begun = self.step >= link.init.len() && (!self.dues.is_empty() || repeats(link).next().is_none());
        let due = if is_begun { self.dues.iter().min().copied()? } else { Mono(0) };
        // Some modules drop what comes too soon after the last.
        Some(self.wrote.map_or(due, |wrote| due.max(wrote + link.gap)))
    }

    /// When [`Talk::next`] is to be asked again; `None`: after the next input.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        match self.state {
            State::Off => None,
            State::Ready => self.due(),
            State::Writing { since, .. } => Some(since + WRITE_LIMIT),
            State::Awaiting { until, .. } => Some(until),
        }
    }

    /// Why the sensor may not send: what went wrong with what was written last.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::profile::built_in;

    fn at(millis: u64) -> Stamp {
        Stamp { mono: Mono::from_millis(millis), wall: Wall(0) }
    }

    fn talk(id: &str) -> Talk {
        Talk::new(built_in(id).unwrap().unwrap())
    }

    const POLL: &[u8] = &[0xAA, 0x17, 0xE8, 0, 0, 0, 0, 0x1B];
    const START: &[u8] = &[0x9B, 0x01, 0x1C];

    /// What is written within so many milliseconds, and when, if each write is taken at once.
    fn written(talk: &mut Talk, until: u64) -> Vec<(u64, Vec<u8>)> {
        let (mut now, mut all) = (0, vec![]);
        loop {
            while let Some(bytes) = talk.next(at(now)) {
                all.push((now, bytes));
                talk.on_written(Ok(()), at(now));
            }
            match talk.next_deadline().map(Mono::as_millis) {
                Some(next) if next <= until => now = next,
                _ => return all,
            }
        }
    }

    #[test]
    fn a_ring_is_polled_at_once_and_then_every_two_seconds() {
        let mut ring = talk("viatom-o2");
        assert_eq!((ring.next(at(0)), ring.next_deadline()), (None, None), "nobody is subscribed");
        ring.on_subscribed();
        assert_eq!(written(&mut ring, 5000), [0, 2000, 4000].map(|millis| (millis, POLL.to_vec())));
    }

    #[test]
    fn a_start_command_is_sent_once_a_link_and_its_keep_alive_follows() {
        let mut oximeter = talk("contec-cms50d-bt");
        for _ in 0..2 {
            oximeter.on_subscribed();
            assert_eq!(written(&mut oximeter, 59_000), [0, 20_000, 40_000].map(|millis| (millis, START.to_vec())));
            oximeter.on_link_lost();
            assert_eq!((oximeter.next(at(70_000)), oximeter.next_deadline()), (None, None));
        }
    }

    #[test]
    fn nothing_is_written_to_a_sensor_that_sends_by_itself() {
        let mut oximeter = talk("viatom-pc60");
        oximeter.on_subscribed();
        assert_eq!((oximeter.next(at(0)), oximeter.next_deadline()), (None, None));
    }

    #[test]
    fn one_write_is_under_way_at_a_time_and_one_that_is_never_answered_is_given_up() {
        let mut ring = talk("viatom-o2");
        ring.on_subscribed();
        assert!(ring.next(at(0)).is_some());
        assert_eq!(ring.next(at(4000)), None, "the first one is still under way");
        assert_eq!(ring.next_deadline(), Some(at(10_000).mono));
        assert_eq!(ring.next(at(10_000)).as_deref(), Some(POLL));
        assert_eq!(ring.trouble(), Some("no word of it within 10 s"));
        ring.on_written(Err("Not permitted".to_owned()), at(10_010));
        assert_eq!(ring.trouble(), Some("Not permitted"));
        assert_eq!(ring.next_deadline(), Some(at(12_000).mono));
        assert!(ring.next(at(12_000)).is_some());
        ring.on_written(Ok(()), at(12_010));
        assert_eq!(ring.trouble(), None);
    }

    /// Two start commands, of which the first has an answer, with a gap.
    fn greeted() -> Talk {
        let text = crate::profile::built_in_text("contec-cms50d-bt").unwrap();
        let text = text.replace(
            "init = [{ send = \"9B 01 1C\" }]",
            "gap = \"100ms\"\ninit = [{ send = \"01 01\", reply = \"EB 7F\", within = \"1s\" }, { send = \"9B 02 1D\" }]",
        );
        let mut talk = Talk::new(Arc::new(Profile::parse(&text).unwrap()));
        talk.on_subscribed();
        assert_eq!(talk.next(at(0)), Some(vec![1, 1]));
        talk
    }

    #[test]
    fn the_next_start_command_waits_for_the_answer_to_the_last_one_and_for_the_gap() {
        for early in [false, true] {
            let mut talk = greeted();
            // In two notifications, before or after the word that the write was taken.
            if early {
                talk.on_bytes(&[0x00, 0xEB]);
                talk.on_bytes(&[0x7F]);
                talk.on_written(Ok(()), at(10));
            } else {
                talk.on_written(Ok(()), at(10));
                assert_eq!((talk.next(at(500)), talk.next_deadline()), (None, Some(at(1010).mono)));
                talk.on_bytes(&[0x00, 0xEB]);
                talk.on_bytes(&[0x7F]);
            }
            assert_eq!((talk.next(at(60)), talk.next_deadline()), (None, Some(at(110).mono)), "the gap");
            assert_eq!(talk.next(at(110)), Some(vec![0x9B, 2, 0x1D]));
        }
    }

    #[test]
    fn a_sensor_that_gives_no_answer_is_told_the_rest_all_the_same() {
        let mut talk = greeted();
        talk.on_written(Ok(()), at(10));
        assert_eq!(talk.next(at(1010)), Some(vec![0x9B, 2, 0x1D]));
        assert_eq!(talk.trouble(), Some("the sensor gave no answer to its start command"));
        talk.on_written(Ok(()), at(1010));
        assert_eq!(talk.next_deadline(), Some(at(1110).mono), "then the keep-alive's time begins");
        assert_eq!((talk.next(at(1110)), talk.next_deadline()), (None, Some(at(21_110).mono)));
    }
}
