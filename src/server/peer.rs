//! From where a request comes: the peer's own address while it is answered. No header can claim another one.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};

use crate::event::Actor;
use crate::server::auth::Rights;

tokio::task_local! {
    /// The address of the request that this task answers.
    static ADDRESS: Option<IpAddr>;
}

/// The address of the peer that sent a request; `None` where it came over no network.
pub(super) fn of(request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(peer)| peer.ip().to_canonical())
}

/// Answers a request that came from this address.
pub(super) async fn answering<F: Future>(address: Option<IpAddr>, answer: F) -> F::Output {
    ADDRESS.scope(address, answer).await
}

/// The address of the request that is being answered.
pub(super) fn address() -> Option<IpAddr> {
    ADDRESS.try_with(|address| *address).ok().flatten()
}

/// Whoever asked for what is being answered.
pub(super) fn actor(rights: &Rights) -> Actor {
    Actor { user: rights.user.clone(), address: address().map(|address| address.to_string()) }
}
