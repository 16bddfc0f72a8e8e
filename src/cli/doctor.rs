//! `vitalbridge doctor`: what is the matter, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{CommandError, say};
use crate::config::Place;
use crate::doctor::{self, Level, Report};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sudo vitalbridge doctor\n  vitalbridge doctor --json --config vitalbridge.toml\n\nExits with 0 if all is \
                  well, 1 with warnings, 2 with errors. The daemon may run or not. Run it as root: others see less."
)]
pub(super) struct DoctorArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vitalbridge/vitalbridge.toml")]
    config: PathBuf,
    /// The state directory, if the daemon's command line says so.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, CommandError> {
    let place = Place { listen: None, state_dir: args.state_dir.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    let report = runtime.block_on(doctor::examine(&args.config, &place));
    // What hangs on a dead disk or bus is left behind.
    runtime.shutdown_background();
    if args.json {
        say(&serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?)?;
    } else {
        show(&report)?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn show(report: &Report) -> io::Result<()> {
    for finding in &report.findings {
        let level = if finding.level == Level::Skipped { "-" } else { finding.level.name() };
        say(&format!("{level:<8} {:<14} {}", finding.area.name(), finding.message))?;
        if let Some(advice) = &finding.advice {
            say(&format!("{:<23} -> {advice}", ""))?;
        }
    }
    let count = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let daemon = report.daemon.map_or("it does not run".to_owned(), |pid| format!("it runs (process {pid})"));
    say(&format!("\nThe daemon: {daemon}. {errors} errors, {warnings} warnings."))
}
