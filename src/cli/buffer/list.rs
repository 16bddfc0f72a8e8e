//! `vitalbridge buffer ls`: the log in ranges, what of them waits, what is missing, and what the broker did not take.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::Opened;
use crate::cli::token::StateArgs;
use crate::cli::{CommandError, say};
use crate::ids::{Epoch, Seq};
use crate::store::{Rows, SeqRange};
use crate::uplink::Waiting;

/// Parked rows of one page that are listed.
const MAX_PARKED_SHOWN: usize = 1000;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge buffer ls --after 43200 --limit 20\n\n\
                  A range ends where a run of the daemon ends, where something begins or ends to wait, and at a hole.")]
pub(super) struct ListArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Go on after this number: the `next` of the page before.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Most ranges of a page.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Print the page as JSON.
    #[arg(long)]
    json: bool,
}

/// One line of the list, by its first number.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    /// Numbers that share one state.
    Range {
        epoch: Option<Epoch>,
        first_seq: Seq,
        last_seq: Seq,
        readings: u64,
        others: u64,
        readings_wait: bool,
        others_wait: bool,
        oldest: Option<String>,
        newest: Option<String>,
    },
    /// Numbers that were given and never stored.
    Hole { epoch: Option<Epoch>, first_seq: Seq, last_seq: Seq },
    /// A row that the broker did not take.
    Parked { epoch: Option<Epoch>, seq: Seq, lane: String, at: String, reason: String },
}

impl Entry {
    const fn first(&self) -> Seq {
        match self {
            Self::Range { first_seq: seq, .. } | Self::Hole { first_seq: seq, .. } | Self::Parked { seq, .. } => *seq,
        }
    }
}

#[derive(Debug, Serialize)]
struct Page {
    entries: Vec<Entry>,
    /// `--after` of the next page; `null`: this is the last.
    next: Option<Seq>,
}

pub(super) async fn run(args: &ListArgs) -> Result<(), CommandError> {
    let opened = Opened::open(&args.state).await?;
    let page = page(&opened, Seq(args.after), usize::try_from(args.limit).unwrap_or(usize::MAX)).await?;
    if args.json {
        return Ok(say(&serde_json::to_string(&page).map_err(anyhow::Error::from)?)?);
    }
    if page.entries.is_empty() {
        say("There is nothing in the log after this number.")?;
    }
    for entry in &page.entries {
        say(&line(entry))?;
    }
    if let Some(next) = page.next {
        say(&format!("More: vitalbridge buffer ls --after {next}"))?;
    }
    Ok(())
}

async fn page(opened: &Opened, after: Seq, limit: usize) -> anyhow::Result<Page> {
    let reader = &opened.look.reader;
    let waiting = Waiting::of(&reader.cursors().await?, opened.newest);
    let holes = reader.holes(after, limit).await?;
    let borders = borders(opened, &waiting, &holes);
    let mut entries = Vec::new();
    let mut first = after.next().max(opened.oldest);
    // Of holes only as many are known as a page has.
    let known = if holes.len() == limit { holes.last().map_or(opened.newest, |hole| hole.last) } else { opened.newest };
    while first > Seq::ZERO && first <= known && entries.len() < limit {
        let next = borders.range(first.next()..).next().copied().unwrap_or(opened.newest.next());
        let last = Seq(next.0.saturating_sub(1)).min(opened.newest);
        let epoch = opened.epoch_of(first).cloned();
        if holes.iter().any(|hole| hole.first <= first && last <= hole.last) {
            entries.push(Entry::Hole { epoch, first_seq: first, last_seq: last });
        } else {
            let before = Seq(first.0.saturating_sub(1));
            let readings = reader.count(Rows::Readings, before, last).await?;
            let urgent = reader.count(Rows::Urgent, before, last).await?;
            let unhurried = reader.count(Rows::Unhurried, before, last).await?;
            let others = urgent.and(unhurried);
            let both = readings.and(others);
            if both.rows > 0 {
                entries.push(Entry::Range {
                    epoch,
                    first_seq: first,
                    last_seq: last,
                    readings: readings.rows,
                    others: others.rows,
                    readings_wait: readings.rows > 0 && waiting.has_reading(first),
                    others_wait: (urgent.rows > 0 && first > waiting.urgent)
                        || (unhurried.rows > 0 && first > waiting.others),
                    oldest: both.times.map(|(oldest, _)| oldest.to_string()),
                    newest: both.times.map(|(_, newest)| newest.to_string()),
                });
            }
        }
        first = last.next();
    }
    let through = Seq(first.0.saturating_sub(1));
    for row in reader.parked(after, through, MAX_PARKED_SHOWN).await? {
        let epoch = opened.epoch_of(row.seq).cloned();
        entries.push(Entry::Parked { epoch, seq: row.seq, lane: row.lane, at: row.at.to_string(), reason: row.reason });
    }
    entries.sort_by_key(Entry::first);
    Ok(Page { entries, next: (through < opened.newest).then_some(through) })
}

/// The numbers at which a range begins.
fn borders(opened: &Opened, waiting: &Waiting, holes: &[SeqRange]) -> BTreeSet<Seq> {
    let runs = opened.runs.iter().map(|run| run.first_seq);
    let holes = holes.iter().flat_map(|hole| [hole.first, hole.last.next()]);
    runs.chain(waiting.borders()).chain(holes).collect()
}

fn line(entry: &Entry) -> String {
    let name = |epoch: &Option<Epoch>| epoch.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    match entry {
        Entry::Range { epoch, first_seq, last_seq, readings, others, readings_wait, others_wait, oldest, newest } => {
            let state = |waits: bool| if waits { "wait" } else { "settled" };
            let times = oldest.as_deref().zip(newest.as_deref());
            let times = times.map(|(oldest, newest)| format!("  {oldest} to {newest}")).unwrap_or_default();
            format!(
                "{}:{first_seq}-{last_seq}  {readings} readings {}, {others} others {}{times}",
                name(epoch),
                state(*readings_wait),
                state(*others_wait)
            )
        }
        Entry::Hole { epoch, first_seq, last_seq } => {
            format!("{}:{first_seq}-{last_seq}  hole: these were given and never stored", name(epoch))
        }
        Entry::Parked { epoch, seq, lane, at, reason } => {
            format!("{}:{seq}  parked since {at} on the lane {lane}: {reason}", name(epoch))
        }
    }
}
