//! `vitalbridge buffer`: looks at what the store holds for the broker, whether the daemon runs or not.

mod export;
mod list;
mod replay;
mod status;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::CommandError;
use super::token::StateArgs;
use crate::clock::Wall;
use crate::config::Config;
use crate::ids::{Epoch, Seq};
use crate::store::{self, EpochInfo, Look, SeqRange};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vitalbridge buffer status\n  vitalbridge buffer ls --limit 20\n  \
                  vitalbridge buffer export --waiting --out waiting.ndjson\n  vitalbridge buffer verify\n  \
                  vitalbridge buffer replay k3f9a0b1:1042-1091\n\n\
                  All of them read the database beside a running daemon and change nothing in it.")]
pub(super) struct BufferArgs {
    #[command(subcommand)]
    command: BufferCommand,
}

#[derive(Debug, Subcommand)]
enum BufferCommand {
    /// What waits for the broker, how much room is left and for how long.
    Status(status::StatusArgs),
    /// The ranges of the log, what of them waits, what is missing and what the broker did not take.
    Ls(list::ListArgs),
    /// Write events of the log to a file or to standard output.
    Export(export::ExportArgs),
    /// Check the database and every row of the log; exit code 1 if something is wrong.
    Verify(verify::VerifyArgs),
    /// Send a range to the broker once more.
    Replay(replay::ReplayArgs),
}

pub(super) fn run(args: BufferArgs) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("cannot start the runtime"))?;
    match args.command {
        BufferCommand::Status(args) => runtime.block_on(status::run(&args)),
        BufferCommand::Ls(args) => runtime.block_on(list::run(&args)),
        BufferCommand::Export(args) => runtime.block_on(export::run(&args)),
        BufferCommand::Verify(args) => runtime.block_on(verify::run(&args)),
        BufferCommand::Replay(args) => runtime.block_on(replay::run(&args)),
    }
}

/// A store that is looked at, with what is known of it from the start.
struct Opened {
    config: Config,
    look: Look,
    runs: Vec<EpochInfo>,
    /// The newest number that was given; zero: nothing is in the log.
    newest: Seq,
    /// The oldest number in the log.
    oldest: Seq,
}

impl Opened {
    async fn open(state: &StateArgs) -> Result<Self, CommandError> {
        let config = state.config(None)?;
        let dir = config.state_dir.clone();
        let failed =
            || format!("there is no log to look at in {}; name its place by --config or --state-dir", dir.display());
        let look = store::look(&dir).with_context(failed)?;
        let runs = look.reader.epochs().await.map_err(anyhow::Error::from)?;
        let bounds = look.reader.bounds().await.map_err(anyhow::Error::from)?;
        let SeqRange { first: oldest, last: newest } = bounds.unwrap_or(SeqRange { first: Seq::ZERO, last: Seq::ZERO });
        Ok(Self { config, look, runs, newest, oldest })
    }

    /// The run that gave a number.
    fn epoch_of(&self, seq: Seq) -> Option<&Epoch> {
        let after_it = self.runs.partition_point(|run| run.first_seq <= seq);
        after_it.checked_sub(1).and_then(|place| self.runs.get(place)).map(|run| &run.epoch)
    }

    /// The numbers of the log that a run has given.
    fn numbers_of(&self, epoch: &Epoch) -> Option<SeqRange> {
        let place = self.runs.iter().position(|run| run.epoch == *epoch)?;
        let first = self.runs.get(place)?.first_seq;
        let last =
            self.runs.get(place.saturating_add(1)).map_or(self.newest, |next| Seq(next.first_seq.0.saturating_sub(1)));
        Some(SeqRange { first, last })
    }

    /// A range as somebody wrote it, if its run has given these numbers.
    fn checked(&self, range: &RangeArg) -> Result<SeqRange, CommandError> {
        let Some(given) = self.numbers_of(&range.epoch) else {
            let names: Vec<&str> = self.runs.iter().rev().take(5).map(|run| run.epoch.as_str()).collect();
            return Err(CommandError::Usage(format!(
                "there is no run {} in this log; the newest are {}; `vitalbridge buffer ls` lists them",
                range.epoch,
                names.join(", ")
            )));
        };
        if range.first < given.first || range.last > given.last {
            return Err(CommandError::Usage(format!(
                "{range} is not in the run {}, which has the numbers {} to {}",
                range.epoch, given.first, given.last
            )));
        }
        Ok(SeqRange { first: range.first, last: range.last })
    }
}

/// A range as people write it: `EPOCH:FIRST-LAST`, or `EPOCH:NUMBER` for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RangeArg {
    epoch: Epoch,
    first: Seq,
    last: Seq,
}

impl FromStr for RangeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is no range: write EPOCH:FIRST-LAST, such as k3f9a0b1:1042-1091");
        let (epoch, numbers) = text.rsplit_once(':').ok_or_else(problem)?;
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0).map(Seq);
        let (first, last) = number(first).zip(number(last)).ok_or_else(problem)?;
        if last < first {
            return Err(format!("`{text}` ends before it begins"));
        }
        Ok(Self { epoch: epoch.parse().map_err(|_| problem())?, first, last })
    }
}

impl fmt::Display for RangeArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.epoch, self.first, self.last)
    }
}

/// A time on the command line.
fn time(text: &str) -> Result<Wall, String> {
    Wall::parse(text).ok_or_else(|| "write a time as in 2026-11-20T22:00:00Z".to_owned())
}

/// `PATH` with another ending, beside it.
fn beside(path: &std::path::Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// An amount of bytes for people.
fn bytes(count: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let found = units.into_iter().find(|(power, _)| count >> power > 0);
    found.map_or_else(
        || format!("{count} B"),
        |(power, unit)| {
            let tenths = (u128::from(count) * 10) >> power;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        },
    )
}

/// A time span for people.
pub(crate) fn span(time: Duration) -> String {
    const HOUR: u64 = 3600;
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{} min", seconds / 60),
        seconds if seconds < 96 * HOUR => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / (24 * HOUR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_what_is_none_says_how_to_write_one() {
        let range = |text: &str| text.parse::<RangeArg>();
        let read = |text: &str| range(text).map(|range| (range.first.0, range.last.0)).ok();
        assert_eq!(
            (read("k3f9:7-9"), read("salvaged-0A1B:7"), read("k3f9:7-7")),
            (Some((7, 9)), Some((7, 7)), Some((7, 7)))
        );
        assert_eq!(range("k3f9:7-9").unwrap().to_string(), "k3f9:7-9");
        for bad in ["", "k3f9", "7-9", "k3f9:9-7", "k3f9:0-7", "k3f9:a-b", ":7-9", "k3f9:7-", "k 9:7-9"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_written_for_people() {
        let text = [0, 1023, 1024, 1_300_000, 5 << 30].map(bytes);
        assert_eq!(text, ["0 B", "1023 B", "1.0 KiB", "1.2 MiB", "5.0 GiB"]);
        let text = [5, 119, 7199, 86_400, 10 * 86_400].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(text, ["5 s", "119 s", "119 min", "24 h", "10 days"]);
    }
}
