//! The command to send a range of the log to the broker once more.

use serde_json::Value as Json;

use super::{BadMember, Command, Members};
use crate::ids::{Epoch, Seq};

/// Most numbers of a range that is sent again: three days of one patient's four numbers at 1 Hz.
pub const MAX_RESEND: u64 = 1_000_000;

/// A range of the log that somebody wants sent again. Both ends belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResendWish {
    /// The run of the daemon in which the range lies.
    pub epoch: Epoch,
    /// The first number.
    pub first: Seq,
    /// The last one; not before the first.
    pub last: Seq,
}

impl ResendWish {
    /// `EPOCH:FIRST-LAST`, as people write it.
    pub fn describe(&self) -> String {
        format!("{}:{}-{}", self.epoch, self.first, self.last)
    }
}

pub(super) fn read(members: Members<'_>) -> Result<Command, BadMember> {
    let epoch = members.required("epoch")?.parse();
    let epoch = epoch.map_err(|_| BadMember::new("epoch", "is not the name of a run of the bridge"))?;
    let number = |name| {
        let number = members.get(name).and_then(Json::as_u64).filter(|number| *number > 0);
        number.map(Seq).ok_or(BadMember::new(name, "is not the number of an event"))
    };
    let (first, last) = (number("first_seq")?, number("last_seq")?);
    if last < first {
        return Err(BadMember::new("last_seq", "is before `first_seq`"));
    }
    if last.0.saturating_sub(first.0) >= MAX_RESEND {
        return Err(BadMember::new("last_seq", "is too far from `first_seq`: a range has at most 1000000 numbers"));
    }
    Ok(Command::Resend(ResendWish { epoch, first, last }))
}
