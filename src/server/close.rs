//! Why the server closes a WebSocket: 40xx stop, 41xx come back with a new token, 42xx come back after a pause.

use crate::server::bounds::CloseCodes;

/// A reason to close, with its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The token is wrong, foreign or expired at sign-in.
    InvalidToken,
    /// Something before the sign-in that is for those who have signed in.
    PermissionDenied,
    /// The client speaks something else.
    UnsupportedProtocol,
    /// Ten messages could not be answered.
    TooManyErrors,
    /// The user has as many connections as are allowed, and this one was idle or came last.
    UserConnectionLimit,
    /// No sign-in within 5 s.
    AuthTimeout,
    /// An administrator closed it.
    ClosedByAdmin,
    /// A message over the limit.
    MessageTooBig,
    /// The token ended and was not refreshed.
    TokenExpired,
    /// A refresh with the token of somebody else.
    TokenChangedSubject,
    /// The token, or everything of its user, was revoked.
    TokenRevoked,
    /// Alerts were not taken in time.
    SlowConsumer,
    /// No answer to pings.
    NoPong,
    /// Far more messages than the limits allow.
    RateLimited,
    /// Too many connections or listeners.
    OverCapacity,
    /// A part of the bridge failed.
    InternalError,
    /// The daemon ends.
    ServerShutdown,
    /// An administrator wants the client to connect anew.
    ForceReconnect,
    /// What the session needs is not there any more: it begins anew.
    InsufficientState,
    /// Nothing was said for too long.
    IdleTimeout,
}

impl Close {
    /// The close code of docs/protocol.md.
    pub const fn code(self) -> u16 {
        match self {
            Self::InvalidToken => 4001,
            Self::PermissionDenied => 4003,
            Self::UnsupportedProtocol => 4004,
            Self::TooManyErrors => 4005,
            Self::UserConnectionLimit => 4006,
            Self::AuthTimeout => 4008,
            Self::ClosedByAdmin => 4009,
            Self::MessageTooBig => 4010,
            Self::TokenExpired => 4101,
            Self::TokenChangedSubject => 4102,
            Self::TokenRevoked => 4103,
            Self::SlowConsumer => 4201,
            Self::NoPong => 4202,
            Self::RateLimited => 4203,
            Self::OverCapacity => 4204,
            Self::InternalError => 4205,
            Self::ServerShutdown => 4206,
            Self::ForceReconnect => 4207,
            Self::InsufficientState => 4208,
            Self::IdleTimeout => 4209,
        }
    }

    /// The code of the close frame: our own, or what comes nearest to it in RFC 6455, 7.4.1, and its registry.
    pub const fn code_in(self, codes: CloseCodes) -> u16 {
        match (codes, self) {
            (CloseCodes::Own, _) => self.code(),
            (CloseCodes::Standard, Self::MessageTooBig) => 1009,
            (CloseCodes::Standard, Self::InternalError | Self::NoPong) => 1011,
            (
                CloseCodes::Standard,
                Self::SlowConsumer
                | Self::RateLimited
                | Self::OverCapacity
                | Self::ServerShutdown
                | Self::ForceReconnect
                | Self::InsufficientState
                | Self::IdleTimeout,
            ) => 1013,
            (CloseCodes::Standard, _) => 1008,
        }
    }

    /// The code's name, which is also the close frame's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::PermissionDenied => "permission_denied",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::TooManyErrors => "too_many_errors",
            Self::UserConnectionLimit => "user_connection_limit",
            Self::AuthTimeout => "auth_timeout",
            Self::ClosedByAdmin => "closed_by_admin",
            Self::MessageTooBig => "message_too_big",
            Self::TokenExpired => "token_expired",
            Self::TokenChangedSubject => "token_changed_subject",
            Self::TokenRevoked => "token_revoked",
            Self::SlowConsumer => "slow_consumer",
            Self::NoPong => "no_pong",
            Self::RateLimited => "rate_limited",
            Self::OverCapacity => "over_capacity",
            Self::InternalError => "internal_error",
            Self::ServerShutdown => "server_shutdown",
            Self::ForceReconnect => "force_reconnect",
            Self::InsufficientState => "insufficient_state",
            Self::IdleTimeout => "idle_timeout",
        }
    }

    /// True if the same client may come back (with a new token for 41xx).
    pub const fn reconnect(self) -> bool {
        self.code() >= 4100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reason with its name, its own code, the standard one, and whether the client comes back.
    const TABLE: &[(Close, &str, u16, u16, bool)] = &[
        (Close::InvalidToken, "invalid_token", 4001, 1008, false),
        (Close::PermissionDenied, "permission_denied", 4003, 1008, false),
        (Close::UnsupportedProtocol, "unsupported_protocol", 4004, 1008, false),
        (Close::TooManyErrors, "too_many_errors", 4005, 1008, false),
        (Close::UserConnectionLimit, "user_connection_limit", 4006, 1008, false),
        (Close::AuthTimeout, "auth_timeout", 4008, 1008, false),
        (Close::ClosedByAdmin, "closed_by_admin", 4009, 1008, false),
        (Close::MessageTooBig, "message_too_big", 4010, 1009, false),
        (Close::TokenExpired, "token_expired", 4101, 1008, true),
        (Close::TokenChangedSubject, "token_changed_subject", 4102, 1008, true),
        (Close::TokenRevoked, "token_revoked", 4103, 1008, true),
        (Close::SlowConsumer, "slow_consumer", 4201, 1013, true),
        (Close::NoPong, "no_pong", 4202, 1011, true),
        (Close::RateLimited, "rate_limited", 4203, 1013, true),
        (Close::OverCapacity, "over_capacity", 4204, 1013, true),
        (Close::InternalError, "internal_error", 4205, 1011, true),
        (Close::ServerShutdown, "server_shutdown", 4206, 1013, true),
        (Close::ForceReconnect, "force_reconnect", 4207, 1013, true),
        (Close::InsufficientState, "insufficient_state", 4208, 1013, true),
        (Close::IdleTimeout, "idle_timeout", 4209, 1013, true),
    ];

    #[test]
    fn every_reason_has_its_codes_and_stands_in_the_documentation() {
        let page = include_str!("../../docs/protocol.md");
        for (close, name, own, standard, reconnect) in TABLE {
            assert_eq!((close.name(), close.code(), close.reconnect()), (*name, *own, *reconnect));
            assert_eq!(close.code_in(CloseCodes::Own), *own);
            assert_eq!(close.code_in(CloseCodes::Standard), *standard, "{name}");
            assert!(page.contains(&format!("| {own} | {name} | {standard} |")), "{name}");
        }
    }
}
