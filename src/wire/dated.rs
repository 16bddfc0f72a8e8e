//! What an event says of the clock by which it is dated, where that clock was not set.

use schemars::JsonSchema;
use serde::Serialize;

use crate::timeline::ClockState;

/// What is known of a clock that was not set.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct ClockNote {
    /// False: nobody had set it, and nobody has since in the same boot. Null: nobody can tell.
    pub synced: Option<bool>,
}

/// The text of an event with what is known of its clock, if that was not set.
pub fn dated(text: String, state: Option<ClockState>) -> String {
    let Some(state) = state.filter(|state| !state.is_settled()) else { return text };
    let synced = if state.synced().is_some() { "false" } else { "null" };
    // Every message is an object with members.
    text.replacen('{', &format!("{{\"clock\":{{\"synced\":{synced}}},"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_was_not_set_is_told() {
        let text = |state| dated(r#"{"type":"alert"}"#.to_owned(), state);
        for state in [None, Some(ClockState::Synchronised), Some(ClockState::Trusted)] {
            assert_eq!(text(state), r#"{"type":"alert"}"#);
        }
        for (state, told) in
            [(ClockState::Unsynchronised, "false"), (ClockState::Hardware, "false"), (ClockState::Unknown, "null")]
        {
            assert_eq!(text(Some(state)), format!(r#"{{"clock":{{"synced":{told}}},"type":"alert"}}"#));
        }
    }
}
