//! Opens a port: for this process alone, with the line settings of the profile, and without what was received before.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_serial::{ClearBuffer, DataBits, ErrorKind, FlowControl, SerialPort as _, SerialStream, StopBits};
use tokio_util::either::Either;

use crate::profile::model::{Dtr, Flow, LineSettings, Parity};
use crate::sources::SourceError;

use super::console::System;
use super::{SerialConfig, SerialPort};

/// How long a TCP connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A port that is open.
pub(super) type Port = Either<SerialStream, TcpStream>;
/// Opens the port for this process alone and throws away what was received before.
pub(super) async fn open(config: &SerialConfig, settings: Option<LineSettings>) -> Result<Port, SourceError> {
    let port = || config.port.to_string();
    match (&config.port, settings) {
        (SerialPort::Tcp { host, port: number }, _) => {
            let connect = TcpStream::connect((host.as_str(), *number));
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                .map_err(|error| SourceError::Open { port: port(), reason: error.to_string() })?;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(port = %config.port, %error, "short commands may be delayed");
            }
            Ok(Either::Right(stream))
        }
        (SerialPort::Path(path), Some(settings)) => {
            // It looks at every process of the machine.
            let looked_at = path.clone();
            let console = tokio::task::spawn_blocking(move || System::default().console_at(&looked_at)).await;
            let console = console.map_err(|error| SourceError::Open { port: port(), reason: error.to_string() })?;
            if let Some(reason) = console {
                return Err(SourceError::Open { port: port(), reason });
            }
            let mut builder = tokio_serial::new(path.to_string_lossy(), settings.baud)
                .data_bits(if settings.data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
                .parity(match settings.parity {
                    Parity::None => tokio_serial::Parity::None,
                    Parity::Odd => tokio_serial::Parity::Odd,
                    Parity::Even => tokio_serial::Parity::Even,
                })
                .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })
                // Never XON/XOFF: it eats the data bytes 0x11 and 0x13.
                .flow_control(match config.profile.serial().map(|serial| serial.flow) {
                    Some(Flow::Rtscts) => FlowControl::Hardware,
                    Some(Flow::None) | None => FlowControl::None,
                });
            if let Some(dtr) = config.profile.serial().and_then(|serial| serial.dtr) {
                builder = builder.dtr_on_open(dtr == Dtr::On);
            }
            let stream = SerialStream::open(&builder).map_err(|error| match error.kind {
                // Another process holds TIOCEXCL (EBUSY) or the lock on the file.
                ErrorKind::NoDevice => SourceError::InUse { port: port() },
                _ => SourceError::Open { port: port(), reason: error.to_string() },
            })?;
            if let Err(error) = stream.clear(ClearBuffer::Input) {
                tracing::debug!(port = %config.port, %error, "what was received before cannot be thrown away");
            }
            Ok(Either::Left(stream))
        }
        (SerialPort::Path(_), None) => Err(SourceError::NoSerialLine { profile: config.profile.id().to_owned() }),
    }
}
