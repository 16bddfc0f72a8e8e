//! What systemd is told: ready, status, watchdog, stopping. Without systemd every call does nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// How often systemd wants to hear from us, if it does: half of `WatchdogSec=`.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Store and server are up. The broker is not waited for: offline it never comes.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    send(&[NotifyState::Status(line)]);
}

/// The pipeline has turned its loop and the writer has answered.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// An orderly end has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Where systemd-timesyncd says whether it has set the clock, if systemd runs us.
pub fn time_sync_directory() -> Option<&'static Path> {
    std::env::var_os("NOTIFY_SOCKET").map(|_| Path::new("/run/systemd/timesync"))
}

/// Where the credentials of the running service are, for commands that a person runs beside it.
const SERVICE_CREDENTIALS: &str = "/run/credentials/vitalbridge.service";

/// The file of a credential that the unit loads (`LoadCredential=NAME:...`, systemd.exec(5)): in the service it is in the
/// directory that systemd names, for a command beside it in that of the running service.
pub fn credential(name: &str) -> PathBuf {
    credential_in(std::env::var_os("CREDENTIALS_DIRECTORY"), name)
}

fn credential_in(directory: Option<OsString>, name: &str) -> PathBuf {
    directory.map_or_else(|| PathBuf::from(SERVICE_CREDENTIALS), PathBuf::from).join(name)
}

/// True for the file of a credential, whose owner and mode are systemd's.
pub fn is_credential(file: &Path) -> bool {
    file.starts_with(credential(""))
}

/// True for a command beside the service while that has no credentials: systemd takes their directory away when the unit
/// stops, so that nothing can be said about them.
pub fn credentials_are_away() -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_none()
        && matches!(Path::new(SERVICE_CREDENTIALS).try_exists(), Ok(false))
}

/// True if standard error is connected to the journal, which then wants structured fields instead of lines.
pub fn logs_to_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_where_systemd_says_or_where_the_service_has_it() {
        assert_eq!(credential_in(Some("/run/x".into()), "token.secret"), Path::new("/run/x/token.secret"));
        let beside = Path::new("/run/credentials/vitalbridge.service/token.secret");
        assert_eq!(credential_in(None, "token.secret"), beside);
    }
}
