//! `vitalbridge devices`: the Bluetooth devices that this machine knows, and forgetting one.

use clap::{Args, Subcommand};

use super::{CommandError, say, with_bluez};
use crate::bluez::{BleAddress, Bluez, Device, Record};
use crate::profile::Models;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vitalbridge devices\n  vitalbridge devices remove C0:FF:EE:00:00:0A")]
pub(super) struct DevicesArgs {
    #[command(subcommand)]
    command: Option<DevicesCommand>,
    /// Also those that are only heard just now, and will be forgotten.
    #[arg(long)]
    all: bool,
    /// One JSON object a device, for programs.
    #[arg(long)]
    json: bool,
    /// Only those of this adapter, such as hci1.
    #[arg(long, value_name = "NAME", global = true)]
    adapter: Option<String>,
}

#[derive(Debug, Subcommand)]
enum DevicesCommand {
    /// Forget a device and its bond; somebody has to pair it again at the device.
    #[command(after_help = "Example: vitalbridge devices remove C0:FF:EE:00:00:0A")]
    Remove {
        /// Its address.
        address: BleAddress,
    },
}

pub(super) fn run(args: &DevicesArgs) -> Result<(), CommandError> {
    with_bluez(async || {
        let bluez = Bluez::connect().await?;
        match &args.command {
            None => list(&bluez, args).await,
            Some(DevicesCommand::Remove { address }) => remove(&bluez, *address, args.adapter.as_deref()).await,
        }
    })
}

/// Whether BlueZ keeps it, rather than having just heard it.
fn is_kept(device: &Device) -> bool {
    device.bonded || device.paired || device.trusted || device.blocked || device.connected
}

async fn list(bluez: &Bluez, args: &DevicesArgs) -> Result<(), CommandError> {
    let devices = bluez.devices(args.adapter.as_deref()).await?;
    let models = super::decode::devices(None)?.models();
    let records: Vec<Record> =
        devices.iter().filter(|device| args.all || is_kept(device)).map(|device| Record::of(device, &models)).collect();
    for record in &records {
        if args.json {
            say(&serde_json::to_string(record).map_err(anyhow::Error::from)?)?;
            continue;
        }
        let battery = record.battery.map_or_else(String::new, |percent| format!(", battery {percent} %"));
        say(&format!("{}  {}  ({}{battery})", record.address, record.title(), record.states()))?;
    }
    if records.is_empty() && !args.json {
        say("No device is paired or connected. `vitalbridge scan` shows what is near.")?;
    }
    Ok(())
}

async fn remove(bluez: &Bluez, address: BleAddress, adapter: Option<&str>) -> Result<(), CommandError> {
    let devices = bluez.devices(adapter).await?;
    let found: Vec<&Device> =
        devices.iter().filter(|device| device.address == address || device.peer.address == address).collect();
    if found.is_empty() {
        return Err(CommandError::Unavailable(format!(
            "BlueZ does not know {address}; `vitalbridge devices --all` lists what it knows"
        )));
    }
    for device in found {
        bluez.remove(&device.peer).await?;
        let record = Record::of(device, &Models::built_in());
        let bond = if device.bonded {
            "; its bond is gone: pair it again with `vitalbridge pair`, and forget the bridge at the device if it has a menu \
             for that"
        } else {
            ""
        };
        say(&format!("removed {address} {}{bond}", record.title()))?;
    }
    Ok(())
}
