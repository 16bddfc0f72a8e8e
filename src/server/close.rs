//! Why the server closes a WebSocket: 40xx stop, 41xx come back with a new token, 42xx come back after a pause.

/// A reason to close, with its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The token is wrong, foreign or expired at sign-in.
    InvalidToken,
    /// The client speaks something else.
    UnsupportedProtocol,
    /// Ten messages could not be answered.
    TooManyErrors,
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
    /// Alerts were not taken in time.
    SlowConsumer,
    /// No answer to pings.
    NoPong,
    /// Far more messages than the limits allow.
    RateLimited,
    /// Too many connections or listeners.
    OverCapacity,
    /// The daemon ends.
    ServerShutdown,
    /// An administrator wants the client to connect anew.
    ForceReconnect,
}

impl Close {
    /// The close code of docs/protocol.md.
    pub const fn code(self) -> u16 {
        match self {
            Self::InvalidToken => 4001,
            Self::UnsupportedProtocol => 4004,
            Self::TooManyErrors => 4005,
            Self::AuthTimeout => 4008,
            Self::ClosedByAdmin => 4009,
            Self::MessageTooBig => 4010,
            Self::TokenExpired => 4101,
            Self::TokenChangedSubject => 4102,
            Self::SlowConsumer => 4201,
            Self::NoPong => 4202,
            Self::RateLimited => 4203,
            Self::OverCapacity => 4204,
            Self::ServerShutdown => 4206,
            Self::ForceReconnect => 4207,
        }
    }

    /// The code's name, which is also the close frame's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::TooManyErrors => "too_many_errors",
            Self::AuthTimeout => "auth_timeout",
            Self::ClosedByAdmin => "closed_by_admin",
            Self::MessageTooBig => "message_too_big",
            Self::TokenExpired => "token_expired",
            Self::TokenChangedSubject => "token_changed_subject",
            Self::SlowConsumer => "slow_consumer",
            Self::NoPong => "no_pong",
            Self::RateLimited => "rate_limited",
            Self::OverCapacity => "over_capacity",
            Self::ServerShutdown => "server_shutdown",
            Self::ForceReconnect => "force_reconnect",
        }
    }

    /// True if the same client may come back (with a new token for 41xx).
    pub const fn reconnect(self) -> bool {
        self.code() >= 4100
    }
}
