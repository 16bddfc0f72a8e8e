//! The commands: arguments, and what each of them exits with.

mod alerts;
mod buffer;
mod check;
mod contract;
mod demo;
mod devices;
mod doctor;
mod emulate;
mod pair;
mod payload;
mod replay;
mod run;
mod scan;
mod skeleton;
mod support_bundle;
mod token;

pub mod decode;
pub mod profile;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use tempfile::TempDir;

use crate::bluez::{BluezError, Cause};
use crate::config::{self, ConfigError};
use crate::daemon::DaemonError;
use crate::host::reachable;

/// Exit codes, those of sysexits.h; systemd does not restart after 78.
pub mod exit {
    /// What was checked is not as it should be.
    pub const UNSOUND: u8 = 1;
    /// Wrong arguments.
    pub const USAGE: u8 = 64;
    /// Something that is needed is not there: bluetoothd, an adapter, the device.
    pub const UNAVAILABLE: u8 = 69;
    /// A part failed.
    pub const INTERNAL: u8 = 70;
    /// The operating system does not let us.
    pub const PERMISSION: u8 = 77;
    /// The configuration has errors, or the database is of a newer version: another try changes nothing.
    pub const CONFIG: u8 = 78;
}

/// Edge bridge for vital signs: BLE sensors and serial monitors to bedside dashboards and a cloud backend.
///
/// Not a medical device. Alerts are secondary: watch the patient and the primary monitor.
#[derive(Debug, Parser)]
#[command(name = "vitalbridge", version, after_help = "Try it: vitalbridge demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole path with a ward of simulated patients.
    Demo(demo::DemoArgs),
    /// Run the daemon with a configuration file.
    Run(run::RunArgs),
    /// Report every problem of a configuration, and the limits that are in force.
    Check(check::CheckArgs),
    /// Write the contract of the messages: JSON Schema, `AsyncAPI`, `TypeScript`.
    Contract(contract::Args),
    /// Make tokens and sign-in codes.
    Token(token::TokenArgs),
    /// Turn captured bytes into readings, one JSON line each.
    Decode(decode::Args),
    /// Device profiles: list, show, check, new.
    Profile(profile::Args),
    /// Try alert rules on recorded numerics.
    Alerts(alerts::AlertsArgs),
    /// Play recorded numerics (CSV) as a source in mode test.
    Replay(replay::ReplayArgs),
    /// Show which Bluetooth sensors are near, and the configuration lines that add them.
    Scan(scan::ScanArgs),
    /// Pair with a Bluetooth sensor that demands it, such as a cuff.
    Pair(pair::PairArgs),
    /// List or remove the Bluetooth devices that this machine knows.
    Devices(devices::DevicesArgs),
    /// Say what is the matter with this machine and its configuration, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Write one file for somebody who helps from afar, without patients and secrets.
    SupportBundle(support_bundle::BundleArgs),
    /// What waits for the broker: look at it, export it, check it, send it again.
    Buffer(buffer::BufferArgs),
    /// Be a serial device without the hardware, by its profile, with faults.
    Emulate(emulate::EmulateArgs),
}

/// Where the daemon listens and keeps its state; the same for `run`, `demo` and `replay`.
#[derive(Debug, Clone, Args)]
struct Place {
    /// Address of the dashboard, for example 127.0.0.1:8080; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Directory for the database, the token secret and the like.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Place {
    /// Without a state directory, one that goes when it is dropped: nothing of a demo or replay stays.
    fn or_scratch(self) -> io::Result<(config::Place, Option<TempDir>)> {
        let scratch = match self.state_dir {
            None => Some(tempfile::Builder::new().prefix("vitalbridge-").tempdir()?),
            Some(_) => None,
        };
        let state_dir = self.state_dir.or_else(|| scratch.as_ref().map(|dir| dir.path().to_owned()));
        Ok((config::Place { listen: self.listen, state_dir }, scratch))
    }

    fn into_config(self) -> config::Place {
        config::Place { listen: self.listen, state_dir: self.state_dir }
    }
}

/// Why a command ended badly, with its exit code.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{0}")]
    Usage(String),
    /// What a person wrote, a configuration or a profile, has problems: all of them.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Bluez(#[from] BluezError),
    #[error("{0}")]
    Unavailable(String),
    /// What was looked at is not as it should be.
    #[error("{0}")]
    Unsound(String),
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Daemon(error.into())
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        anyhow::Error::from(error).into()
    }
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            // Somebody changes its owner, and the next try of systemd is good.
            Self::Config(ConfigError::Unreadable { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
                exit::PERMISSION
            }
            Self::Usage(_) | Self::Bluez(BluezError { cause: Cause::Ambiguous(_), .. }) => exit::USAGE,
            Self::Refused(_) | Self::Config(_) | Self::Daemon(DaemonError::Newer(_)) => exit::CONFIG,
            Self::Daemon(DaemonError::Permission(_))
            | Self::Bluez(BluezError { cause: Cause::AccessDenied(_), .. }) => exit::PERMISSION,
            Self::Daemon(DaemonError::Internal(_)) => exit::INTERNAL,
            Self::Bluez(_) | Self::Unavailable(_) => exit::UNAVAILABLE,
            Self::Unsound(_) => exit::UNSOUND,
        }
    }
}

/// The whole command line, for its manual pages and shell completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are what was asked for; anything else is a wrong call. A closed pipe cannot be told.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(&args),
        Command::Contract(args) => taken(contract::run(&args, &mut io::stdout().lock())),
        Command::Token(args) => token::run(args),
        Command::Decode(args) => {
            let (mut input, mut out) = (io::stdin().lock(), io::stdout().lock());
            taken(decode::run(&args, &mut input, &mut out, &mut io::stderr()))
        }
        Command::Profile(args) => taken(profile::run(&args, &mut io::stdout().lock(), &mut io::stderr())),
        Command::Alerts(args) => alerts::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Scan(args) => scan::run(&args),
        Command::Pair(args) => pair::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Buffer(args) => buffer::run(args),
        Command::Emulate(args) => emulate::run(args),
        Command::SupportBundle(args) => support_bundle::run(args),
        Command::Doctor(args) => return ended(doctor::run(&args)),
    };
    ended(done.map(|()| ExitCode::SUCCESS))
}

/// The exit code of a command, and what it says about its failure.
fn ended(done: Result<ExitCode, CommandError>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(CommandError::Daemon(DaemonError::Internal(error))) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if standard error is closed.
            let _ = writeln!(io::stderr(), "vitalbridge: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// An error of a command that reads what a person hands to it.
fn taken(done: anyhow::Result<()>) -> Result<(), CommandError> {
    done.map_err(|error| {
        if is_closed_pipe(&error) {
            CommandError::Daemon(error.into())
        } else if error.is::<profile::Refused>() {
            CommandError::Refused(error.to_string())
        } else {
            CommandError::Usage(format!("{error:#}"))
        }
    })
}

/// True if whoever read the output has closed it: that person has seen enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One line on standard output, at once, for people and for programs that wait for it.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A line for the person who waits, beside the result; nothing is lost if nobody reads it.
fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Runs a command that talks to BlueZ. What is still going on when it returns, such as a wait for the terminal, is left.
fn with_bluez(work: impl AsyncFnOnce() -> Result<(), CommandError>) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    let done = runtime.block_on(work());
    runtime.shutdown_background();
    done
}

/// Starts the runtime and runs the daemon to its end.
fn run_daemon(start: crate::daemon::Start) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    let ended = runtime.block_on(crate::daemon::run(start));
    // A library's blocking call that hangs (D-Bus, a dead disk) must not keep the process.
    runtime.shutdown_timeout(crate::daemon::RUNTIME_STOP);
    Ok(ended?)
}
