//! Switching the adapter off and on again, with a note on disk between the two: however a run ends, the next one knows
//! what this program has switched off, and switches on nothing else.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::policy::Input;
use crate::bluez::Bluez;

/// How long the adapter stays off in a power cycle: controllers need a moment.
const OFF_TIME: Duration = Duration::from_secs(1);
/// Times it is tried to switch it on again.
const SWITCH_ON_TRIES: u32 = 3;
/// The length of an address; more than this in the file was not written by us.
const MAX_FILE_BYTES: u64 = 64;

/// The note: the address of the adapter that was switched off, while it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Note {
    file: Option<PathBuf>,
}

impl Note {
    /// In this file; `None`: nothing is written down.
    pub(super) const fn new(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    /// The adapter that an earlier run has switched off and not on again.
    pub(super) async fn read(&self) -> Option<String> {
        self.with_file("read which Bluetooth adapter was switched off", read).await.flatten()
    }

    /// Before it is switched off. What cannot be written down is switched all the same: without it no sensor delivers.
    async fn write(&self, address: &str) {
        let address = address.to_owned();
        let write = move |path: &Path| write(path, &address);
        self.with_file("write down which Bluetooth adapter is switched off", write).await;
    }

    /// It is on, or off by somebody's wish.
    pub(super) async fn erase(&self) {
        self.with_file("erase the note about a Bluetooth adapter", erase).await;
    }

    async fn with_file<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let path = self.file.clone()?;
        let done = tokio::task::spawn_blocking(move || {
            work(&path).inspect_err(|error| warn!(%error, path = %path.display(), "cannot {doing}")).ok()
        });
        done.await.ok().flatten()
    }
}

fn read(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > MAX_FILE_BYTES => Err(ErrorKind::FileTooLarge.into()),
        Ok(_) => Ok(Some(std::fs::read_to_string(path)?.trim().to_owned()).filter(|address| !address.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, address: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    writeln!(file, "{address}")?;
    file.sync_all()?;
    sync_folder(path)
}

fn erase(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The name is in the folder, which has to reach the disk too.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Switches the adapter off and on again, but only if it is on: a person may have been quicker.
pub(super) async fn cycle(bluez: Bluez, adapter: String, note: Note) -> Vec<Input> {
    match bluez.adapter(Some(&adapter)).await {
        Ok(found) if found.powered => note.write(&found.address).await,
        Ok(_) => {
            let words = "the adapter was switched off".to_owned();
            return vec![Input::PowerCycled(Err(words)), Input::Powered(false)];
        }
        Err(error) => return vec![Input::PowerCycled(Err(error.to_string()))],
    }
    info!(adapter, "switching the Bluetooth adapter off and on: no sensor can be connected");
    if let Err(error) = bluez.set_powered(&adapter, false).await {
        debug!(%error, "it could not be switched off");
    }
    tokio::time::sleep(OFF_TIME).await;
    switch_on(bluez, adapter, note).await
}

/// Switches the adapter on, which nobody has wished to be off.
pub(super) async fn switch_on(bluez: Bluez, adapter: String, note: Note) -> Vec<Input> {
    let mut result = Ok(());
    for _ in 0..SWITCH_ON_TRIES {
        result = bluez.set_powered(&adapter, true).await.map_err(|error| error.to_string());
        if result.is_ok() {
            note.erase().await;
            break;
        }
        tokio::time::sleep(OFF_TIME).await;
    }
    vec![Input::PowerCycled(result)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_is_read_as_it_was_written_until_it_is_erased() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("note");
        let note = Note::new(Some(file.clone()));
        assert_eq!(note.read().await, None);
        note.erase().await;
        note.write("00:AA:01:00:00:42").await;
        assert_eq!(note.read().await.as_deref(), Some("00:AA:01:00:00:42"));
        note.erase().await;
        assert_eq!(note.read().await, None);
        // What is too long was not written by us, and an empty file is what a power cut has left.
        for text in [" ".repeat(100), "\n".to_owned()] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(note.read().await, None);
        }
        assert_eq!(Note::new(None).read().await, None);
    }
}
