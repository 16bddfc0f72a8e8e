//! Reads rows of the log for the plan and writes them as messages. A panic on the way is an answer as others are.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::ser::Error as _;
use tokio::task::JoinError;

use super::home_assistant::Seen;
use super::plan::{Lane, ReadRequest, Row};
use super::{UplinkConfig, state};
use crate::clock::Clock;
use crate::event::Event;
use crate::store::{Reader, StoreError};
use crate::tasks::panic_text;
use crate::timeline::Timeline;

/// So many events are written as messages where they are; more by a thread that may block, beside what goes out meanwhile.
const WRITTEN_HERE: usize = 8;

/// Why a read has brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store says so.
    Store(StoreError),
    /// Something in the range is more than this program bears: a defect of it.
    Panic(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Thread(ended) => Self::from(ended),
            other => Self::Store(other),
        }
    }
}

impl From<JoinError> for Failure {
    fn from(ended: JoinError) -> Self {
        match ended.try_into_panic() {
            Ok(panic) => Self::Panic(panic_text(panic.as_ref()).to_owned()),
            // The runtime ends.
            Err(ended) => Self::Store(ended.into()),
        }
    }
}

/// What a read has brought.
pub(super) struct Read {
    pub(super) request: ReadRequest,
    /// The rows, and whether there were as many events as the read might bring.
    pub(super) result: Result<(Vec<Row>, bool), Failure>,
    /// The numbers among them for Home Assistant.
    pub(super) seen: BTreeSet<Seen>,
}

/// Reads what the plan asks for.
pub(super) async fn read(
    config: Arc<UplinkConfig>,
    reader: Reader,
    timeline: Arc<Timeline>,
    clock: Clock,
    request: ReadRequest,
) -> Read {
    let read = async {
        let events = events(&reader, &request).await?;
        let (is_few, now) = (events.len() <= WRITTEN_HERE, clock.now().mono);
        let write = move || {
            let more = events.len() >= request.limit;
            (config.rows(&request, &events, &timeline, now), more, state::seen(&config, &events))
        };
        written(is_few, write).await
    };
    match read.await {
        Ok((rows, more, seen)) => Read { request, result: Ok((rows, more)), seen },
        Err(failure) => Read { request, result: Err(failure), seen: BTreeSet::new() },
    }
}

async fn events(reader: &Reader, request: &ReadRequest) -> Result<Vec<Event>, StoreError> {
    let ReadRequest { lane, after, through, limit, every_kind, .. } = *request;
    match lane {
        Lane::Alerts | Lane::EarlierAlerts => reader.urgent_events(after, through, limit).await,
        Lane::Others => reader.unhurried_events(after, through, limit).await,
        Lane::Backlog if every_kind => reader.events_through(after, through, limit).await,
        Lane::Live | Lane::Backlog => reader.readings(after, through, limit).await,
    }
}

/// Writes here, or where it may take its time.
async fn written<T: Send + 'static>(is_few: bool, write: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    if is_few {
        return catch_unwind(AssertUnwindSafe(write)).map_err(|panic| {
            let words = panic_text(panic.as_ref());
            Failure::Panic(words.to_owned())
        });
    }
    Ok(tokio::task::spawn_blocking(write).await?)
}

/// The text that `write` makes; a panic of it is an error, so that this event is given up and no other.
pub(super) fn unpanicked(
    write: impl FnOnce() -> Result<String, serde_json::Error>,
) -> Result<String, serde_json::Error> {
    let written = catch_unwind(AssertUnwindSafe(write));
    written.unwrap_or_else(|panic| {
        let words = panic_text(panic.as_ref());
        Err(serde_json::Error::custom(format_args!("a defect of the bridge: {words}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_while_rows_are_written_is_an_answer_wherever_it_happens() {
        for is_few in [true, false] {
            let answer = written(is_few, || -> u32 { panic!("row {}", 7) }).await;
            assert!(matches!(&answer, Err(Failure::Panic(words)) if words == "row 7"), "{answer:?}");
            assert!(matches!(written(is_few, || 7).await, Ok(7)));
        }
        let of_the_store = tokio::task::spawn_blocking(|| -> u32 { panic!("row 8") }).await.unwrap_err();
        let failure = Failure::from(StoreError::Thread(of_the_store));
        assert!(matches!(&failure, Failure::Panic(words) if words == "row 8"), "{failure:?}");
    }

    #[test]
    fn an_event_whose_text_cannot_be_written_without_a_panic_has_none() {
        let text = unpanicked(|| panic!("index {}", 3));
        assert_eq!(text.unwrap_err().to_string(), "a defect of the bridge: index 3");
        assert_eq!(unpanicked(|| Ok("{}".to_owned())).unwrap(), "{}");
    }
}
