//! `vitalbridge run`: the daemon.

use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Place, run_daemon, say};
use crate::config::{Config, Devices};
use crate::daemon::{Listening, Start};
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
    tell_profiles(&config.devices);
    let codes = Codes::Directory(config.state_dir.clone());
    run_daemon(Start { config, config_file: Some((args.config, place)), codes, on_listening })
}

/// Which built-in profiles are replaced, and which files are broken: those stop the sources that name them, no others.
fn tell_profiles(devices: &Devices) {
    for own in devices.replacing() {
        tracing::info!(profile = %own.id, file = %own.file.display(), "a built-in profile is replaced");
    }
    for problem in devices.problems() {
        tracing::error!(%problem, "a profile cannot be used");
    }
}

fn on_listening(listening: &Listening<'_>) {
    // Standard output may be closed; the address is in the log too.
    let _ = say(&format!("vitalbridge: listening on {}://{}", listening.scheme(), listening.address));
    if let Some(fingerprint) = listening.fingerprint {
        let _ = say(&format!("vitalbridge: certificate SHA-256 {fingerprint}"));
    }
    let _ = say(&format!("vitalbridge: to sign in, run: {}", sign_in_command(listening)));
}

/// The command that finds the same secret, state directory and address as this run.
fn sign_in_command(listening: &Listening<'_>) -> String {
    let mut command = "vitalbridge token code".to_owned();
    let mut add = |option: &str, value: &dyn Display| {
        // Writing to a String cannot fail.
        let _ = write!(command, " {option} {value}");
    };
    let Some((file, place)) = listening.config_file else { return command };
    add("--config", &file.display());
    if let Some(state_dir) = &place.state_dir {
        add("--state-dir", &state_dir.display());
    }
    if place.listen.is_some() {
        add("--listen", &listening.address);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_command_to_sign_in_names_what_the_run_was_started_with() {
        let codes = Codes::Directory("/var/lib/vb".into());
        let address = "127.0.0.1:39481".parse().unwrap();
        let (state_dir, listen) = (Some(PathBuf::from("/var/lib/vb")), Some("127.0.0.1:0".parse().unwrap()));
        for (place, expected) in [
            (config::Place::default(), "vitalbridge token code --config /etc/b.toml"),
            (
                config::Place { listen, state_dir },
                "vitalbridge token code --config /etc/b.toml --state-dir /var/lib/vb --listen 127.0.0.1:39481",
            ),
        ] {
            let config_file = Some((PathBuf::from("/etc/b.toml"), place));
            let listening = Listening { address, codes: &codes, fingerprint: None, config_file: config_file.as_ref() };
            assert_eq!(sign_in_command(&listening), expected);
        }
    }
}
