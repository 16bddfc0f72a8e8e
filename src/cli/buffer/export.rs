//! `vitalbridge buffer export`: events of the log as lines of JSON, or readings as a table.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{Opened, RangeArg, beside, time};
use crate::cli::token::StateArgs;
use crate::cli::{CommandError, note};
use crate::clock::{Clock, Wall};
use crate::event::{Event, EventBody};
use crate::ids::Seq;
use crate::server::table;
use crate::store::ProvenRow;
use crate::uplink::Waiting;
use crate::wire;

/// Rows that are read at once.
const PAGE_ROWS: usize = 2000;

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Each event on a line of its own, in the form in which the broker gets it.
    Ndjson,
    /// The readings alone, as a table with a header (RFC 4180).
    Csv,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vitalbridge buffer export --waiting --out waiting.ndjson\n  \
                  vitalbridge buffer export --range k3f9a0b1:1042-1091\n  \
                  vitalbridge buffer export --from 2026-11-20T22:00:00Z --to 2026-11-21T06:00:00Z --format csv --out night.csv\n\n\
                  The file holds patients' data: it is made for its owner alone, and is complete or not there.")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Only this range.
    #[arg(long, value_name = "EPOCH:FROM-TO")]
    range: Option<RangeArg>,
    /// Only what was published from then on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Wall>,
    /// Only what was published before.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Wall>,
    /// Only what waits for the broker.
    #[arg(long)]
    waiting: bool,
    /// The form.
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Where to; without it, standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file if it is there.
    #[arg(long, requires = "out")]
    force: bool,
}

pub(super) async fn run(args: &ExportArgs) -> Result<(), CommandError> {
    let opened = Opened::open(&args.state).await?;
    let mut export = Export::new(args, &opened).await?;
    let Some(path) = &args.out else {
        let mut out = BufWriter::new(io::stdout().lock());
        export.write(&opened, &mut out).await?;
        out.flush()?;
        return export.end();
    };
    if path.exists() && !args.force {
        return Err(CommandError::Usage(format!("{} is there already; --force replaces it", path.display())));
    }
    let part = beside(path, ".part");
    let mut out = create(&part)?;
    let written = export.write(&opened, &mut out).await;
    let done = written.and_then(|()| {
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(std::fs::rename(&part, path)?)
    });
    if done.is_err() {
        // What is left of it is no export; that it cannot be removed changes nothing about that.
        let _ = std::fs::remove_file(&part);
    }
    done.with_context(|| format!("cannot write {}", path.display()))?;
    export.end()
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok(BufWriter::new(file.with_context(|| format!("cannot make {}", path.display()))?))
}

/// An export under way.
struct Export {
    format: Format,
    first: Seq,
    last: Seq,
    times: (Option<Wall>, Option<Wall>),
    /// Only what waits.
    waiting: Option<Waiting>,
    written: u64,
    unreadable: u64,
}

impl Export {
    async fn new(args: &ExportArgs, opened: &Opened) -> Result<Self, CommandError> {
        let reader = &opened.look.reader;
        let (mut first, mut last) = (opened.oldest, opened.newest);
        if let Some(range) = &args.range {
            let range = opened.checked(range)?;
            (first, last) = (range.first, range.last);
        }
        let mut waiting = None;
        if args.waiting {
            let now = Waiting::of(&reader.cursors().await.map_err(anyhow::Error::from)?, opened.newest);
            first = first.max(now.settled().next());
            waiting = Some(now);
        }
        let times = (args.from, args.to);
        Ok(Self { format: args.format, first, last, times, waiting, written: 0, unreadable: 0 })
    }

    /// Everything in pages, each from one state of the log, so that a running daemon is not held up.
    async fn write(&mut self, opened: &Opened, out: &mut impl Write) -> anyhow::Result<()> {
        if self.format == Format::Csv {
            out.write_all(&table::header())?;
        }
        let mut after = Seq(self.first.0.saturating_sub(1));
        let mut told = Clock::System.now().mono;
        loop {
            let rows = opened.look.reader.rows(after, self.last, PAGE_ROWS).await?;
            let Some(last) = rows.last().map(|row| row.seq) else { return Ok(()) };
            for row in &rows {
                self.write_row(opened, row, out)?;
            }
            after = last;
            let now = Clock::System.now().mono;
            if now.since(told) >= PROGRESS_EVERY {
                told = now;
                let (done, all) = (last.0.saturating_sub(self.first.0), self.last.0.saturating_sub(self.first.0));
                let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
                note(&format!("{percent} %: {} events written, at {last} of {}", self.written, self.last));
            }
        }
    }

    fn write_row(&mut self, opened: &Opened, row: &ProvenRow, out: &mut impl Write) -> anyhow::Result<()> {
        match &row.event {
            Ok(event) if self.wants(event) => {
                let line = match (self.format, &event.body) {
                    (Format::Ndjson, _) => {
                        let mut line = wire::upload(event, &opened.config.bridge, true)?.into_bytes();
                        line.push(b'\n');
                        line
                    }
                    (Format::Csv, EventBody::Reading(reading)) => table::row(event, reading),
                    (Format::Csv, _) => return Ok(()),
                };
                out.write_all(&line)?;
                self.written += 1;
            }
            Ok(_) => {}
            Err(reason) => {
                self.unreadable += 1;
                let epoch = row.epoch.as_ref().map_or("?", |epoch| epoch.as_str());
                note(&format!("left out: {epoch}:{} cannot be read: {reason}", row.seq));
            }
        }
        Ok(())
    }

    fn wants(&self, event: &Event) -> bool {
        let (from, to) = self.times;
        from.is_none_or(|from| event.at.wall >= from)
            && to.is_none_or(|to| event.at.wall < to)
            && self.waiting.as_ref().is_none_or(|waiting| waiting.has(event))
    }

    fn end(self) -> Result<(), CommandError> {
        note(&format!("{} events written.", self.written));
        if self.unreadable == 0 {
            return Ok(());
        }
        let reason = format!("{} events are left out because they cannot be read", self.unreadable);
        Err(CommandError::Unsound(reason))
    }
}
