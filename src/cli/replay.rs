//! `vitalbridge replay`: plays recorded numerics as a source in mode test.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Place, run_daemon};
use crate::config::Config;
use crate::daemon::Start;
use crate::logging;
use crate::server::codes::{Codes, random_code};
use crate::sources::replay::{Recording, Speed};

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge replay numerics.csv --speed 60\n\n\
    The first column is `minute` or `t_s`; the others are HR, PULSE, RESP, SpO2, NBPSys, NBPDias, NBPMean, ABPSys,\n\
    ABPDias, ABPMean. Empty and 0 are no data. A row holds until the next row's time.")]
pub(super) struct ReplayArgs {
    /// The recording.
    file: PathBuf,
    /// Seconds of the recording in one second.
    #[arg(long, default_value = "1", value_parser = speed)]
    speed: Speed,
    #[command(flatten)]
    place: Place,
}

fn speed(text: &str) -> Result<Speed, String> {
    text.parse().ok().and_then(Speed::new).ok_or_else(|| "a number from 0.01 to 86400".to_owned())
}

pub(super) fn run(args: ReplayArgs) -> Result<(), CommandError> {
    logging::start("info")?;
    // A recording that cannot be played is said here, not tried again for ever by the source.
    let refuse = |error: &dyn std::fmt::Display| CommandError::Usage(format!("{}: {error}", args.file.display()));
    let csv = std::fs::read(&args.file).map_err(|error| refuse(&error))?;
    Recording::new(csv).map_err(|error| refuse(&error))?;
    let (place, _scratch) = args.place.or_scratch()?;
    let config = Config::replay(args.file, args.speed, &place);
    let codes = Codes::Demo(random_code()?);
    run_daemon(Start { config, config_file: None, codes, on_listening: super::demo::on_listening })
}
