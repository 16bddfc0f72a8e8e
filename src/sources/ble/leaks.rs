//! Counts the match rules that btleplug's D-Bus layer leaves at the bus, which only its panics tell.
//!
//! bluez-async removes a match rule in a task that it starts when a stream is dropped. If a signal comes in between, the
//! rule's callback has gone already, the task panics, and the rule stays until the connection ends. Nobody else is told:
//! tokio catches the panic of a task whose handle was dropped. So the process-wide panic hook looks for these, keeps them
//! out of the log, and passes on every other one.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the threads on which btleplug runs.
pub(super) const THREAD: &str = "bluetooth";

/// What the panic says.
const NO_MATCH: &str = "No match with that id found";

static LEAKED: AtomicU64 = AtomicU64::new(0);
static HOOKED: Once = Once::new();

/// From here on, leaked rules are counted.
pub(super) fn count() {
    HOOKED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_ours = std::thread::current().name() == Some(THREAD);
            if is_ours && panic.to_string().contains(NO_MATCH) {
                LEAKED.fetch_add(1, Ordering::Relaxed);
            } else {
                before(panic);
            }
        }));
    });
}

/// Match rules leaked since the process started.
pub(super) fn leaked() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_panic_of_a_lost_match_rule_on_our_thread_is_counted() {
        count();
        let before = leaked();
        for (thread, words, counted) in [(THREAD, NO_MATCH, 1), ("other", NO_MATCH, 1), (THREAD, "anything else", 1)] {
            let thread = std::thread::Builder::new().name(thread.to_owned());
            assert!(thread.spawn(move || panic!("{words}")).unwrap().join().is_err());
            assert_eq!(leaked() - before, counted);
        }
    }
}
