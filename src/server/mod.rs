//! The server: WebSocket and HTTP for dashboards.

pub mod accept;
mod admission;
mod audit;
pub mod auth;
mod ble;
mod ble_job;
pub mod bounds;
pub mod chat;
mod claimed;
pub mod close;
pub mod codes;
mod commands;
pub mod connections;
pub mod contract;
pub mod ending;
pub mod form;
pub mod frames;
pub mod history;
pub mod hosts;
pub mod interrupts;
mod joining;
pub mod jwks;
pub mod jwt;
pub mod keys;
mod limits;
mod manage;
pub mod message;
mod notifications;
pub mod nudge;
mod object;
mod openapi;
pub mod orders;
mod pages;
mod peer;
mod plain;
pub mod rate;
mod rest;
pub mod revocation;
mod rooms;
pub mod routes;
pub mod seats;
pub mod session;
pub mod socket;
mod sse;
mod start_page;
pub mod strict;
pub mod table;
pub mod tickets;
pub mod tls;
pub mod tokens;
mod trail;
pub mod writing;

use std::net::SocketAddr;

/// What the configuration says about the server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names and origins that are allowed.
    pub hosts: hosts::Hosts,
    /// `iss` of the tokens that are taken and issued.
    pub issuer: String,
    /// `aud` of the tokens that are taken and issued.
    pub audience: String,
    /// Whose tokens are taken, and where they may come.
    pub tokens: tokens::TokenSettings,
    /// With TLS: whose certificates.
    pub tls: Option<tls::TlsConfig>,
    /// How many, how large, how long.
    pub limits: bounds::ServerLimits,
    /// Which numbers close frames have.
    pub close_codes: bounds::CloseCodes,
}

impl ServerConfig {
    /// `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What is wrong with listening here without TLS, where other machines can connect.
    pub fn in_clear(&self, listen: SocketAddr) -> Option<String> {
        (self.tls.is_none() && !listen.ip().is_loopback()).then(|| {
            format!(
                "{listen} can be reached from other machines and there is no TLS: patients' data and tokens cross the \
                 network in clear. Add [server.tls], or listen on 127.0.0.1 behind a proxy that has TLS"
            )
        })
    }
}

/// A port that cannot be listened on, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{advice}")]
pub struct CannotListen {
    address: SocketAddr,
    error: std::io::Error,
    advice: &'static str,
}

impl CannotListen {
    /// What the system said.
    pub fn kind(&self) -> std::io::ErrorKind {
        self.error.kind()
    }
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
            std::io::ErrorKind::PermissionDenied => {
                "; ports below 1024 are not for everybody: use one above, or give the service the right to \
                 (CAP_NET_BIND_SERVICE, systemd/examples/low-port.conf)"
            }
            std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        CannotListen { address, error, advice }
    };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
