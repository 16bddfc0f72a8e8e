//! A ventilator that speaks MEDIBUS as 9028258 describes it, written from the document and not from the driver.

use std::time::Duration;

use vitalbridge::clock::Mono;

pub(crate) fn framed(start: u8, code: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![start, code];
    bytes.extend_from_slice(data);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte)) % 256;
    bytes.extend(format!("{sum:02X}\r").bytes());
    bytes
}

pub(crate) fn command(code: u8) -> Vec<u8> {
    framed(0x1B, code, b"")
}

pub(crate) fn response(code: u8, data: &[u8]) -> Vec<u8> {
    framed(0x01, code, data)
}

/// A realtime value of 12 bits: bits 0 to 5, then bits 6 to 11 (p. 17).
pub(crate) fn sample(value: u16) -> [u8; 2] {
    [0x80 | u8::try_from(value & 0x3F).unwrap(), 0x80 | u8::try_from(value >> 6).unwrap()]
}

/// What an Evita 4 with SpO2 measures.
pub(crate) const MEASURED: &[u8] = b"88 450B9 7.2D616  7D 22 74 20 73 10 78  5 F040  E638  EB98  E170  ";
/// Airway pressure and CO2 every 16 ms (p. 32).
pub(crate) const OFFERS: &[u8] = b"00   16000-  10  10037006   16000-  20  100460";

/// How it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// It answers.
    pub(crate) answers: bool,
    pub(crate) measured: Vec<u8>,
    pub(crate) alarms: Vec<u8>,
    pub(crate) identity: Vec<u8>,
    /// Stands inside the next answer, after its third byte.
    pub(crate) embedded: Vec<u8>,
    /// It calls on its own before it is called.
    pub(crate) calls: bool,
    /// It says that it understood nothing.
    pub(crate) refuses: Option<u8>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            answers: true,
            measured: MEASURED.to_vec(),
            alarms: Vec::new(),
            identity: b"8240'Evita 4'04.20:04.00".to_vec(),
            embedded: Vec::new(),
            calls: true,
            refuses: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Evita {
    pub(crate) manner: Manner,
    unread: Vec<u8>,
    is_linked: bool,
    said: Option<Mono>,
    heard: Option<Mono>,
    /// The argument of the last command 54H.
    pub(crate) chosen: Vec<u8>,
    enabled: u8,
    sampled: Option<Mono>,
    next_sample: u16,
    /// Every command that has come: its code and when.
    pub(crate) asked: Vec<(u8, Mono)>,
    /// Every answer that has come to its own commands.
    pub(crate) answered: Vec<(u8, Vec<u8>)>,
    /// Answers and commands whose sum was wrong.
    pub(crate) damaged: usize,
}

impl Evita {
    pub(crate) fn new() -> Self {
        Self {
            manner: Manner::default(),
            unread: Vec::new(),
            is_linked: false,
            said: None,
            heard: None,
            chosen: Vec::new(),
            enabled: 0,
            sampled: None,
            next_sample: 0,
            asked: Vec::new(),
            answered: Vec::new(),
            damaged: 0,
        }
    }

    /// How often a command has come.
    pub(crate) fn count(&self, code: u8) -> usize {
        self.asked.iter().filter(|(asked, _)| *asked == code).count()
    }

    /// Takes what the host has sent, and gives what it says now.
    pub(crate) fn turn(&mut self, from_host: &[u8], now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        let (fast, slow): (Vec<u8>, Vec<u8>) = from_host.iter().partition(|byte| **byte >= 0x80);
        // p. 33: a sync byte, then code and argument of each sync command.
        for pair in fast.get(1..).unwrap_or_default().chunks(2) {
            if let [0xC1, streams] = pair {
                self.enabled = streams & 0x0F;
            }
        }
        if !slow.is_empty() {
            self.heard = Some(now);
        }
        self.unread.extend(slow);
        while let Some(end) = self.unread.iter().position(|byte| *byte == 0x0D) {
            let message: Vec<u8> = self.unread.drain(..=end).collect();
            self.take(&message, now, &mut out);
        }
        if self.manner.answers {
            self.speak(now, &mut out);
            self.stream(now, &mut out);
        }
        if !out.is_empty() {
            self.said = Some(now);
        }
        out
    }

    fn take(&mut self, message: &[u8], now: Mono, out: &mut Vec<u8>) {
        let (start, code) = (message[0], message[1]);
        let data = &message[2..message.len() - 3];
        if framed(start, code, data) != message {
            self.damaged += 1;
            return;
        }
        if start == 0x01 {
            self.answered.push((code, data.to_vec()));
            return;
        }
        self.asked.push((code, now));
        if !self.manner.answers {
            return;
        }
        if self.manner.refuses == Some(code) {
            out.extend(response(0x15, b""));
            return;
        }
        let measured = self.manner.measured.clone();
        let alarms = self.manner.alarms.clone();
        let (identity, offers) = (self.manner.identity.clone(), OFFERS.to_vec());
        let data = match code {
            0x24 => measured,
            0x27 => alarms,
            0x28 => b"09:33:007-OKT-14 ".to_vec(),
            0x29 => b"0B  5.0".to_vec(),
            0x2A => b"0E:Mode BIPAP\x03".to_vec(),
            0x52 => identity,
            0x53 => offers,
            _ => Vec::new(),
        };
        match code {
            0x51 => {
                self.is_linked = true;
                self.enabled = 0;
                // Its own question usually stands in the answer (p. 35).
                self.manner.embedded = command(0x52);
            }
            0x54 => self.chosen = message[2..message.len() - 3].to_vec(),
            0x55 => self.is_linked = false,
            _ => {}
        }
        let mut answer = response(code, &data);
        let embedded = std::mem::take(&mut self.manner.embedded);
        answer.splice(3..3, embedded);
        out.extend(answer);
    }

    /// Its own commands: ICC every 3 s until there is a link, NOP after 2 s in which nothing came.
    fn speak(&mut self, now: Mono, out: &mut Vec<u8>) {
        let quiet_for = |since: Option<Mono>| since.map_or(Duration::MAX, |since| now.since(since));
        if self.is_linked && quiet_for(self.heard) >= Duration::from_secs(3) {
            self.is_linked = false;
            self.enabled = 0;
        }
        if !self.is_linked && self.manner.calls && quiet_for(self.said) >= Duration::from_secs(3) {
            out.extend(command(0x51));
        }
        if self.is_linked && quiet_for(self.heard) >= Duration::from_secs(2) && quiet_for(self.said).as_secs() >= 2 {
            out.extend(command(0x30));
        }
    }

    fn stream(&mut self, now: Mono, out: &mut Vec<u8>) {
        let streams = self.chosen.len() / 4;
        let wanted = usize::try_from(self.enabled.count_ones()).unwrap();
        if self.enabled == 0 || wanted != streams {
            self.sampled = None;
            return;
        }
        let mut at = self.sampled.unwrap_or(now);
        while at <= now {
            out.push(0xD0 | self.enabled);
            for stream in 0..streams {
                out.extend(sample(self.next_sample + 100 * u16::try_from(stream).unwrap()));
            }
            self.next_sample = (self.next_sample + 1) % 1000;
            at = at + Duration::from_millis(16);
        }
        self.sampled = Some(at);
    }
}
