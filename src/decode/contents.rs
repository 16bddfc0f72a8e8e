//! Cuts bytes into the contents of their frames, as the interpreter sees them: patterns for whoever makes frames.

use super::frame::Framer;
use crate::profile::model::{Framing, Rule};

/// The contents of the good frames in `bytes`, which begin and end with a whole frame.
pub(crate) fn contents(framing: &Framing, bytes: &[u8]) -> Vec<Vec<u8>> {
    if matches!(framing.rule, Rule::Payload { .. }) {
        return vec![bytes.to_vec()];
    }
    let mut framer = Framer::new(framing);
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = framer.fill(rest);
        while let Some(frame) = framer.next(framing) {
            found.push(framer.content(framing, frame).to_vec());
        }
    }
    while let Some(frame) = framer.next_at_end(framing) {
        found.push(framer.content(framing, frame).to_vec());
    }
    found
}
