//! `vitalbridge scan`: which Bluetooth sensors are near, what they are, and the lines that add them.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use clap::Args;

use super::{CommandError, adapter_that_is_on, note, say, with_bluez};
use crate::bluez::{Bluez, BluezError, BluezEvent, Cause, Device, Peer, Record, Transport, Watch};

/// How often BlueZ is asked what it hears.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vitalbridge scan\n  vitalbridge scan --seconds 60 --all --json\n\n\
                        A sensor is heard only while it is awake and connected to nothing else: wear the strap, wake the \
                        cuff,\ncut the phone off. The adapter has to be on; it is never switched on here.")]
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
}

pub(super) fn run(args: &ScanArgs) -> Result<(), CommandError> {
    with_bluez(async || {
        let bluez = Bluez::connect().await?;
        let adapter = adapter_that_is_on(&bluez, args.adapter.as_deref()).await?.name;
        let mut watch = bluez.watch().await?;
        bluez.start_scan(&adapter, Transport::LowEnergy).await?;
        note(&format!("listening with {adapter} for {} s; Ctrl-C ends it early", args.seconds));
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => {}
            () = tokio::time::sleep(Duration::from_secs(args.seconds)) => {}
            error = tell_progress(&bluez, &mut watch, &adapter) => return Err(error.into()),
        }
        // Before the scan ends: BlueZ forgets the signal strengths then.
        let devices = bluez.devices(Some(&adapter)).await?;
        // It would also end with this program.
        bluez.stop_scan(&adapter).await?;
        Ok(show(args, devices)?)
    })
}

/// Says what is heard as it is heard; returns only if the scan cannot go on.
async fn tell_progress(bluez: &Bluez, watch: &mut Watch, adapter: &str) -> BluezError {
    let mut told = BTreeSet::new();
    // Not with each advertisement: there are hundreds a second in a full ward.
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            event = watch.next() => match event.map(|event| interrupted(&event, adapter)) {
                Ok(Some(cause)) => return BluezError { doing: "scanning", cause },
                Ok(None) => {}
                Err(error) => return error,
            },
            _ = looks.tick() => match bluez.devices(Some(adapter)).await {
                Ok(devices) => devices.iter().filter(|device| device.rssi.is_some()).for_each(|near| tell(near, &mut told)),
                Err(error) => return error,
            },
        }
    }
}

fn tell(device: &Device, told: &mut BTreeSet<Peer>) {
    let record = Record::of(device);
    if record.what.is_some() && told.insert(device.peer.clone()) {
        note(&format!("heard {} {}", record.address, record.title()));
    }
}

/// Why a scan cannot go on after this event; `None` if it can.
pub(super) fn interrupted(event: &BluezEvent, adapter: &str) -> Option<Cause> {
    match event {
        BluezEvent::DaemonGone => Some(Cause::ServiceUnknown),
        BluezEvent::AdapterRemoved { name } if name == adapter => Some(Cause::NoAdapter(" any more".to_owned())),
        BluezEvent::Powered { adapter: name, on: false } if name == adapter => Some(Cause::NotPowered),
        _ => None,
    }
}

fn show(args: &ScanArgs, devices: Vec<Device>) -> io::Result<()> {
    // What is connected does not advertise.
    let near = devices.into_iter().filter(|device| device.rssi.is_some() || device.connected);
    let mut records: Vec<Record> = near.map(|device| Record::of(&device)).collect();
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
        say(&format!("{}  {signal:>8}  {}  ({})", record.address, record.title(), record.states()))?;
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
