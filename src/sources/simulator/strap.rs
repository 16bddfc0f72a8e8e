//! What a heart-rate strap sends: payloads of the Heart Rate Measurement characteristic (0x2A37).

/// Most intervals in one notification at the smallest ATT MTU of 23: 20 bytes less flags, rate and energy.
pub const MAX_INTERVALS: usize = 8;

/// Bits of the flags field (HRS 1.0, 3.1.1.1).
mod flag {
    /// The heart rate is a UINT16.
    pub(super) const WIDE_RATE: u8 = 0x01;
    /// The strap touches the skin.
    pub(super) const CONTACT: u8 = 0x02;
    /// The strap can tell whether it touches the skin.
    pub(super) const CONTACT_SUPPORTED: u8 = 0x04;
    /// Intervals follow.
    pub(super) const INTERVALS: u8 = 0x10;
}

/// One notification. `intervals` are in 1/1024 s, oldest first; the newest [`MAX_INTERVALS`] are sent.
pub fn payload(heart_rate: u16, contact: bool, intervals: &[u16]) -> Vec<u8> {
    let mut flags = flag::CONTACT_SUPPORTED;
    if contact {
        flags |= flag::CONTACT;
    }
    if !intervals.is_empty() {
        flags |= flag::INTERVALS;
    }
    let mut bytes = vec![flags];
    if let Ok(narrow) = u8::try_from(heart_rate) {
        bytes.push(narrow);
    } else {
        bytes.extend(heart_rate.to_le_bytes());
        if let Some(first) = bytes.first_mut() {
            *first |= flag::WIDE_RATE;
        }
    }
    let newest = intervals.iter().skip(intervals.len().saturating_sub(MAX_INTERVALS));
    bytes.extend(newest.flat_map(|interval| interval.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_follows_the_heart_rate_service() {
        for (rate, contact, intervals, expected) in [
            (72, true, &[][..], &[0x06, 72][..]),
            (72, false, &[], &[0x04, 72]),
            (72, true, &[853, 860], &[0x16, 72, 0x55, 0x03, 0x5C, 0x03]),
            (300, true, &[], &[0x07, 0x2C, 0x01]),
        ] {
            assert_eq!(payload(rate, contact, intervals), expected);
        }
        let many: Vec<u16> = (0..20).collect();
        assert_eq!(payload(72, true, &many).len(), 2 + 2 * MAX_INTERVALS);
    }
}
