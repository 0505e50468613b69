//! A file of keys: PEM, or a JWK Set, which an identity provider writes.
//!
//! Properties: it is taken or refused, with an error of one line that holds no part of a key; what
//! is taken accepts no token that is not signed.

use sightline::auth::{KeyError, KeySet, Verifier};

use super::NOW_MS;
use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "keys",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "-----BEGIN PUBLIC KEY-----\n", "-----END PUBLIC KEY-----\n", "RSA PUBLIC KEY", "PRIVATE KEY",
    "CERTIFICATE", "{\"keys\":[", "\"kty\":\"RSA\"", "\"kty\":\"EC\"", "\"kty\":\"OKP\"",
    "\"kty\":\"oct\"", "\"crv\":\"P-256\"", "\"crv\":\"P-384\"", "\"crv\":\"Ed25519\"", "\"alg\":",
    "\"kid\":", "\"use\":\"enc\"", "\"key_ops\":[\"verify\"]", "\"n\":", "\"e\":\"AQAB\"", "\"x\":",
    "\"y\":", "\"k\":", "\"d\":", "null", "]}", "{}", ",", "AAAA", "=", "MIIB",
];

fn run(input: &[u8]) {
    for keys in [KeySet::from_public_pem(input), KeySet::from_jwks(input)] {
        match keys {
            Ok(keys) => check_keys(keys),
            Err(error) => check_error(&error, input),
        }
    }
}

fn check_keys(keys: KeySet) {
    let (issuer, audience) = (None, None);
    let verifier = Verifier {
        keys,
        issuer,
        audience,
    };
    for token in UNSIGNED {
        assert!(verifier.verify(token, NOW_MS as u64 / 1_000).is_err());
    }
}

/// `{"sub":"a","exp":2000000000}` under `none`, `HS256`, `RS256`, `ES256` and `EdDSA`.
const UNSIGNED: [&str; 5] = [
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjoyMDAwMDAwMDAwfQ.",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoyMDAwMDAwMDAwfQ.",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoyMDAwMDAwMDAwfQ.",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIiwiZXhwIjoyMDAwMDAwMDAwfQ.AAAA",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIiwiZXhwIjoyMDAwMDAwMDAwfQ.AAAA",
];

/// The name of a key may be told; a run of the file that could be key material not.
fn check_error(error: &KeyError, input: &[u8]) {
    let told = error.to_string();
    assert_eq!(told.lines().count(), 1, "{told:?}");
    let (Ok(text), false) = (std::str::from_utf8(input), tells_a_name(error)) else {
        return;
    };
    let is_digit = |c: char| c.is_ascii_alphanumeric() || "+/-_".contains(c);
    let mut runs = text
        .split(|c| !is_digit(c))
        .filter(|run| run.len() >= MATERIAL_BYTES_MIN);
    assert!(!runs.any(|run| told.contains(run)), "{told}");
}

fn tells_a_name(error: &KeyError) -> bool {
    matches!(error, KeyError::DuplicateKid(_))
}

/// Base64 of 16 bytes; less is no key.
const MATERIAL_BYTES_MIN: usize = 22;
