//! REST under `/api/v1`: patients, devices, readings, alerts and exports, each by the right `hst` on what it shows.

#![expect(clippy::unnecessary_box_returns, reason = "a refusal is boxed wherever it stands beside an answer")]

mod alerts;
mod devices;
mod export;
mod patients;
pub(super) mod query;
mod readings;
mod summary;
mod system;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::oneshot;
use tracing::warn;

use self::query::BadQuery;
use super::routes::{Site, failure, reading};
use crate::channel::{Operation, routes};
use crate::event::Event;
use crate::hub::Scope;
use crate::ids::{PatientId, WardId};
use crate::outbox::Published;
use crate::pipeline::{COMMAND_DEADLINE, Control};
use crate::server::auth::Rights;
use crate::server::session::Shared;
use crate::signal_times::SignalTimes;
use crate::store::{StoreError, StreamInfo};
use crate::wire;

pub(super) use self::alerts::{AlertLife, AlertPage, AlertsNow, MAX_PAGE as MAX_ALERTS};
pub(super) use self::devices::{DeviceNow, DevicesNow};
pub(super) use self::patients::{Patients, ShownPatient};
pub(super) use self::readings::{LatestReadings, MAX_PAGE as MAX_READINGS, MAX_POINTS, ReadingsAnswer};
pub(super) use self::system::SystemNow;

/// The routes of this folder.
pub(super) fn router(site: Site) -> Router {
    Router::new()
        .merge(patients::router(site.clone()))
        .merge(devices::router(site.clone()))
        .merge(readings::router(site.clone()))
        .merge(alerts::router(site.clone()))
        .merge(system::router(site.clone()))
        .merge(export::router(site))
}

/// An answer, or the refusal that stands for it.
type Answer<T> = Result<T, Box<Response>>;

/// What somebody may read of what was.
#[derive(Debug, Clone)]
struct Viewer {
    rights: Rights,
    scope: Scope,
    shared: Arc<Shared>,
}

impl Viewer {
    /// Who asks; whose token gives the right `hst` on nothing is refused.
    fn of(site: &Site, headers: &HeaderMap) -> Answer<Self> {
        let rights = reading(site, headers)?;
        let scope = rights.scope(Operation::History);
        if scope == Scope::Only(Vec::new()) {
            return Err(forbidden());
        }
        Ok(Self { rights, scope, shared: Arc::clone(&site.gate.shared) })
    }

    fn ward_of(&self, patient: &PatientId) -> Option<&WardId> {
        self.shared.patients.iter().find(|known| known.id == *patient).map(|known| &known.ward)
    }

    /// True if something of this patient may be read.
    fn sees_patient(&self, patient: &PatientId) -> bool {
        self.scope.sees_patient(patient, self.ward_of(patient))
    }

    /// True if the patient's alerts may be read.
    fn sees_alerts_of(&self, patient: &PatientId) -> bool {
        let own = format!("alerts/{patient}");
        let of_ward = self.ward_of(patient).map(|ward| format!("ward/{ward}/{own}"));
        self.scope.allows(&[Some(own), of_ward].into_iter().flatten().collect::<Vec<_>>())
    }

    /// True if the readings of this stream may be read.
    fn sees_stream(&self, stream: &StreamInfo) -> bool {
        let own = wire::channel_of_stream(stream.patient.as_ref(), &stream.device, stream.metric);
        let ward = stream.patient.as_ref().and_then(|patient| self.ward_of(patient));
        let of_ward = ward.map(|ward| format!("ward/{ward}/{own}"));
        self.scope.allows(&[Some(own), of_ward].into_iter().flatten().collect::<Vec<_>>())
    }

    /// True if this event may be read.
    fn sees(&self, event: &Event) -> bool {
        self.scope.allows(&routes(event, self.shared.ward_of(event)))
    }

    /// Refuses a patient of whom nothing may be read, whether there is such a patient or not; then one that is unknown.
    fn patient(&self, patient: &PatientId) -> Answer<()> {
        if !self.sees_patient(patient) {
            return Err(forbidden());
        }
        if !self.shared.patients.iter().any(|known| known.id == *patient) {
            return Err(unknown("unknown_patient", "there is no patient of this name"));
        }
        Ok(())
    }

    /// What is known of the present, as far as it may be read.
    async fn present(&self, site: &Site) -> Answer<Vec<Arc<Published>>> {
        let scope = self.scope.clone();
        asked(site, |reply| Control::Present(scope, reply)).await
    }

    /// When numbers are old and gone, everybody's.
    async fn signal_times(site: &Site) -> Answer<SignalTimes> {
        asked(site, Control::SignalTimes).await
    }
}

/// What the pipeline answers.
async fn asked<T>(site: &Site, question: impl FnOnce(oneshot::Sender<T>) -> Control) -> Answer<T> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        site.gate.control.send(question(reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(COMMAND_DEADLINE, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) | Err(_) => Err(unavailable("the bridge does not answer")),
    }
}

/// Nothing of what was asked for may be read. The same whether it exists or not.
fn forbidden() -> Box<Response> {
    let reason = "your token does not allow this; it takes the right `hst`";
    Box::new(failure(StatusCode::FORBIDDEN, "permission_denied", reason))
}

fn unknown(code: &str, message: &str) -> Box<Response> {
    Box::new(failure(StatusCode::NOT_FOUND, code, message))
}

fn unavailable(message: &str) -> Box<Response> {
    Box::new(failure(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message))
}

/// The log did not answer.
fn unread(error: &StoreError) -> Box<Response> {
    warn!(%error, "the log cannot be read");
    unavailable("the log cannot be read now; the bridge's own log says why")
}

impl From<BadQuery> for Box<Response> {
    fn from(bad: BadQuery) -> Self {
        Self::new(failure(StatusCode::BAD_REQUEST, "validation", &bad.to_string()))
    }
}

/// The answer, or its refusal.
fn answered<T: axum::response::IntoResponse>(answer: Answer<T>) -> Response {
    match answer {
        Ok(answer) => answer.into_response(),
        Err(refused) => *refused,
    }
}
