//! A monitor that speaks the Datex-Ohmeda record interface as 8005313 and M1017617 describe it, written from them.

use std::time::Duration;

use vitalbridge::clock::Mono;

/// A number that means: no data (8005313, table 3-9).
pub(crate) const INVALID: i16 = -32767;

pub(crate) fn framed(record: &[u8]) -> Vec<u8> {
    let sum = u8::try_from(record.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte)) % 256).unwrap();
    let mut line = vec![0x7E];
    for byte in record.iter().chain([&sum]) {
        match byte {
            0x7E => line.extend([0x7D, 0x5E]),
            0x7D => line.extend([0x7D, 0x5D]),
            other => line.push(*other),
        }
    }
    line.push(0x7E);
    line
}

/// A record with these subrecords.
pub(crate) fn record(main: u16, subrecords: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let data: Vec<u8> = subrecords.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let mut bytes = u16::try_from(40 + data.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend([7, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(main.to_le_bytes());
    let mut offset = 0_u16;
    for (kind, subrecord) in subrecords {
        bytes.extend(offset.to_le_bytes());
        bytes.push(*kind);
        offset += u16::try_from(subrecord.len()).unwrap();
    }
    if subrecords.len() < 8 {
        bytes.extend([0, 0, 0xFF]);
    }
    bytes.resize(40, 0);
    bytes.extend(data);
    bytes
}

/// A group: module there, measurement active.
fn group(label: u16, numbers: &[i16]) -> Vec<u8> {
    let mut bytes = vec![3, 0, 0, 0];
    bytes.extend(label.to_le_bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

/// A group whose module does not exist.
fn no_group(numbers: usize) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    bytes.extend(INVALID.to_le_bytes().repeat(numbers));
    bytes
}

/// A subrecord of displayed values with a saturation, a pulse rate and a heart rate.
pub(crate) fn displayed(spo2: i16, pulse: i16, heart: i16) -> Vec<u8> {
    let mut ecg = group(0, &[heart, 0, 0, 0, 15]);
    ecg[0] |= 1 << 3; // the rate is that of the ECG
    let mut bytes = 1_700_000_000_u32.to_le_bytes().to_vec();
    bytes.extend(ecg);
    bytes.extend(no_group(4).repeat(5));
    bytes.extend(no_group(1).repeat(4));
    bytes.extend(group(0, &[spo2, pulse, 210, INVALID]));
    for numbers in [4, 2, 2, 3, 8, 4, 3] {
        bytes.extend(no_group(numbers));
    }
    bytes.extend(INVALID.to_le_bytes().repeat(3));
    bytes.extend(no_group(1));
    bytes.extend(no_group(4).repeat(2));
    bytes.extend([0; 2 + 4]);
    assert_eq!(bytes.len(), 278);
    bytes
}

pub(crate) fn wave(status: u16, samples: &[i16]) -> Vec<u8> {
    let mut bytes = u16::try_from(samples.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(status.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// An alarm message of up to five texts with their colours (4.2.1).
pub(crate) fn alarms(shown: &[(&str, i16)]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    for place in 0..5 {
        let (text, colour) = shown.get(place).copied().unwrap_or(("", 0));
        let mut alarm = text.as_bytes().to_vec();
        alarm.resize(82, 0);
        alarm.extend(colour.to_le_bytes());
        alarm.resize(98, 0);
        bytes.extend(alarm);
    }
    bytes.resize(10 + 5 * 98 + 10, 0);
    bytes
}

/// The monitor at the other end of the line.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    unread: Vec<u8>,
    /// Records that the host has sent, without flags, escapes and sum.
    pub(crate) asked: Vec<Vec<u8>>,
    numbers: Option<(Duration, Mono)>,
    waves: Option<(Vec<u8>, Mono)>,
    pub(crate) in_alarm_mode: bool,
    alarms_due: bool,
    /// What it measures.
    pub(crate) spo2: i16,
}

impl Monitor {
    pub(crate) fn measuring(spo2: i16) -> Self {
        Self { spo2, ..Self::default() }
    }

    pub(crate) fn turn(&mut self, from_host: &[u8], now: Mono) -> Vec<u8> {
        self.unread.extend_from_slice(from_host);
        while let Some(end) = self.unread.iter().skip(1).position(|byte| *byte == 0x7E) {
            let frame: Vec<u8> = self.unread.drain(..end + 2).collect();
            let mut content = Vec::new();
            let mut bytes = frame[1..frame.len() - 1].iter();
            while let Some(byte) = bytes.next() {
                content.push(if *byte == 0x7D { bytes.next().unwrap() | 0x20 } else { *byte });
            }
            let sum = content.pop().unwrap();
            assert_eq!(content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), sum);
            self.take(&content, now);
            self.asked.push(content);
        }
        self.speak(now)
    }

    fn take(&mut self, record: &[u8], now: Mono) {
        assert_eq!(usize::from(u16::from_le_bytes([record[0], record[1]])), record.len());
        let body = &record[40..];
        match record[14] {
            0 => {
                let interval = u64::from(u16::from_le_bytes([body[1], body[2]]));
                self.numbers = (interval > 0).then(|| (Duration::from_secs(interval), now));
            }
            1 => {
                let types = body[4..12].iter().copied().take_while(|kind| *kind != 0xFF).collect();
                self.waves = (body[0] == 0).then_some((types, now));
            }
            4 => {
                self.in_alarm_mode = body[0] == 2;
                self.alarms_due = self.in_alarm_mode;
            }
            other => panic!("a record of main type {other}"),
        }
    }

    fn speak(&mut self, now: Mono) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some((interval, due)) = &mut self.numbers
            && *due <= now
        {
            *due = now + *interval;
            out.extend(framed(&record(0, &[(1, displayed(self.spo2, 72, 71))])));
        }
        if let Some((types, due)) = &mut self.waves
            && *due <= now
        {
            *due = now + Duration::from_millis(200);
            let samples = |kind: u8| vec![i16::from(kind); if kind == 1 { 60 } else { 20 }];
            let waves: Vec<(u8, Vec<u8>)> = types.iter().map(|kind| (*kind, wave(0, &samples(*kind)))).collect();
            out.extend(framed(&record(1, &waves)));
        }
        if std::mem::take(&mut self.alarms_due) {
            out.extend(framed(&record(4, &[(1, alarms(&[("HR LOW", 3)]))])));
        }
        out
    }
}
