//! The composition root: builds each part from the configuration, wires the channels and owns the order of shutdown.

mod buffering;
mod expecting;
pub mod resending;
mod restarting;
mod storing;
mod timekeeping;
mod watching;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::expecting::expected;
pub use self::timekeeping::Machine;
use self::timekeeping::Timekeeper;
use self::watching::MapOrOk as _;
use crate::alerts::{BridgeCondition, Engine};
use crate::backoff::Backoff;
use crate::clock::{Clock, Mono, Stamp};
use crate::config::{Config, Place};
use crate::desk::Counter;
use crate::doctor;
use crate::event::{SourceMessage, SystemEvent, SystemKind};
use crate::fallback::{self, Wanted};
use crate::host;
use crate::ids::{DeviceId, Epoch, Seq, SourceId};
use crate::metrics::Metrics;
use crate::notifier::Notifier;
use crate::pipeline::{Annunciation, CONTROL_QUEUE, Control, Parts, Pipeline, ResendQueue, Resending, SOURCE_QUEUE};
use crate::record::KnownRecords;
use crate::secret::Secret;
use crate::server::accept::Door;
use crate::server::codes::{Codes, hex, random_bytes, write_private};
use crate::server::connections::Connections;
use crate::server::form::compact::Streams;
use crate::server::jwt::TokenKey;
use crate::server::keys::Keys;
use crate::server::rate::Users;
use crate::server::routes::Site;
use crate::server::seats::{MAX_UNDECIDED, Seats};
use crate::server::session::Shared;
use crate::server::socket::Gate;
use crate::server::tls::{self, Fingerprint};
use crate::server::tokens::Access;
use crate::server::{self, accept, routes};
use crate::sources::ble::{CommitWish, Surroundings};
use crate::sources::output::SourceCounters;
use crate::sources::serial::Bound;
use crate::sources::{self, ORDER_QUEUE, SourceKind, Ties};
use crate::store::{self, DeviceIdentity, StoreHandle};
use crate::systemd;
use crate::tasks::{Role, Tasks, VitalEnded};
use crate::uplink;

/// The name of a boot that nobody tells.
const UNKNOWN_BOOT: &str = "unknown";

/// How long an orderly end may take in all; systemd kills what has not ended at the unit's `TimeoutStopSec=20`.
const STOP_LIMIT: Duration = Duration::from_secs(17);

/// What is left for the runtime's own end after that.
pub(crate) const RUNTIME_STOP: Duration = Duration::from_secs(1);

/// How long the stages before the store may take of it, each. Sources let go of their ports within 2 s, closing a
/// session has 2 s, and the uplink waits 2 s for confirmations and says goodbye.
const FAREWELL_GRACE: Duration = Duration::from_millis(500);
const SOURCES_GRACE: Duration = Duration::from_secs(2);
const PIPELINE_GRACE: Duration = Duration::from_secs(2);
const SESSIONS_GRACE: Duration = Duration::from_millis(2500);
const TASKS_GRACE: Duration = Duration::from_secs(1);
const UPLINK_GRACE: Duration = Duration::from_secs(3);

/// The store has all the rest, at least this: what it cannot write in time is lost.
const STORE_GRACE_AT_LEAST: Duration = Duration::from_secs(6);

const _: () = {
    let before_the_store = FAREWELL_GRACE.as_millis()
        + SOURCES_GRACE.as_millis()
        + PIPELINE_GRACE.as_millis()
        + SESSIONS_GRACE.as_millis()
        + TASKS_GRACE.as_millis()
        + UPLINK_GRACE.as_millis();
    assert!(before_the_store + STORE_GRACE_AT_LEAST.as_millis() <= STOP_LIMIT.as_millis());
};

/// Sources that may wait to be told that their records are on disk.
const COMMIT_WISHES: usize = 64;

/// Which Bluetooth sensors were bonded, in the state directory.
const BONDS_FILE: &str = "bluetooth-bonds";
/// The address of the Bluetooth adapter while it is off in a power cycle, inside the state directory.
const POWER_FILE: &str = "bluetooth-switched-off";

/// How long the disk may take for a sensor's records before its source is told nothing.
const COMMIT_LIMIT: Duration = Duration::from_secs(10);

/// File descriptors beside those of connections: sources, the store, the broker, the bus.
const DESCRIPTORS_BESIDE: u64 = 256;

/// The uplink is down for the alert engine from the first moment on; the rule has the delay.
const UPLINK_RESTART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// What a run needs beside its configuration.
#[derive(Debug)]
pub struct Start {
    /// What to run.
    pub config: Config,
    /// The file it came from, read again on SIGHUP, and what the command line said over it.
    pub config_file: Option<(PathBuf, Place)>,
    /// Where sign-in codes are checked.
    pub codes: Codes,
    /// Told once the server listens.
    pub on_listening: fn(&Listening<'_>),
}

/// What can be said to people once the server listens.
#[derive(Debug)]
pub struct Listening<'a> {
    /// Where.
    pub address: SocketAddr,
    /// Where sign-in codes are checked.
    pub codes: &'a Codes,
    /// With TLS: the SHA-256 of the certificate.
    pub fingerprint: Option<&'a Fingerprint>,
    /// The configuration file, and what the command line said over it.
    pub config_file: Option<&'a (PathBuf, Place)>,
}

impl Listening<'_> {
    /// `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.fingerprint.is_some() { "https" } else { "http" }
    }
}

/// Why a run ended badly.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The operating system does not let us; exit code 77.
    #[error("{0:#}")]
    Permission(anyhow::Error),
    /// The database is of a newer version, which no other try makes older; exit code 78.
    #[error("{0:#}")]
    Newer(anyhow::Error),
    /// Anything else; exit code 70.
    #[error("{0:#}")]
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for DaemonError {
    fn from(error: anyhow::Error) -> Self {
        let denied = error.chain().any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            // A port that is not ours to take names what the system said in its own text.
            let kind = io.or_else(|| cause.downcast_ref::<server::CannotListen>().map(server::CannotListen::kind));
            kind == Some(std::io::ErrorKind::PermissionDenied)
        });
        let is_newer = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref::<store::StoreError>(), Some(store::StoreError::Newer { .. }))
        };
        match (denied, error.chain().any(is_newer)) {
            (true, _) => Self::Permission(error),
            (false, true) => Self::Newer(error),
            (false, false) => Self::Internal(error),
        }
    }
}

/// Reads the token secret, or makes one at the first start. A bridge that issues no tokens has none.
///
/// # Errors
/// The file can be neither read nor written, or holds too little.
pub fn token_key(config: &Config) -> anyhow::Result<TokenKey> {
    if config.server.tokens.only_trusted {
        return Ok(TokenKey::without_own(&config.server.issuer, &config.server.audience));
    }
    let path = &config.secret_file;
    let secret = match std::fs::read_to_string(path) {
        Ok(text) => Secret::new(text.trim_end()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = Secret::new(hex(&random_bytes::<32>()?));
            make_private_dir(path.parent().unwrap_or(Path::new(".")))?;
            write_private(path, secret.expose()).with_context(|| format!("cannot write {}", path.display()))?;
            info!(path = %path.display(), "made a new token secret");
            secret
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read the token secret {}", path.display())),
    };
    TokenKey::new(&secret, &config.server.issuer, &config.server.audience)
        .with_context(|| format!("the token secret {} cannot be used", path.display()))
}

fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))
}

/// The tokens that end the stages one after the other.
#[derive(Debug, Default)]
struct Stages {
    /// Sources and the acceptor: nothing new comes in.
    inputs: CancellationToken,
    /// Sessions: everything accepted has been published.
    sessions: CancellationToken,
    /// The uplink: everything published has been stored.
    uplink: CancellationToken,
    /// The writer: nobody writes any more.
    store: CancellationToken,
}

/// The parts that live until the end.
struct Running {
    tasks: Tasks,
    sources: Tasks,
    pipeline: Tasks,
    sessions: Tasks,
    uplink: Tasks,
    store: Tasks,
    stages: Stages,
    control: mpsc::Sender<Control>,
    /// Held until the stop: the pipeline ends once the last sender of readings has gone.
    readings: mpsc::Sender<SourceMessage>,
    handle: StoreHandle,
    key: watch::Sender<TokenKey>,
    /// Of the configuration that was read last.
    config_hash: watch::Sender<Option<String>>,
    /// Ends the fetching of keys of issuers that are not trusted any more.
    fetching: CancellationToken,
    tls: Option<watch::Sender<Arc<rustls::ServerConfig>>>,
    connections: Connections,
}

/// Runs until SIGTERM, SIGINT or the failure of a vital part.
///
/// # Errors
/// It could not start, or a vital part failed.
pub async fn run(start: Start) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let config_file = start.config_file.clone();
    let mut running = build(start, Machine::default()).await?;
    systemd::ready();
    let failure = loop {
        tokio::select! {
            biased;
            // A part without which the daemon is not what people rely on.
            failure = vital_failure(&running) => break Some(failure),
            // systemd, or `kill`.
            _ = terminate.recv() => break None,
            // Ctrl-C.
            _ = interrupt.recv() => break None,
            // `systemctl reload`.
            _ = hangup.recv() => reload(config_file.as_ref(), &mut running).await,
        }
    };
    systemd::stopping();
    let deadline = Clock::System.now().mono + STOP_LIMIT;
    let failed_at_the_end = shut_down(running, deadline).await;
    failure.or(failed_at_the_end).map_or(Ok(()), |ended| Err(DaemonError::Internal(ended.into())))
}

/// Runs until `stop` or the failure of a vital part, on another machine than this one: for trials.
///
/// # Errors
/// As [`run`].
pub async fn run_on(machine: Machine, start: Start, stop: CancellationToken) -> Result<(), DaemonError> {
    let running = build(start, machine).await?;
    let failure = tokio::select! {
        biased;
        failure = vital_failure(&running) => Some(failure),
        () = stop.cancelled() => None,
    };
    let deadline = Clock::System.now().mono + STOP_LIMIT;
    let failed_at_the_end = shut_down(running, deadline).await;
    failure.or(failed_at_the_end).map_or(Ok(()), |ended| Err(DaemonError::Internal(ended.into())))
}

async fn vital_failure(running: &Running) -> VitalEnded {
    tokio::select! {
        ended = running.store.failure() => ended,
        ended = running.pipeline.failure() => ended,
        ended = running.tasks.failure() => ended,
    }
}

async fn build(start: Start, machine: Machine) -> anyhow::Result<Running> {
    let Start { config, config_file, codes, on_listening } = start;
    let (clock, now) = (machine.clock.clone(), machine.clock.now());
    let metrics = Arc::new(Metrics::default());
    let key = watch::Sender::new(all_keys(&config)?);
    let seeds = u64::from_le_bytes(random_bytes::<8>()?);
    let epoch = Epoch::from_bits(seeds);
    let secured = secure(&config, now)?;
    let (listener, address) = server::bind(config.server.listen).await?;
    look_before_guests_come(&config, address);
    // The one word that somebody sees who wonders why the start takes minutes.
    systemd::status("starting: opening the database; to mend a large one or bring it forward takes minutes");
    let opened = open_store(&config, epoch.clone(), now).await?;
    let keeper = keep_time(&machine, &config, &epoch, &opened).await;

    let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
    let (readings, source_queue) = mpsc::channel(SOURCE_QUEUE);
    let stages = Stages::default();
    let running = Running {
        tasks: Tasks::new(stages.inputs.clone()),
        sources: Tasks::new(stages.inputs.clone()),
        pipeline: Tasks::new(stages.inputs.clone()),
        sessions: Tasks::new(stages.sessions.clone()),
        uplink: Tasks::new(stages.uplink.clone()),
        store: Tasks::new(stages.store.clone()),
        control,
        readings,
        handle: opened.handle.clone(),
        key,
        config_hash: watch::Sender::new(config.hash.clone()),
        fetching: stages.inputs.child_token(),
        tls: secured.as_ref().map(|loaded| watch::Sender::new(Arc::clone(&loaded.server))),
        connections: Connections::new(clock.clone(), Arc::clone(&metrics)),
        stages,
    };

    let mut pipeline = Pipeline::new(Parts {
        epoch: epoch.clone(),
        first: opened.first_seq,
        patients: config.patients.clone(),
        engine: Engine::new(config.rules.clone(), seeds),
        expected: expected(&config.sources),
        open_alerts: opened.open_alerts,
        limit_changes: opened.limit_changes,
        notifier: Notifier::new(&config.patients, opened.inboxes, seeds.rotate_left(32)),
        news2: config.news2.clone(),
        observations: opened.observations,
        store: opened.handle.clone(),
        metrics: Arc::clone(&metrics),
        clock: clock.clone(),
    });
    pipeline.remember_messages(opened.messages);
    let resends = take_wishes_for_more(&config, &running, &opened.reader, &mut pipeline).await?;
    start_writer(&running, opened.writer);
    annunciate(&config, &running, &mut pipeline, &metrics, seeds, clock.now());
    let ties = tie(&config, &opened.identities, opened.records, &mut pipeline);
    running.pipeline.spawn("pipeline", Role::Vital, pipeline.run(source_queue, control_queue));

    let gate = gate(&config, &running, &opened.reader, &epoch, &metrics, &clock)?;
    start_trail(&running);
    let (seats, hosts) = (Arc::clone(&gate.seats), Arc::new(config.server.hosts.clone()));
    let (tasks, models, air) = (running.sessions.clone(), config.devices.models(), config.air.status());
    let router = routes::router(Site { gate: Arc::new(gate), codes: codes.clone(), hosts, tasks, air, models });
    let door = Door {
        router,
        tasks: running.sessions.clone(),
        metrics: Arc::clone(&metrics),
        seats,
        tls: running.tls.as_ref().map(watch::Sender::subscribe),
        stop: running.stages.inputs.clone(),
    };
    running.tasks.spawn("acceptor", Role::Vital, accept::accept(listener, door));

    start_air(&config, &running, &opened.reader, &clock);
    start_sources(&config, ties, &running, &clock, &metrics);
    let uplink = start_uplink(&config, &epoch, &running, &opened.reader, &clock, seeds, resends);
    watching::start_watchers(&running, &metrics, (opened.dropped, opened.salvages), uplink, &config);
    start_host_watcher(&running, config.state_dir.clone(), keeper);
    watch_storage(&config, &running, &opened.reader, &clock, &metrics);
    tell_what_cannot_be(&config, &running.control).await;
    let fingerprint = secured.as_ref().map(|loaded| &loaded.fingerprint);
    tell_where(on_listening, &Listening { address, codes: &codes, fingerprint, config_file: config_file.as_ref() });
    info!(%address, bridge = %config.bridge, %epoch, patients = config.patients.len(), sources = config.sources.len(), "started");
    Ok(running)
}

/// Begins the first clock epoch of this run.
async fn keep_time(machine: &Machine, config: &Config, epoch: &Epoch, opened: &store::Opened) -> Timekeeper {
    Timekeeper::begin(machine, config.clock_trust, &boot_of(epoch), &opened.handle, opened.first_seq).await
}

fn tell_where(on_listening: fn(&Listening<'_>), listening: &Listening<'_>) {
    on_listening(listening);
    if let Some(fingerprint) = listening.fingerprint {
        info!(%fingerprint, "TLS with this certificate (SHA-256)");
    }
}

/// The audit rows of connections.
fn start_trail(running: &Running) {
    let trail = running.connections.clone().keep_trail(running.control.clone(), running.stages.inputs.clone());
    running.tasks.spawn("audit rows of connections", Role::Helper, trail);
}

fn start_writer(running: &Running, writer: store::Writer) {
    let stop = running.stages.store.clone();
    running.store.spawn("store", Role::Vital, async move { Ok(writer.run(stop).await?) });
}

/// [`token_key`], with the issuers that are trusted beside it.
fn all_keys(config: &Config) -> anyhow::Result<TokenKey> {
    Ok(token_key(config)?.trusting(config.server.tokens.trusted(&config.state_dir)))
}

/// What lets in and keeps out beside the keys, and the tasks that keep it current.
fn start_access(config: &Config, running: &Running, clock: &Clock) -> anyhow::Result<Access> {
    let in_query = config.server.tokens.in_query;
    if in_query {
        warn!("tokens are taken from addresses (`auth.query_token`), where logs and histories of others keep them");
    }
    let access = Access::new(config.state_dir.clone(), in_query, clock.now().wall)
        .with_context(|| format!("cannot read the revoked tokens of {}", config.state_dir.display()))?;
    let (control, durable) = (running.control.clone(), running.handle.durable());
    let watching = access.clone().watch(control, durable, clock.clone(), running.stages.inputs.clone());
    running.tasks.spawn("revocations", Role::Vital, watching.map_or_ok());
    start_fetching(running, clock);
    Ok(access)
}

/// Fetches the keys of each trusted issuer that has them behind an address.
fn start_fetching(running: &Running, clock: &Clock) {
    for trusted in running.key.borrow().trusted() {
        if let Keys::Live(live) = &trusted.keys {
            // Many bridges that start together must not come together; the seed needs to be no secret.
            let seed = random_bytes::<8>().map_or(0, u64::from_le_bytes);
            let fetching = Arc::clone(live).run(clock.clone(), seed, running.fetching.clone());
            running.tasks.spawn(format!("keys of {}", trusted.issuer), Role::Helper, fetching.map_or_ok());
        }
    }
}

/// What sessions need.
fn gate(
    config: &Config,
    running: &Running,
    reader: &store::Reader,
    epoch: &Epoch,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> anyhow::Result<Gate> {
    Ok(Gate {
        shared: shared(config, epoch),
        control: running.control.clone(),
        reader: reader.clone(),
        durable: running.handle.durable(),
        key: running.key.subscribe(),
        access: start_access(config, running, clock)?,
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
        seats: Seats::new(config.server.limits),
        connections: running.connections.clone(),
        stop: running.stages.sessions.clone(),
    })
}

/// Says what is in clear. Each connection needs a file descriptor, and the usual limit of 1024 is less than the connections
/// that are allowed.
fn look_before_guests_come(config: &Config, address: SocketAddr) {
    if let Some(warning) = config.server.in_clear(address) {
        warn!("{warning}");
    }
    let limits = &config.server.limits;
    let connections = limits.connections.saturating_add(limits.admin_connections).saturating_add(MAX_UNDECIDED);
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(DESCRIPTORS_BESIDE);
    match host::allow_descriptors(wanted) {
        Ok(allowed) if allowed < wanted => {
            warn!(allowed, wanted, "fewer files may be open than connections are allowed: raise LimitNOFILE");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, wanted, "the limit of open files cannot be raised"),
    }
}

/// The certificates, if the configuration has TLS.
fn secure(config: &Config, now: Stamp) -> anyhow::Result<Option<tls::Loaded>> {
    let Some(settings) = &config.server.tls else { return Ok(None) };
    make_private_dir(&config.state_dir)?;
    Ok(Some(tls::load(settings, &config.state_dir, now.wall)?))
}

async fn open_store(config: &Config, epoch: Epoch, now: Stamp) -> anyhow::Result<store::Opened> {
    let (dir, options) = (config.state_dir.clone(), config.store_options());
    let opened =
        tokio::task::spawn_blocking(move || store::open(&dir, &options, epoch.clone(), &boot_of(&epoch), now)).await?;
    let opened = opened.with_context(|| format!("cannot use the state directory {}", config.state_dir.display()))?;
    know_the_machine(&config.state_dir);
    Ok(opened)
}

/// Two bridges that were made from one SD card send under one name: `doctor` says more.
fn know_the_machine(state_dir: &Path) {
    match doctor::remember(state_dir) {
        Ok(None) => {}
        Ok(Some(change)) => {
            error!(?change, "the state belongs to another machine: if this is a copy, run `vitalbridge doctor`");
        }
        Err(error) => warn!(%error, "cannot tell whether the state belongs to this machine"),
    }
}

/// What every session has in common.
fn shared(config: &Config, epoch: &Epoch) -> Arc<Shared> {
    Arc::new(Shared {
        bridge: config.bridge.clone(),
        site: config.site.clone(),
        epoch: epoch.clone(),
        patients: config.patients.clone(),
        users: Users::new(config.server.limits.messages, config.server.limits.reads),
        limits: config.server.limits,
        close_codes: config.server.close_codes,
        streams: Streams::default(),
    })
}

/// The boot this run belongs to: monotonic times of different boots cannot be compared.
fn boot_id() -> String {
    // The hardened unit hides /proc/sys, so systemd hands the id over.
    std::env::var("VITALBRIDGE_BOOT_ID")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/random/boot_id"))
        .map_or_else(|_| UNKNOWN_BOOT.to_owned(), |id| id.trim().to_owned())
}

/// The boot for the store and its clock epochs: where nobody knows it, no two runs share one.
fn boot_of(epoch: &Epoch) -> String {
    let known = boot_id();
    if known == UNKNOWN_BOOT { format!("{UNKNOWN_BOOT}:{epoch}") } else { known }
}

/// Starts the radio of the Bluetooth sources, if there are any. It ends by itself only when nothing inside this process
/// has healed it; systemd then starts the daemon anew.
fn start_air(config: &Config, running: &Running, reader: &store::Reader, clock: &Clock) {
    if !config.sources.iter().any(|source| matches!(source.kind, SourceKind::Ble(_))) {
        return;
    }
    let (commits, wishes) = mpsc::channel(COMMIT_WISHES);
    let stop = running.stages.inputs.clone();
    let surroundings = Surroundings {
        commits: Some(commits),
        bonds_file: Some(config.state_dir.join(BONDS_FILE)),
        power_file: Some(config.state_dir.join(POWER_FILE)),
        time_sync: systemd::time_sync_directory(),
        timeline: Some(running.handle.timeline()),
    };
    running.tasks.spawn("bluetooth", Role::Vital, config.air.clone().run(clock.clone(), surroundings, stop));
    running.tasks.spawn("stored records", Role::Helper, {
        let (control, durable, reader) = (running.control.clone(), running.handle.durable(), reader.clone());
        let stop = running.stages.inputs.clone();
        stop.run_until_cancelled_owned(grant_commits(control, durable, reader, wishes)).map_or_ok()
    });
}

/// Answers sources that want to know when what they have handed on is on disk. A wish that is dropped was not granted.
async fn grant_commits(
    control: mpsc::Sender<Control>,
    mut durable: watch::Receiver<Seq>,
    reader: store::Reader,
    mut wishes: mpsc::Receiver<CommitWish>,
) {
    while let Some(wish) = wishes.recv().await {
        let (reply, numbered) = oneshot::channel();
        if control.send(Control::Settle(reply)).await.is_err() {
            return;
        }
        let Ok(newest) = numbered.await else { return };
        let limit = tokio::time::timeout(COMMIT_LIMIT, durable.wait_for(|through| *through >= newest));
        if !matches!(limit.await, Ok(Ok(_))) {
            continue;
        }
        // What the store's full queue refused has a number, and later ones are on disk: each record is looked for.
        match reader.missing_records(&wish.device, wish.records).await {
            Ok(missing) => {
                if !missing.is_empty() {
                    warn!(device = %wish.device, count = missing.len(), "records of a sensor are not on disk");
                }
                // If the source gave up waiting, nothing is owed.
                _ = wish.granted.send(missing);
            }
            Err(error) => warn!(device = %wish.device, %error, "cannot tell whether a sensor's records are on disk"),
        }
    }
}

/// How alerts reach people: who has to show them, the local fallback, and where they go that nobody acknowledges.
fn annunciate(
    config: &Config,
    running: &Running,
    pipeline: &mut Pipeline,
    metrics: &Arc<Metrics>,
    seed: u64,
    now: Stamp,
) {
    let (confirms, routes) = (config.confirms_delivery, config.escalation.clone());
    let mut settings = Annunciation { confirms, routes, fallback: None };
    if let Some(action) = config.fallback.clone() {
        let (wanted, orders) = watch::channel(Wanted::default());
        let (failed, mut told) = watch::channel(None);
        settings.fallback = Some(wanted);
        let (stop, metrics) = (running.stages.inputs.clone(), Arc::clone(metrics));
        running.tasks.spawn("local fallback", Role::Helper, {
            fallback::run(action, orders, failed, metrics, seed, stop.clone()).map_or_ok()
        });
        let control = running.control.clone();
        let watching = async move {
            loop {
                let known = *told.borrow_and_update();
                if let Some(failed) = known
                    && control.send(Control::Condition(BridgeCondition::FallbackFailed, failed)).await.is_err()
                {
                    return;
                }
                if told.changed().await.is_err() {
                    return;
                }
            }
        };
        running.tasks.spawn("fallback health", Role::Helper, stop.run_until_cancelled_owned(watching).map_or_ok());
    }
    pipeline.annunciate(settings, now);
}

/// What each source knows of earlier runs, and the way of orders to those that take them.
fn tie(
    config: &Config,
    identities: &BTreeMap<SourceId, DeviceIdentity>,
    mut records: BTreeMap<DeviceId, KnownRecords>,
    pipeline: &mut Pipeline,
) -> BTreeMap<SourceId, Ties> {
    let mut ties = BTreeMap::new();
    for source in config.sources.iter().filter(|source| matches!(source.kind, SourceKind::Serial(_))) {
        let (orders, queue) = mpsc::channel(ORDER_QUEUE);
        let counter =
            Counter { device: source.device.clone(), patient: source.patient.clone(), mode: source.mode, orders };
        pipeline.take_orders_for(source.id.clone(), counter);
        // What was bound as another device of the configuration is of no concern to this one.
        let known = identities.get(&source.id).filter(|known| known.device == source.device);
        let bound = known.map_or_else(Bound::default, |known| Bound {
            serial_number: known.serial_number.clone(),
            doubted: known.doubted.clone(),
        });
        ties.insert(source.id.clone(), Ties { bound, orders: Some(queue), ..Ties::default() });
    }
    for source in config.sources.iter().filter(|source| matches!(source.kind, SourceKind::Ble(_))) {
        let records = records.remove(&source.device).unwrap_or_default();
        ties.insert(source.id.clone(), Ties { records, ..Ties::default() });
    }
    ties
}

fn start_sources(
    config: &Config,
    mut ties: BTreeMap<SourceId, Ties>,
    running: &Running,
    clock: &Clock,
    metrics: &Metrics,
) {
    let mut counted = Vec::new();
    for source in &config.sources {
        let counters = Arc::new(SourceCounters::default());
        counted.push((source.id.clone(), Arc::clone(&counters)));
        let (source, out, clock) = (source.clone(), running.readings.clone(), clock.clone());
        let (stop, ties) = (running.stages.inputs.clone(), ties.remove(&source.id).unwrap_or_default());
        running.sources.spawn(format!("source {}", source.id), Role::Helper, async move {
            Ok(sources::run_with(source, ties, out, clock, counters, stop).await?)
        });
    }
    metrics.count_sources(counted);
}

/// With a broker, ranges of the log can be asked for again: by commands, and by orders in the state directory.
async fn take_wishes_for_more(
    config: &Config,
    running: &Running,
    reader: &store::Reader,
    pipeline: &mut Pipeline,
) -> anyhow::Result<ResendQueue> {
    let orders = reader.resend_orders().await.context("cannot read which ranges are to be sent again")?;
    let queue = ResendQueue::new(orders);
    if config.broker.is_some() {
        let runs = reader.epochs().await.context("cannot read the runs of the log")?;
        let runs = runs.into_iter().map(|run| (run.epoch, run.first_seq)).collect();
        pipeline.resend_by(Resending { queue: queue.clone(), runs });
    }
    let file = resending::OrderFile::new(config.state_dir.clone());
    let stop = running.stages.inputs.clone();
    let orders = resending::carry_out_orders(file, running.control.clone(), running.handle.durable(), stop);
    running.tasks.spawn("orders to send again", Role::Helper, orders.map_or_ok());
    Ok(queue)
}

/// Starts the uplink if a broker is configured; it is started again if it ends.
fn start_uplink(
    config: &Config,
    epoch: &Epoch,
    running: &Running,
    reader: &store::Reader,
    clock: &Clock,
    seed: u64,
    resends: ResendQueue,
) -> Option<watching::Uplink> {
    let mut settings = config.uplink(epoch)?;
    let allow = config.broker.as_ref().map_or_else(Vec::new, |broker| broker.commands.clone());
    if !allow.is_empty() {
        settings.downlink = Some(uplink::Downlink { allow, control: running.control.clone() });
    }
    let about = &mut settings.about;
    (about.config_hash, about.control) = (Some(running.config_hash.subscribe()), Some(running.control.clone()));
    (about.expected, about.boot, about.resends) = (expected(&config.sources), boot_id(), resends);
    let (measured, buffer) = watch::channel(None);
    about.buffer = Some(buffer.clone());
    let measuring = {
        let max_bytes = config.store_options().max_bytes;
        buffering::measure(reader.clone(), max_bytes, clock.clone(), measured)
    };
    let inputs = running.stages.inputs.clone();
    running.tasks.spawn("room of the buffer", Role::Helper, inputs.run_until_cancelled_owned(measuring).map_or_ok());
    // What the broker did not take in an earlier run is told from the start.
    let parked = running.handle.parked().borrow().total();
    let (status, told) = watch::channel(uplink::UplinkStatus { parked, ..uplink::UplinkStatus::default() });
    let (reader, handle, clock) = (reader.of_uplink(), running.handle.clone(), clock.clone());
    let stop = running.stages.uplink.clone();
    running.uplink.spawn("uplink", Role::Helper, async move {
        let backoff = Backoff::new(UPLINK_RESTART.0, UPLINK_RESTART.1, seed);
        let run = || {
            let (reader, handle, clock) = (reader.clone(), handle.clone(), clock.clone());
            uplink::run(settings.clone(), reader, handle, status.clone(), clock, seed, stop.clone())
        };
        restarting::run_again(run, backoff, stop.clone()).await;
        Ok(())
    });
    let low = config.broker.as_ref().and_then(|broker| broker.buffer_low);
    Some(watching::Uplink { status: told, buffer, low: buffering::Watch::new(low) })
}

/// Ends what an earlier run may have left open and this one rules out; what is not told stays unknown in the engine.
async fn tell_what_cannot_be(config: &Config, control: &mpsc::Sender<Control>) {
    // The configuration that runs was good.
    let mut absent = vec![BridgeCondition::ConfigurationError];
    if config.fallback.is_none() {
        absent.push(BridgeCondition::FallbackFailed);
    }
    if config.broker.is_none() {
        absent.extend([BridgeCondition::UplinkDown, BridgeCondition::UplinkRejected, BridgeCondition::BufferLow]);
    }
    for condition in absent {
        // A closed pipeline means that the daemon is about to end, and the main loop knows.
        let _ = control.send(Control::Condition(condition, false)).await;
    }
}

fn watch_storage(config: &Config, running: &Running, reader: &store::Reader, clock: &Clock, metrics: &Arc<Metrics>) {
    let storing = storing::Storing {
        state_dir: config.state_dir.clone(),
        reader: reader.clone(),
        max_bytes: config.store_options().max_bytes,
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
    };
    let watching = running.stages.inputs.clone().run_until_cancelled_owned(storing.watch());
    running.tasks.spawn("room of the disk", Role::Helper, watching.map_or_ok());
}

fn start_host_watcher(running: &Running, state_dir: PathBuf, keeper: Timekeeper) {
    let (stop, control) = (running.stages.inputs.clone(), running.control.clone());
    let watching = watching::watch_disk(control.clone(), state_dir);
    running.tasks.spawn("disk", Role::Helper, stop.clone().run_until_cancelled_owned(watching).map_or_ok());
    running.tasks.spawn("clock", Role::Helper, stop.run_until_cancelled_owned(keeper.run(control)).map_or_ok());
}

/// Reads the configuration again; a broken one changes nothing.
async fn reload(config_file: Option<&(PathBuf, Place)>, running: &mut Running) {
    let Some((path, place)) = config_file else {
        info!("SIGHUP: there is no configuration file to read again");
        return;
    };
    let (kind, message, broken) = match Config::load(path, place)
        .map_err(anyhow::Error::from)
        .and_then(|config| Ok((all_keys(&config)?, secure(&config, Clock::System.now())?, config)))
    {
        Ok((key, secured, config)) => {
            running.key.send_replace(key);
            running.config_hash.send_replace(config.hash.clone());
            running.fetching.cancel();
            running.fetching = running.stages.inputs.child_token();
            start_fetching(running, &Clock::System);
            match (&running.tls, secured) {
                (Some(tls), Some(loaded)) => {
                    info!(fingerprint = %loaded.fingerprint, "TLS with this certificate (SHA-256)");
                    tls.send_replace(loaded.server);
                }
                (None, None) => {}
                _ => warn!("TLS is switched on or off by a restart"),
            }
            // A closed pipeline means that the daemon is about to end, and the main loop knows.
            let _ = running.control.send(Control::Rules(Box::new(config.rules))).await;
            info!(path = %path.display(), "alert rules, token keys and certificates were read again; other changes need a restart");
            (SystemKind::ConfigReloaded, "alert rules, token keys and certificates were read again".to_owned(), false)
        }
        Err(error) => {
            error!(path = %path.display(), "the configuration was refused, the old one goes on:\n{error:#}");
            (SystemKind::ConfigRefused, "the changed configuration has errors; the old one goes on".to_owned(), true)
        }
    };
    for wish in [
        Control::System(SystemEvent { kind, message, first: None, last: None }),
        Control::Condition(BridgeCondition::ConfigurationError, broken),
    ] {
        let _ = running.control.send(wish).await;
    }
}

/// Writes down that every connection ends, while the pipeline still takes it: sessions end after the pipeline.
async fn tell_who_was_connected(connections: &Connections, control: &mpsc::Sender<Control>) {
    let telling = async {
        for row in connections.farewell() {
            // The pipeline has failed if this does; the log says why the daemon ends.
            let _ = control.send(Control::Audit(row)).await;
        }
    };
    if tokio::time::timeout(FAREWELL_GRACE, telling).await.is_err() {
        warn!("the audit trail lacks the end of some connections");
    }
}

/// Ends the stages in the order in which data flows, so that nothing accepted is lost; the first vital part that failed
/// is the answer, also one that failed at its end.
async fn shut_down(running: Running, deadline: Mono) -> Option<VitalEnded> {
    let Running { tasks, sources, pipeline, sessions, uplink, store, stages, .. } = running;
    let (connections, control, readings, handle) =
        (running.connections, running.control, running.readings, running.handle);
    let (_key, _tls) = (running.key, running.tls);
    info!("stopping");
    stages.inputs.cancel();
    tell_who_was_connected(&connections, &control).await;
    drop((control, readings));
    // The pipeline ends once every source has hung up.
    let mut left = sources.drain(SOURCES_GRACE).await;
    left.extend(pipeline.drain(PIPELINE_GRACE).await);
    stages.sessions.cancel();
    left.extend(sessions.drain(SESSIONS_GRACE).await);
    left.extend(tasks.drain(TASKS_GRACE).await);
    stages.uplink.cancel();
    left.extend(uplink.drain(UPLINK_GRACE).await);
    // In this order: a store that ends because its last handle has gone ends unasked, which is a failure.
    stages.store.cancel();
    drop(handle);
    let rest = deadline.since(Clock::System.now().mono);
    let unwritten = store.drain(rest).await;
    left.extend(unwritten.iter().cloned());
    if left.is_empty() {
        info!("stopped");
    } else {
        warn!(tasks = ?left, "stopped, although some tasks did not end in time");
    }
    let late = |task| VitalEnded { task, reason: format!("it did not end within {rest:?}") };
    let unwritten = unwritten.into_iter().next().map(late);
    store.failed().or(unwritten).or(pipeline.failed()).or(tasks.failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orderly_end_is_over_before_systemd_kills() {
        let unit = include_str!("../systemd/vitalbridge.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        let limit = Duration::from_secs(limit.parse().unwrap());
        // A second is for what is slower than its own limit.
        assert!(STOP_LIMIT + RUNTIME_STOP + Duration::from_secs(1) <= limit, "{limit:?}");
    }
}
