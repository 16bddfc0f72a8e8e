//! `vitalbridge run`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Place, run_daemon, say};
use crate::config::Config;
use crate::daemon::Start;
use crate::logging;
use crate::server::codes::Codes;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge run --config /etc/vitalbridge/vitalbridge.toml")]
pub(super) struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vitalbridge/vitalbridge.toml")]
    config: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: RunArgs) -> Result<(), CommandError> {
    let place = args.place.into_config();
    let config = Config::load(&args.config, &place)?;
    logging::start(&config.log_filter)?;
    let codes = Codes::Directory(config.state_dir.clone());
    run_daemon(Start { config, config_file: Some((args.config, place)), codes, on_listening })
}

fn on_listening(address: SocketAddr, codes: &Codes) {
    let Codes::Directory(state) = codes else { return };
    // Standard output may be closed; the address is in the log too.
    let _ = say(&format!("vitalbridge: listening on http://{address}"));
    let _ = say(&format!("vitalbridge: to sign in, run: vitalbridge token code --state-dir {}", state.display()));
}
