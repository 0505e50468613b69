//! Tokens for the generator's own connections: HS256, minted here, so that a run needs nothing
//! but the server's secret.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// Mints tokens with one secret and one tier.
pub(crate) struct Minter {
    key: EncodingKey,
    tier: String,
    expires_at: u64,
}

impl Minter {
    /// A minter whose tokens name `tier` and are valid for `lifetime` from now.
    pub(crate) fn new(secret: &[u8], tier: &str, lifetime: Duration) -> Self {
        let expires_at = SystemTime::now() + lifetime;
        let since_epoch = expires_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            key: EncodingKey::from_secret(secret),
            tier: tier.to_owned(),
            expires_at: since_epoch.as_secs(),
        }
    }

    /// A token for `sub` with one permission.
    pub(crate) fn mint(&self, sub: &str, permission: &str) -> String {
        let claims = Claims {
            sub,
            exp: self.expires_at,
            subscription_tier: &self.tier,
            permissions: [permission],
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .expect("plain claims and an HMAC key are always encoded")
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: u64,
    subscription_tier: &'a str,
    permissions: [&'a str; 1],
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};

    #[test]
    fn token_holds_the_claims_and_fits_the_secret() {
        let minter = Minter::new(b"secret", "enterprise", Duration::from_secs(60));
        let token = minter.mint("u000001", "subscribe");
        let validation = Validation::new(Algorithm::HS256);
        let decode = |secret: &[u8]| {
            let key = DecodingKey::from_secret(secret);
            jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation)
        };
        let claims = decode(b"secret").unwrap().claims;
        assert_eq!(claims["sub"], "u000001");
        assert_eq!(claims["subscription_tier"], "enterprise");
        assert_eq!(claims["permissions"], serde_json::json!(["subscribe"]));
        assert!(decode(b"other").is_err());
    }
}
