//! An emulated device behind a real pseudo terminal, reached through a symbolic link that stays the same.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tokio_serial::{SerialPort, SerialStream};

/// Why an emulated device cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum PtyError {
    /// The kernel gave no pseudo terminal.
    #[error("cannot make a pseudo terminal for {}: {reason}", link.display())]
    Terminal {
        /// The link that should lead to it.
        link: PathBuf,
        /// The kernel's answer.
        reason: String,
    },
    /// The link cannot be made.
    #[error("cannot make the link {}: {error}", link.display())]
    Link {
        /// The link.
        link: PathBuf,
        /// The kernel's answer.
        error: std::io::Error,
    },
}

/// One emulated device. Whoever opens the link gets a serial port with the device at its other end.
#[derive(Debug)]
pub struct EmulatedPort {
    link: PathBuf,
    /// The device's end while the cable is in. Dropping it hangs up on the reader.
    device_end: Option<SerialStream>,
    /// False if the last look at the line found that nobody has the other end open.
    is_open: bool,
}

impl EmulatedPort {
    /// A device whose cable is out. Nothing exists at `link` until it is plugged in.
    pub const fn new(link: PathBuf) -> Self {
        Self { link, device_end: None, is_open: false }
    }

    /// Where readers find the port.
    pub fn link(&self) -> &Path {
        &self.link
    }

    /// Puts the cable in: a fresh pseudo terminal behind the link.
    pub fn plug(&mut self) -> Result<(), PtyError> {
        self.unplug();
        let terminal = |reason: String| PtyError::Terminal { link: self.link.clone(), reason };
        let (device_end, reader_end) = SerialStream::pair().map_err(|error| terminal(error.to_string()))?;
        let path = reader_end.name().ok_or_else(|| terminal("it has no name".to_owned()))?;
        drop(reader_end);
        let linked = self.point_link_at(Path::new(&path));
        linked.map_err(|error| PtyError::Link { link: self.link.clone(), error })?;
        self.device_end = Some(device_end);
        self.is_open = false;
        Ok(())
    }

    /// Replaces the link in one step, so that a reader never sees a half-made one.
    fn point_link_at(&self, terminal: &Path) -> std::io::Result<()> {
        if let Some(folder) = self.link.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let fresh = self.link.with_extension("new");
        remove_if_there(&fresh)?;
        std::os::unix::fs::symlink(terminal, &fresh)?;
        std::fs::rename(&fresh, &self.link)
    }

    /// Pulls the cable out: the reader's port hangs up, and the link is gone.
    pub fn unplug(&mut self) {
        if self.device_end.take().is_some()
            && let Err(error) = remove_if_there(&self.link)
        {
            tracing::warn!(link = %self.link.display(), %error, "the link to an emulated device stays behind");
        }
    }

    /// Bytes that the host has sent since the last call; empty while nobody has the port open.
    pub fn received(&mut self) -> Vec<u8> {
        let mut bytes = [0; 256];
        let Some(device_end) = &mut self.device_end else {
            return Vec::new();
        };
        // EIO says that nobody has the other end open; that is no fault of this one.
        let read = device_end.try_read(&mut bytes);
        self.is_open = match &read {
            Ok(count) => *count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        let count = read.unwrap_or(0);
        bytes.get(..count).unwrap_or_default().to_vec()
    }

    /// True if somebody had the port open at the last call of [`EmulatedPort::received`].
    pub const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Sends bytes. What does not fit is lost, as on a line that nobody reads.
    pub fn send(&mut self, bytes: &[u8]) {
        let Some(device_end) = &mut self.device_end else {
            return;
        };
        match device_end.try_write(bytes) {
            Ok(sent) if sent == bytes.len() => {}
            Ok(sent) => tracing::trace!(lost = bytes.len() - sent, "an emulated device sends faster than it is read"),
            Err(error) => tracing::trace!(%error, lost = bytes.len(), "nobody listens to an emulated device"),
        }
    }
}

impl Drop for EmulatedPort {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
