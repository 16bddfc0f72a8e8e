//! Counters and gauges of the daemon: one struct, one doc comment a metric, printed for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that other tasks change while it is read.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds one.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn subtract_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Replaces the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares [`Metrics`]; the first word of each doc comment line in brackets is the Prometheus type.
macro_rules! metrics {
    ($($kind:ident $name:ident: $doc:literal,)+) => {
        /// Every number the daemon exports.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $doc] pub $name: Number,)+
        }

        impl Metrics {
            /// The text that Prometheus reads (exposition format 0.0.4).
            pub fn to_prometheus(&self) -> String {
                let mut text = String::new();
                $(
                    let name = concat!("vitalbridge_", stringify!($name));
                    let kind = stringify!($kind);
                    let value = self.$name.get();
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {value}", $doc);
                )+
                text
            }
        }
    };
}

metrics! {
    counter events_total: "Events that were given a number.",
    counter readings_total: "Readings that reached the pipeline.",
    counter readings_mode_mixed_total: "Readings refused because demo, test and real data met on one patient.",
    counter alerts_total: "Changes of alerts.",
    counter store_refused_total: "Events that the store's full queue could not take; they were shown live only.",
    counter listener_conflated_total: "Readings replaced by a newer one before a slow listener took them.",
    counter listener_waves_dropped_total: "Blocks of samples dropped because a listener did not take them.",
    counter listener_overrun_total: "Listeners closed because they did not take their alerts.",
    counter connections_total: "WebSocket connections that were accepted.",
    gauge connections: "WebSocket connections that are open.",
    counter connections_refused_total: "Connections refused because of a limit.",
    counter sign_in_refused_total: "Tokens and codes that were refused.",
    counter frames_sent_total: "WebSocket messages written.",
    counter resumed_total: "Sessions that went on from an earlier event.",
    gauge uplink_connected: "1 while the broker is connected.",
    gauge uplink_waiting: "Stored events that the broker has not confirmed.",
    gauge uplink_parked: "Events that the broker refused; they are kept and no longer sent.",
    gauge durable_through: "The newest event number that is on disk.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_help_type_and_value_of_each_metric() {
        let metrics = Metrics::default();
        metrics.connections.add(3);
        metrics.connections.subtract_one();
        let text = metrics.to_prometheus();
        assert!(text.contains("# TYPE vitalbridge_connections gauge\nvitalbridge_connections 2\n"), "{text}");
        assert_eq!(text.lines().count() % 3, 0);
    }
}
