//! Orders of the command line to send a range of the log again: a file of the state directory, and the task that carries
//! out what stands in it. So an order also waits for a daemon that does not run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::command::{Command, ResendWish};
use crate::hub::Scope;
use crate::ids::{Epoch, Seq};
use crate::pipeline::{Control, Done, MAX_ORDERED, carry_out_once};
use crate::server::codes::write_private;

/// Who orders on the command line, for the audit trail: whoever may write into the state directory.
const BY: &str = "command-line";

/// The file in the state directory.
const FILE: &str = "resend.json";

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An order to send a range again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Names it, so that it is carried out once.
    pub id: String,
    /// The run of the daemon in which the range lies.
    pub epoch: Epoch,
    /// The first number.
    pub first_seq: Seq,
    /// The last number.
    pub last_seq: Seq,
}

/// Why an order was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotOrdered {
    /// As many wait as may.
    #[error("{MAX_ORDERED} orders wait already; ask again when `vitalbridge buffer status` shows fewer")]
    TooMany,
    /// The file system.
    #[error("cannot keep the order: {0}")]
    Io(#[from] io::Error),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    orders: Vec<Order>,
}

/// The file. Whoever reads or writes it holds a lock on its directory.
#[derive(Debug, Clone)]
pub struct OrderFile {
    state: PathBuf,
}

impl OrderFile {
    /// The one of this state directory.
    pub const fn new(state: PathBuf) -> Self {
        Self { state }
    }

    /// Adds an order; one of the same range is there once.
    ///
    /// # Errors
    /// Too many wait, or the file cannot be written.
    pub fn add(&self, order: Order) -> Result<(), NotOrdered> {
        let _lock = self.lock()?;
        let mut orders = self.orders()?;
        let range = |order: &Order| (order.epoch.clone(), order.first_seq, order.last_seq);
        if orders.iter().any(|known| range(known) == range(&order)) {
            return Ok(());
        }
        if orders.len() >= MAX_ORDERED {
            return Err(NotOrdered::TooMany);
        }
        orders.push(order);
        Ok(self.write(orders)?)
    }

    /// What is ordered and was not taken yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<Vec<Order>> {
        let _lock = self.lock()?;
        self.orders()
    }

    fn remove(&self, ids: &[String]) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut orders = self.orders()?;
        orders.retain(|order| !ids.contains(&order.id));
        self.write(orders)
    }

    fn path(&self) -> PathBuf {
        self.state.join(FILE)
    }

    /// Tells one content of the file from the next: it is never written in place.
    fn version(&self) -> Option<(u64, i64, i64)> {
        let found = std::fs::metadata(self.path()).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec()))
    }

    fn lock(&self) -> io::Result<File> {
        let directory = File::open(&self.state)?;
        flock(&directory, FlockOperation::LockExclusive)?;
        Ok(directory)
    }

    fn orders(&self) -> io::Result<Vec<Order>> {
        let text = match std::fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let kept = serde_json::from_str::<Kept>(&text);
        kept.map(|kept| kept.orders).map_err(|error| io::Error::other(format!("{}: {error}", self.path().display())))
    }

    fn write(&self, orders: Vec<Order>) -> io::Result<()> {
        let text = serde_json::to_string(&Kept { orders }).map_err(io::Error::other)?;
        write_private(&self.path(), &text)
    }
}

/// Carries out what stands in the file until told to stop.
pub(super) async fn carry_out_orders(
    file: OrderFile,
    control: mpsc::Sender<Control>,
    durable: watch::Receiver<Seq>,
    stop: CancellationToken,
) {
    // Those that were taken, each with its row of the audit trail: it leaves the file once that is on disk, because the
    // store remembers it from then on.
    let mut taken: BTreeMap<String, Seq> = BTreeMap::new();
    let (mut known, mut is_failing) = (None, false);
    loop {
        let version = file.version();
        let through = *durable.borrow();
        let is_any_kept = taken.values().any(|seq| *seq <= through);
        if version != known || is_any_kept || is_failing {
            match turn(&file, &control, through, &mut taken).await {
                // What is refused for the moment is tried again with the next look.
                Ok(is_done) => (known, is_failing) = (version.filter(|_| is_done), false),
                Err(error) => {
                    if !is_failing {
                        error!(%error, "orders to send a range again cannot be read");
                    }
                    is_failing = true;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Looks at the file once; true if nothing is left to be tried again.
async fn turn(
    file: &OrderFile,
    control: &mpsc::Sender<Control>,
    through: Seq,
    taken: &mut BTreeMap<String, Seq>,
) -> io::Result<bool> {
    let looked = file.clone();
    // A dead disk blocks, and must not block anybody else.
    let orders = tokio::task::spawn_blocking(move || looked.read()).await.map_err(io::Error::other)??;
    let (mut gone, mut is_done) = (Vec::new(), true);
    for Order { id, epoch, first_seq: first, last_seq: last } in orders {
        if let Some(seq) = taken.get(&id) {
            if *seq <= through {
                gone.push(id);
            }
            continue;
        }
        let wish = ResendWish { epoch, first, last };
        let range = wish.describe();
        let command = Command::Resend(wish);
        match carry_out_once(control, command, BY, Scope::Everything, Some(id.clone())).await {
            Ok(Done { seq, is_kept }) => {
                info!(range, "an order of the command line was taken: the range goes to the broker again");
                // One that the store has not taken stays in the file, for the next run.
                taken.insert(id, if is_kept { seq } else { Seq(u64::MAX) });
            }
            Err(refusal) if matches!(refusal.code, "busy" | "unavailable" | "unknown" | "store_full") => {
                is_done = false;
            }
            Err(refusal) => {
                warn!(range, reason = refusal.reason, "an order of the command line was refused");
                gone.push(id);
            }
        }
    }
    if !gone.is_empty() {
        taken.retain(|id, _| !gone.contains(id));
        let file = file.clone();
        tokio::task::spawn_blocking(move || file.remove(&gone)).await.map_err(io::Error::other)??;
        return Ok(false);
    }
    Ok(is_done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_kept_once_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let file = OrderFile::new(folder.path().to_owned());
        assert_eq!(file.read().unwrap(), []);
        let order = |number: u64| Order {
            id: format!("id-{number}"),
            epoch: "k3f9".parse().unwrap(),
            first_seq: Seq(number),
            last_seq: Seq(number + 1),
        };
        for number in 1..=8 {
            file.add(order(number)).unwrap();
        }
        file.add(Order { id: "another".to_owned(), ..order(3) }).unwrap();
        assert_eq!(file.read().unwrap().len(), 8);
        assert!(matches!(file.add(order(9)), Err(NotOrdered::TooMany)));
        file.remove(&["id-1".to_owned()]).unwrap();
        file.add(order(9)).unwrap();
        assert_eq!(file.read().unwrap().last(), Some(&order(9)));
    }
}
