//! `vitalbridge buffer replay`: has the daemon send a range to the broker once more.

use clap::Args;
use serde_json::json;

use super::{Opened, RangeArg};
use crate::cli::token::StateArgs;
use crate::cli::{CommandError, say};
use crate::command::MAX_RESEND;
use crate::daemon::resending::{NotOrdered, Order, OrderFile};
use crate::ids::Seq;
use crate::server::codes::{hex, random_bytes};
use crate::store::Rows;

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalbridge buffer replay k3f9a0b1:1042-1091\n\n\
                  Every event of the range that is still in the log goes out once more, with its identity and marked as historical.\n\
                  A running daemon takes the order within a second; without one it waits for the next start. The audit trail has it.")]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The run of the daemon, the first and the last number, as `vitalbridge buffer ls` prints them.
    #[arg(value_name = "EPOCH:FROM-TO")]
    range: RangeArg,
    /// Print what was ordered as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ReplayArgs) -> Result<(), CommandError> {
    let opened = Opened::open(&args.state).await?;
    if opened.config.broker.is_none() {
        let reason = "no broker is configured ([mqtt] in the configuration; name the file by --config)";
        return Err(CommandError::Usage(reason.to_owned()));
    }
    let range = opened.checked(&args.range)?;
    if range.last.0.saturating_sub(range.first.0) >= MAX_RESEND {
        return Err(CommandError::Usage(format!("a range has at most {MAX_RESEND} numbers; order it in pieces")));
    }
    let (reader, before) = (&opened.look.reader, Seq(range.first.0.saturating_sub(1)));
    let readings = reader.count(Rows::Readings, before, range.last).await.map_err(anyhow::Error::from)?;
    let others = reader.count(Rows::Others, before, range.last).await.map_err(anyhow::Error::from)?;
    let rows = readings.and(others).rows;
    if rows == 0 {
        return Err(CommandError::Usage(format!("no event of {} is in the log any more", args.range)));
    }
    let RangeArg { epoch, first, last } = args.range.clone();
    let order = Order { id: hex(&random_bytes::<8>()?), epoch, first_seq: first, last_seq: last };
    OrderFile::new(opened.config.state_dir.clone()).add(order.clone()).map_err(|error| match error {
        NotOrdered::TooMany => CommandError::Unavailable(error.to_string()),
        NotOrdered::Io(_) => anyhow::Error::from(error).into(),
    })?;
    let is_running = opened.look.owner.is_some();
    if args.json {
        let told = json!({
            "ok": true, "id": order.id, "epoch": order.epoch, "first_seq": first, "last_seq": last, "rows": rows,
            "running": is_running,
        });
        return Ok(say(&told.to_string())?);
    }
    let when = if is_running {
        "the running daemon takes it within a second"
    } else {
        "the next start of the daemon takes it"
    };
    Ok(say(&format!("Ordered: {rows} events of {} go to the broker again; {when}.", args.range))?)
}
