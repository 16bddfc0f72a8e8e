//! `vitalbridge support-bundle`: one file for somebody who helps from afar.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, note, say};
use crate::config::Place;
use crate::support::{self, Wanted};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sudo vitalbridge support-bundle\n  sudo vitalbridge support-bundle --no-log --out /tmp/bundle.tar.gz\n\n\
                  It has the version, the configuration without what is private, what `doctor` finds, metrics, the size of the \
                  store, the\nservice's state and the newest lines of the journal: no readings, no names of patients, no secrets."
)]
pub(super) struct BundleArgs {
    /// The file to write [default: vitalbridge-support-TIME.tar.gz in this directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave the journal out.
    #[arg(long)]
    no_log: bool,
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vitalbridge/vitalbridge.toml")]
    config: PathBuf,
    /// The state directory, if the daemon's command line says so.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(args: BundleArgs) -> Result<(), CommandError> {
    let out = args.out.unwrap_or_else(support::default_name);
    let place = Place { listen: None, state_dir: args.state_dir };
    let wanted = Wanted { config: args.config, place, with_log: !args.no_log };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    let written = runtime.block_on(support::write(&wanted, &out));
    runtime.shutdown_background();
    written?;
    say(&out.display().to_string())?;
    note(
        "It has no names of patients, no readings and no secrets. Look through it all the same before you pass it on.",
    );
    Ok(())
}
