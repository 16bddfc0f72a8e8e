//! The device's ear: knows the commands of the profile's link among the bytes that a host sends.

use crate::clock::Mono;
use crate::profile::model::{Link, Step};

/// The command that makes a module inflate its cuff, by the name that profiles give it.
const START_MEASUREMENT: &str = "nibp_start";
/// The command that ends it.
const STOP_MEASUREMENT: &str = "nibp_stop";
/// Without a keep-alive for so many of its periods a device stops sending.
const PATIENCE: u32 = 2;

/// What a host wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Data, once.
    Poll,
    /// These bytes as an answer.
    Reply(Vec<u8>),
    /// Data from now on; it did not flow before.
    Started,
    /// A cuff measurement.
    Measure,
    /// The end of a cuff measurement.
    EndMeasurement,
}

/// One thing that a host can send, and what it does.
#[derive(Debug, Clone)]
struct Known {
    bytes: Vec<u8>,
    stops: bool,
    starts: bool,
    wanted: Option<Heard>,
}

/// What a device knows of its host.
#[derive(Debug)]
pub(super) struct Conversation {
    known: Vec<Known>,
    /// The beginning of a command.
    begun: Vec<u8>,
    needs_start: bool,
    patience: Option<std::time::Duration>,
    is_started: bool,
    heard: Mono,
    unknown_bytes: u64,
}

impl Conversation {
    pub(super) fn new(link: &Link, now: Mono) -> Self {
        // A device that can be told to stop waits until it is told to start; any other sends by itself.
        let needs_start = !link.init.is_empty() && !link.stop.is_empty();
        Self {
            known: known(link),
            begun: Vec::new(),
            needs_start,
            patience: link.keep_alive.as_ref().map(|repeat| repeat.every * PATIENCE),
            is_started: !needs_start,
            heard: now,
            unknown_bytes: 0,
        }
    }

    /// The device was switched off and on.
    pub(super) fn restart(&mut self, now: Mono) {
        self.begun.clear();
        self.is_started = !self.needs_start;
        self.heard = now;
    }

    /// Bytes that belong to no command of the profile.
    pub(super) const fn unknown_bytes(&self) -> u64 {
        self.unknown_bytes
    }

    /// True while data flows: started, and the host has not fallen silent.
    pub(super) fn is_streaming(&mut self, now: Mono) -> bool {
        if self.needs_start && self.patience.is_some_and(|patience| now.since(self.heard) > patience) {
            self.is_started = false;
        }
        self.is_started
    }

    /// Takes what a host has sent.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Mono) -> Vec<Heard> {
        let mut heard = Vec::new();
        for byte in bytes {
            self.begun.push(*byte);
            while !self.begun.is_empty() && !self.known.iter().any(|known| known.bytes.starts_with(&self.begun)) {
                self.begun.remove(0);
                self.unknown_bytes += 1;
            }
            let complete: Vec<Known> = self.known.iter().filter(|known| known.bytes == self.begun).cloned().collect();
            if !complete.is_empty() {
                self.begun.clear();
                self.heard = now;
                for known in complete {
                    self.obey(known, &mut heard);
                }
            }
        }
        heard
    }

    fn obey(&mut self, known: Known, heard: &mut Vec<Heard>) {
        heard.extend(known.wanted);
        if known.stops && self.needs_start {
            self.is_started = false;
        }
        if known.starts && !self.is_started {
            self.is_started = true;
            heard.push(Heard::Started);
        }
    }
}

/// Everything a profile's link can send. A step of both `init` and `stop` stops; the last of `init` starts.
fn known(link: &Link) -> Vec<Known> {
    let reply = |step: &Step| step.reply.clone().map(Heard::Reply);
    let plain = |bytes: &[u8], wanted| Known { bytes: bytes.to_vec(), stops: false, starts: false, wanted };
    let mut all = Vec::new();
    for step in &link.stop {
        all.push(Known { stops: true, ..plain(&step.send, reply(step)) });
    }
    for (place, step) in link.init.iter().enumerate() {
        all.push(Known { starts: place + 1 == link.init.len(), ..plain(&step.send, reply(step)) });
    }
    all.extend(link.poll.iter().map(|repeat| plain(&repeat.send, Some(Heard::Poll))));
    all.extend(link.keep_alive.iter().map(|repeat| plain(&repeat.send, None)));
    for command in &link.commands {
        let wanted = match command.id.as_str() {
            START_MEASUREMENT => Some(Heard::Measure),
            STOP_MEASUREMENT => Some(Heard::EndMeasurement),
            _ => None,
        };
        for (place, bytes) in command.send.iter().enumerate() {
            let is_last = place + 1 == command.send.len();
            all.push(plain(bytes, wanted.clone().filter(|_| is_last)));
        }
    }
    all.retain(|known| !known.bytes.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::profile::built_in;

    fn at(seconds: u64) -> Mono {
        Mono::from_millis(seconds * 1000)
    }

    fn conversation(id: &str) -> (Conversation, Link) {
        let link = built_in(id).unwrap().unwrap().link().clone();
        (Conversation::new(&link, at(0)), link)
    }

    #[test]
    fn a_contec_starts_when_told_and_stops_without_a_keep_alive() {
        let (mut device, link) = conversation("contec-v7");
        assert!(!device.is_streaming(at(0)));
        let init: Vec<u8> = link.init.iter().flat_map(|step| step.send.clone()).collect();
        // In pieces, after noise, as on a line.
        assert!(device.hear(&[0x00, 0x7D, 0x01], at(1)).is_empty());
        let heard: Vec<Heard> = init.chunks(4).flat_map(|piece| device.hear(piece, at(1))).collect();
        assert_eq!(heard, [Heard::Started]);
        assert_eq!(device.unknown_bytes(), 3);
        let keep_alive = &link.keep_alive.as_ref().unwrap();
        assert_eq!(keep_alive.every, Duration::from_secs(5));
        device.hear(&keep_alive.send, at(9));
        assert!(device.is_streaming(at(19)));
        assert!(!device.is_streaming(at(20)));
        device.hear(&init, at(21));
        device.hear(&link.stop[0].send, at(22));
        assert!(!device.is_streaming(at(22)));
    }

    #[test]
    fn a_device_that_cannot_be_stopped_sends_by_itself() {
        for id in ["contec-cms50-v5", "nonin-df2", "masimo-ascii1"] {
            assert!(conversation(id).0.is_streaming(at(0)), "{id}");
        }
        assert!(!conversation("berry-pm6750").0.is_streaming(at(0)));
    }

    #[test]
    fn a_cuff_is_started_by_the_last_bytes_of_its_command_only() {
        let (mut device, link) = conversation("berry-pm6750");
        let start = link.commands.iter().find(|command| command.id == "nibp_start").unwrap();
        assert_eq!(device.hear(&start.send[0], at(0)), []);
        assert_eq!(device.hear(&start.send[1], at(0)), [Heard::Measure]);
        assert_eq!(device.unknown_bytes(), 0);
        let (mut device, link) = conversation("suntech-nibp");
        assert_eq!(device.hear(&link.poll[0].send, at(0)), [Heard::Poll]);
    }
}
