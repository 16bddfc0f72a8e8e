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

    /// Reads what [`Self::describe`] has written.
    pub fn described(text: &str) -> Option<Self> {
        let (epoch, range) = text.rsplit_once(':')?;
        let (first, last) = range.split_once('-')?;
        let wish = Self { epoch: epoch.parse().ok()?, first: Seq(first.parse().ok()?), last: Seq(last.parse().ok()?) };
        Some(wish).filter(|wish| Seq::ZERO < wish.first && wish.first <= wish.last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_described_is_read_again() {
        let wish = ResendWish { epoch: "k3f9".parse().unwrap(), first: Seq(18), last: Seq(21) };
        assert_eq!(wish.describe(), "k3f9:18-21");
        assert_eq!(ResendWish::described(&wish.describe()), Some(wish));
        for text in ["", "k3f9", "k3f9:18", "k3f9:0-7", "k3f9:21-18", ":1-2", "k3f9:1-x"] {
            assert_eq!(ResendWish::described(text), None, "{text}");
        }
    }
}
