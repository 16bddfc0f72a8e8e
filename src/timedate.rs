//! Whether a time server has set the clock, as the operating system tells over D-Bus. The system call that would tell more is
//! forbidden to a hardened service.

use std::time::Duration;

use zbus::{Connection, Variant};

/// The service of systemd that knows, and what it is started for if it does not run. It is told what the kernel knows, so it
/// is right for every program that follows a time server.
const NAME: &str = "org.freedesktop.timedate1";
const PATH: &str = "/org/freedesktop/timedate1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long the bus may take to be reached, and the service to start and answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the service; a connection that works is kept.
#[derive(Debug, Default)]
pub struct TimeDate {
    /// `None`: the system bus.
    address: Option<String>,
    connection: Option<Connection>,
}

impl TimeDate {
    /// On the system bus, or on another one.
    pub const fn on(address: Option<String>) -> Self {
        Self { address, connection: None }
    }

    /// Whether a time server has set the clock. `None`: nobody answers.
    pub async fn is_synchronised(&mut self) -> Option<bool> {
        let answer = tokio::time::timeout(LIMIT, self.ask()).await.ok().and_then(Result::ok);
        if answer.is_none() {
            self.connection = None;
        }
        answer
    }

    async fn ask(&mut self) -> zbus::Result<bool> {
        let connection = if let Some(connection) = &self.connection {
            connection
        } else {
            let builder = match &self.address {
                Some(address) => zbus::connection::Builder::address(address.as_str()),
                None => zbus::connection::Builder::system(),
            };
            self.connection.insert(builder.build().await?)
        };
        let body = (NAME, "NTPSynchronized");
        let reply = connection.call_method(Some(NAME), PATH, Some(PROPERTIES), "Get", &body).await?;
        let body = reply.body();
        match body.deserialize::<Variant<'_>>()? {
            Variant::Bool(synchronised) => Ok(synchronised),
            other => Err(zbus::Error::Failure(format!("NTPSynchronized is {other:?}"))),
        }
    }
}
