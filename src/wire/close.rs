//! The one table of what ends a connection: close codes of a WebSocket and refusals of a request.
//!
//! Source: sections 3, 4 and 7 of the contract. Every other module names a row; none writes a
//! number. `ALL` and `index` serve counters, whose labels come from these closed sets.

/// Why the server closes a WebSocket. One variant for each code of the contract, by code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// 1000: the peer asked for it, or nothing is left to do.
    Normal,
    /// 1001: the node shuts down.
    GoingAway,
    /// 1002: the peer broke RFC 6455, or asked for what cannot be read.
    ProtocolError,
    /// 1003: a binary message.
    Unsupported,
    /// 1007: text that is not UTF-8, or a deflated message that cannot be inflated.
    InvalidPayload,
    /// 1008: too many fragments or control frames, or messages that cannot be read.
    PolicyViolation,
    /// 1009: a message over its limit.
    TooBig,
    /// 1011: our fault.
    Internal,
    /// 4001: the token's time is over.
    TokenExpired,
    /// 4002: the token was revoked.
    TokenRevoked,
    /// 4008: the outbox passed its bytes.
    SlowConsumer,
    /// 4009: nothing came within the grace after a ping.
    NoSignOfLife,
    /// 4010: a newer connection of the same user took its place.
    GaveWay,
    /// 4013: the node is full or draining.
    NodeFull,
    /// 4401: no token, or one that is not accepted.
    TokenRefused,
    /// 4429: kept breaking the rate, or over a limit.
    RateExceeded,
    /// 4503: not allowed; coming back is of no use.
    NotAllowed,
}

impl CloseReason {
    /// Every reason, in the order of `index`.
    pub const ALL: [Self; 17] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::Unsupported,
        Self::InvalidPayload,
        Self::PolicyViolation,
        Self::TooBig,
        Self::Internal,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::SlowConsumer,
        Self::NoSignOfLife,
        Self::GaveWay,
        Self::NodeFull,
        Self::TokenRefused,
        Self::RateExceeded,
        Self::NotAllowed,
    ];

    /// Position in tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The number in the close frame.
    pub fn code(self) -> u16 {
        self.row().0
    }

    /// The label in metrics and logs.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The text in the close frame where nothing more precise is known; at most 123 bytes.
    pub fn text(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Normal => (1000, "normal", ""),
            Self::GoingAway => (1001, "going_away", "shutting down"),
            Self::ProtocolError => (1002, "protocol_error", "protocol error"),
            Self::Unsupported => (1003, "unsupported", "text messages only"),
            Self::InvalidPayload => (1007, "invalid_payload", "invalid payload"),
            Self::PolicyViolation => (1008, "policy_violation", "policy violation"),
            Self::TooBig => (1009, "too_big", "message too big"),
            Self::Internal => (1011, "internal", "internal error"),
            Self::TokenExpired => (4001, "token_expired", "token expired"),
            Self::TokenRevoked => (4002, "token_revoked", "token revoked"),
            Self::SlowConsumer => (4008, "slow_consumer", "slow consumer"),
            Self::NoSignOfLife => (4009, "no_sign_of_life", "no sign of life"),
            Self::GaveWay => (4010, "gave_way", "gave way to a newer connection"),
            Self::NodeFull => (4013, "node_full", "node full or draining"),
            Self::TokenRefused => (4401, "token_refused", "token refused"),
            Self::RateExceeded => (4429, "rate_exceeded", "rate or limit exceeded"),
            Self::NotAllowed => (4503, "not_allowed", "not allowed"),
        }
    }
}

/// Why a request is refused. One variant for each code word of the contract, by status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 400: not an upgrade where one is needed, or malformed.
    BadRequest,
    /// 400: a cursor that cannot be read.
    InvalidCursor,
    /// 400: `bearer.T` was offered without a subprotocol that the server could echo.
    SubprotocolRequired,
    /// 401: past `exp`.
    TokenExpired,
    /// 401: not readable, not signed by a known key, or with wrong claims.
    TokenInvalid,
    /// 401: no carrier held one.
    TokenMissing,
    /// 401: revoked.
    TokenRevoked,
    /// 403: a permission is missing.
    Forbidden,
    /// 403: the page's origin may not connect. Always plain, never a close.
    OriginRefused,
    /// 404: no such path.
    NotFound,
    /// 405: the path has no such method.
    MethodNotAllowed,
    /// 408: the head or the body did not come in time.
    RequestTimeout,
    /// 413: a body over its limit.
    BodyTooLarge,
    /// 415: a media type or content coding that is not taken.
    UnsupportedMediaType,
    /// 426: a version of the protocol other than 13.
    UpgradeRequired,
    /// 429: the address holds its number of connections.
    IpLimit,
    /// 429: nothing could be admitted for a second.
    Overloaded,
    /// 429: handshakes or bytes over their rate.
    RateLimited,
    /// 429: the user holds its tier's number of connections.
    UserLimit,
    /// 431: a head over its bytes or headers.
    HeadTooLarge,
    /// 500: our fault.
    Internal,
    /// 503: the node shuts down.
    Draining,
    /// 503: the node holds its number of connections.
    NodeFull,
    /// 507: the disk takes no more.
    StorageFull,
}

impl Refusal {
    /// Every refusal, in the order of `index`.
    pub const ALL: [Self; 24] = [
        Self::BadRequest,
        Self::InvalidCursor,
        Self::SubprotocolRequired,
        Self::TokenExpired,
        Self::TokenInvalid,
        Self::TokenMissing,
        Self::TokenRevoked,
        Self::Forbidden,
        Self::OriginRefused,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::UpgradeRequired,
        Self::IpLimit,
        Self::Overloaded,
        Self::RateLimited,
        Self::UserLimit,
        Self::HeadTooLarge,
        Self::Internal,
        Self::Draining,
        Self::NodeFull,
        Self::StorageFull,
    ];

    /// Position in tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The code word in bodies, messages, logs and metrics.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The close that stands for this refusal under `refusals=close`; `None` where the answer is
    /// plain HTTP all the same: before and at the origin check, and for what is no upgrade.
    /// A query that cannot be read is the client's to fix: 1002.
    pub fn close(self) -> Option<CloseReason> {
        self.row().2
    }

    /// Whether the answer says after how many seconds to come back.
    pub fn has_retry_after(self) -> bool {
        matches!(self.status(), 429 | 503)
    }

    /// The challenge in `WWW-Authenticate`, which every 401 carries. Source: RFC 6750 §3.
    pub fn www_authenticate(self) -> Option<&'static str> {
        match self {
            Self::TokenMissing => Some("Bearer"),
            Self::TokenExpired | Self::TokenInvalid | Self::TokenRevoked => {
                Some("Bearer error=\"invalid_token\"")
            }
            _ => None,
        }
    }

    /// The version in `Sec-WebSocket-Version`, which the 426 carries. Source: RFC 6455 §4.4.
    pub fn websocket_version(self) -> Option<&'static str> {
        (self == Self::UpgradeRequired).then_some("13")
    }

    fn row(self) -> (u16, &'static str, Option<CloseReason>) {
        use CloseReason::{NodeFull, NotAllowed, ProtocolError, RateExceeded, TokenRefused};
        match self {
            Self::BadRequest => (400, "BAD_REQUEST", Some(ProtocolError)),
            Self::InvalidCursor => (400, "INVALID_CURSOR", Some(ProtocolError)),
            Self::SubprotocolRequired => (400, "SUBPROTOCOL_REQUIRED", None),
            Self::TokenExpired => (401, "TOKEN_EXPIRED", Some(TokenRefused)),
            Self::TokenInvalid => (401, "TOKEN_INVALID", Some(TokenRefused)),
            Self::TokenMissing => (401, "TOKEN_MISSING", Some(TokenRefused)),
            Self::TokenRevoked => (401, "TOKEN_REVOKED", Some(TokenRefused)),
            Self::Forbidden => (403, "FORBIDDEN", Some(NotAllowed)),
            Self::OriginRefused => (403, "ORIGIN_REFUSED", None),
            Self::NotFound => (404, "NOT_FOUND", None),
            Self::MethodNotAllowed => (405, "METHOD_NOT_ALLOWED", None),
            Self::RequestTimeout => (408, "REQUEST_TIMEOUT", None),
            Self::BodyTooLarge => (413, "BODY_TOO_LARGE", None),
            Self::UnsupportedMediaType => (415, "UNSUPPORTED_MEDIA_TYPE", None),
            Self::UpgradeRequired => (426, "UPGRADE_REQUIRED", None),
            Self::IpLimit => (429, "IP_LIMIT", Some(RateExceeded)),
            Self::Overloaded => (429, "OVERLOADED", None),
            Self::RateLimited => (429, "RATE_LIMITED", Some(RateExceeded)),
            Self::UserLimit => (429, "USER_LIMIT", Some(RateExceeded)),
            Self::HeadTooLarge => (431, "HEAD_TOO_LARGE", None),
            Self::Internal => (500, "INTERNAL", Some(CloseReason::Internal)),
            Self::Draining => (503, "DRAINING", Some(NodeFull)),
            Self::NodeFull => (503, "NODE_FULL", Some(NodeFull)),
            Self::StorageFull => (507, "STORAGE_FULL", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CloseReason, Refusal};

    #[test]
    fn indices_are_positions_and_words_are_unique() {
        for (position, reason) in CloseReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert!(reason.text().len() <= 123);
        }
        for (position, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(refusal.index(), position);
        }
        let codes: HashSet<u16> = CloseReason::ALL.iter().map(|r| r.code()).collect();
        let names: HashSet<&str> = CloseReason::ALL.iter().map(|r| r.name()).collect();
        let words: HashSet<&str> = Refusal::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), CloseReason::ALL.len());
        assert_eq!(names.len(), CloseReason::ALL.len());
        assert_eq!(words.len(), Refusal::ALL.len());
    }

    #[test]
    fn rows_are_ordered_by_code_and_status() {
        assert!(CloseReason::ALL.is_sorted_by_key(|r| r.code()));
        assert!(Refusal::ALL.is_sorted_by_key(|r| r.status()));
    }

    #[test]
    fn the_refusal_table_of_the_contract() {
        let check = |refusal: Refusal, status: u16, close: Option<u16>| {
            let found = refusal.close().map(CloseReason::code);
            assert_eq!((refusal.status(), found), (status, close), "{refusal:?}");
        };
        for token in [
            "TOKEN_MISSING",
            "TOKEN_INVALID",
            "TOKEN_EXPIRED",
            "TOKEN_REVOKED",
        ] {
            let refusal = Refusal::ALL.into_iter().find(|r| r.code() == token);
            let refusal = refusal.expect("a row for each code");
            check(refusal, 401, Some(4401));
            assert!(refusal.www_authenticate().is_some());
        }
        check(Refusal::OriginRefused, 403, None);
        check(Refusal::Forbidden, 403, Some(4503));
        for refusal in [Refusal::UserLimit, Refusal::IpLimit, Refusal::RateLimited] {
            check(refusal, 429, Some(4429));
            assert!(refusal.has_retry_after());
        }
        for refusal in [Refusal::NodeFull, Refusal::Draining] {
            check(refusal, 503, Some(4013));
            assert!(refusal.has_retry_after());
        }
        check(Refusal::UpgradeRequired, 426, None);
        assert_eq!(Refusal::UpgradeRequired.websocket_version(), Some("13"));
        check(Refusal::HeadTooLarge, 431, None);
        check(Refusal::StorageFull, 507, None);
    }
}
