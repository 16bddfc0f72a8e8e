//! Where a monitor is: a serial port of this machine, or a TCP port that carries one.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the monitor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SerialPort {
    /// A port of this machine, best by its stable name under `/dev/serial/by-id`.
    Path(PathBuf),
    /// A serial server (ser2net and its like), raw TCP.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

impl fmt::Display for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

/// Why a text is not the place of a serial port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a port: write a path such as /dev/serial/by-id/..., or tcp://host:port")]
pub struct BadPort(String);

impl FromStr for SerialPort {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = || BadPort(text.to_owned());
        if let Some(server) = text.strip_prefix("tcp://") {
            let (host, port) = server.rsplit_once(':').ok_or_else(bad)?;
            let port = port.parse().map_err(|_| bad())?;
            return if host.is_empty() || port == 0 {
                Err(bad())
            } else {
                Ok(Self::Tcp { host: host.to_owned(), port })
            };
        }
        if text.starts_with('/') { Ok(Self::Path(PathBuf::from(text))) } else { Err(bad()) }
    }
}
