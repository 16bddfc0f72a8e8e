//! `vitalbridge buffer verify`: whether the database and every row of the log are whole.

use clap::Args;
use serde::Serialize;

use super::{Opened, RangeArg};
use crate::cli::token::StateArgs;
use crate::cli::{CommandError, note, say};
use crate::ids::Seq;
use crate::store::SeqRange;

/// Rows that are read at once.
const PAGE_ROWS: usize = 2000;

/// Findings of one kind that are told one by one; the others are counted.
const MAX_TOLD: usize = 1000;

/// How often progress is told, in rows.
const PROGRESS_EVERY: u64 = 200_000;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge buffer verify --json\n\n\
                  Exit code 0: whole; 1: something is wrong, and named. Holes that the bridge noted itself, because its queue was\n\
                  full, are told and are no fault of the log.")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Verdict {
    ok: bool,
    /// Rows that were read.
    rows: u64,
    /// What SQLite found in the file.
    damage: Vec<String>,
    /// What the tables say against each other.
    findings: Vec<String>,
    /// Rows that make no event.
    undecodable: Vec<BadRow>,
    undecodable_rows: u64,
    /// Numbers that are missing without a reason.
    gaps: Vec<Missing>,
    gap_count: u64,
    /// Numbers that were given and never stored, as the bridge has noted.
    holes: Vec<Missing>,
    hole_count: u64,
}

#[derive(Debug, Serialize)]
struct BadRow {
    epoch: Option<String>,
    seq: Seq,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    epoch: Option<String>,
    first_seq: Seq,
    last_seq: Seq,
}

pub(super) async fn run(args: &VerifyArgs) -> Result<(), CommandError> {
    let opened = Opened::open(&args.state).await?;
    let verdict = verify(&opened).await?;
    if args.json {
        say(&serde_json::to_string(&verdict).map_err(anyhow::Error::from)?)?;
    } else {
        print(&verdict)?;
    }
    if verdict.ok {
        Ok(())
    } else {
        Err(CommandError::Unsound("the log is not whole; what is wrong is named above".to_owned()))
    }
}

async fn verify(opened: &Opened) -> anyhow::Result<Verdict> {
    let reader = &opened.look.reader;
    let proof = reader.prove().await?;
    let mut verdict = Verdict { damage: proof.damage, findings: proof.findings, ..Verdict::default() };
    let name = |seq: Seq| opened.epoch_of(seq).map(ToString::to_string);
    let missing = |range: &SeqRange| Missing { epoch: name(range.first), first_seq: range.first, last_seq: range.last };
    let (mut after, mut told) = (Seq::ZERO, 0);
    loop {
        let page = match reader.proven(after, opened.newest, PAGE_ROWS).await {
            Ok(page) => page,
            Err(error) => {
                verdict.damage.push(format!("after event {after}: {error}"));
                break;
            }
        };
        let Some(last) = page.rows.last().map(|row| row.seq) else { break };
        verdict.rows += u64::try_from(page.rows.len()).unwrap_or(0);
        for row in &page.rows {
            if let Err(reason) = &row.event {
                verdict.undecodable_rows += 1;
                if verdict.undecodable.len() < MAX_TOLD {
                    let epoch = row.epoch.as_ref().map(ToString::to_string);
                    verdict.undecodable.push(BadRow { epoch, seq: row.seq, reason: reason.clone() });
                }
            }
        }
        verdict.gap_count += u64::try_from(page.gaps.len()).unwrap_or(0);
        verdict.gaps.extend(page.gaps.iter().map(missing));
        verdict.gaps.truncate(MAX_TOLD);
        verdict.hole_count += u64::try_from(page.holes.len()).unwrap_or(0);
        verdict.holes.extend(page.holes.iter().map(missing));
        verdict.holes.truncate(MAX_TOLD);
        after = last;
        if verdict.rows / PROGRESS_EVERY > told {
            told = verdict.rows / PROGRESS_EVERY;
            note(&format!("{} rows read, at event {after} of {}", verdict.rows, opened.newest));
        }
    }
    verdict.ok = verdict.damage.is_empty()
        && verdict.findings.is_empty()
        && verdict.undecodable_rows == 0
        && verdict.gap_count == 0;
    Ok(verdict)
}

fn print(verdict: &Verdict) -> Result<(), CommandError> {
    let range = |missing: &Missing| match &missing.epoch {
        Some(epoch) => match epoch.parse() {
            Ok(epoch) => RangeArg { epoch, first: missing.first_seq, last: missing.last_seq }.to_string(),
            Err(_) => format!("{}-{}", missing.first_seq, missing.last_seq),
        },
        None => format!("{}-{}", missing.first_seq, missing.last_seq),
    };
    for line in &verdict.damage {
        say(&format!("damaged: {line}"))?;
    }
    for line in &verdict.findings {
        say(&format!("wrong: {line}"))?;
    }
    for row in &verdict.undecodable {
        let epoch = row.epoch.as_deref().unwrap_or("?");
        say(&format!("unreadable: {epoch}:{}: {}", row.seq, row.reason))?;
    }
    for gap in &verdict.gaps {
        say(&format!("missing: {}: no row, and no reason for it", range(gap)))?;
    }
    for hole in &verdict.holes {
        say(&format!("noted hole: {}: given and never stored", range(hole)))?;
    }
    let word = if verdict.ok { "whole" } else { "NOT whole" };
    Ok(say(&format!(
        "The log is {word}: {} rows read, {} unreadable, {} gaps, {} noted holes.",
        verdict.rows, verdict.undecodable_rows, verdict.gap_count, verdict.hole_count
    ))?)
}
