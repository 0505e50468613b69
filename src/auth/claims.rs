//! What a verified token says. The payload is read claim by claim, so that a refusal can name the
//! claim without repeating its value.

use std::sync::Arc;

use compact_str::CompactString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{NumericDate, Text, read_object};
use super::permissions::Permissions;
use super::token::{InvalidToken, TokenError};
use crate::limits::{TOKEN_ID_BYTES_MAX, TOKEN_LEEWAY_S, TOKEN_PROJECT_BYTES_MAX};

/// What a verified token says of its bearer. Cheap to clone; goes from core to core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The user, 1 to 128 bytes.
    pub sub: CompactString,
    /// When the token ends, in seconds since the Unix epoch, before leeway; at most the year 9999.
    pub exp_s: u64,
    /// When it was issued, in seconds since the Unix epoch.
    pub iat_s: Option<u64>,
    /// The tier as the token spells it; it may name no row of `[tiers]`.
    pub tier: Option<CompactString>,
    /// The projects it may see, as text, sorted, each once; 1 to 64 bytes each.
    pub projects: Arc<[CompactString]>,
    /// What it allows.
    pub permissions: Permissions,
    /// The session it belongs to, for revocation; 1 to 128 bytes.
    pub session: Option<CompactString>,
    /// Its own id, for revocation; 1 to 128 bytes.
    pub jti: Option<CompactString>,
}

impl Claims {
    /// Whether the token has ended at `now_s`, leeway included.
    pub fn is_expired(&self, now_s: u64) -> bool {
        now_s >= self.expires_s()
    }

    /// The first second in which the token is refused: `exp` and the leeway.
    pub fn expires_s(&self) -> u64 {
        self.exp_s.saturating_add(TOKEN_LEEWAY_S)
    }
}

/// A token's payload, each claim still as its JSON text. `null` is as if absent; a claim that
/// stands twice is an error of serde's (RFC 7519 §4), claims that nobody reads aside.
#[derive(Deserialize)]
pub(super) struct RawClaims<'a> {
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow, rename = "userId")]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    iat: Option<&'a RawValue>,
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    subscription_tier: Option<&'a RawValue>,
    #[serde(borrow, rename = "projectIds")]
    project_ids: Option<&'a RawValue>,
    #[serde(borrow, rename = "project_ids")]
    project_ids_snake: Option<&'a RawValue>,
    #[serde(borrow)]
    permissions: Option<&'a RawValue>,
    #[serde(borrow, rename = "sessionId")]
    session_id: Option<&'a RawValue>,
    #[serde(borrow)]
    sid: Option<&'a RawValue>,
    #[serde(borrow)]
    jti: Option<&'a RawValue>,
}

impl<'a> RawClaims<'a> {
    /// Reads a payload. Errors: `ClaimsUnreadable`.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, InvalidToken> {
        read_object(payload).map_err(|_| InvalidToken::ClaimsUnreadable)
    }

    /// The token was issued by `issuer`. An array is refused: RFC 7519 §4.1.1 knows one string.
    pub(super) fn check_issuer(&self, issuer: &str) -> Result<(), InvalidToken> {
        let given: String = required("iss", self.iss)?;
        if given == issuer {
            Ok(())
        } else {
            Err(InvalidToken::Claim("iss"))
        }
    }

    /// `audience` is the token's audience or among them.
    pub(super) fn check_audience(&self, audience: &str) -> Result<(), InvalidToken> {
        let meant = match required("aud", self.aud)? {
            Audience::Many(given) => given.iter().any(|one| one == audience),
            Audience::One(given) => given == audience,
        };
        if meant {
            Ok(())
        } else {
            Err(InvalidToken::Claim("aud"))
        }
    }

    /// The claims as they hold at `now_s`. `Expired` is said last, of a token that is otherwise
    /// good, so that it tells a client truly that a new one will do.
    pub(super) fn read(&self, now_s: u64) -> Result<Claims, TokenError> {
        let not_before = optional("nbf", self.nbf)?.unwrap_or(NumericDate(0));
        let claims = self.read_claims()?;
        if not_before.0 > now_s.saturating_add(TOKEN_LEEWAY_S) {
            return Err(InvalidToken::NotYetValid.into());
        }
        if claims.is_expired(now_s) {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    fn read_claims(&self) -> Result<Claims, InvalidToken> {
        let NumericDate(exp_s) = required("exp", self.exp)?;
        let issued: Option<NumericDate> = optional("iat", self.iat)?;
        let sub: Option<Id> = one_of(("sub", self.sub), ("userId", self.user_id))?;
        let session: Option<Id> = one_of(("sessionId", self.session_id), ("sid", self.sid))?;
        let jti: Option<Id> = optional("jti", self.jti)?;
        Ok(Claims {
            sub: sub.ok_or(InvalidToken::ClaimMissing("sub"))?.0,
            exp_s,
            iat_s: issued.map(|time| time.0),
            tier: optional("subscription_tier", self.subscription_tier)?,
            projects: self.read_projects()?,
            permissions: self.read_permissions()?,
            session: session.map(|id| id.0),
            jti: jti.map(|id| id.0),
        })
    }

    fn read_projects(&self) -> Result<Arc<[CompactString]>, InvalidToken> {
        let given: Option<Vec<Text<TOKEN_PROJECT_BYTES_MAX>>> = one_of(
            ("projectIds", self.project_ids),
            ("project_ids", self.project_ids_snake),
        )?;
        let given = given.unwrap_or_default();
        let mut projects: Vec<_> = given.into_iter().map(|id| id.0).collect();
        projects.sort_unstable();
        projects.dedup();
        // Most name none: those share one empty list.
        Ok(match projects.is_empty() {
            true => Arc::default(),
            false => projects.into(),
        })
    }

    fn read_permissions(&self) -> Result<Permissions, InvalidToken> {
        let names: Option<Vec<String>> = optional("permissions", self.permissions)?;
        Ok(names.map_or_else(Permissions::default, |names| {
            names.iter().filter_map(|name| name.parse().ok()).collect()
        }))
    }
}

type Id = Text<TOKEN_ID_BYTES_MAX>;

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

fn optional<'a, T: Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<Option<T>, InvalidToken> {
    raw.map(|raw| serde_json::from_str(raw.get()))
        .transpose()
        .map_err(|_| InvalidToken::Claim(name))
}

fn required<'a, T: Deserialize<'a>>(
    name: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<T, InvalidToken> {
    optional(name, raw)?.ok_or(InvalidToken::ClaimMissing(name))
}

/// A claim that has two names: under either, or under both with the same value. Two values would
/// leave open which of them a revocation or another reader of the token goes by.
fn one_of<'a, T: Deserialize<'a> + PartialEq>(
    (name, raw): (&'static str, Option<&'a RawValue>),
    (other_name, other_raw): (&'static str, Option<&'a RawValue>),
) -> Result<Option<T>, InvalidToken> {
    let value = optional(name, raw)?;
    let other = optional(other_name, other_raw)?;
    match (value, other) {
        (Some(value), Some(other)) if value != other => {
            Err(InvalidToken::ClaimsDiffer(name, other_name))
        }
        (value, other) => Ok(value.or(other)),
    }
}
