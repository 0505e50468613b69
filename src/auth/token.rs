//! A token's text and the present time become [`Claims`], or a refusal.
//!
//! The order is fixed: length, shape, header, key, signature; only then is the payload looked at.
//! Nothing in the header chooses a key from outside (`jku`, `x5u`, `jwk` are not read).
//! Source: RFC 7515, RFC 7519, RFC 8725.

use std::borrow::Cow;

use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use thiserror::Error;

use super::claims::{Claims, RawClaims};
use super::json::{decode_base64, read_object};
use super::keys::KeySet;
use crate::limits::TOKEN_BYTES_MAX;

/// What a token must satisfy. `Send + Sync`; one serves all cores.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The keys that may have signed it.
    pub keys: KeySet,
    /// The `iss` it must carry, where there is one.
    pub issuer: Option<String>,
    /// What its `aud` must name, where there is one.
    pub audience: Option<String>,
}

impl Verifier {
    /// Checks `token` at `now_s`, in seconds since the Unix epoch. Revocation is asked for apart,
    /// by [`Revocations::is_revoked`](super::Revocations::is_revoked).
    /// Errors: `Missing` (empty), `Invalid`, `Expired`.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let payload = self.verify_signature(token)?;
        let claims = RawClaims::parse(&payload)?;
        if let Some(issuer) = &self.issuer {
            claims.check_issuer(issuer)?;
        }
        if let Some(audience) = &self.audience {
            claims.check_audience(audience)?;
        }
        claims.read(now_s)
    }

    /// The payload's bytes, once the signature is known to be good.
    fn verify_signature(&self, token: &str) -> Result<Vec<u8>, InvalidToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(InvalidToken::Shape)?;
        let (header, payload) = message.split_once('.').ok_or(InvalidToken::Shape)?;
        // Five parts are an encrypted token (RFC 7516); a further dot is in the payload here.
        if payload.contains('.') {
            return Err(InvalidToken::Shape);
        }
        let header = decode_base64(header).ok_or(InvalidToken::Header)?;
        let header = Header::parse(&header)?;
        let key = self.keys.find(header.kid.as_deref(), header.algorithm()?)?;
        key.verify(message, signature, header.algorithm()?)?;
        decode_base64(payload).ok_or(InvalidToken::ClaimsUnreadable)
    }
}

/// The members of a JOSE header that this verifier goes by, or refuses.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cty: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "is_present")]
    crit: bool,
    #[serde(default, deserialize_with = "is_present")]
    b64: bool,
    #[serde(default, deserialize_with = "is_present")]
    enc: bool,
    #[serde(default, deserialize_with = "is_present")]
    zip: bool,
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, InvalidToken> {
        let header: Self = read_object(bytes).map_err(|_| InvalidToken::Header)?;
        // No extension is understood, so whatever `crit` lists is unknown (RFC 7515 §4.1.11).
        if header.crit || header.b64 {
            return Err(InvalidToken::Critical);
        }
        let is_nested = header.cty.as_ref().is_some_and(|cty| is_jwt(cty));
        if header.enc || header.zip || is_nested {
            return Err(InvalidToken::Encrypted);
        }
        Ok(header)
    }

    /// The algorithm that the header claims, by its exact name; `none` has no entry. It only picks
    /// among those that the configured key allows.
    fn algorithm(&self) -> Result<Algorithm, InvalidToken> {
        self.alg.parse().map_err(|_| InvalidToken::Algorithm)
    }
}

/// RFC 7515 §4.1.10 lets the prefix `application/` be left out.
fn is_jwt(content_type: &str) -> bool {
    content_type.eq_ignore_ascii_case("jwt") || content_type.eq_ignore_ascii_case("application/jwt")
}

/// True for whatever value; so that `"crit": null` is a `crit` too.
fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// Why a token is refused. All are the bearer's or its issuer's fault and answered 401 (close
/// 4401). `Display` is for logs: it names the rule that was broken, never the token or a value
/// in it; a peer gets [`TokenError::code`] and [`TokenError::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It was good until `exp`.
    #[error("the token has expired")]
    Expired,
    /// It breaks a rule.
    #[error("the token is not valid: {0}")]
    Invalid(InvalidToken),
    /// There is none.
    #[error("no token was given")]
    Missing,
    /// An administrator took it back.
    #[error("the token was revoked")]
    Revoked,
}

impl TokenError {
    /// The code that a peer gets.
    pub fn code(self) -> &'static str {
        match self {
            Self::Expired => "TOKEN_EXPIRED",
            Self::Invalid(_) => "TOKEN_INVALID",
            Self::Missing => "TOKEN_MISSING",
            Self::Revoked => "TOKEN_REVOKED",
        }
    }

    /// The words that a peer gets. They are the same whatever made a token invalid, so that a
    /// forger learns nothing from them.
    pub fn message(self) -> &'static str {
        match self {
            Self::Expired => "the token has expired",
            Self::Invalid(_) => "the token is not valid",
            Self::Missing => "no token was given",
            Self::Revoked => "the token was revoked",
        }
    }
}

impl From<InvalidToken> for TokenError {
    fn from(why: InvalidToken) -> Self {
        Self::Invalid(why)
    }
}

/// Which rule a token breaks; for logs and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// `alg` is none that the configured key allows.
    #[error("its algorithm is not one that the key allows")]
    Algorithm,
    /// A claim is mistyped, out of range, or not what is asked for.
    #[error("its claim {0} is mistyped, out of range, or not the one asked for")]
    Claim(&'static str),
    /// A required claim is not there.
    #[error("its claim {0} is missing")]
    ClaimMissing(&'static str),
    /// One claim stands under two names with two values.
    #[error("its claims {0} and {1} differ")]
    ClaimsDiffer(&'static str, &'static str),
    /// The payload is not one JSON object, or names a claim twice.
    #[error("its payload is not a JSON object in which each claim stands once")]
    ClaimsUnreadable,
    /// The header asks for an extension.
    #[error("its header asks for an extension (crit)")]
    Critical,
    /// It is encrypted, compressed or nested.
    #[error("it is encrypted, compressed or nested")]
    Encrypted,
    /// The header is not a JSON object with a string `alg`.
    #[error("its header cannot be read")]
    Header,
    /// `nbf` lies ahead.
    #[error("it is not valid yet (nbf)")]
    NotYetValid,
    /// It is not three parts with dots between them.
    #[error("it does not have the three parts of a signed token")]
    Shape,
    /// The signature does not belong to it.
    #[error("its signature does not match")]
    Signature,
    /// It has more than `TOKEN_BYTES_MAX` bytes.
    #[error("it is too long")]
    TooLong,
    /// Its `kid` names no configured key, or it has none and several keys fit.
    #[error("its kid names no configured key")]
    UnknownKey,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::permissions::{Permission, Permissions};
    use super::super::test_keys::{ED25519, P256, P384, RSA, SHARED, TestKey};
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn verifier(key: &TestKey) -> Verifier {
        let keys = match key.algorithms[0] {
            Algorithm::HS256 => KeySet::from_secret(key.public.as_bytes()),
            _ => KeySet::from_public_pem(key.public.as_bytes()),
        };
        Verifier {
            keys: keys.unwrap(),
            issuer: None,
            audience: None,
        }
    }

    fn claims_of(payload: &Value) -> Claims {
        let header = json!({"alg": "HS256"}).to_string();
        let payload = payload.to_string();
        let token = SHARED.sign(Algorithm::HS256, header.as_bytes(), payload.as_bytes());
        verifier(&SHARED).verify(&token, NOW_S).unwrap()
    }

    #[test]
    fn every_algorithm_is_verified_with_its_own_key() {
        let mut count = 0;
        for key in [&SHARED, &RSA, &P256, &P384, &ED25519] {
            for algorithm in key.algorithms {
                let header = json!({"alg": format!("{algorithm:?}"), "kid": "whatever"});
                let payload = json!({"sub": "ada", "exp": NOW_S + 1});
                let token = key.sign(
                    *algorithm,
                    header.to_string().as_bytes(),
                    payload.to_string().as_bytes(),
                );
                let claims = verifier(key).verify(&token, NOW_S);
                assert_eq!(claims.unwrap().sub, "ada", "{algorithm:?}");
                count += 1;
            }
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn all_claims_are_read() {
        let claims = claims_of(&json!({
            "sub": "ada", "exp": NOW_S + 60, "iat": NOW_S - 1, "subscription_tier": "team",
            "projectIds": [7, "x", "10", 7, "7"], "permissions": ["admin", "publish", "fly"],
            "sessionId": "s", "jti": "j", "iss": ["anything"], "aud": 7, "extra": {"deep": [1]},
        }));
        let expected = Claims {
            sub: "ada".into(),
            exp_s: NOW_S + 60,
            iat_s: Some(NOW_S - 1),
            tier: Some("team".into()),
            projects: ["10".into(), "7".into(), "x".into()].into(),
            permissions: [Permission::Admin, Permission::Publish]
                .into_iter()
                .collect(),
            session: Some("s".into()),
            jti: Some("j".into()),
        };
        assert_eq!(claims, expected);
        assert_eq!(claims.expires_s(), NOW_S + 65);
    }

    #[test]
    fn absent_and_null_claims_leave_the_least() {
        let expected = claims_of(&json!({"sub": "ada", "exp": NOW_S}));
        assert_eq!(expected.permissions, Permissions::default());
        assert!(expected.projects.is_empty());
        let nulls = claims_of(&json!({
            "sub": "ada", "exp": NOW_S, "iat": null, "nbf": null, "subscription_tier": null,
            "projectIds": null, "permissions": null, "sessionId": null, "jti": null,
        }));
        assert_eq!(nulls, expected);
        let none = claims_of(&json!({"sub": "ada", "exp": NOW_S, "permissions": []}));
        assert_eq!(none.permissions, Permissions::NONE);
    }

    #[test]
    fn other_names_and_spellings_are_taken() {
        let table = [
            (json!({"userId": "ada"}), "ada"),
            (json!({"sub": "ada", "userId": "ada"}), "ada"),
            (json!({"sub": 7}), "7"),
            (json!({"sub": -7}), "-7"),
            (json!({"sub": 7, "userId": "7"}), "7"),
            (json!({"sub": "é".repeat(64)}), &"é".repeat(64)),
        ];
        for (mut payload, sub) in table {
            payload["exp"] = json!(NOW_S as f64 + 0.5);
            payload["project_ids"] = json!([1]);
            payload["sid"] = json!("s");
            payload["permissions"] = json!(["read", "write"]);
            let claims = claims_of(&payload);
            assert_eq!((claims.sub.as_str(), claims.exp_s), (sub, NOW_S));
            assert_eq!(*claims.projects, ["1"]);
            assert_eq!(claims.session.as_deref(), Some("s"));
            let both = [Permission::Subscribe, Permission::Publish];
            assert_eq!(claims.permissions, both.into_iter().collect());
        }
    }

    #[test]
    fn an_audience_may_be_one_of_several() {
        let mut verifier = verifier(&SHARED);
        verifier.issuer = Some("i".into());
        verifier.audience = Some("a".into());
        for aud in [json!("a"), json!(["a"]), json!(["b", "a"])] {
            let payload = json!({"sub": "ada", "exp": NOW_S, "iss": "i", "aud": aud}).to_string();
            let token = SHARED.sign(Algorithm::HS512, br#"{"alg":"HS512"}"#, payload.as_bytes());
            assert!(verifier.verify(&token, NOW_S).is_ok(), "{aud}");
        }
    }

    #[test]
    fn nothing_printed_holds_the_secret() {
        let printed = format!("{:?}", verifier(&SHARED));
        assert!(
            !printed.contains("owl") && printed.contains("redacted"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_accepted_or_panics(token in "\\PC{0,200}") {
            prop_assert!(verifier(&SHARED).verify(&token, NOW_S).is_err());
        }

        #[test]
        fn no_signed_bytes_panic(
            header in proptest::collection::vec(any::<u8>(), 0..60),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let verifier = verifier(&SHARED);
            let alg = br#"{"alg":"HS256"}"#;
            let bad_header = SHARED.sign(Algorithm::HS256, &header, b"{}");
            prop_assert!(verifier.verify(&bad_header, NOW_S).is_err());
            let bad_payload = SHARED.sign(Algorithm::HS256, alg, &payload);
            prop_assert!(verifier.verify(&bad_payload, NOW_S).is_err());
        }

        #[test]
        fn any_change_to_a_token_is_noticed(place in 0_usize..1000, with in "[A-Za-z0-9_.-]") {
            let payload = json!({"sub": "ada", "exp": NOW_S + 60}).to_string();
            let good = SHARED.sign(Algorithm::HS256, br#"{"alg":"HS256"}"#, payload.as_bytes());
            let mut bad = good.clone();
            let place = place % good.len();
            bad.replace_range(place..=place, &with);
            let is_same = bad == good;
            prop_assert_eq!(verifier(&SHARED).verify(&bad, NOW_S).is_ok(), is_same);
        }
    }
}
