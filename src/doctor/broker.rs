//! The way to the backend, step by step: its name, TCP, TLS and the dates of its certificate, CONNACK, PUBACK.

use crate::clock::{Clock, Wall};
use crate::config::Broker;
use crate::doctor::secrets::broker_files;
use crate::doctor::{Area, Finding, Patient};
use crate::ids::Epoch;
use crate::systemd;
use crate::uplink::{Probe, ProbeStep, probe};

/// Added to the client id while the daemon has the configured one: two clients of one id throw each other out.
const SECOND: &str = "-doctor";

#[derive(Debug)]
struct Facts {
    address: String,
    probe: Probe,
    /// The daemon runs and has the configured client id.
    has_second_id: bool,
    is_encrypted: bool,
    /// What it is proved with is a credential, and the service does not run.
    lacks_credential: bool,
    now: Wall,
}

pub(super) async fn check(patient: &Patient<'_>) -> Vec<Finding> {
    let Some(config) = patient.config else {
        return vec![Finding::skipped(Area::Broker, "unused", "the configuration, which names the broker, has errors")];
    };
    let Some((broker, mut settings)) = config.broker.as_ref().zip(config.uplink(&Epoch::from_bits(0))) else {
        return vec![Finding::skipped(Area::Broker, "unused", "no broker is configured")];
    };
    let Broker { address, .. } = broker;
    let has_second_id = patient.daemon.is_some();
    if has_second_id {
        settings.client_id.push_str(SECOND);
    }
    let probe = probe(&settings, &Clock::System).await;
    let is_encrypted = address.transport.is_encrypted();
    let authorities = broker.access.tls.authorities.iter();
    let secrets = broker_files(broker);
    let mut files = secrets.iter().map(|(_, file)| file).chain(authorities);
    let lacks_credential = systemd::credentials_are_away() && files.any(|file| systemd::is_credential(file));
    let address = address.to_string();
    judge(&Facts { address, probe, has_second_id, is_encrypted, lacks_credential, now: patient.now })
}

fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.probe.ends_soon {
        findings.push(Finding::warning(
            Area::Broker,
            "certificate_ends",
            format!("the certificate of {} ends within 30 days; the clock says {}", facts.address, facts.now),
            "have it renewed at the broker: after its end nothing gets through",
        ));
    }
    findings.push(if let Some((step, reason)) = &facts.probe.failed {
        failed(facts, *step, reason)
    } else {
        let tls = if facts.is_encrypted { ", TLS" } else { "" };
        let millis = facts.probe.round_trip.map_or(0, |time| time.as_millis());
        let message = format!("{}: name, TCP{tls}, CONNACK and PUBACK ({millis} ms) are good", facts.address);
        Finding::ok(Area::Broker, "reached", message)
    });
    findings
}

fn failed(facts: &Facts, step: ProbeStep, reason: &str) -> Finding {
    let (address, now) = (&facts.address, facts.now);
    let error = |check, message: String, advice: &str| Finding::error(Area::Broker, check, message, advice);
    match step {
        ProbeStep::Tls | ProbeStep::Connack if facts.lacks_credential => Finding::skipped(
            Area::Broker,
            "credential",
            format!("{address} can be reached; the rest needs a credential, which is there while the service runs"),
        ),
        ProbeStep::Name => error(
            "name",
            format!("the name of {address} leads nowhere: {reason}"),
            "see that the name in `mqtt.broker` is right and that this machine has a name server: `getent hosts NAME`, `ip route`",
        ),
        ProbeStep::Tcp => error(
            "tcp",
            format!("no connection to {address}: {reason}"),
            "see that the broker runs, that the port in `mqtt.broker` is right, and that no firewall is between: `nc -vz HOST PORT`",
        ),
        ProbeStep::Tls => error(
            "tls",
            format!("no TLS with {address}: {reason} (this machine's clock says {now})"),
            "compare the clock and `mqtt.tls` with the certificate: `openssl s_client -connect HOST:PORT -showcerts`",
        ),
        ProbeStep::Connack if facts.has_second_id => Finding::warning(
            Area::Broker,
            "second_client",
            format!("{address} refuses a second client beside the daemon's: {reason}"),
            "it may take this bridge under its configured client id only: `journalctl -u vitalbridge | grep uplink` says how the daemon \
             gets on; or stop the daemon and run this again",
        ),
        ProbeStep::Connack => error(
            "connack",
            format!("{address} refuses the connection: {reason}"),
            "compare `mqtt.username`, the password or token, `mqtt.client_id` and `mqtt.version` with what the broker expects; its log \
             says more",
        ),
        ProbeStep::Puback => error(
            "puback",
            format!("{address} takes the connection and no message: {reason}"),
            "allow this client to publish under the topic of `mqtt.topic` (access list of the broker), with QoS 1",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Level;

    fn facts(failed: Option<ProbeStep>) -> Facts {
        let failed = failed.map(|step| (step, "because".to_owned()));
        Facts {
            address: "mqtts://b:8883".to_owned(),
            probe: Probe { failed, ends_soon: false, round_trip: Some(Duration::from_millis(12)) },
            has_second_id: false,
            is_encrypted: true,
            lacks_credential: false,
            now: Wall(1_795_000_000_000),
        }
    }

    #[test]
    fn each_finding_about_the_broker_says_what_to_do() {
        for (facts, check, level, advice) in [
            (facts(None), "reached", Level::Ok, ""),
            (facts(Some(ProbeStep::Name)), "name", Level::Error, "getent hosts"),
            (facts(Some(ProbeStep::Tcp)), "tcp", Level::Error, "nc -vz"),
            (facts(Some(ProbeStep::Tls)), "tls", Level::Error, "compare the clock"),
            (facts(Some(ProbeStep::Connack)), "connack", Level::Error, "mqtt.username"),
            (
                Facts { has_second_id: true, ..facts(Some(ProbeStep::Connack)) },
                "second_client",
                Level::Warning,
                "stop the daemon",
            ),
            (facts(Some(ProbeStep::Puback)), "puback", Level::Error, "access list"),
        ] {
            let found = judge(&facts);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].check, found[0].level), (check, level), "{facts:?}");
            assert!(found[0].advice.as_deref().unwrap_or_default().contains(advice), "{found:?}");
            assert!(found[0].message.contains("mqtts://b:8883"));
            assert_eq!(level == Level::Ok, !found[0].message.contains("because"), "{found:?}");
        }
        for (step, check) in
            [(ProbeStep::Tls, "credential"), (ProbeStep::Connack, "credential"), (ProbeStep::Tcp, "tcp")]
        {
            assert_eq!(judge(&Facts { lacks_credential: true, ..facts(Some(step)) })[0].check, check);
        }
        let mut soon = facts(None);
        soon.probe.ends_soon = true;
        let found = judge(&soon);
        assert_eq!((found[0].check, found[0].level, found.len()), ("certificate_ends", Level::Warning, 2));
        assert!(found[0].advice.as_ref().unwrap().contains("renewed"));
    }
}
