//! What is computed from measurements: an early warning score, statistics of beats, pressures from pressures.
//!
//! Nothing here has a clock or a memory of its own beyond what it is given, and nothing is computed from what is missing.

pub mod beats;
mod heart;
pub mod live;
mod live_score;
pub mod news2;
pub mod pressure;
