//! Counters and gauges of the daemon: one struct, one doc comment a metric, printed for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use crate::ids::SourceId;
use crate::wire::{StorageNow, UplinkNow};

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
            /// What each source has counted; set once, when the sources are started.
            sources: OnceLock<Vec<(SourceId, Arc<SourceCounters>)>>,
            /// The connection to the broker; `None`: none is configured, or it has not begun.
            pub uplink: watch::Sender<Option<UplinkNow>>,
            /// The disk of the state directory and the room of the log; `None`: not looked at yet, or it cannot be.
            pub storage: watch::Sender<Option<StorageNow>>,
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
                self.write_buffer(&mut text);
                SourceCounters::write(self.sources.get().map_or(&[], Vec::as_slice), &mut text);
                text
            }
        }
    };
}

/// Declares [`SourceCounters`].
macro_rules! source_counters {
    ($($name:ident: $doc:literal,)+) => {
        /// What one source has done since the daemon started.
        #[derive(Debug, Default)]
        pub struct SourceCounters {
            $(#[doc = $doc] pub $name: AtomicU64,)+
        }

        impl SourceCounters {
            /// Adds to one of the counters.
            pub fn add(counter: &AtomicU64, amount: u64) {
                counter.fetch_add(amount, Ordering::Relaxed);
            }

            /// The text that Prometheus reads: each counter with a line for each source.
            fn write(sources: &[(SourceId, Arc<Self>)], text: &mut String) {
                $(
                    let name = concat!("vitalbridge_source_", stringify!($name), "_total");
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} counter", $doc);
                    for (source, counters) in sources {
                        let value = counters.$name.load(Ordering::Relaxed);
                        // An identifier has no character that would have to be escaped.
                        let _ = writeln!(text, "{name}{{source=\"{source}\"}} {value}");
                    }
                )+
            }
        }
    };
}

source_counters! {
    restarts: "Failed and was started again.",
    opened: "Ports and connections opened.",
    reads: "Reads from the port that returned, with bytes or without.",
    bytes: "Bytes received.",
    frames: "Frames that were found whole.",
    bad_checksums: "Frames whose checksum was wrong.",
    rubbish_bytes: "Bytes that belonged to no valid frame.",
    resyncs: "Times that the beginning of a frame was lost and found again.",
    valid: "Readings handed on with a number.",
    absent: "Readings handed on without a number.",
    rfu_bits: "Reserved bits that were set in what Bluetooth sensors sent; they are ignored.",
    trailing_bytes: "Bytes after the last field of what Bluetooth sensors sent; they are ignored.",
    records: "Single measurements that Bluetooth sensors handed over, with those that came again.",
    records_again: "Records that are known already; they are left out.",
    records_late: "Records that were kept in the sensor until now; they never alarm.",
    waves_dropped: "Blocks of samples that were dropped because the pipeline was busy.",
    framing_errors: "Bytes without a stop bit, as the serial driver counts them.",
    parity_errors: "Bytes with wrong parity, as the serial driver counts them.",
    overruns: "Bytes that the hardware or the driver lost because they came too fast, as the driver counts them.",
    breaks: "Breaks of the line, as the serial driver counts them.",
}

impl Metrics {
    /// How long the buffer lasts. What is unknown is no number, and never 0 or without end.
    fn write_buffer(&self, text: &mut String) {
        let left = self.uplink.borrow().as_ref().and_then(|uplink| uplink.buffer_seconds_left);
        let left = left.map_or_else(|| "NaN".to_owned(), |seconds| seconds.to_string());
        let name = "vitalbridge_uplink_buffer_seconds";
        let help = "For how many seconds the buffer lasts without the broker at the pace of lately; NaN while that is unknown.";
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {left}");
    }

    /// Shows what these sources count. Only the first call counts: sources are started once.
    pub fn count_sources(&self, sources: Vec<(SourceId, Arc<SourceCounters>)>) {
        if self.sources.set(sources).is_err() {
            tracing::error!("sources are counted once; later ones are not shown");
        }
    }
}

metrics! {
    counter events_total: "Events that were given a number.",
    counter readings_total: "Readings that reached the pipeline.",
    counter readings_mode_mixed_total: "Readings refused because demo, test and real data met on one patient.",
    counter alerts_total: "Changes of alerts.",
    gauge alerts_undelivered: "Alerts that no annunciator has shown in time.",
    gauge annunciators: "Connections that show alerts to people.",
    counter alert_receipts_total: "Receipts for alerts: each alert of each message counts.",
    counter alerts_escalated_total: "Routes of escalation that alerts have taken.",
    counter fallback_runs_total: "Times that the local fallback was switched or run.",
    counter fallback_failed_total: "Times that the local fallback did not work.",
    counter store_refused_total: "Events that the store's full queue could not take; they were shown live only.",
    counter commands_unkept_total: "Commands refused because the store had no room for their events.",
    counter listener_conflated_total: "Readings replaced by a newer one before a slow listener took them.",
    counter listener_waves_dropped_total: "Blocks of samples dropped because a listener did not take them.",
    counter listener_overrun_total: "Listeners closed because they did not take their alerts.",
    counter connections_total: "WebSocket connections that were accepted.",
    gauge connections: "WebSocket connections that are open.",
    counter connections_refused_total: "Connections refused because of a limit.",
    counter tls_failed_total: "TLS handshakes that failed.",
    counter handshakes_late_total: "TLS handshakes that were not complete in time.",
    counter sessions_evicted_total: "Sessions that made room for another one of their user.",
    counter sessions_refused_total: "Sign-ins refused because the user, or the address before it, had too many sessions.",
    counter requests_limited_total: "HTTP requests answered with 429: more than their user may ask for.",
    counter sign_in_refused_total: "Tokens and codes that were refused.",
    counter audit_rows_lost_total: "Rows of the audit trail about connections that found no room.",
    counter frames_sent_total: "WebSocket messages written.",
    counter resumed_total: "Sessions that went on from an earlier event.",
    gauge uplink_connected: "1 while the broker is connected.",
    gauge uplink_waiting: "Stored events that the broker has not confirmed.",
    gauge uplink_backlog: "Of these, numbers of the log from before the connection that are still to be looked through.",
    gauge uplink_backlog_seconds: "In how many seconds the backlog will be sent at its pace so far; 0 while that is unknown.",
    gauge uplink_held_seconds: "For how many seconds more readings wait for the clock to be set; 0: they do not.",
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
        assert_eq!(Metrics::default().to_prometheus().lines().filter(|line| line.contains('{')).count(), 0);
    }

    #[test]
    fn a_buffer_of_unknown_length_is_no_number() {
        let metrics = Metrics::default();
        let shown = |metrics: &Metrics| metrics.to_prometheus().contains("\nvitalbridge_uplink_buffer_seconds NaN\n");
        assert!(shown(&metrics));
        metrics.uplink.send_replace(Some(UplinkNow::default()));
        assert!(shown(&metrics));
        metrics.uplink.send_replace(Some(UplinkNow { buffer_seconds_left: Some(0), ..UplinkNow::default() }));
        assert!(metrics.to_prometheus().contains("\nvitalbridge_uplink_buffer_seconds 0\n"));
    }

    #[test]
    fn each_source_has_its_own_line_in_each_of_its_counters() {
        let metrics = Metrics::default();
        let (first, second) = (Arc::new(SourceCounters::default()), Arc::new(SourceCounters::default()));
        SourceCounters::add(&second.bad_checksums, 7);
        metrics.count_sources(vec![("a".parse().unwrap(), first), ("b".parse().unwrap(), second)]);
        let text = metrics.to_prometheus();
        let expected = "# TYPE vitalbridge_source_bad_checksums_total counter\n\
            vitalbridge_source_bad_checksums_total{source=\"a\"} 0\n\
            vitalbridge_source_bad_checksums_total{source=\"b\"} 7\n";
        assert!(text.contains(expected), "{text}");
    }
}
