//! Makes tokens: for `sightline token`, for `serve --dev`, and for tests.

use compact_str::CompactString;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use thiserror::Error;

use super::keys::{KeyError, check_secret, pem_label};
use super::permissions::{Permission, Permissions};
use crate::limits::{TOKEN_BYTES_MAX, TOKEN_ID_BYTES_MAX, TOKEN_PROJECT_BYTES_MAX};

/// A key that signs tokens. Its material prints as `[redacted]`.
#[derive(Clone, Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    material: EncodingKey,
}

impl SigningKey {
    /// Signs with HS256. Errors: `SecretIsPem`, `SecretTooShort`.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        Ok(Self {
            algorithm: Algorithm::HS256,
            material: EncodingKey::from_secret(secret),
        })
    }

    /// Signs with RS256, ES256, ES384 or EdDSA, as the unencrypted private key in `pem` has it
    /// (PKCS#8, or PKCS#1 for RSA). Errors: `NotPem`, `SeveralPemBlocks`, `PrivateKeyUnusable`.
    pub fn from_private_pem(pem: &[u8]) -> Result<Self, KeyError> {
        pem_label(pem)?;
        let rsa = EncodingKey::from_rsa_pem(pem).map(|key| (key, &[Algorithm::RS256][..]));
        let curves = &[Algorithm::ES256, Algorithm::ES384][..];
        let ec = || EncodingKey::from_ec_pem(pem).map(|key| (key, curves));
        let ed = || EncodingKey::from_ed_pem(pem).map(|key| (key, &[Algorithm::EdDSA][..]));
        let (material, algorithms) = rsa
            .or_else(|_| ec())
            .or_else(|_| ed())
            .map_err(|_| KeyError::PrivateKeyUnusable)?;
        // The readers look at the frame only; whether the key inside signs is known by trying.
        let signs = |algorithm: &&Algorithm| {
            jsonwebtoken::crypto::sign(b"trial", &material, **algorithm).is_ok()
        };
        let algorithm = *algorithms
            .iter()
            .find(signs)
            .ok_or(KeyError::PrivateKeyUnusable)?;
        Ok(Self {
            algorithm,
            material,
        })
    }
}

/// What a minted token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintOptions {
    /// The user, 1 to 128 bytes.
    pub sub: CompactString,
    /// The tier.
    pub tier: Option<CompactString>,
    /// The projects it may see, 1 to 64 bytes each.
    pub projects: Vec<CompactString>,
    /// What it allows.
    pub permissions: Permissions,
    /// The session it belongs to, 1 to 128 bytes.
    pub session: Option<CompactString>,
    /// Its own id, 1 to 128 bytes; the caller's to draw.
    pub jti: Option<CompactString>,
    /// Seconds from now to `exp`.
    pub ttl_s: u64,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// The name of the key in a JWKS.
    pub kid: Option<String>,
}

impl MintOptions {
    /// A token of `sub` that may subscribe, for one hour.
    pub fn new(sub: impl Into<CompactString>) -> Self {
        Self {
            sub: sub.into(),
            tier: None,
            projects: Vec::new(),
            permissions: Permissions::default(),
            session: None,
            jti: None,
            ttl_s: 60 * 60,
            issuer: None,
            audience: None,
            kid: None,
        }
    }

    fn check(&self) -> Result<(), MintError> {
        let is_text = |text: &str, bytes_max| (1..=bytes_max).contains(&text.len());
        let mut ids = [Some(&self.sub), self.session.as_ref(), self.jti.as_ref()]
            .into_iter()
            .flatten();
        if !ids.all(|id| is_text(id, TOKEN_ID_BYTES_MAX)) {
            return Err(MintError::Id);
        }
        let mut projects = self.projects.iter();
        if !projects.all(|id| is_text(id, TOKEN_PROJECT_BYTES_MAX)) {
            return Err(MintError::Project);
        }
        Ok(())
    }
}

/// A token that says what `options` ask for, issued at `now_s` (seconds since the Unix epoch).
/// Errors: [`MintError`].
pub fn mint(key: &SigningKey, options: &MintOptions, now_s: u64) -> Result<String, MintError> {
    options.check()?;
    let mut header = Header::new(key.algorithm);
    header.kid.clone_from(&options.kid);
    let payload = Payload {
        sub: &options.sub,
        iat: now_s,
        exp: now_s.saturating_add(options.ttl_s),
        iss: options.issuer.as_deref(),
        aud: options.audience.as_deref(),
        subscription_tier: options.tier.as_deref(),
        project_ids: &options.projects,
        permissions: options.permissions.iter().map(Permission::name).collect(),
        session_id: options.session.as_deref(),
        jti: options.jti.as_deref(),
    };
    let token = jsonwebtoken::encode(&header, &payload, &key.material);
    let token = token.map_err(|_| MintError::Signing)?;
    if token.len() > TOKEN_BYTES_MAX {
        return Err(MintError::TooLong(token.len()));
    }
    Ok(token)
}

#[derive(Serialize)]
struct Payload<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_tier: Option<&'a str>,
    #[serde(rename = "projectIds")]
    project_ids: &'a [CompactString],
    permissions: Vec<&'static str>,
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}

/// Why no token was made. All but `Signing` are the operator's; exit code 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MintError {
    /// The user, session or `jti` has a wrong length.
    #[error("a user, a session and a jti have 1 to 128 bytes")]
    Id,
    /// A project id has a wrong length.
    #[error("a project id has 1 to 64 bytes")]
    Project,
    /// The key refused to sign, although it did when it was read.
    #[error("the key could not sign")]
    Signing,
    /// The token would be refused by its length.
    #[error("the token would have {0} bytes and may have 8192; name fewer projects")]
    TooLong(usize),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::claims::Claims;
    use super::super::keys::KeySet;
    use super::super::test_keys::{ED25519, P256, P384, RSA, SECRET, TestKey};
    use super::super::token::{TokenError, Verifier};
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn verifier(keys: KeySet) -> Verifier {
        Verifier {
            keys,
            issuer: Some("issuer".into()),
            audience: Some("audience".into()),
        }
    }

    fn options() -> MintOptions {
        MintOptions {
            issuer: Some("issuer".into()),
            audience: Some("audience".into()),
            ..MintOptions::new("ada")
        }
    }

    #[test]
    fn every_kind_of_private_key_signs_what_its_public_key_verifies() {
        let table: [(&TestKey, _); 4] = [
            (&RSA, Algorithm::RS256),
            (&P256, Algorithm::ES256),
            (&P384, Algorithm::ES384),
            (&ED25519, Algorithm::EdDSA),
        ];
        for (key, algorithm) in table {
            let signing = SigningKey::from_private_pem(key.private_pem.as_bytes()).unwrap();
            assert_eq!(signing.algorithm, algorithm);
            let token = mint(&signing, &options(), NOW_S).unwrap();
            let keys = KeySet::from_public_pem(key.public.as_bytes()).unwrap();
            let claims = verifier(keys).verify(&token, NOW_S).unwrap();
            assert_eq!((claims.sub.as_str(), claims.exp_s), ("ada", NOW_S + 3600));
        }
    }

    #[test]
    fn what_cannot_sign_is_refused_when_it_is_read() {
        let unusable = Err(KeyError::PrivateKeyUnusable);
        let table = [
            (RSA.public.clone(), unusable.clone()),
            (P256.public.clone(), unusable.clone()),
            (ED25519.public.clone(), unusable.clone()),
            (
                P256.private_pem.replace("PRIVATE", "EC PRIVATE"),
                unusable.clone(),
            ),
            (
                P256.private_pem.replace("PRIVATE", "ENCRYPTED PRIVATE"),
                unusable,
            ),
            ("secret".repeat(10), Err(KeyError::NotPem)),
            (P256.private_pem.repeat(2), Err(KeyError::SeveralPemBlocks)),
        ];
        for (pem, expected) in table {
            let outcome = SigningKey::from_private_pem(pem.as_bytes()).map(|_| ());
            assert_eq!(outcome, expected, "{pem}");
        }
        let short = SigningKey::from_secret(&[1; 31]).map(|_| ());
        assert_eq!(short, Err(KeyError::SecretTooShort(31)));
    }

    #[test]
    fn what_would_be_refused_is_not_minted() {
        let key = SigningKey::from_secret(SECRET.as_bytes()).unwrap();
        let check = |options: MintOptions, expected| {
            assert_eq!(mint(&key, &options, NOW_S), Err(expected));
        };
        check(MintOptions::new(""), MintError::Id);
        check(MintOptions::new("x".repeat(129)), MintError::Id);
        let jti = Some("".into());
        check(MintOptions { jti, ..options() }, MintError::Id);
        let projects = vec!["p".repeat(65).into()];
        check(
            MintOptions {
                projects,
                ..options()
            },
            MintError::Project,
        );
        let projects = vec!["project".into(); 1000];
        let many = mint(
            &key,
            &MintOptions {
                projects,
                ..options()
            },
            NOW_S,
        );
        assert!(matches!(many, Err(MintError::TooLong(_))));
    }

    fn id() -> impl Strategy<Value = CompactString> {
        "\\PC{1,32}".prop_map(CompactString::from)
    }

    prop_compose! {
        fn any_options()(
            sub in id(),
            tier in proptest::option::of(id()),
            projects in proptest::collection::vec("\\PC{1,16}".prop_map(CompactString::from), 0..8),
            chosen in proptest::sample::subsequence(Permission::ALL.to_vec(), 0..=4),
            session in proptest::option::of(id()),
            jti in proptest::option::of(id()),
            ttl_s in 0_u64..100_000_000,
        ) -> MintOptions {
            let permissions = chosen.into_iter().collect();
            MintOptions { sub, tier, projects, permissions, session, jti, ttl_s, ..options() }
        }
    }

    proptest! {
        #[test]
        fn verifying_gives_back_what_was_minted(options in any_options()) {
            let key = SigningKey::from_secret(SECRET.as_bytes()).unwrap();
            let token = mint(&key, &options, NOW_S).unwrap();
            let verifier = verifier(KeySet::from_secret(SECRET.as_bytes()).unwrap());
            let mut projects = options.projects;
            projects.sort();
            projects.dedup();
            let expected = Claims {
                sub: options.sub,
                exp_s: NOW_S + options.ttl_s,
                iat_s: Some(NOW_S),
                tier: options.tier,
                projects: projects.into(),
                permissions: options.permissions,
                session: options.session,
                jti: options.jti,
            };
            let end_s = expected.expires_s();
            prop_assert_eq!(verifier.verify(&token, NOW_S), Ok(expected.clone()));
            prop_assert_eq!(verifier.verify(&token, end_s - 1), Ok(expected));
            prop_assert_eq!(verifier.verify(&token, end_s), Err(TokenError::Expired));
        }
    }
}
