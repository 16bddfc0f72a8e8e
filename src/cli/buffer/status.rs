//! `vitalbridge buffer status`: what waits for the broker in each lane, and how long the room lasts.

use clap::Args;
use serde::Serialize;

use super::{Opened, bytes, span};
use crate::cli::token::StateArgs;
use crate::cli::{CommandError, say};
use crate::clock::Clock;
use crate::daemon::resending::{Order, OrderFile};
use crate::ids::Seq;
use crate::store::{Counted, ParkedRange, Room, Rows, SeqRange};
use crate::uplink::Waiting;
use crate::uplink::plan::{HOLDING, Lane};

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge buffer status --json")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// What is told. Times are those at which rows were published; bytes are a lane's share of the database.
#[derive(Debug, Serialize)]
struct Status {
    state_dir: String,
    /// A daemon works there.
    running: bool,
    pid: Option<u32>,
    broker: Option<String>,
    newest_seq: Seq,
    lanes: Vec<LaneNow>,
    /// Rows that the broker did not take.
    parked: u64,
    /// Of these, those that `ls` does not list one by one.
    parked_ranges: Vec<ParkedNow>,
    /// Ranges that are ordered to be sent again and that are not sent yet.
    ordered: usize,
    used_bytes: u64,
    max_bytes: u64,
    disk_free_bytes: u64,
    /// Bytes that can be written before rows are lost.
    free_bytes: u64,
    bytes_a_row: Option<u64>,
    rows_lately: u64,
    lately_seconds: Option<u64>,
    /// `null`: unknown.
    buffer_seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LaneNow {
    lane: &'static str,
    rows: u64,
    bytes: u64,
    first_seq: Option<Seq>,
    last_seq: Option<Seq>,
    oldest: Option<String>,
    newest: Option<String>,
}

/// Parked rows of which only the range is remembered.
#[derive(Debug, Serialize)]
struct ParkedNow {
    first_seq: Seq,
    last_seq: Seq,
    /// At most.
    rows: u64,
    /// They have left the log.
    gone: bool,
}

pub(super) async fn run(args: &StatusArgs) -> Result<(), CommandError> {
    let opened = Opened::open(&args.state).await?;
    let (status, room) = gather(&opened).await?;
    if args.json {
        return Ok(say(&serde_json::to_string(&status).map_err(anyhow::Error::from)?)?);
    }
    print(&status, &room)
}

async fn gather(opened: &Opened) -> anyhow::Result<(Status, Room)> {
    let Opened { config, look, newest, .. } = opened;
    let reader = &look.reader;
    let cursors = reader.cursors().await?;
    let waiting = Waiting::of(&cursors, *newest);
    // Without a broker nothing waits for one; the cursors of an earlier configuration say that there was one.
    let is_fed = config.broker.is_some() || HOLDING.iter().any(|name| cursors.contains_key(*name));
    let held = if is_fed { waiting.settled() } else { *newest };
    let now = look.owner.is_some().then(|| Clock::System.now());
    let room = reader.room(config.store_options().max_bytes, held, now).await?;
    let mut lanes = Vec::new();
    if is_fed {
        let alerts = reader.count(Rows::Urgent, waiting.urgent, *newest).await?;
        let others = reader.count(Rows::Unhurried, waiting.others, *newest).await?;
        let live = reader.count(Rows::Readings, waiting.live, *newest).await?;
        let mut backlog = Counted::default();
        for (after, through) in &waiting.backlog {
            backlog = backlog.and(reader.count(Rows::Readings, *after, *through).await?);
        }
        let lanes_now = [(Lane::Alerts, alerts), (Lane::Live, live), (Lane::Others, others), (Lane::Backlog, backlog)];
        for (lane, counted) in lanes_now {
            lanes.push(LaneNow {
                lane: lane.name(),
                rows: counted.rows,
                bytes: counted.rows.saturating_mul(room.bytes_a_row.unwrap_or(0)),
                first_seq: counted.range.map(|range| range.first),
                last_seq: counted.range.map(|range| range.last),
                oldest: counted.times.map(|(oldest, _)| oldest.to_string()),
                newest: counted.times.map(|(_, newest)| newest.to_string()),
            });
        }
    }
    let status = Status {
        state_dir: config.state_dir.display().to_string(),
        running: look.owner.is_some(),
        pid: look.owner.and_then(|owner| owner.pid),
        broker: config.broker.as_ref().map(|broker| broker.address.to_string()),
        newest_seq: *newest,
        lanes,
        parked: reader.count_parked().await?,
        parked_ranges: reader.parked_ranges().await?.into_iter().map(ParkedNow::of).collect(),
        ordered: ordered(opened).await?,
        used_bytes: room.used_bytes,
        max_bytes: room.max_bytes,
        disk_free_bytes: room.disk_free_bytes,
        free_bytes: room.free_bytes,
        bytes_a_row: room.bytes_a_row,
        rows_lately: room.rows_lately,
        lately_seconds: room.lately.map(|lately| lately.as_secs()),
        buffer_seconds_left: room.left.filter(|_| is_fed).map(|left| left.as_secs()),
    };
    Ok((status, room))
}

impl ParkedNow {
    fn of(parked: ParkedRange) -> Self {
        let ParkedRange { range: SeqRange { first, last }, rows, is_gone } = parked;
        Self { first_seq: first, last_seq: last, rows, gone: is_gone }
    }
}

/// Orders that a daemon has accepted, and those that wait for one. One that was just accepted stands in both.
async fn ordered(opened: &Opened) -> anyhow::Result<usize> {
    let accepted = opened.look.reader.resend_orders().await?;
    let is_accepted = |order: &Order| {
        let range = SeqRange { first: order.first_seq, last: order.last_seq };
        accepted.iter().any(|known| known.range == range)
    };
    let file = OrderFile::new(opened.config.state_dir.clone()).read()?;
    let waiting = file.iter().filter(|order| !is_accepted(order)).count();
    Ok(accepted.len().saturating_add(waiting))
}

fn print(status: &Status, room: &Room) -> Result<(), CommandError> {
    let daemon = match (status.running, status.pid) {
        (true, Some(pid)) => format!("the daemon runs (process {pid})"),
        (true, None) => "the daemon runs".to_owned(),
        (false, _) => "no daemon runs here".to_owned(),
    };
    say(&format!("{}: {daemon}", status.state_dir))?;
    match &status.broker {
        Some(broker) => say(&format!("Broker: {broker}"))?,
        None if status.lanes.is_empty() => say("Broker: none is configured, so nothing waits")?,
        None => say("Broker: none in this configuration; the log was sent to one before")?,
    }
    for lane in &status.lanes {
        let (LaneNow { lane: name, rows, .. }, size) = (lane, bytes(lane.bytes));
        let place = match (lane.first_seq, lane.last_seq, &lane.oldest, &lane.newest) {
            (Some(first), Some(last), Some(oldest), Some(newest)) => {
                format!("  {first} to {last}, {oldest} to {newest}")
            }
            _ => String::new(),
        };
        say(&format!("  {name:<8} {rows:>9} rows wait, {size}{place}"))?;
    }
    if status.parked > 0 {
        say(&format!("  {} rows are parked: the broker did not take them (`vitalbridge buffer ls`)", status.parked))?;
    }
    for ParkedNow { first_seq, last_seq, rows, gone } in &status.parked_ranges {
        let now = if *gone {
            "have left the log; `replay` of the range ends the alert"
        } else {
            "are older than those of `ls`"
        };
        say(&format!("    up to {rows} of these, between {first_seq} and {last_seq}, {now}"))?;
    }
    if status.ordered > 0 {
        say(&format!("  {} ranges are ordered to be sent again", status.ordered))?;
    }
    say(&format!(
        "Database: {} of {}, {} free on the disk, newest event {}",
        bytes(room.used_bytes),
        bytes(room.max_bytes),
        bytes(room.disk_free_bytes),
        status.newest_seq
    ))?;
    let pace = match (room.lately, room.bytes_a_row) {
        (Some(lately), Some(size)) => format!("{} rows in {}, {size} bytes each", room.rows_lately, span(lately)),
        _ => "the daemon has not run long enough".to_owned(),
    };
    let left = match (status.buffer_seconds_left, status.lanes.is_empty()) {
        (_, true) => return Ok(()),
        (Some(seconds), _) => span(std::time::Duration::from_secs(seconds)),
        (None, _) => "unknown".to_owned(),
    };
    Ok(say(&format!("Room without a broker: {left} ({pace})"))?)
}
