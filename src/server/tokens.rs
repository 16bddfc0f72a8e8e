//! Who comes in: tokens with their revocation, tickets, and what of them an address may carry.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as WsRole};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::object::Object;
use super::routes::{Site, acting, bearer, check, failure, internal, offer, signed_in, unauthorised};
use crate::clock::{Clock, Stamp, Wall};
use crate::event::{Actor, AuditAction, AuditEvent, AuditResult};
use crate::ids::Seq;
use crate::pipeline::Control;
use crate::server::auth::Rights;
use crate::server::bounds::CloseCodes;
use crate::server::close::Close;
use crate::server::jwks::{Address, LiveKeys};
use crate::server::jwt::TokenRefused;
use crate::server::keys::{Keys, PublicKey, Trusted};
use crate::server::peer;
use crate::server::revocation::{NotRevoked, Revocation, RevocationFile, Revocations, Version, Whose};
use crate::server::socket::Gate;
use crate::server::tickets::{NoTicket, TICKET_LIFE, Tickets};
use crate::vitals::Mode;

/// The file of revocations is looked at this often; a socket has to be closed within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a client that is refused after the upgrade is given to answer.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the configuration says about tokens.
#[derive(Debug, Clone, Default)]
pub struct TokenSettings {
    /// The bridge issues none itself.
    pub only_trusted: bool,
    /// `?token=` is taken.
    pub in_query: bool,
    /// Whose tokens are taken beside the bridge's own.
    pub trusted: Vec<TrustedSettings>,
}

/// Somebody whose tokens are taken, as the configuration has it.
#[derive(Debug, Clone)]
pub struct TrustedSettings {
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// Where the keys are.
    pub keys: KeySettings,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone)]
pub enum KeySettings {
    /// Read with the configuration.
    Fixed(Arc<[PublicKey]>),
    /// Behind an address.
    Address(Address),
}

impl TokenSettings {
    /// The issuers, with what was kept of keys behind addresses.
    pub fn trusted(&self, state: &Path) -> Vec<Trusted> {
        let keys = |settings: &KeySettings| match settings {
            KeySettings::Fixed(keys) => Keys::Fixed(Arc::clone(keys)),
            KeySettings::Address(address) => Keys::Live(Arc::new(LiveKeys::new(address.clone(), state))),
        };
        let trusted = |one: &TrustedSettings| Trusted {
            issuer: one.issuer.clone(),
            audience: one.audience.clone(),
            keys: keys(&one.keys),
        };
        self.trusted.iter().map(trusted).collect()
    }
}

/// What sessions and requests need to know who comes in, beside the keys.
#[derive(Debug, Clone)]
pub struct Access {
    /// Tickets that wait to be used.
    tickets: Arc<Tickets>,
    /// What is revoked now.
    revoked: watch::Sender<Arc<Revocations>>,
    file: RevocationFile,
    /// `?token=` is taken.
    pub in_query: bool,
}

impl Access {
    /// With what is kept in this state directory.
    ///
    /// # Errors
    /// The revocations cannot be read.
    pub fn new(state: PathBuf, in_query: bool, now: Wall) -> io::Result<Self> {
        let file = RevocationFile::new(state);
        let revoked = watch::Sender::new(Arc::new(file.read(now)?));
        Ok(Self { tickets: Arc::default(), revoked, file, in_query })
    }

    /// Woken by every change of what is revoked.
    pub fn revocations(&self) -> watch::Receiver<Arc<Revocations>> {
        self.revoked.subscribe()
    }

    /// True if the token of these rights was revoked.
    pub fn forbids(&self, rights: &Rights) -> bool {
        self.revoked.borrow().forbid(rights)
    }

    /// Uses a ticket up: the rights that it gives to one connection. `None`: it is unknown, used, too old, or its token
    /// has ended or was revoked.
    pub fn take_ticket(&self, ticket: &str, now: Stamp) -> Option<Rights> {
        let rights = self.tickets.take(ticket, now.mono)?;
        (rights.expires >= now.wall && !self.forbids(&rights)).then_some(rights)
    }

    /// Carries out what the file says, also what others write into it, until told to stop.
    ///
    /// A row of the audit trail counts as written once it is on disk (`durable`): a crash repeats it rather than lose it.
    pub async fn watch(
        self,
        control: mpsc::Sender<Control>,
        durable: watch::Receiver<Seq>,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let (mut known, mut is_failing) = (None, false);
        let (mut told, mut last) = (Vec::new(), Seq::ZERO);
        loop {
            match self.look(known, clock.now().wall).await {
                Ok(None) => is_failing = false,
                Ok(Some((version, rows, revoked))) => {
                    (known, is_failing) = (version, false);
                    self.set(revoked);
                    let new: Vec<Revocation> = rows.into_iter().filter(|row| !told.contains(row)).collect();
                    if !new.is_empty() {
                        last = tell(&control, &new).await.unwrap_or(last);
                        told.extend(new);
                    }
                }
                Err(error) => {
                    if !is_failing {
                        error!(%error, "the file of revocations cannot be read; what is known stays revoked");
                    }
                    is_failing = true;
                }
            }
            if !told.is_empty() && *durable.borrow() >= last {
                self.have_kept(std::mem::take(&mut told), clock.now().wall).await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// What the file has, if that is not `known`.
    async fn look(&self, known: Option<Version>, now: Wall) -> io::Result<Option<Look>> {
        let file = self.file.clone();
        // A dead disk blocks, and must not block anybody else.
        let looked = tokio::task::spawn_blocking(move || {
            // First the version: what is written after that is found by the next look.
            let version = file.version();
            if version == known {
                return Ok(None);
            }
            let (rows, revoked) = file.unaudited(now)?;
            Ok(Some((version, rows, revoked)))
        });
        looked.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    async fn have_kept(&self, rows: Vec<Revocation>, now: Wall) {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.set_audited(&rows, now)).await;
        if let Ok(Err(error)) = written {
            warn!(%error, "the audit trail will have a revocation twice");
        }
    }

    fn set(&self, revoked: Revocations) {
        self.revoked.send_if_modified(|known| {
            let is_new = **known != revoked;
            if is_new {
                *known = Arc::new(revoked);
            }
            is_new
        });
    }

    async fn revoke(&self, whose: Whose, by: Actor, now: Wall) -> Result<(), NotRevoked> {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.revoke(whose, by, now)).await;
        let revoked = written.map_err(|error| NotRevoked::Io(io::Error::other(error)))??;
        self.set(revoked);
        Ok(())
    }
}

/// The version of the file, what the audit trail does not have, and what is revoked.
type Look = (Option<Version>, Vec<Revocation>, Revocations);

/// Has rows written into the audit trail; gives the number of the last.
async fn tell(control: &mpsc::Sender<Control>, rows: &[Revocation]) -> Option<Seq> {
    for row in rows {
        if row.whose == Whose::Everybody {
            error!("the file of revocations was damaged: every token issued until now is refused");
        }
        info!(whose = row.whose.describe(), by = row.by, "tokens were revoked");
        control.send(Control::Audit(audit(row))).await.ok()?;
    }
    let (reply, answer) = oneshot::channel();
    control.send(Control::Settle(reply)).await.ok()?;
    answer.await.ok()
}

fn audit(row: &Revocation) -> AuditEvent {
    AuditEvent {
        by: row.by.clone(),
        address: row.address.clone(),
        action: AuditAction::TokenRevoke,
        object: row.whose.describe(),
        patient: None,
        device: None,
        source: None,
        result: AuditResult::Done,
        reason: None,
        mode: Mode::Real,
    }
}

impl Gate {
    /// Checks a token, also whether it was revoked: what it allows.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub fn check(&self, token: &str, now: Wall) -> Result<Rights, TokenRefused> {
        let verified = self.key.borrow().verify_whose(token, now)?;
        let rights = Rights::from_verified(&verified);
        if self.access.forbids(&rights) { Err(TokenRefused::Revoked) } else { Ok(rights) }
    }

    /// Has the keys of a token's issuer fetched if its key is not among those that are known, and waits a moment.
    pub async fn learn_key(&self, token: &str) {
        let unknown: Vec<Keys> =
            self.key.borrow().unknown_to(token).into_iter().map(|trusted| trusted.keys.clone()).collect();
        for keys in unknown {
            if let Keys::Live(live) = keys {
                live.ask(self.clock.now().mono).await;
            }
        }
    }
}

/// Before a request is answered: the key of its token is made known, if its issuer has it.
pub(super) async fn learn_key(site: &Site, headers: &HeaderMap, uri: &Uri) {
    let in_query = query(uri, "token").filter(|_| site.gate.access.in_query);
    if let Some(token) = bearer(headers).or_else(|| offer(headers).token).or(in_query) {
        site.gate.learn_key(token).await;
    }
}

/// A member of the query as it stands there: neither tokens nor tickets have anything to be decoded.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut members = uri.query()?.split('&').filter_map(|member| member.split_once('='));
    members.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Who comes with an upgrade.
pub(super) enum Comer {
    /// Somebody who has signed in, or nobody yet: the first message may bring a token.
    Welcome(Option<Rights>),
    /// Refused, and told so by a close frame.
    Closed,
}

/// Who asks for a connection: `token` of a header, else `?ticket=`, else `?token=` if the configuration allows it. Only
/// the first that is there is looked at.
pub(super) fn comer(site: &Site, token: Option<&str>, uri: &Uri) -> Result<Comer, Box<Response>> {
    if let Some(token) = token {
        return check(site, token).map(|rights| Comer::Welcome(Some(rights)));
    }
    if let Some(ticket) = query(uri, "ticket") {
        return by_ticket(site, ticket).map(|rights| Comer::Welcome(Some(rights)));
    }
    let Some(token) = query(uri, "token") else { return Ok(Comer::Welcome(None)) };
    if !site.gate.access.in_query {
        site.gate.metrics.sign_in_refused_total.add_one();
        warn!("a token in an address was refused");
        site.gate.connections.token_refused(peer::address(), token, "it stands in the address");
        let advice = "a token does not belong into an address, where logs and histories keep it: use a header, the first \
                      message or POST /api/v1/ws-ticket";
        return Err(Box::new(unauthorised(advice)));
    }
    match check(site, token) {
        Ok(rights) => Ok(Comer::Welcome(Some(rights))),
        Err(_) if site.gate.shared.close_codes == CloseCodes::Standard => Ok(Comer::Closed),
        Err(refused) => Err(refused),
    }
}

/// Whom a ticket lets in, once: for an upgrade or a stream of `/sse`.
pub(super) fn by_ticket(site: &Site, ticket: &str) -> Result<Rights, Box<Response>> {
    site.gate.access.take_ticket(ticket, site.gate.clock.now()).ok_or_else(|| {
        site.gate.metrics.sign_in_refused_total.add_one();
        warn!("a ticket was refused");
        site.gate.connections.token_refused(peer::address(), "", "the ticket is unknown, used or too old");
        Box::new(unauthorised("this ticket is unknown, used or older than 30 s: ask for a new one"))
    })
}

/// Closes a WebSocket of somebody who was refused, as clients expect that know the standard codes only.
pub(super) async fn close_refused<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut socket = WebSocketStream::from_raw_socket(stream, WsRole::Server, None).await;
    let farewell = async {
        let frame = CloseFrame { code: CloseCode::Policy, reason: Close::InvalidToken.name().into() };
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A peer that does not answer is left alone.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

/// `/api/v1/ws-ticket` and `/api/v1/tokens/revoke`.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .route("/api/v1/ws-ticket", post(ws_ticket))
        .route("/api/v1/tokens/revoke", post(revoke))
        .with_state(site)
}

async fn ws_ticket(State(site): State<Site>, headers: HeaderMap) -> Response {
    let rights = match signed_in(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    let now = site.gate.clock.now();
    match site.gate.access.tickets.make(rights, now.mono) {
        Ok(ticket) => {
            let life = i64::try_from(TICKET_LIFE.as_millis()).unwrap_or(0);
            let expires_at = Wall(now.wall.0.saturating_add(life)).to_string();
            axum::Json(
                json!({"ticket": ticket.expose(), "expires_in": TICKET_LIFE.as_secs(), "expires_at": expires_at}),
            )
            .into_response()
        }
        Err(error @ NoTicket::TooMany) => failure(StatusCode::SERVICE_UNAVAILABLE, "over_capacity", &error.to_string()),
        Err(error @ NoTicket::Random(_)) => internal(&error),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    jti: Option<String>,
    user: Option<String>,
}

async fn revoke(
    State(site): State<Site>,
    headers: HeaderMap,
    request: Result<axum::Json<Object<Revoke>>, JsonRejection>,
) -> Response {
    let rights = match acting(&site, &headers) {
        Ok(rights) => rights,
        Err(refused) => return *refused,
    };
    if !rights.is_unlimited_admin() {
        let reason = "this takes the role admin, not limited to patients";
        return failure(StatusCode::FORBIDDEN, "permission_denied", reason);
    }
    let whose = match request {
        Ok(axum::Json(Object(Revoke { jti: Some(jti), user: None }))) => Whose::Jti(jti),
        Ok(axum::Json(Object(Revoke { jti: None, user: Some(user) }))) => Whose::User(user),
        Ok(_) | Err(_) => {
            let advice = "send {\"jti\": \"...\"} or {\"user\": \"...\"} as application/json";
            return failure(StatusCode::BAD_REQUEST, "format", advice);
        }
    };
    let now = site.gate.clock.now().wall;
    match site.gate.access.revoke(whose, peer::actor(&rights), now).await {
        Ok(()) => axum::Json(json!({"ok": true, "revoked_at": now.to_string()})).into_response(),
        Err(error @ NotRevoked::Name) => failure(StatusCode::BAD_REQUEST, "validation", &error.to_string()),
        Err(error @ NotRevoked::TooMany) => failure(StatusCode::CONFLICT, "over_capacity", &error.to_string()),
        Err(error @ NotRevoked::Io(_)) => internal(&error),
    }
}
