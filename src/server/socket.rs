//! One WebSocket: feeds the session with what arrives and carries out what it decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::hub::ListenerId;
use crate::ids::Seq;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Parcel};
use crate::pipeline::{self, Control};
use crate::secret::Secret;
use crate::server::auth::Rights;
use crate::server::close::Close;
use crate::server::form::Form;
use crate::server::jwt::TokenKey;
use crate::server::session::{Action, CommandRequest, Located, Session, Shared};
use crate::store::{Reader, ResumePoint};

/// Largest message of a client.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A write that takes longer closes the connection as slow.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The answer to our close frame is awaited this long.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// Events taken from the outbox for one write.
const PARCELS_A_WRITE: usize = 64;

/// Messages of a client that are read before its own deadlines and events have their turn.
const MESSAGES_IN_A_ROW: usize = 32;

/// Events read from disk for one write of a replay.
const EVENTS_A_CHUNK: usize = 500;

/// What sessions need of the daemon.
#[derive(Debug, Clone)]
pub struct Gate {
    /// What they have in common.
    pub shared: Arc<Shared>,
    /// The pipeline.
    pub control: mpsc::Sender<Control>,
    /// The stored events.
    pub reader: Reader,
    /// The newest event on disk.
    pub durable: watch::Receiver<Seq>,
    /// Who may come in; changes on reload.
    pub key: watch::Receiver<TokenKey>,
    /// What time it is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Sessions have to end.
    pub stop: CancellationToken,
}

/// Runs a session over an upgraded connection until one side ends it.
///
/// `defaults`: the channels of a `subscribe` that names none; `form`: how messages are written.
pub async fn run<S>(
    stream: S,
    gate: Gate,
    connection_id: String,
    rights: Option<Rights>,
    defaults: &'static [&'static str],
    form: Form,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // The library's default read buffer of 128 KiB costs twenty times the memory of a connection with 4 KiB.
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_write_buffer_size(16 * 1024 * 1024)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    gate.metrics.connections_total.add_one();
    gate.metrics.connections.add(1);
    let (session, greeting) =
        Session::new(Arc::clone(&gate.shared), connection_id.clone(), rights, defaults, form, gate.clock.now());
    let mut connection = Connection { socket, session, outbox: None, listener: None, gate };
    let end = connection.turn(greeting).await;
    debug!(connection_id, why = end.reason(), "session ended");
    if let Some(listener) = connection.listener.take() {
        // The pipeline has ended if this fails, and its listeners with it.
        let _ = connection.gate.control.send(Control::Leave(listener)).await;
    }
    connection.gate.metrics.connections.subtract_one();
}

/// Why a connection ended.
enum End {
    /// The other side closed or went away.
    Peer,
    /// We closed, for this reason.
    Ours(&'static str),
    /// A write took too long or failed.
    Write,
}

impl End {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Peer => "the other side left",
            Self::Ours(reason) => reason,
            Self::Write => "a write took too long or failed",
        }
    }
}

struct Connection<S> {
    socket: WebSocketStream<S>,
    session: Session,
    outbox: Option<Arc<Outbox>>,
    listener: Option<ListenerId>,
    gate: Gate,
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn turn(&mut self, greeting: Vec<Action>) -> End {
        let mut actions = greeting;
        let mut read = 0;
        loop {
            if let Err(end) = self.carry_out(actions).await {
                return end;
            }
            let now = self.gate.clock.now();
            let wait = self.session.next_deadline().since(now.mono);
            let (live, waits_for_disk) = (self.session.is_live(), self.session.waits_for_disk());
            let outbox = self.outbox.clone();
            let filled = async {
                match outbox {
                    Some(outbox) if live => outbox.filled().await,
                    _ => std::future::pending().await,
                }
            };
            actions = tokio::select! {
                biased;
                // The daemon's end must not wait for anybody.
                () = self.gate.stop.cancelled() => self.session.close_now(Close::ServerShutdown, self.gate.clock.now()),
                // What the client said is read before it is judged: a pong may wait behind it. One that floods delays
                // only its own events.
                message = self.socket.next(), if read < MESSAGES_IN_A_ROW => match self.on_message(message) {
                    Ok(actions) => {
                        read += 1;
                        actions
                    }
                    Err(end) => return end,
                },
                // Heartbeats go out whatever else flows.
                () = tokio::time::sleep(wait) => {
                    read = 0;
                    let mut actions = self.on_durable();
                    actions.extend(self.session.on_deadline(self.gate.clock.now()));
                    actions
                }
                // A command of this session may have reached the disk.
                changed = self.gate.durable.changed(), if waits_for_disk => match changed {
                    Ok(()) => self.on_durable(),
                    Err(_) => self.session.close_now(Close::ServerShutdown, self.gate.clock.now()),
                },
                // Events, as many as one write carries.
                () = filled => {
                    read = 0;
                    self.deliver()
                }
            };
        }
    }

    fn on_message(&mut self, message: Option<Result<Message, WsError>>) -> Result<Vec<Action>, End> {
        let now = self.gate.clock.now();
        match message {
            Some(Ok(Message::Text(text))) => Ok(self.session.on_text(text.as_str(), now)),
            Some(Ok(Message::Binary(bytes))) => Ok(self.session.on_binary(&bytes, now)),
            Some(Ok(Message::Pong(_))) => Ok(self.session.on_pong(now)),
            // The library answers pings with the next flush.
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Ok(Vec::new()),
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => Ok(self.session.on_too_big(now)),
            Some(Ok(Message::Close(_))) | None => Err(End::Peer),
            Some(Err(error)) => {
                debug!(%error, "the connection broke");
                Err(End::Peer)
            }
        }
    }

    fn on_durable(&mut self) -> Vec<Action> {
        let durable = *self.gate.durable.borrow_and_update();
        self.session.on_durable(durable, self.gate.clock.now())
    }

    /// Takes what one write carries; what is left comes with the next turn.
    fn deliver(&mut self) -> Vec<Action> {
        let Some(outbox) = &self.outbox else { return Vec::new() };
        let mut parcels: Vec<Parcel> = Vec::new();
        let in_time = outbox.take(PARCELS_A_WRITE, &mut parcels);
        let now = self.gate.clock.now();
        let mut actions = self.session.on_parcels(&parcels, now);
        if !in_time {
            actions.extend(self.session.close_now(Close::SlowConsumer, now));
        }
        actions
    }

    /// Carries out actions in their order, and those that their answers bring, then flushes once.
    async fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), End> {
        let mut queue: VecDeque<Action> = actions.into();
        let mut written = false;
        while let Some(action) = queue.pop_front() {
            let more = match action {
                Action::Send(text) => {
                    self.feed(Message::Text(text.into())).await?;
                    written = true;
                    continue;
                }
                Action::SendShared(bytes) => {
                    if let Ok(text) = Utf8Bytes::try_from(bytes) {
                        self.feed(Message::Text(text)).await?;
                        written = true;
                    }
                    continue;
                }
                Action::SendBinary(bytes) => {
                    self.feed(Message::Binary(bytes)).await?;
                    written = true;
                    continue;
                }
                Action::Ping => {
                    self.feed(Message::Ping(bytes::Bytes::new())).await?;
                    written = true;
                    continue;
                }
                Action::Close(close) => return Err(self.close(close).await),
                Action::Replay { after, through } => self.replay(after, through).await?,
                other => self.ask(other).await,
            };
            // Answers go before what was already waiting, so that a subscribe is complete before the next one.
            for action in more.into_iter().rev() {
                queue.push_front(action);
            }
        }
        if written { self.flush().await } else { Ok(()) }
    }

    /// Actions that need an answer of another part.
    async fn ask(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::Verify(token) => self.verify(&token),
            Action::Locate(epoch, seq) => match self.gate.reader.resume_point(&epoch, seq).await {
                Ok(point) => self.session.on_located(located(point)),
                Err(error) => {
                    // The present does not need the disk: the client gets it, and learns that the past is missing.
                    warn!(%error, "a resume goes on without the log");
                    self.session.on_located(Located { after: None, lost: Vec::new() })
                }
            },
            Action::Join(join) => {
                let (reply, answer) = oneshot::channel();
                if self.gate.control.send(Control::Join(join, reply)).await.is_err() {
                    return self.session.close_now(Close::ServerShutdown, self.gate.clock.now());
                }
                let joined = answer.await.ok().flatten();
                if let Some(joined) = &joined {
                    self.outbox = Some(Arc::clone(&joined.outbox));
                    self.listener = Some(joined.listener);
                }
                self.session.on_joined(joined, self.gate.clock.now())
            }
            Action::Unsubscribe(listener, patterns) => {
                // The pipeline has ended if this fails, and its listeners with it.
                let _ = self.gate.control.send(Control::Unsubscribe(listener, patterns)).await;
                Vec::new()
            }
            Action::Annunciate(listener) => {
                // The pipeline has ended if this fails, and its listeners with it.
                let _ = self.gate.control.send(Control::Annunciate(listener)).await;
                Vec::new()
            }
            Action::Receipt(receipt) => {
                let _ = self.gate.control.send(Control::Receipt(receipt)).await;
                Vec::new()
            }
            Action::Command(request) => self.command(request).await,
            Action::Delivered(user, ids) => {
                // If the pipeline has ended they wait on, and come again with the same ids.
                let _ = self.gate.control.send(Control::Delivered(user, ids)).await;
                Vec::new()
            }
            Action::Preferences(correlation_id, user) => {
                let chosen = pipeline::preferences(&self.gate.control, user).await;
                self.session.on_preferences(&correlation_id, chosen.as_ref(), self.gate.clock.now())
            }
            Action::Send(_)
            | Action::SendShared(_)
            | Action::SendBinary(_)
            | Action::Ping
            | Action::Close(_)
            | Action::Replay { .. } => Vec::new(),
        }
    }

    fn verify(&mut self, token: &Secret) -> Vec<Action> {
        let now = self.gate.clock.now();
        let checked = self.gate.key.borrow().verify(token.expose(), now.wall);
        if let Err(refused) = &checked {
            self.gate.metrics.sign_in_refused_total.add_one();
            warn!(reason = %refused, "a token was refused");
        }
        let rights = checked.map(|claims| Rights::from_claims(&claims)).map_err(|refused| refused.to_string());
        self.session.on_token(rights, now)
    }

    async fn command(&mut self, request: CommandRequest) -> Vec<Action> {
        let CommandRequest { correlation_id, command, by, scope } = request;
        let done = pipeline::carry_out(&self.gate.control, command, by, scope).await;
        let done = done.map_err(|refusal| (refusal.code, refusal.reason));
        self.session.on_command_done(&correlation_id, done, self.gate.clock.now())
    }

    /// Sends stored events in chunks, each written before the next is read; alerts of the present jump ahead.
    async fn replay(&mut self, after: Seq, through: Seq) -> Result<Vec<Action>, End> {
        self.gate.metrics.resumed_total.add_one();
        let mut last = after;
        while last < through {
            let events = match self.gate.reader.events(last, EVENTS_A_CHUNK).await {
                Ok(events) => events,
                Err(error) => {
                    warn!(%error, "a replay ends early");
                    break;
                }
            };
            let until = events.partition_point(|event| event.seq <= through);
            let Some(newest) = events.get(..until).and_then(<[_]>::last).map(|event| event.seq) else {
                break;
            };
            let mut actions = self.session.on_replay(events.get(..until).unwrap_or(&[]), self.gate.clock.now());
            last = newest;
            if let Some(outbox) = &self.outbox {
                let mut urgent = Vec::new();
                outbox.take_lossless(PARCELS_A_WRITE, &mut urgent);
                actions.extend(self.session.on_parcels(&urgent, self.gate.clock.now()));
            }
            actions.extend(self.on_durable());
            actions.extend(self.session.on_deadline(self.gate.clock.now()));
            Box::pin(self.carry_out(actions)).await?;
        }
        let mut actions = Vec::new();
        if last < through {
            // Neither on disk nor in memory: said, not hidden.
            let (from, skipped) = (last.next(), through.0.saturating_sub(last.0));
            actions = self.session.on_parcels(&[Parcel::Gap { from, to: through, skipped }], self.gate.clock.now());
        }
        actions.extend(self.session.on_replayed(self.gate.clock.now()));
        Ok(actions)
    }

    async fn feed(&mut self, message: Message) -> Result<(), End> {
        self.gate.metrics.frames_sent_total.add_one();
        match tokio::time::timeout(WRITE_DEADLINE, self.socket.feed(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Write),
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        match tokio::time::timeout(WRITE_DEADLINE, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Write),
        }
    }

    /// Sends the close frame and gives the other side a moment to answer it.
    async fn close(&mut self, close: Close) -> End {
        let frame = CloseFrame { code: close.code().into(), reason: close.name().into() };
        let farewell = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // A peer that does not answer is left alone.
        let _ = tokio::time::timeout(CLOSE_DEADLINE, farewell).await;
        End::Ours(close.name())
    }
}

fn located(point: ResumePoint) -> Located {
    match point {
        ResumePoint::After { after, lost } => {
            Located { after: Some(after), lost: lost.iter().map(|range| (range.first, range.last)).collect() }
        }
        ResumePoint::Unknown => Located { after: None, lost: Vec::new() },
    }
}
