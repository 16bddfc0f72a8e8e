//! What the programs of the side-by-side runs share: the time, the message that every server sends, and when it is due.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since the epoch. Client and servers run on one machine, so they read one clock; vitalbridge's own messages
/// carry it too, in milliseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// One reading as the other servers send it, with its number and the time at which it was made.
pub fn message(seq: u64) -> String {
    format!(
        "{{\"type\":\"health_update\",\"data\":{{\"metric\":\"heart_rate\",\"value\":72,\"unit\":\"bpm\",\"device_id\":\"strap-07\",\
         \"patient_id\":\"P-0007\",\"quality\":\"valid\"}},\"channel\":\"patient/P-0007/heart_rate\",\"seq\":{seq},\"sent_ns\":{}}}",
        now_ns()
    )
}

/// When messages go out: every `1 / rate` seconds one; or as a ward, `beds` monitors that each send five once a second,
/// each at its own moment.
#[derive(Debug, Clone, Copy)]
pub enum Rhythm {
    /// Messages a second.
    Even(f64),
    /// Beds.
    Ward(u32),
}

impl Rhythm {
    /// `50`, or `ward:64`.
    pub fn read(text: &str) -> anyhow::Result<Self> {
        Ok(match text.strip_prefix("ward:") {
            Some(beds) => Self::Ward(beds.parse()?),
            None => Self::Even(text.parse()?),
        })
    }

    /// The pause between two moments, and the messages of each.
    pub fn step(self) -> (Duration, u32) {
        match self {
            Self::Even(rate) => (Duration::from_secs_f64(1.0 / rate), 1),
            Self::Ward(beds) => (Duration::from_secs(1) / beds, 5),
        }
    }
}
