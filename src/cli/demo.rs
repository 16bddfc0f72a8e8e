//! `vitalbridge demo`: the whole path with simulated patients, marked as demo everywhere.

use clap::Args;

use super::{CommandError, Place, reachable, run_daemon, say};
use crate::config::Config;
use crate::daemon::{Listening, Start};
use crate::logging;
use crate::server::codes::{Codes, random_code};

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge demo --listen 127.0.0.1:0")]
pub(super) struct DemoArgs {
    #[command(flatten)]
    place: Place,
    /// The same seed gives the same patients and events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: DemoArgs) -> Result<(), CommandError> {
    // The script pulls cables all the time; the page shows it, the terminal need not.
    logging::start("error")?;
    let (place, _scratch) = args.place.or_scratch()?;
    let config = Config::demo(args.seed, &place).map_err(anyhow::Error::from)?;
    let codes = Codes::Demo(random_code()?);
    run_daemon(Start { config, config_file: None, codes, on_listening })
}

pub(super) fn on_listening(listening: &Listening<'_>) {
    let Listening { address, codes: Codes::Demo(code), .. } = listening else { return };
    let shown = reachable(*address);
    for line in [
        "vitalbridge: no real patients are shown; not a medical device".to_owned(),
        format!("vitalbridge: listening on http://{address}"),
        format!("vitalbridge: sign in at http://{shown}/#code={}", code.expose()),
        "vitalbridge: stop with Ctrl-C".to_owned(),
    ] {
        // Whoever closed standard output does not want the lines.
        let _ = say(&line);
    }
}
