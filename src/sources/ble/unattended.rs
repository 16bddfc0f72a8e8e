//! Pairing while nobody is there: the agent that the daemon has at BlueZ, and the memory of bonds that keeps a lost one
//! from being made again.
//!
//! Without an agent an encrypted cuff cannot be read: each subscription hangs until BlueZ gives up. What the agent says
//! yes to stands in [`crate::bluez::Configured`]; everything else takes a person and `vitalbridge pair`.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::wanted::Wanted;
use crate::bluez::{AgentRole, BleAddress, Bluez, Capability, Configured};

/// Before the agent is registered again after bluetoothd refused it.
const AGENT_PAUSE: Duration = Duration::from_secs(5);
/// Bonds that are remembered; a further one is told in the log and not kept.
const MAX_BONDS: usize = 1024;
/// More of a file than this was not written by us.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The first line of the file.
const HEADER: &str = "# Bluetooth sensors that had a bond; a lost bond is made again by `vitalbridge pair` only.\n";

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The agent, and what it knows.
pub(super) struct Unattended {
    configured: watch::Sender<Configured>,
    /// The agent, while there is a bluetoothd.
    serving: Option<Work>,
    /// Writes bonds down as they are made.
    keeping: Work,
}

impl Unattended {
    /// With the bonds of earlier runs in this file, if any are kept.
    pub(super) async fn new(file: Option<PathBuf>) -> Self {
        let mut bonded_before = BTreeSet::new();
        if let Some(path) = file.clone() {
            let read = tokio::task::spawn_blocking(move || {
                let read = read(&path);
                read.inspect_err(|error| warn!(%error, path = %path.display(), "cannot read which sensors were bonded"))
            });
            bonded_before = read.await.map_or_else(|_| BTreeSet::new(), Result::unwrap_or_default);
        }
        let kept = bonded_before.clone();
        let configured = watch::Sender::new(Configured { bonded_before, ..Configured::default() });
        let keeping: Work = match file {
            Some(file) => Box::pin(keep(file, kept, configured.subscribe())),
            None => Box::pin(std::future::pending()),
        };
        Self { configured, serving: None, keeping }
    }

    /// These sensors are configured now.
    pub(super) fn configure<'w>(&self, sensors: impl Iterator<Item = &'w Wanted>) {
        let (mut addresses, mut names) = (BTreeSet::new(), BTreeSet::new());
        for wanted in sensors {
            match wanted {
                Wanted::Address(address) => drop(addresses.insert(*address)),
                Wanted::Name(name) => drop(names.insert(name.clone())),
            }
        }
        self.configured.send_modify(|configured| (configured.addresses, configured.names) = (addresses, names));
    }

    /// A configured sensor has a bond.
    pub(super) fn bonded(&self, address: BleAddress) {
        self.configured.send_if_modified(|configured| {
            if configured.bonded_before.len() >= MAX_BONDS {
                warn!(%address, "so many sensors were bonded that this bond is not remembered");
                return false;
            }
            configured.bonded_before.insert(address)
        });
    }

    /// bluetoothd runs: it gets to know the agent.
    pub(super) fn start(&mut self, bluez: Bluez) {
        self.serving = Some(Box::pin(serve(bluez, self.configured.subscribe())));
    }

    /// bluetoothd has gone, and has forgotten the agent.
    pub(super) fn stop(&mut self) {
        self.serving = None;
    }

    /// Answers and writes down. Never ends; may be dropped while it waits.
    pub(super) async fn work(&mut self) {
        let serving = async {
            match &mut self.serving {
                Some(serving) => serving.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // BlueZ waits for an answer, and a person at a cuff for BlueZ.
            () = serving => {}
            // Ends with this value only.
            () = &mut self.keeping => {}
        }
    }
}

async fn serve(bluez: Bluez, configured: watch::Receiver<Configured>) {
    loop {
        let served = async {
            let mut agent = bluez.agent(Capability::NoInputNoOutput, AgentRole::Default).await?;
            info!("sensors that want to be paired are answered");
            agent.serve(&configured).await
        };
        if let Err(error) = served.await {
            // Encrypted sensors cannot be read meanwhile.
            warn!(%error, "BlueZ takes no pairing agent; it is tried again");
        }
        tokio::time::sleep(AGENT_PAUSE).await;
    }
}

/// Writes the bonds down whenever there are more of them.
async fn keep(file: PathBuf, mut kept: BTreeSet<BleAddress>, mut configured: watch::Receiver<Configured>) {
    while configured.changed().await.is_ok() {
        let bonds = configured.borrow_and_update().bonded_before.clone();
        if bonds == kept {
            continue;
        }
        let (path, written) = (file.clone(), bonds.clone());
        let done = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        match done {
            Ok(Ok(())) => debug!(bonds = bonds.len(), "wrote down which sensors are bonded"),
            // The next bond writes all of them.
            Ok(Err(error)) => warn!(%error, path = %file.display(), "cannot write down which sensors are bonded"),
            Err(_) => return,
        }
        kept = bonds;
    }
}

fn read(path: &Path) -> std::io::Result<BTreeSet<BleAddress>> {
    let text = match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE_BYTES => return Err(ErrorKind::FileTooLarge.into()),
        Ok(_) => std::fs::read_to_string(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let addresses = lines.filter_map(|line| {
        let address = line.trim().parse();
        address.inspect_err(|error| warn!(%error, path = %path.display(), "a line about a bond is not understood")).ok()
    });
    Ok(addresses.take(MAX_BONDS).collect())
}

/// All or nothing: a power cut leaves the old file or the new one.
fn write(path: &Path, bonds: &BTreeSet<BleAddress>) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut text = HEADER.to_owned();
    for address in bonds {
        text.push_str(&address.to_string());
        text.push('\n');
    }
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name is in the folder, which has to reach the disk too.
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bonds_are_read_as_they_were_written_and_what_is_not_understood_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bonds");
        assert_eq!(read(&file).unwrap(), BTreeSet::new());
        let bonds: BTreeSet<BleAddress> = (0..3).map(|last| BleAddress::new([0xC0, 0xFF, 0xEE, 0, 0, last])).collect();
        write(&file, &bonds).unwrap();
        assert_eq!(read(&file).unwrap(), bonds);
        std::fs::write(&file, "# note\n\nC0:FF:EE:00:00:01\nnobody\n").unwrap();
        assert_eq!(read(&file).unwrap().len(), 1);
        let sparse = std::fs::File::create(&file).unwrap();
        sparse.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn a_bond_is_remembered_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bonds");
        let address = BleAddress::new([1, 2, 3, 4, 5, 6]);
        let mut first = Unattended::new(Some(file.clone())).await;
        first.bonded(address);
        let written = async {
            while read(&file).unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = first.work() => unreachable!("it never ends"),
            written = tokio::time::timeout(Duration::from_secs(20), written) => written.unwrap(),
        }
        let second = Unattended::new(Some(file)).await;
        assert_eq!(second.configured.borrow().bonded_before, BTreeSet::from([address]));
    }
}
