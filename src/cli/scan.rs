//! `vitalbridge scan`: which Bluetooth sensors are near, what they are, and the lines that add them.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::decode::devices;
use super::{CommandError, note, say, with_bluez};
use crate::bluez::{Bluez, BluezError, Device, Peer, Record, Scan};
use crate::profile::Models;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vitalbridge scan\n  vitalbridge scan --seconds 60 --all --json\n\n\
                        A sensor is heard only while it is awake and connected to nothing else: wear the strap, wake the \
                        cuff,\nswitch the phone's Bluetooth off. The adapter has to be on; it is never switched on here.")]
pub(super) struct ScanArgs {
    /// How long to listen. A sensor that sleeps advertises rarely.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Show every device, not only those that look like a sensor.
    #[arg(long)]
    all: bool,
    /// One JSON object a device, for programs.
    #[arg(long)]
    json: bool,
    /// The adapter, such as hci1; without it, the first one.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Directory of further profiles [default: /etc/vitalbridge/devices, if it exists]
    #[arg(long, value_name = "DIR")]
    devices: Option<PathBuf>,
}

pub(super) fn run(args: &ScanArgs) -> Result<(), CommandError> {
    let models = devices(args.devices.as_deref())?.models();
    with_bluez(async || {
        let bluez = Bluez::connect().await?;
        let mut scan = Scan::start(&bluez, args.adapter.as_deref()).await?;
        note(&format!("listening with {} for {} s; Ctrl-C ends it early", scan.adapter(), args.seconds));
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {}
            () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
            error = tell_progress(&mut scan, &models) => return Err(error.into()),
        }
        Ok(show(args, &scan.end().await?, &models)?)
    })
}

/// Says what is heard as it is heard; returns only if the scan cannot go on.
async fn tell_progress(scan: &mut Scan, models: &Models) -> BluezError {
    let mut told = BTreeSet::new();
    loop {
        match scan.look().await {
            Ok(devices) => devices.iter().for_each(|device| tell(device, models, &mut told)),
            Err(error) => return error,
        }
    }
}

fn tell(device: &Device, models: &Models, told: &mut BTreeSet<Peer>) {
    let record = Record::of(device, models);
    if record.what.is_some() && told.insert(device.peer.clone()) {
        note(&format!("heard {} {}", record.address, record.title()));
    }
}

fn show(args: &ScanArgs, devices: &[Device], models: &Models) -> io::Result<()> {
    let mut records: Vec<Record> = devices.iter().map(|device| Record::of(device, models)).collect();
    records.sort_by_key(|record| (record.what.is_none(), std::cmp::Reverse(record.rssi), record.address.clone()));
    let others = records.iter().filter(|record| record.what.is_none()).count();
    if !args.all {
        records.retain(|record| record.what.is_some());
    }
    if args.json {
        for record in &records {
            say(&serde_json::to_string(record)?)?;
        }
        return Ok(());
    }
    for record in &records {
        let signal = record.rssi.map_or_else(|| "-".to_owned(), |rssi| format!("{rssi} dBm"));
        // Of what no profile is known of, its services are all that can be said.
        let known = record.profile.as_ref().map_or_else(|| record.service_words(), |id| format!("profile {id}"));
        say(&format!("{}  {signal:>8}  {}  ({}; {known})", record.address, record.title(), record.states()))?;
    }
    if records.is_empty() {
        say("No sensor was heard. Is it awake, close, and connected to no phone?")?;
    }
    if others > 0 && !args.all {
        say(&format!("{others} other devices; --all shows them."))?;
    }
    let lines: Vec<&str> = records.iter().filter_map(|record| record.config.as_deref()).collect();
    if !lines.is_empty() {
        say("\nTo add a sensor, put its lines into the configuration, with its patient, and restart the daemon:\n")?;
        say(lines.join("\n").trim_end())?;
    }
    Ok(())
}
