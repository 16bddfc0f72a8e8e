//! `vitalbridge emulate`: a device without the hardware, by its profile, with faults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::decode::{devices, find_profile};
use super::{CommandError, say};
use crate::clock::Clock;
use crate::emulator::machine::Totals;
use crate::emulator::scenario::{MAX_SCENARIO_BYTES, Scenario};
use crate::emulator::{self, EmulatorError, Port};
use crate::encode::Encoder;
use crate::logging;
use crate::profile::Profile;

/// The seed where neither the command line nor the scenario has one.
const USUAL_SEED: u64 = 1;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge emulate --profile nonin-df2 --pty /tmp/nonin\n\n\
    It prints the [[source]] to put into a configuration. Without --pty and --tcp the port is a link in the folder\n\
    for temporary files. The scenario begins when the port is first opened; docs/emulator.md describes its file.")]
pub(super) struct EmulateArgs {
    /// Id of a built-in profile (see `profile list`), or the path of a profile.
    #[arg(long, value_name = "ID|FILE.toml")]
    profile: String,
    /// Make the port a pseudo terminal behind this link.
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    pty: Option<PathBuf>,
    /// Make the port a TCP address, for example 127.0.0.1:4001; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    tcp: Option<SocketAddr>,
    /// Directory of further profiles [default: /etc/vitalbridge/devices, if it exists]
    #[arg(long, value_name = "DIR")]
    devices: Option<PathBuf>,
    /// What happens, and when (TOML); without it a calm patient for ever.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// The same seed gives the same patient and the same faults; goes before the scenario's own.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object when the port is ready, and one at the end.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: EmulateArgs) -> Result<(), CommandError> {
    logging::start("warn")?;
    let usage = |error: anyhow::Error| CommandError::Usage(format!("{error:#}"));
    let devices = devices(args.devices.as_deref()).map_err(usage)?;
    let profile = find_profile(&args.profile, &devices).map_err(usage)?;
    if profile.serial().is_none() {
        let reason = format!("profile {} is of a Bluetooth device: only serial ports are emulated", profile.id());
        return Err(CommandError::Usage(reason));
    }
    let encoder = Encoder::new(Arc::clone(&profile)).map_err(|error| CommandError::Usage(error.to_string()))?;
    let scenario = match &args.scenario {
        Some(path) => read_scenario(path, &encoder).map_err(usage)?,
        None => Scenario::default(),
    };
    let seed = args.seed.or(scenario.seed).unwrap_or(USUAL_SEED);
    let port = match (args.pty, args.tcp) {
        (_, Some(address)) => Port::Tcp(address),
        (Some(path), None) => Port::Pty(path),
        (None, None) => Port::Pty(std::env::temp_dir().join(format!("vitalbridge-{}", profile.id()))),
    };
    let totals = block_on(&profile, &port, scenario, seed, args.json)?;
    tell_end(&totals, args.json)?;
    Ok(())
}

fn read_scenario(path: &Path, encoder: &Encoder) -> anyhow::Result<Scenario> {
    let size = std::fs::metadata(path).with_context(|| format!("scenario {}", path.display()))?.len();
    anyhow::ensure!(
        usize::try_from(size).is_ok_and(|size| size <= MAX_SCENARIO_BYTES),
        "scenario {} has {size} bytes, at most {MAX_SCENARIO_BYTES}",
        path.display()
    );
    let text = std::fs::read_to_string(path).with_context(|| format!("scenario {}", path.display()))?;
    Scenario::parse(&text, encoder).map_err(|problems| anyhow::anyhow!("scenario {}:\n{problems}", path.display()))
}

fn block_on(
    profile: &Arc<Profile>,
    port: &Port,
    scenario: Scenario,
    seed: u64,
    json: bool,
) -> Result<Totals, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Whoever closed standard output does not want the lines.
        let on_ready = |address: &str| drop(tell_ready(profile, address, seed, json));
        let device = emulator::run(profile, port, scenario, seed, &Clock::System, &stop, on_ready);
        tokio::pin!(device);
        loop {
            tokio::select! {
                biased;
                // The device ended.
                ended = &mut device => return std::io::Result::Ok(ended),
                // Ctrl-C.
                _ = interrupt.recv() => stop.cancel(),
                // `kill`.
                _ = terminate.recv() => stop.cancel(),
            }
        }
    })?;
    ended.map_err(|error| match error {
        EmulatorError::Taken(_) | EmulatorError::Listen { .. } => CommandError::Usage(error.to_string()),
        EmulatorError::Pty(_) | EmulatorError::Encode(_) => anyhow::Error::from(error).into(),
    })
}

#[derive(Serialize)]
struct Ready<'r> {
    event: &'static str,
    profile: &'r str,
    port: &'r str,
    seed: u64,
}

fn tell_ready(profile: &Profile, port: &str, seed: u64, json: bool) -> std::io::Result<()> {
    if json {
        let ready = Ready { event: "ready", profile: profile.id(), port, seed };
        return say(&serde_json::to_string(&ready)?);
    }
    say(&format!("vitalbridge: emulates {} ({}), seed {seed}", profile.id(), profile.name()))?;
    say("vitalbridge: no real device and no real patient; for a configuration:\n")?;
    say(&format!(
        "[[source]]\nid = \"emulated\"\nkind = \"serial\"\nmode = \"test\"\nprofile = {:?}\nport = {port:?}\n",
        profile.id()
    ))?;
    say("vitalbridge: stop with Ctrl-C")
}

#[derive(Serialize)]
struct End<'e> {
    event: &'static str,
    #[serde(flatten)]
    totals: &'e Totals,
}

fn tell_end(totals: &Totals, json: bool) -> std::io::Result<()> {
    if json {
        return say(&serde_json::to_string(&End { event: "ended", totals })?);
    }
    let faults = totals.faults;
    say(&format!(
        "vitalbridge: sent {} frames; {} bytes dropped, {} flipped, {} frames doubled, {} bytes of garbage, \
         {} hang-ups; {} unknown bytes received",
        totals.frames,
        faults.dropped_bytes,
        faults.flipped_bytes,
        faults.duplicated_frames,
        faults.garbage_bytes,
        totals.hang_ups,
        totals.unknown_bytes
    ))
}
