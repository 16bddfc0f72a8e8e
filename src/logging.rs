//! Where log lines go: structured fields to the journal under systemd, else lines on standard error.

mod journal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::systemd;

/// Logged if neither the configuration nor `VITALBRIDGE_LOG` says otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// The variable that overrides the configuration's filter.
const FILTER_VARIABLE: &str = "VITALBRIDGE_LOG";

/// Starts logging. `filter` has the form `info,vitalbridge::sources=debug`.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    if systemd::logs_to_journal()
        && let Ok(journal) = journal::Journal::connect()
    {
        registry.with(journal).try_init()?;
        return Ok(());
    }
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    registry.with(lines).try_init()?;
    Ok(())
}

/// True for a filter that [`start`] takes.
pub fn is_filter(filter: &str) -> bool {
    EnvFilter::try_new(filter).is_ok()
}
