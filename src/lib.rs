//! vitalbridge: the edge bridge for vital signs.
//!
//! Bytes come in through [`sources`], which decode them in place ([`profile`], [`decode`]) into [`vitals`]. The
//! [`pipeline`] is the one owner of live state: it numbers each [`event`], runs the [`alerts`] engine, publishes through
//! the [`hub`] into each listener's [`outbox`], and hands the event to the [`store`]. The [`server`] shows the present to
//! dashboards and the past from the store; the [`uplink`] sends the store to a broker. [`daemon`] builds all of them from
//! [`config`], and [`cli`] is what people type. Beside them the [`emulator`] is a device without the hardware: it turns
//! values into bytes ([`mod@encode`]) by the profile that turns them back.
//!
//! Everything that decides is pure: state machines that take `now` as an argument. Tasks around them wait, read and
//! write. Modules use only modules of the layers above them in this list; `tests/it/tidy.rs` holds the exact order.

// Layer 0: words of the field. Depends on nothing.
pub mod backoff;
pub mod clock;
pub mod event;
pub mod ids;
mod named;
pub mod patient;
pub mod record;
pub mod secret;
pub mod timeline;
pub mod vitals;

// Layer 1: pure. No tokio, no files, no clock.
pub mod alerts;
pub mod channel;
pub mod command;
pub mod decode;
pub mod derive;
pub mod document;
pub mod encode;
pub mod filter;
pub mod notifier;
pub mod profile;
pub mod rooms;
pub mod signal_times;
pub mod summary;
pub mod waveform;
pub mod wire;

// Layer 2: services for tasks.
pub mod bluez;
pub mod fallback;
pub mod host;
pub mod logging;
pub mod metrics;
pub mod systemd;
pub mod tasks;
pub mod timedate;

// Layer 3: edges in and down.
pub mod emulator;
pub mod sources;
pub mod store;

// Layer 4: the heart.
pub mod desk;
pub mod hub;
pub mod outbox;
pub mod pipeline;

// Layer 5: edges out.
pub mod server;
pub mod uplink;

// Layer 6: the composition root and the commands. `config` stands here because it builds every part's own settings.
pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod support;
