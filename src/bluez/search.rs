//! Listening for what is near: a scan that ends by its reason, and the search for one device.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::address::BleAddress;
use super::client::{Bluez, Transport};
use super::error::{BluezError, Cause};
use super::object::Device;
use super::record::printable;
use super::watch::{BluezEvent, Watch};

/// How often BlueZ is asked what it hears; not with each advertisement, of which there are hundreds a second in a full
/// ward.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A device that somebody names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By its address.
    Address(BleAddress),
    /// By its advertised name, in full.
    Name(String),
}

impl FromStr for Named {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Address))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => write!(f, "`{}`", printable(name)),
        }
    }
}

impl Named {
    fn fits(&self, device: &Device) -> bool {
        match self {
            Self::Address(address) => device.address == *address || device.peer.address == *address,
            Self::Name(name) => device.name.as_ref() == Some(name),
        }
    }

    /// The one device that fits among these; an error if several have the name.
    fn only(&self, devices: Vec<Device>) -> Result<Option<Device>, BluezError> {
        let mut found: Vec<Device> = devices.into_iter().filter(|device| self.fits(device)).collect();
        if found.len() > 1 {
            let addresses: Vec<String> = found.iter().map(|device| device.address.to_string()).collect();
            return Err(BluezError::new("looking for the device", Cause::Ambiguous(addresses.join(", "))));
        }
        Ok(found.pop())
    }
}

/// A scan that goes on. End it with [`Self::end`]; dropping it ends it only with the connection of its [`Bluez`].
#[derive(Debug)]
pub struct Scan {
    bluez: Bluez,
    adapter: String,
    watch: Watch,
    looks: tokio::time::Interval,
}

impl Scan {
    /// Starts one for low energy, with the named adapter or the first one. Never switches it on.
    ///
    /// # Errors
    /// [`Cause::NotPowered`] if the adapter is off; otherwise see [`Cause`].
    pub async fn start(bluez: &Bluez, adapter: Option<&str>) -> Result<Self, BluezError> {
        let adapter = bluez.powered_adapter(adapter).await?.name;
        let watch = bluez.watch().await?;
        bluez.start_scan(&adapter, Transport::LowEnergy).await?;
        Ok(Self { bluez: bluez.clone(), adapter, watch, looks: tokio::time::interval(LOOK_EVERY) })
    }

    /// The adapter.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// The devices that are heard, each half second.
    ///
    /// # Errors
    /// Why the scan cannot go on: bluetoothd or the adapter has gone, or was switched off.
    pub async fn look(&mut self) -> Result<Vec<Device>, BluezError> {
        loop {
            tokio::select! {
                biased;
                // First, so that the reason is told and not what follows from it.
                event = self.watch.next() => if let Some(cause) = interruption(&event?, &self.adapter) {
                    return Err(BluezError::new("scanning", cause));
                },
                _ = self.looks.tick() => {
                    let mut devices = self.bluez.devices(Some(&self.adapter)).await?;
                    devices.retain(|device| device.rssi.is_some());
                    return Ok(devices);
                }
            }
        }
    }

    /// Ends it. Gives the devices that are near: heard, or connected, which do not advertise.
    ///
    /// # Errors
    /// See [`Cause`].
    pub async fn end(self) -> Result<Vec<Device>, BluezError> {
        // Before the scan ends: BlueZ forgets the signal strengths then.
        let mut devices = self.bluez.devices(Some(&self.adapter)).await?;
        devices.retain(|device| device.rssi.is_some() || device.connected);
        self.bluez.stop_scan(&self.adapter).await?;
        Ok(devices)
    }
}

/// Why a scan cannot go on after this event; `None` if it can.
fn interruption(event: &BluezEvent, adapter: &str) -> Option<Cause> {
    match event {
        BluezEvent::DaemonGone => Some(Cause::ServiceUnknown),
        BluezEvent::AdapterRemoved { name } if name == adapter => Some(Cause::NoAdapter(" any more".to_owned())),
        BluezEvent::Powered { adapter: name, on: false } if name == adapter => Some(Cause::NotPowered),
        _ => None,
    }
}

/// Looks for a device to pair with: among those with a bond or a link, then in the air. No scan goes on when it returns:
/// controllers that scan and connect at once are slow at both.
///
/// # Errors
/// [`Cause::NotHeard`], [`Cause::Ambiguous`]; otherwise see [`Cause`].
pub async fn find(bluez: &Bluez, adapter: Option<&str>, named: &Named, limit: Duration) -> Result<Device, BluezError> {
    let adapter = bluez.powered_adapter(adapter).await?.name;
    let mut known = bluez.devices(Some(&adapter)).await?;
    known.retain(|device| device.bonded || device.connected);
    if let Some(device) = named.only(known)? {
        return Ok(device);
    }
    let mut scan = Scan::start(bluez, Some(&adapter)).await?;
    let heard = async {
        loop {
            if let Some(device) = named.only(scan.look().await?)? {
                return Ok(device);
            }
        }
    };
    let found = tokio::time::timeout(limit, heard).await;
    let not_heard = || BluezError::new("looking for the device", Cause::NotHeard(named.to_string(), limit.as_secs()));
    let found = found.unwrap_or_else(|_| Err(not_heard()));
    match (found, scan.end().await) {
        (Ok(_), Err(error)) => Err(error),
        // What went wrong first is the reason.
        (found, _) => found,
    }
}
