//! vitalbridge: the edge bridge for vital signs.

// Layer 0: words of the field. Depends on nothing.
pub mod backoff;
pub mod clock;
pub mod event;
pub mod ids;
mod named;
pub mod patient;
pub mod secret;
pub mod vitals;

// Layer 1: pure. No tokio, no files, no clock.
pub mod alerts;
pub mod channel;
pub mod decode;
pub mod document;
pub mod profile;
pub mod wire;

// Layer 2: services for tasks.
pub mod logging;
pub mod metrics;
pub mod systemd;
pub mod tasks;

// Layer 3: edges in and down.
pub mod sources;
pub mod store;
