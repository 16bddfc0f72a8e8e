//! Who may do what: roles, the capabilities that narrow them, and the rights of one connection.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use crate::channel::Operation;
use crate::channel::Pattern;
use crate::clock::Wall;
use crate::command::Command;
use crate::hub::Scope;
use crate::named::named_enum;
use crate::server::jwt::{Claims, Verified};

named_enum! {
    /// What a user is.
    Role {
        /// Sees.
        Viewer = "viewer",
        /// Sees, writes messages, acknowledges alerts.
        Nurse = "nurse",
        /// What a nurse may, and changes limits.
        Clinician = "clinician",
        /// Everything.
        Admin = "admin",
        /// A program that sees.
        Service = "service",
    }
}

impl Role {
    /// What the role may on every channel, unless capabilities narrow it.
    pub const fn operations(self) -> &'static [Operation] {
        use Operation::{Acknowledge, Command, History, Publish, Subscribe};
        match self {
            Self::Viewer | Self::Service => &[Subscribe, History],
            Self::Nurse => &[Subscribe, History, Publish, Acknowledge],
            Self::Clinician | Self::Admin => &[Subscribe, History, Publish, Acknowledge, Command],
        }
    }
}

/// Narrows a role: these operations on these channels, and on no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Patterns of channels.
    pub channels: Vec<String>,
    /// Operations.
    pub allow: Vec<Operation>,
}

impl Capability {
    /// What `token issue --patient P` puts into a token: everything of that patient that the role may.
    pub fn of_patient(patient: &crate::ids::PatientId, role: Role) -> Self {
        let channels = vec![
            format!("patient/{patient}/#"),
            format!("alerts/{patient}"),
            format!("waveform/{patient}/+"),
            "system".to_owned(),
        ];
        Self { channels, allow: role.operations().to_vec() }
    }
}

/// The rights of one connection, taken from a token once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The user (`sub`).
    pub user: String,
    /// The role.
    pub role: Role,
    /// When the token ends.
    pub expires: Wall,
    /// The token's own name.
    pub jti: Option<String>,
    /// When it was issued, in seconds since 1970.
    pub issued: Option<i64>,
    /// Another clock than ours has set these times.
    pub is_foreign: bool,
    /// Where each operation is allowed that is allowed anywhere: worked out once, so that a subscribe is a look-up. `None`: the
    /// token has no capabilities, and what the role may it may everywhere.
    scopes: Option<Vec<(Operation, Scope)>>,
}

impl Rights {
    /// The rights that a checked token gives. A capability with an unreadable pattern allows nothing on it.
    pub fn from_claims(claims: &Claims) -> Self {
        let scope = |operation: Operation, caps: &[Capability]| {
            let allowing = caps.iter().filter(|cap| cap.allow.contains(&operation));
            let channels: BTreeSet<Pattern> =
                allowing.flat_map(|cap| &cap.channels).filter_map(|text| text.parse().ok()).collect();
            Scope::Only(channels.into_iter().collect())
        };
        let scopes = |caps: &Vec<Capability>| {
            claims.role.operations().iter().map(|operation| (*operation, scope(*operation, caps))).collect()
        };
        Self {
            user: claims.sub.clone(),
            role: claims.role,
            expires: Wall(claims.exp.saturating_mul(1000)),
            jti: claims.jti.clone(),
            issued: claims.iat,
            is_foreign: false,
            scopes: claims.caps.as_ref().map(scopes),
        }
    }

    /// [`Rights::from_claims`], with whose clock the token goes by.
    pub fn from_verified(verified: &Verified) -> Self {
        Self { is_foreign: verified.is_foreign, ..Self::from_claims(&verified.claims) }
    }

    /// On which channels an operation is allowed.
    pub fn scope(&self, operation: Operation) -> Scope {
        let Some(scopes) = &self.scopes else {
            let may = self.role.operations().contains(&operation);
            return if may { Scope::Everything } else { Scope::Only(Vec::new()) };
        };
        let found = scopes.iter().find(|(allowed, _)| *allowed == operation);
        found.map_or_else(|| Scope::Only(Vec::new()), |(_, scope)| scope.clone())
    }

    /// On which channels a command is allowed. What is about the bridge as a whole is for administrators.
    pub fn scope_of(&self, command: &Command) -> Scope {
        if command.is_about_the_bridge() && self.role != Role::Admin {
            return Scope::Only(Vec::new());
        }
        self.scope(command.needs())
    }

    /// True for an administrator whose token is not narrowed: what is about the bridge as a whole is for him.
    pub fn is_unlimited_admin(&self) -> bool {
        self.role == Role::Admin && self.scope(Operation::Command) == Scope::Everything
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(role: Role, caps: Option<Vec<Capability>>) -> Rights {
        let exp = 10;
        Rights::from_claims(&Claims { sub: "u".into(), role, caps, jti: None, iat: None, nbf: None, exp })
    }

    fn may(rights: &Rights, operation: Operation, channel: &str) -> bool {
        rights.scope(operation).allows(&[channel.to_owned()])
    }

    #[test]
    fn a_role_decides_what_is_allowed() {
        for (role, operation, expected) in [
            (Role::Viewer, Operation::Subscribe, true),
            (Role::Viewer, Operation::Acknowledge, false),
            (Role::Service, Operation::Publish, false),
            (Role::Nurse, Operation::Acknowledge, true),
            (Role::Nurse, Operation::Command, false),
            (Role::Clinician, Operation::Command, true),
            (Role::Admin, Operation::Command, true),
        ] {
            assert_eq!(may(&rights(role, None), operation, "patient/P-1/spo2"), expected, "{role} {operation}");
        }
    }

    #[test]
    fn capabilities_narrow_and_never_widen() {
        let patient = "P-1".parse().unwrap();
        let nurse = rights(Role::Nurse, Some(vec![Capability::of_patient(&patient, Role::Nurse)]));
        assert!(may(&nurse, Operation::Subscribe, "patient/P-1/spo2"));
        assert!(may(&nurse, Operation::Acknowledge, "alerts/P-1"));
        assert!(!may(&nurse, Operation::Subscribe, "patient/P-2/spo2"));
        assert!(!may(&nurse, Operation::Subscribe, "patient/P-10/spo2"));

        let all = Capability { channels: vec!["#".into()], allow: Operation::ALL.to_vec() };
        let viewer = rights(Role::Viewer, Some(vec![all]));
        assert!(!may(&viewer, Operation::Acknowledge, "alerts/P-1"));
        let none = rights(Role::Admin, Some(vec![]));
        assert!(!may(&none, Operation::Subscribe, "system"));
    }
}
