//! One pairing that somebody asked for: BlueZ's call beside the questions that come out of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tracing::{debug, info, warn};

use super::agent::{Agent, AgentRequest, AgentRole, Capability};
use super::client::Bluez;
use super::error::{BluezError, Cause};
use super::object::Peer;

/// How a pairing goes on.
#[derive(Debug)]
pub enum Step {
    /// BlueZ asks or tells something about this device.
    Asked(AgentRequest),
    /// Done: there is a bond, and the device is trusted.
    Paired,
    /// There was a bond before; the device is trusted now.
    WasPaired,
}

/// A pairing that goes on. Drive it with [`Self::next`]; end it with [`Self::end`], whatever came of it.
pub struct Pairing {
    peer: Peer,
    agent: Agent,
    call: Pin<Box<dyn Future<Output = Result<Step, BluezError>> + Send>>,
    is_over: bool,
}

impl fmt::Debug for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pairing").field("peer", &self.peer).field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Pairing {
    /// Registers an agent for it, and makes the call ready; it is sent by the first [`Self::next`].
    ///
    /// # Errors
    /// The bus is gone, bluetoothd does not run, or does not let this user.
    pub async fn start(bluez: &Bluez, peer: Peer, capability: Capability) -> Result<Self, BluezError> {
        let agent = bluez.agent(capability, AgentRole::OwnPairings).await?;
        let (caller, called) = (agent.bluez().clone(), peer.clone());
        let call = Box::pin(async move { pair_and_trust(&caller, &called).await });
        Ok(Self { peer, agent, call, is_over: false })
    }

    /// The next step. Questions about any other device are refused here. May be dropped while it waits, and must not be
    /// called again after it gave an end or an error.
    ///
    /// # Errors
    /// Why there is no pairing; see [`Cause`].
    pub async fn next(&mut self) -> Result<Step, BluezError> {
        while !self.is_over {
            let request = tokio::select! {
                biased;
                // The end comes first: after it no question matters.
                done = &mut self.call => {
                    self.is_over = true;
                    return done;
                }
                request = self.agent.next() => request?,
            };
            if request.peer.as_ref().is_none_or(|peer| *peer == self.peer) {
                return Ok(Step::Asked(request));
            }
            warn!(peer = ?request.peer, "a device that nobody asked for wanted to pair; refused");
            request.reject().await?;
        }
        Err(BluezError::new("pairing", Cause::AuthenticationCanceled))
    }

    /// Gives the agent back; a pairing that still goes on is cancelled, and its link ended.
    pub async fn end(self) {
        let Self { peer, agent, call, is_over } = self;
        drop(call);
        if !is_over {
            agent.bluez().give_up_pairing(&peer).await;
        }
        if let Err(error) = agent.unregister().await {
            debug!(%error, "the pairing agent ends with its connection");
        }
    }
}

/// In one future, so that a caller who looks away between the two loses neither.
async fn pair_and_trust(bluez: &Bluez, peer: &Peer) -> Result<Step, BluezError> {
    let step = match bluez.pair(peer).await {
        Ok(()) => Step::Paired,
        Err(BluezError { cause: Cause::AlreadyExists, .. }) => Step::WasPaired,
        Err(error) => return Err(error),
    };
    bluez.trust(peer).await?;
    info!(%peer, "paired");
    Ok(step)
}
