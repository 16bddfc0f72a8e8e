//! The server: WebSocket and HTTP for dashboards.

pub mod accept;
mod audit;
pub mod auth;
mod ble;
mod ble_job;
pub mod close;
pub mod codes;
mod commands;
pub mod contract;
pub mod form;
pub mod frames;
pub mod hosts;
pub mod jwt;
mod limits;
pub mod message;
mod notifications;
pub mod rate;
pub mod routes;
pub mod session;
pub mod socket;

use std::net::SocketAddr;

/// What the configuration says about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names and origins that are allowed.
    pub hosts: hosts::Hosts,
    /// `iss` of the tokens that are taken and issued.
    pub issuer: String,
    /// `aud` of the tokens that are taken and issued.
    pub audience: String,
}

/// A port that cannot be listened on, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{advice}")]
pub struct CannotListen {
    address: SocketAddr,
    error: std::io::Error,
    advice: &'static str,
}

/// Opens the port.
///
/// # Errors
/// It is taken, or not ours to take; the text says what to do.
pub async fn bind(address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), CannotListen> {
    let failed = |error: std::io::Error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another program has this port (another vitalbridge?): stop it or use another with --listen"
            }
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need root: use one above",
            std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        CannotListen { address, error, advice }
    };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
