//! What an administrator asks to revoke: a JSON body becomes a [`Revocation`].

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as DeError, Unexpected, Visitor};
use thiserror::Error;

use super::json::{TIME_S_MAX, Text, read_object};
use super::revocation::{Revocation, Target};
use crate::event::time::parse_rfc3339_ms;
use crate::limits::{REVOCATION_DEFAULT_S, TOKEN_ID_BYTES_MAX};

/// The body of `POST` and `DELETE /v1/admin/revoke`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeRequest {
    /// Which tokens.
    pub target: Target,
    /// Until when, in seconds since the Unix epoch, rounded up. Without meaning in `DELETE`.
    pub expires_at_s: Option<u64>,
}

impl RevokeRequest {
    /// Reads `{sessionId|jti|userId, expiresAt?}`; `expiresAt` is RFC 3339 text or integer
    /// milliseconds. Errors: `Body`, `NotOneTarget`.
    pub fn parse(body: &[u8]) -> Result<Self, RevokeError> {
        let body: Body = read_object(body).map_err(|e| RevokeError::Body(e.to_string()))?;
        let target = match (body.jti, body.session_id, body.user_id) {
            (Some(id), None, None) => Target::Jti(id.0),
            (None, Some(id), None) => Target::Session(id.0),
            (None, None, Some(id)) => Target::User(id.0),
            _ => return Err(RevokeError::NotOneTarget),
        };
        Ok(Self {
            target,
            expires_at_s: body.expires_at.map(|time| time.0),
        })
    }

    /// The decision, made at `now_s`. Without `expiresAt` a session or `jti` is revoked for a
    /// day; a user until it is undone, since a token of unknown life would come back to life
    /// after any shorter time. Errors: `Past`.
    pub fn into_revocation(self, now_s: u64) -> Result<Revocation, RevokeError> {
        if self.expires_at_s.is_some_and(|end_s| end_s <= now_s) {
            return Err(RevokeError::Past);
        }
        let default_s = match &self.target {
            Target::Jti(_) | Target::Session(_) => Some(now_s.saturating_add(REVOCATION_DEFAULT_S)),
            Target::User(_) => None,
        };
        Ok(Revocation {
            target: self.target,
            revoked_at_s: now_s,
            expires_at_s: self.expires_at_s.or(default_s),
        })
    }
}

/// Why a request to revoke is refused. All are the administrator's: 400.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RevokeError {
    /// Not the JSON that is asked for.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// None of the three, or more than one.
    #[error("the body must name exactly one of sessionId, jti and userId")]
    NotOneTarget,
    /// The end lies behind.
    #[error("expiresAt must lie in the future")]
    Past,
}

// A misspelt `expiresAt` must not silently become the default, so unknown keys are refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    jti: Option<Text<TOKEN_ID_BYTES_MAX>>,
    session_id: Option<Text<TOKEN_ID_BYTES_MAX>>,
    user_id: Option<Text<TOKEN_ID_BYTES_MAX>>,
    expires_at: Option<EndSecond>,
}

/// A time in seconds, rounded up, so that nothing ends early.
struct EndSecond(u64);

impl<'de> Deserialize<'de> for EndSecond {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndVisitor)
    }
}

struct EndVisitor;

impl Visitor<'_> for EndVisitor {
    type Value = EndSecond;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an RFC 3339 time or integer milliseconds, from 1970 to 9999")
    }

    fn visit_str<E: DeError>(self, text: &str) -> Result<EndSecond, E> {
        let time_ms =
            parse_rfc3339_ms(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
        self.visit_i64(time_ms)
    }

    fn visit_i64<E: DeError>(self, time_ms: i64) -> Result<EndSecond, E> {
        let time_ms = u64::try_from(time_ms)
            .map_err(|_| E::invalid_value(Unexpected::Signed(time_ms), &self))?;
        self.visit_u64(time_ms)
    }

    fn visit_u64<E: DeError>(self, time_ms: u64) -> Result<EndSecond, E> {
        let end_s = time_ms.div_ceil(1000);
        if end_s > TIME_S_MAX {
            return Err(E::invalid_value(Unexpected::Unsigned(time_ms), &self));
        }
        Ok(EndSecond(end_s))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn request(body: &str) -> Result<Revocation, RevokeError> {
        RevokeRequest::parse(body.as_bytes()).and_then(|request| request.into_revocation(NOW_S))
    }

    #[test]
    fn requests_are_read() {
        let day = Some(NOW_S + 86_400);
        let table = [
            (r#"{"jti":"j"}"#, Target::Jti("j".into()), day),
            (r#"{"sessionId":"s"}"#, Target::Session("s".into()), day),
            (r#"{"userId":"a"}"#, Target::User("a".into()), None),
            (r#"{"userId":7}"#, Target::User("7".into()), None),
            (
                r#" {"jti":null,"userId":"a","expiresAt":null} "#,
                Target::User("a".into()),
                None,
            ),
            (
                r#"{"userId":"a","expiresAt":1800000001000}"#,
                Target::User("a".into()),
                Some(NOW_S + 1),
            ),
            (
                r#"{"userId":"a","expiresAt":1800000001001}"#,
                Target::User("a".into()),
                Some(NOW_S + 2),
            ),
            (
                r#"{"jti":"j","expiresAt":"2027-01-15T08:00:01Z"}"#,
                Target::Jti("j".into()),
                Some(NOW_S + 1),
            ),
            (
                r#"{"jti":"j","expiresAt":"2027-01-15T09:00:00.5+01:00"}"#,
                Target::Jti("j".into()),
                Some(NOW_S + 1),
            ),
        ];
        for (body, target, expires_at_s) in table {
            let expected = Revocation {
                target,
                revoked_at_s: NOW_S,
                expires_at_s,
            };
            assert_eq!(request(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        for body in [
            "{}",
            r#"{"jti":"j","userId":"a"}"#,
            r#"{"expiresAt":1}"#,
            r#"{"jti":null}"#,
        ] {
            assert_eq!(request(body), Err(RevokeError::NotOneTarget), "{body}");
        }
        let unreadable = [
            "",
            "null",
            "[]",
            r#"["j"]"#,
            r#"{"jti":""}"#,
            r#"{"jti":true}"#,
            r#"{"jti":1.5}"#,
            r#"{"jti":"j","jti":"k"}"#,
            r#"{"jti":"j","expires_at":1}"#,
            r#"{"jti":"j","expiresAt":"tomorrow"}"#,
            r#"{"jti":"j","expiresAt":-1}"#,
            r#"{"jti":"j","expiresAt":1.5}"#,
            r#"{"jti":"j","expiresAt":1e300}"#,
            r#"{"jti":"j","expiresAt":18446744073709551615}"#,
            r#"{"jti":"j"} {}"#,
        ];
        for body in unreadable {
            assert!(matches!(request(body), Err(RevokeError::Body(_))), "{body}");
        }
        for time in ["0", "1800000000000", r#""2020-01-01T00:00:00Z""#] {
            let body = format!(r#"{{"jti":"j","expiresAt":{time}}}"#);
            assert_eq!(request(&body), Err(RevokeError::Past), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = RevokeRequest::parse(&body);
        }
    }
}
