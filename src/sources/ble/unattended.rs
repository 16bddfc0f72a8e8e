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
/// Before a file that could not be written is tried again.
const WRITE_PAUSE: Duration = Duration::from_secs(30);
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
        let mut kept = Bonds::default();
        if let Some(path) = file.clone() {
            let read = tokio::task::spawn_blocking(move || {
                let read = read(&path);
                read.inspect_err(|error| warn!(%error, path = %path.display(), "cannot read which sensors were bonded"))
            });
            kept = read.await.map_or_else(|_| Bonds::default(), Result::unwrap_or_default);
        }
        let (bonded_before, bonded_names) = (kept.addresses.clone(), kept.names.clone());
        let configured = watch::Sender::new(Configured { bonded_before, bonded_names, ..Configured::default() });
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
    pub(super) fn bonded(&self, address: BleAddress, wanted: &Wanted) {
        self.configured.send_if_modified(|configured| {
            let is_new_name = match wanted {
                Wanted::Name(name) => configured.bonded_names.insert(name.clone()),
                Wanted::Address(_) => false,
            };
            if configured.bonded_before.len() >= MAX_BONDS && !configured.bonded_before.contains(&address) {
                warn!(%address, "so many sensors were bonded that this bond is not remembered");
                return is_new_name;
            }
            configured.bonded_before.insert(address) || is_new_name
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

/// The sensors that had a bond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bonds {
    addresses: BTreeSet<BleAddress>,
    /// Those by which they are configured.
    names: BTreeSet<String>,
}

/// Writes the bonds down whenever there are more of them. What could not be written is tried again.
async fn keep(file: PathBuf, mut kept: Bonds, mut configured: watch::Receiver<Configured>) {
    let mut is_owed = false;
    loop {
        if is_owed {
            // A bond more is one reason to try again, and time is another.
            if let Ok(Err(_)) = tokio::time::timeout(WRITE_PAUSE, configured.changed()).await {
                return;
            }
        } else if configured.changed().await.is_err() {
            return;
        }
        let bonds = bonds_of(&configured.borrow_and_update());
        if bonds == kept {
            continue;
        }
        let (path, written) = (file.clone(), bonds.clone());
        let done = tokio::task::spawn_blocking(move || write(&path, &written)).await;
        match done {
            Ok(Ok(())) => {
                debug!(bonds = bonds.addresses.len(), "wrote down which sensors are bonded");
                (kept, is_owed) = (bonds, false);
            }
            Ok(Err(error)) => {
                warn!(%error, path = %file.display(), "cannot write down which sensors are bonded; it is tried again");
                is_owed = true;
            }
            Err(_) => return,
        }
    }
}

fn bonds_of(configured: &Configured) -> Bonds {
    Bonds { addresses: configured.bonded_before.clone(), names: configured.bonded_names.clone() }
}

/// A line has an address, or a name as JSON has it, in quotes.
fn read(path: &Path) -> std::io::Result<Bonds> {
    let text = match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE_BYTES => return Err(ErrorKind::FileTooLarge.into()),
        Ok(_) => std::fs::read_to_string(path)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bonds::default()),
        Err(error) => return Err(error),
    };
    let mut bonds = Bonds::default();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines.take(2 * MAX_BONDS) {
        if let Ok(name) = serde_json::from_str::<String>(line) {
            bonds.names.insert(name);
            continue;
        }
        match line.parse() {
            Ok(address) => drop(bonds.addresses.insert(address)),
            Err(error) => warn!(%error, path = %path.display(), "a line about a bond is not understood"),
        }
    }
    Ok(bonds)
}

/// All or nothing: a power cut leaves the old file or the new one.
fn write(path: &Path, bonds: &Bonds) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut text = HEADER.to_owned();
    let names = bonds.names.iter().map(|name| serde_json::Value::from(name.as_str()).to_string());
    for line in bonds.addresses.iter().map(ToString::to_string).chain(names) {
        text.push_str(&line);
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
        assert_eq!(read(&file).unwrap(), Bonds::default());
        let addresses = (0..3).map(|last| BleAddress::new([0xC0, 0xFF, 0xEE, 0, 0, last])).collect();
        let names = ["Cuff 1", "# a \"name\"\nin two lines", "C0:FF:EE:00:00:01"].map(ToOwned::to_owned).into();
        let bonds = Bonds { addresses, names };
        write(&file, &bonds).unwrap();
        assert_eq!(read(&file).unwrap(), bonds);
        std::fs::write(&file, "# note\n\nC0:FF:EE:00:00:01\nnobody\n").unwrap();
        assert_eq!(read(&file).unwrap().addresses.len(), 1);
        let sparse = std::fs::File::create(&file).unwrap();
        sparse.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn a_bond_is_remembered_by_the_next_run_even_if_it_could_not_be_written_at_once() {
        let folder = tempfile::tempdir().unwrap();
        // At first there is no folder to write to.
        let late = folder.path().join("late");
        let file = late.join("bonds");
        let address = BleAddress::new([1, 2, 3, 4, 5, 6]);
        let mut first = Unattended::new(Some(file.clone())).await;
        first.bonded(address, &Wanted::Name("Cuff 1".to_owned()));
        tokio::time::pause();
        let written = async {
            tokio::time::sleep(WRITE_PAUSE / 2).await;
            std::fs::create_dir(&late).unwrap();
            while read(&file).unwrap() == Bonds::default() {
                tokio::time::sleep(WRITE_PAUSE / 2).await;
            }
        };
        tokio::select! {
            () = first.work() => unreachable!("it never ends"),
            written = tokio::time::timeout(100 * WRITE_PAUSE, written) => written.unwrap(),
        }
        let second = Unattended::new(Some(file)).await;
        assert_eq!(second.configured.borrow().bonded_before, BTreeSet::from([address]));
        assert_eq!(second.configured.borrow().bonded_names, BTreeSet::from(["Cuff 1".to_owned()]));
    }
}
