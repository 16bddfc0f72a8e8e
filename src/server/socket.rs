//! One WebSocket: feeds the session with what arrives and carries out what it decides.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::{Clock, Mono};
use crate::event::Actor;
use crate::hub::ListenerId;
use crate::ids::Seq;
use crate::metrics::Metrics;
use crate::outbox::{Frame, Outbox, Parcel};
use crate::pipeline::{self, Control};
use crate::secret::Secret;
use crate::server::auth::Rights;
use crate::server::chat;
use crate::server::close::Close;
use crate::server::connections::{Connections, Visit};
use crate::server::ending::{End, Ending};
use crate::server::history::{self, Page, Query};
use crate::server::interrupts::{Interrupt, Interrupts};
use crate::server::joining;
use crate::server::jwt::{TokenKey, TokenRefused};
use crate::server::nudge::Nudge;
use crate::server::seats::{Order, SIGN_OF_LIFE, Seats, UserSeat, Waiting};
use crate::server::session::{Action, ChatOrder, CommandRequest, Located, Manner, Session, Shared};
use crate::server::strict::{FrameBounds, Strict, Violation};
use crate::server::tokens::Access;
use crate::server::writing::{self, Writing};
use crate::store::{Reader, ResumePoint};

pub use crate::server::bounds::MAX_MESSAGE_BYTES;

/// A write that takes longer closes the connection as slow.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The answer to our close frame is awaited this long.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What is read and dropped of a client that is told why nothing more of it is read: with it unread, the system would
/// throw the telling away.
const MAX_DROPPED_BYTES: usize = 1024 * 1024;

/// Events taken from the outbox for one write, at most so many bytes as a slow network carries in two seconds.
const PARCELS_A_WRITE: usize = 32;

/// Events taken for one write of a client whose last one had to wait: what stays in the outbox can still be replaced.
const PARCELS_WHEN_SLOW: usize = 8;

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
    /// What else lets in or keeps out: tickets and revocations.
    pub access: Access,
    /// What time it is.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who may be here at once.
    pub seats: Arc<Seats>,
    /// Who is connected.
    pub connections: Connections,
    /// Sessions have to end.
    pub stop: CancellationToken,
}

/// Runs a session over an upgraded connection until one side ends it.
///
/// `waiting`: its place while it has not signed in.
pub fn run<S>(
    stream: S,
    gate: Arc<Gate>,
    visit: Visit,
    rights: Option<Rights>,
    waiting: Option<Waiting>,
    manner: Manner,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // What the beginning needs has its room only while it lasts: a session waits for years.
    let opening = Box::pin(open(stream, gate, visit, rights, waiting, manner));
    async move {
        let (mut connection, greeting) = opening.await;
        let end = connection.turn(greeting).await;
        Box::pin(connection.end(end)).await;
    }
}

/// A connection with its session, and what it says first.
async fn open<S>(
    stream: S,
    gate: Arc<Gate>,
    visit: Visit,
    rights: Option<Rights>,
    waiting: Option<Waiting>,
    manner: Manner,
) -> (Box<Connection<S>>, Vec<Action>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = gate.shared.limits;
    let before_sign_in = FrameBounds { bytes: limits.first_message_bytes, fragments: limits.fragments };
    let socket = writing::websocket(stream, Strict::careful(before_sign_in), limits.message_bytes).await;
    gate.metrics.connections_total.add_one();
    gate.metrics.connections.add(1);
    let (mut seat, mut is_full) = (None, false);
    if let Some(rights) = &rights {
        seat = take_seat(&gate, &rights.user).await;
        is_full = seat.is_none();
        if is_full {
            visit.on_no_room(&rights.user);
        }
    }
    let (mut session, mut greeting) = Session::new(
        Arc::clone(&gate.shared),
        visit.id().to_owned(),
        rights.filter(|_| !is_full),
        manner,
        gate.clock.now(),
    );
    if is_full {
        greeting.extend(session.close_now(Close::UserConnectionLimit, gate.clock.now()));
    }
    visit.begin();
    visit.on_signed_in(&session);
    let interrupts = Interrupts::new(gate.stop.clone(), gate.access.revocations(), visit.order());
    let mut connection = Box::new(Connection {
        socket,
        session,
        outbox: None,
        listener: None,
        interrupts,
        said: Nudge::default(),
        pinged: None,
        is_slow: false,
        histories: VecDeque::new(),
        reading: None,
        held: VecDeque::new(),
        early: None,
        visit,
        durable: gate.durable.clone(),
        gate,
        seat: None,
        waiting,
    });
    if let Some(seat) = seat {
        connection.admit(seat);
    }
    (connection, greeting)
}

/// A socket whose token was revoked is closed by its session within this time, or torn down.
const REVOKED_DEADLINE: Duration = Duration::from_millis(600);

/// Ends once the token of who holds the connection has been revoked for [`REVOKED_DEADLINE`].
async fn overdue(access: Access, rights: Option<Rights>) {
    let Some(rights) = rights else { return std::future::pending().await };
    let mut revoked = access.revocations();
    loop {
        if revoked.borrow_and_update().forbid(&rights) {
            tokio::time::sleep(REVOKED_DEADLINE).await;
            return;
        }
        if revoked.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A place among the sessions of a user. If all are taken and none is idle, they are asked for a sign of life: a display
/// whose network broke comes back before the server knows that it was gone.
async fn take_seat(gate: &Gate, user: &str) -> Option<UserSeat> {
    let asked = gate.clock.now().mono;
    let mut seat = gate.seats.sit(user, asked);
    if seat.is_none() {
        gate.seats.probe(user);
        let patience = tokio::time::sleep(SIGN_OF_LIFE);
        if gate.stop.run_until_cancelled(patience).await.is_some() {
            seat = gate.seats.sit_instead_of_silent(user, asked, gate.clock.now().mono);
        }
    }
    if seat.is_none() {
        gate.metrics.sessions_refused_total.add_one();
        debug!("a user has as many sessions as are allowed");
    }
    seat
}

struct Connection<S> {
    socket: WebSocketStream<Writing<S>>,
    session: Session,
    outbox: Option<Arc<Outbox>>,
    listener: Option<ListenerId>,
    interrupts: Interrupts,
    /// Whether the client may have said something.
    said: Nudge,
    /// When the ping was written that has no answer yet.
    pinged: Option<Mono>,
    visit: Visit,
    /// The last write had to wait.
    is_slow: bool,
    /// Questions about the past that wait; the session bounds them.
    histories: VecDeque<Query>,
    /// The one that is being answered.
    reading: Option<PageRead>,
    /// What the client said while it was to get an answer: at most [`MESSAGES_IN_A_ROW`].
    held: VecDeque<Heard>,
    /// What was taken from the outbox when such an answer had come: it goes behind the answer.
    early: Option<Taken>,
    gate: Arc<Gate>,
    /// The newest event on disk.
    durable: watch::Receiver<Seq>,
    /// Its place among the sessions of its user.
    seat: Option<UserSeat>,
    /// Its place until it has signed in.
    waiting: Option<Waiting>,
}

/// What was taken from an outbox; false: its lane of alerts has overrun.
type Taken = (Vec<Parcel>, bool);

/// What the socket gave; `None`: its end.
type Heard = Option<Result<Message, WsError>>;

/// A page of the past that is being read, and the name under which it was asked for.
type PageRead = Pin<Box<dyn Future<Output = (String, Option<Page>)> + Send>>;

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// The client has signed in.
    fn admit(&mut self, seat: UserSeat) {
        let limits = self.gate.shared.limits;
        self.interrupts.on_seated(seat.orders());
        self.seat = Some(seat);
        self.waiting = None;
        self.socket.get_mut().admit(FrameBounds { bytes: limits.message_bytes, fragments: limits.fragments });
    }

    async fn turn(&mut self, greeting: Vec<Action>) -> End {
        let mut actions = greeting;
        let mut read = 0;
        // Armed again only when the deadline is another one: most turns are deliveries, which do not move it.
        let (mut timer, mut armed, mut rings) = (pin!(tokio::time::sleep(Duration::ZERO)), None, Nudge::default());
        loop {
            if let Err(end) = self.carry_out(actions).await {
                return end;
            }
            self.read_the_past();
            let deadline = self.session.next_deadline();
            if armed != Some(deadline) {
                let wait = deadline.since(self.gate.clock.now().mono);
                timer.set(tokio::time::sleep(wait));
                rings.renew();
                armed = Some(deadline);
            }
            if let Some(seat) = &self.seat {
                seat.subscribed(self.session.has_subscriptions());
            }
            let (live, waits_for_disk) = (self.session.is_live(), self.session.waits_for_disk());
            let (outbox, clock) = (self.outbox.clone(), self.gate.clock.clone());
            let filled = async {
                match outbox {
                    Some(outbox) if live => outbox.filled(&clock).await,
                    _ => std::future::pending().await,
                }
            };
            actions = tokio::select! {
                biased;
                // The daemon's end, a lost right and an administrator must not wait for a client.
                interrupt = self.interrupts.next() => self.on_interrupt(interrupt),
                // What the client said is read before it is judged: a pong may wait behind it. One that floods delays
                // only its own events.
                message = heard(&mut self.held, &mut self.said, &mut self.socket), if read < MESSAGES_IN_A_ROW => match self.on_message(message) {
                    Ok(mut answers) => {
                        read += 1;
                        // An alert that waits goes before the answer.
                        let mut actions = self.deliver_alerts();
                        actions.append(&mut answers);
                        actions
                    }
                    Err(ending) => return Box::pin(self.part(ending)).await,
                },
                // Heartbeats go out whatever else flows.
                () = poll_fn(|cx| rings.poll(cx, |cx| timer.as_mut().poll(cx))) => {
                    read = 0;
                    armed = None;
                    let mut actions = self.on_durable();
                    actions.extend(self.session.on_deadline(self.gate.clock.now()));
                    self.visit.on_acked(self.session.acked_seq(), !self.session.is_healthy());
                    actions
                }
                // A command of this session may have reached the disk.
                changed = self.durable.changed(), if waits_for_disk => match changed {
                    Ok(()) => self.on_durable(),
                    Err(_) => self.session.close_now(Close::ServerShutdown, self.gate.clock.now()),
                },
                // A page of the past, which nobody else waits for.
                (id, page) = async {
                    match self.reading.as_mut() {
                        Some(reading) => reading.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.reading = None;
                    self.session.on_history(&id, page.as_ref(), self.gate.clock.now())
                }
                // Events, as many as one write carries.
                () = filled => {
                    read = 0;
                    self.deliver()
                }
                // Nothing else had a turn to take.
                () = std::future::ready(()), if read >= MESSAGES_IN_A_ROW => {
                    read = 0;
                    Vec::new()
                }
            };
        }
    }

    fn on_interrupt(&mut self, interrupt: Interrupt) -> Vec<Action> {
        let now = self.gate.clock.now();
        match interrupt {
            Interrupt::Stop => self.session.close_now(Close::ServerShutdown, now),
            Interrupt::Revoked => self.on_revocations(),
            Interrupt::Ordered(close) => self.session.close_now(close, now),
            Interrupt::Asked(order) => self.on_order(order),
        }
    }

    fn on_order(&mut self, order: Order) -> Vec<Action> {
        let now = self.gate.clock.now();
        match order {
            Order::Answer => self.session.on_probe(now),
            Order::Leave => {
                self.gate.metrics.sessions_evicted_total.add_one();
                self.session.close_now(Close::UserConnectionLimit, now)
            }
        }
    }

    fn on_message(&mut self, message: Heard) -> Result<Vec<Action>, Ending> {
        let now = self.gate.clock.now();
        if let (Some(seat), Some(Ok(message))) = (&self.seat, &message) {
            match message {
                Message::Text(_) | Message::Binary(_) => seat.said(now.mono),
                _ => seat.heard(now.mono),
            }
        }
        let is_message = matches!(&message, Some(Ok(Message::Text(_) | Message::Binary(_))));
        if matches!(message, Some(Ok(_))) {
            self.visit.on_heard(is_message);
        }
        match message {
            Some(Err(_)) if self.socket.get_ref().violation().is_some_and(Violation::is_of_size) => {
                Ok(self.session.on_too_big(now))
            }
            Some(Ok(Message::Text(text))) => {
                let actions = self.session.on_text(text.as_str(), now);
                self.visit.on_acked(self.session.acked_seq(), !self.session.is_healthy());
                if let Some(wanted) = self.session.take_wanted() {
                    self.visit.on_subscribe(&wanted);
                }
                Ok(actions)
            }
            Some(Ok(Message::Binary(bytes))) => Ok(self.session.on_binary(&bytes, now)),
            Some(Ok(Message::Pong(_))) => {
                if let Some(pinged) = self.pinged.take() {
                    self.visit.on_round_trip(now.mono.since(pinged));
                }
                let mut actions = self.session.on_pong(now);
                actions.extend(self.session.on_control(now));
                Ok(actions)
            }
            // The library answers pings with the next flush.
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => Ok(self.session.on_control(now)),
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { .. }))) => Ok(self.session.on_too_big(now)),
            Some(Ok(Message::Close(frame))) => Err(Ending::Closed(frame.map(|frame| frame.code.into()))),
            None => Err(Ending::Gone),
            Some(Err(error)) => {
                debug!(%error, "the connection broke");
                let wrong = self.socket.get_ref().violation().map(Ending::Wrong);
                Err(wrong.unwrap_or(Ending::Gone))
            }
        }
    }

    /// Begins to read the next page of the past, unless one is being read.
    fn read_the_past(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let Some(query) = self.histories.pop_front() else { return };
        let (reader, durable) = (self.gate.reader.clone(), self.gate.durable.clone());
        let shared = Arc::clone(&self.gate.shared);
        self.reading = Some(Box::pin(async move {
            let page = history::read(&reader, durable, &shared, &query).await;
            let page = page.inspect_err(|error| warn!(%error, "a page of the log cannot be read")).ok();
            (query.correlation_id, page)
        }));
    }

    fn on_durable(&mut self) -> Vec<Action> {
        let durable = *self.durable.borrow_and_update();
        self.session.on_durable(durable, self.gate.clock.now())
    }

    /// Something was revoked: perhaps the token of this session.
    fn on_revocations(&mut self) -> Vec<Action> {
        if self.session.rights().is_some_and(|rights| self.gate.access.forbids(rights)) {
            return self.session.close_now(Close::TokenRevoked, self.gate.clock.now());
        }
        Vec::new()
    }

    /// Takes what one write carries; what is left comes with the next turn.
    fn take(&self) -> Taken {
        let mut parcels: Vec<Parcel> = Vec::new();
        let most = if self.is_slow { PARCELS_WHEN_SLOW } else { PARCELS_A_WRITE };
        let in_time = self.outbox.as_ref().is_none_or(|outbox| outbox.take(most, &mut parcels));
        (parcels, in_time)
    }

    fn deliver(&mut self) -> Vec<Action> {
        let taken = self.take();
        self.hand_on(taken)
    }

    fn hand_on(&mut self, (parcels, in_time): Taken) -> Vec<Action> {
        let now = self.gate.clock.now();
        let mut actions = self.session.on_parcels(&parcels, now);
        if !in_time {
            actions.extend(self.session.close_now(Close::SlowConsumer, now));
        }
        actions
    }

    /// Takes alerts alone, so that they go before what a client asked for. A client that wants everything in its order
    /// has them in that.
    fn deliver_alerts(&mut self) -> Vec<Action> {
        let Some(outbox) = self.outbox.as_ref().filter(|_| self.session.is_live()) else { return Vec::new() };
        let mut parcels: Vec<Parcel> = Vec::new();
        outbox.take_urgent(PARCELS_A_WRITE, &mut parcels);
        if parcels.is_empty() { Vec::new() } else { self.session.on_parcels(&parcels, self.gate.clock.now()) }
    }

    /// Carries out actions in their order, and those that their answers bring, then flushes once.
    async fn carry_out(&mut self, actions: Vec<Action>) -> Result<(), End> {
        let mut queue: VecDeque<Action> = actions.into();
        let mut written = false;
        while let Some(action) = queue.pop_front() {
            let more = match action {
                Action::Send(text) => {
                    self.feed(Frame::text(&text));
                    written = true;
                    continue;
                }
                Action::SendShared(frame) => {
                    self.feed(frame);
                    written = true;
                    continue;
                }
                Action::SendBinary(bytes) => {
                    self.feed(Frame::binary(&bytes));
                    written = true;
                    continue;
                }
                Action::Ping => {
                    self.pinged = self.pinged.or(Some(self.gate.clock.now().mono));
                    self.feed(Frame::ping());
                    written = true;
                    continue;
                }
                Action::Close(close) => return Err(Box::pin(self.close(close)).await),
                // What is rare has its room only while it lasts.
                Action::Replay { after, through, readings } => {
                    Box::pin(self.replay((after, through), readings)).await?
                }
                other => Box::pin(self.ask(other)).await?,
            };
            // Answers go before what was already waiting, so that a subscribe is complete before the next one.
            for action in more.into_iter().rev() {
                queue.push_front(action);
            }
        }
        if written { self.flush().await } else { Ok(()) }
    }

    /// Actions that need an answer of another part.
    async fn ask(&mut self, action: Action) -> Result<Vec<Action>, End> {
        let mut actions = self.ask_part(action).await?;
        if let Some(taken) = self.early.take() {
            actions.extend(self.hand_on(taken));
        }
        Ok(actions)
    }

    async fn ask_part(&mut self, action: Action) -> Result<Vec<Action>, End> {
        Ok(match action {
            Action::Verify(token) => self.verify(token).await?,
            Action::Locate(epoch, seq) => {
                let reader = self.gate.reader.clone();
                match self.meanwhile(async move { reader.resume_point(&epoch, seq).await }).await? {
                    Ok(point) => self.session.on_located(located(point)),
                    Err(error) => {
                        // The present does not need the disk: the client gets it, and learns that the past is missing.
                        warn!(%error, "a resume goes on without the log");
                        self.session.on_located(Located { after: None, lost: Vec::new() })
                    }
                }
            }
            Action::Join(join) => {
                let Some(joined) = self.meanwhile(joining::join(self.gate.control.clone(), *join)).await? else {
                    return Ok(self.session.close_now(Close::ServerShutdown, self.gate.clock.now()));
                };
                if let Some(joined) = &joined {
                    self.outbox = Some(Arc::clone(&joined.outbox));
                    self.listener = Some(joined.listener);
                }
                let actions = self.session.on_joined(joined, self.gate.clock.now());
                self.visit.on_listening(&self.session, self.outbox.as_ref());
                actions
            }
            Action::Unsubscribe(listener, patterns) => {
                // The pipeline has ended if this fails, and its listeners with it.
                let _ = self.gate.control.send(Control::Unsubscribe(listener, patterns)).await;
                self.visit.on_listening(&self.session, self.outbox.as_ref());
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
            Action::Command(request) => self.command(*request).await?,
            Action::Delivered(user, ids) => {
                // If the pipeline has ended they wait on, and come again with the same ids.
                let _ = self.gate.control.send(Control::Delivered(user, ids)).await;
                Vec::new()
            }
            Action::Chat(order) => {
                let ChatOrder { correlation_id, act, by, scope } = *order;
                let by = Actor { user: by, address: self.visit.address().map(|address| address.to_string()) };
                let (control, wanted) = (self.gate.control.clone(), act.clone());
                let done = self.meanwhile(async move { pipeline::chat(&control, wanted, by, scope).await }).await?;
                self.session.on_chat_done(&correlation_id, &act, done, self.gate.clock.now())
            }
            Action::Sign(sign) => {
                // The pipeline has ended if this fails, and its listeners with it.
                let _ = self.gate.control.send(Control::Sign(sign)).await;
                Vec::new()
            }
            Action::Conversation { correlation_id, wanted, through } => {
                let (gate, asked) = (self.gate.clone(), wanted.clone());
                let page = self.meanwhile(async move { chat::page(&gate, *asked, through).await }).await?;
                self.session.on_conversation(&correlation_id, &wanted, page, self.gate.clock.now())
            }
            Action::History(query) => {
                self.histories.push_back(*query);
                Vec::new()
            }
            Action::Acked(user, channel, seq) => {
                // If the pipeline has ended the next run sends it once more.
                let _ = self.gate.control.send(Control::Acked(user, channel, seq)).await;
                Vec::new()
            }
            Action::Preferences(correlation_id, user) => {
                let control = self.gate.control.clone();
                let chosen = self.meanwhile(async move { pipeline::preferences(&control, user).await }).await?;
                self.session.on_preferences(&correlation_id, chosen.as_ref(), self.gate.clock.now())
            }
            Action::Send(_)
            | Action::SendShared(_)
            | Action::SendBinary(_)
            | Action::Ping
            | Action::Close(_)
            | Action::Replay { .. } => Vec::new(),
        })
    }

    /// Waits for what the client asked of another part. Meanwhile it gets its events and heartbeats; what it says is held
    /// back until it has its answer, so that answers keep their order.
    async fn meanwhile<T>(&mut self, asked: impl Future<Output = T> + Send) -> Result<T, End> {
        let mut asked = pin!(asked);
        loop {
            if self.session.is_closed() {
                return Ok(asked.await);
            }
            // Behind a close frame, an error or the end nothing is read.
            let is_open =
                self.held.back().is_none_or(|it| matches!(it, Some(Ok(Message::Text(_) | Message::Binary(_)))));
            let has_room = self.held.len() < MESSAGES_IN_A_ROW;
            let wait = self.session.next_deadline().since(self.gate.clock.now().mono);
            let (live, outbox, clock) = (self.session.is_live(), self.outbox.clone(), self.gate.clock.clone());
            let filled = async {
                match outbox {
                    Some(outbox) if live => outbox.filled(&clock).await,
                    _ => std::future::pending().await,
                }
            };
            let actions = tokio::select! {
                biased;
                answer = &mut asked => return Ok(answer),
                interrupt = self.interrupts.next() => self.on_interrupt(interrupt),
                message = said_next(&mut self.said, &mut self.socket), if is_open && has_room => match message {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => self.on_message(message).unwrap_or_default(),
                    message => {
                        self.held.push_back(message);
                        Vec::new()
                    }
                },
                // Who may have said more than is held is not judged by it.
                () = tokio::time::sleep(wait), if has_room => {
                    let mut actions = self.on_durable();
                    actions.extend(self.session.on_deadline(self.gate.clock.now()));
                    actions
                }
                () = filled => {
                    let taken = self.take();
                    // The answer may have come meanwhile, and what was taken may be newer than its snapshot.
                    if let Poll::Ready(answer) = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await {
                        self.early = Some(taken);
                        return Ok(answer);
                    }
                    self.hand_on(taken)
                }
            };
            Box::pin(self.carry_out(actions)).await?;
        }
    }

    async fn verify(&mut self, token: Secret) -> Result<Vec<Action>, End> {
        if self.seat.is_some() {
            let (gate, token) = (self.gate.clone(), token.clone());
            self.meanwhile(async move { gate.learn_key(token.expose()).await }).await?;
        } else {
            // Who has sent a token in time is not late.
            self.gate.learn_key(token.expose()).await;
        }
        let now = self.gate.clock.now();
        let checked = self.gate.check(token.expose(), now.wall);
        if let Err(refused) = &checked {
            self.gate.metrics.sign_in_refused_total.add_one();
            warn!(reason = %refused, "a token was refused");
            self.visit.on_refused(token.expose(), &refused.to_string());
        }
        // A refresh keeps its place; one of somebody else ends the session.
        if let (None, Ok(rights)) = (&self.seat, &checked) {
            let Some(seat) = take_seat(&self.gate, &rights.user).await else {
                self.visit.on_no_room(&rights.user);
                return Ok(self.session.close_now(Close::UserConnectionLimit, self.gate.clock.now()));
            };
            self.admit(seat);
        }
        let now = self.gate.clock.now();
        let actions = match checked {
            Err(TokenRefused::Revoked) => self.session.on_revoked_token(now),
            checked => self.session.on_token(checked.map_err(|refused| refused.to_string()), now),
        };
        self.visit.on_signed_in(&self.session);
        Ok(actions)
    }

    async fn command(&mut self, request: CommandRequest) -> Result<Vec<Action>, End> {
        let CommandRequest { correlation_id, key, command, by, scope } = request;
        let by = Actor { user: by, address: self.visit.address().map(|address| address.to_string()) };
        let control = self.gate.control.clone();
        let asked = async move { pipeline::carry_out_once(&control, command, by, scope, Some(key)).await };
        let done = self.meanwhile(asked).await?;
        let done = done.map_err(|refusal| (refusal.code, refusal.reason));
        Ok(self.session.on_command_done(&correlation_id, done, self.gate.clock.now()))
    }

    /// Sends stored events in chunks, each written before the next is read; alerts of the present jump ahead.
    ///
    /// Without `readings` only what is none.
    async fn replay(&mut self, (after, through): (Seq, Seq), readings: bool) -> Result<Vec<Action>, End> {
        self.gate.metrics.resumed_total.add_one();
        if let Some(seat) = &self.seat {
            seat.busy(true);
        }
        let mut last = after;
        while last < through {
            let read = if readings {
                self.gate.reader.events(last, EVENTS_A_CHUNK).await
            } else {
                self.gate.reader.events_but_readings(last, through, EVENTS_A_CHUNK).await
            };
            let events = match read {
                Ok(events) => events,
                Err(error) => {
                    warn!(%error, "a replay ends early");
                    break;
                }
            };
            // Who has to go gets nothing more.
            if let Some(close) = self.must_go() {
                let actions = self.session.close_now(close, self.gate.clock.now());
                Box::pin(self.carry_out(actions)).await?;
                break;
            }
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
        if let Some(seat) = &self.seat {
            seat.busy(false);
        }
        Ok(self.session.on_replayed(self.gate.clock.now()))
    }

    /// Why the connection has to be closed, as far as others say.
    fn must_go(&self) -> Option<Close> {
        if self.gate.stop.is_cancelled() {
            return Some(Close::ServerShutdown);
        }
        if self.session.rights().is_some_and(|rights| self.gate.access.forbids(rights)) {
            return Some(Close::TokenRevoked);
        }
        self.visit.order().get().copied()
    }

    fn feed(&mut self, frame: Frame) {
        self.gate.metrics.frames_sent_total.add_one();
        self.visit.on_sent();
        self.socket.get_mut().push(frame);
    }

    /// One write for all that was fed, as a rule.
    async fn flush(&mut self) -> Result<(), End> {
        let writing = self.socket.get_mut();
        if let Poll::Ready(written) = poll_fn(|cx| Poll::Ready(writing.poll_drain(cx))).await {
            self.is_slow = false;
            return written.map_err(|_| End::Write);
        }
        self.is_slow = true;
        let drained = Box::pin(self.drain()).await;
        // The library may have waited for the same room, to answer a ping.
        self.said.renew();
        drained
    }

    /// Waits for a client that takes nothing, and no longer than it may be here.
    async fn drain(&mut self) -> Result<(), End> {
        let revoked = overdue(self.gate.access.clone(), self.session.rights().cloned());
        let ordered = self.visit.overdue();
        let writing = self.socket.get_mut();
        tokio::select! {
            biased;
            drained = poll_fn(|cx| writing.poll_drain(cx)) => drained.map_err(|_| End::Write),
            () = revoked => Err(End::Ours(Close::TokenRevoked)),
            close = ordered => Err(End::Ours(close)),
            () = tokio::time::sleep(WRITE_DEADLINE) => Err(End::Write),
        }
    }

    /// Reads what the client still sends, in vain.
    async fn drop_unread(&mut self) {
        let (mut rubbish, mut dropped) = ([0; 4096], 0);
        let stream = self.socket.get_mut().get_mut();
        while dropped < MAX_DROPPED_BYTES {
            match stream.read(&mut rubbish).await {
                Ok(count @ 1..) => dropped += count,
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Ends what the client ended, or broke; a peer that does not listen is left alone.
    async fn part(&mut self, ending: Ending) -> End {
        match ending {
            Ending::Gone => End::Peer,
            Ending::Closed(code) => {
                let _ = tokio::time::timeout(CLOSE_DEADLINE, writing::answer_close(&mut self.socket)).await;
                End::Left(code)
            }
            Ending::Wrong(violation) => {
                debug!(%violation, "a client broke the protocol");
                let _ = tokio::time::timeout(CLOSE_DEADLINE, writing::refuse(&mut self.socket, violation)).await;
                End::Broke(violation)
            }
        }
    }

    /// Sends the close frame and gives the other side a moment to answer it.
    async fn close(&mut self, close: Close) -> End {
        self.visit.on_closing(close);
        let code = close.code_in(self.gate.shared.close_codes);
        let frame = CloseFrame { code: code.into(), reason: close.name().into() };
        let farewell = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
                self.drop_unread().await;
            }
        };
        // A peer that does not answer is left alone.
        let patience = if close == Close::TokenRevoked { REVOKED_DEADLINE } else { CLOSE_DEADLINE };
        let _ = tokio::time::timeout(patience, farewell).await;
        End::Ours(close)
    }

    /// Leaves everything in order.
    async fn end(mut self: Box<Self>, end: End) {
        debug!(connection_id = self.visit.id(), why = end.reason(), "session ended");
        self.visit.on_end(end.code(), end.reason());
        if let Some(listener) = self.listener.take() {
            // The pipeline has ended if this fails, and its listeners with it.
            let _ = self.gate.control.send(Control::Leave(listener)).await;
        }
        self.gate.metrics.connections.subtract_one();
    }
}

/// What the client said next: first what was held back.
async fn heard<S>(held: &mut VecDeque<Heard>, said: &mut Nudge, socket: &mut WebSocketStream<S>) -> Heard
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match held.pop_front() {
        Some(heard) => heard,
        None => said_next(said, socket).await,
    }
}

/// What the client says next.
async fn said_next<S>(said: &mut Nudge, socket: &mut WebSocketStream<S>) -> Heard
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| said.poll(cx, |cx| socket.poll_next_unpin(cx))).await
}

fn located(point: ResumePoint) -> Located {
    match point {
        ResumePoint::After { after, lost } => {
            Located { after: Some(after), lost: lost.iter().map(|range| (range.first, range.last)).collect() }
        }
        ResumePoint::Unknown => Located { after: None, lost: Vec::new() },
    }
}
