//! A token, before verifiers whose keys are known.
//!
//! An input of two lines is a header and a payload, which are signed here with the shared secret,
//! so that what lies behind the signature is reached; any other input is a token as it stands.
//! Properties: what is accepted was signed with the secret, by a second HMAC, or is one of the
//! tokens that were minted with a private key that nobody has any more; and its claims are those
//! that a second reader finds, who takes the payload for a tree of values.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::value::RawValue;
use sightline::auth::{Claims, KeySet, Permission, Verifier};
use sightline::limits::{TOKEN_BYTES_MAX, TOKEN_ID_BYTES_MAX, TOKEN_LEEWAY_S};

use super::NOW_MS;
use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "token",
    run,
    tokens: TOKENS,
    bytes_max: 9 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "{\"alg\":\"HS256\"}\n", "\"alg\":\"HS384\"", "\"alg\":\"none\"", "\"alg\":\"RS256\"",
    "\"kid\":\"a\"", "\"crit\":[]", "\"b64\":false", "\"cty\":\"JWT\"", "\"zip\":\"DEF\"",
    "\"enc\":\"\"", "\"sub\":", "\"userId\":", "\"exp\":", "\"nbf\":", "\"iat\":",
    "\"iss\":\"issuer\"", "\"aud\":\"sightline\"", "\"projectIds\":[", "\"project_ids\":[",
    "\"permissions\":[", "\"admin\"", "\"publish:any\"", "\"sessionId\":", "\"sid\":", "\"jti\":",
    "\"subscription_tier\":", "2000000000", "1799999995", "1800000006", "2e9", "null", "\n", ".",
    "..", "=", "-", "_", "\\u0075", "eyJhbGciOiJub25lIn0.",
];

const NOW_S: u64 = NOW_MS as u64 / 1_000;
const SECRET: &[u8] = b"an owl counts the stars, slowly, twice";
const ISSUER: &str = "issuer";
const AUDIENCE: &str = "sightline";

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let token = match text.split_once('\n') {
        Some((header, payload)) => signed(header, payload),
        None => text.to_owned(),
    };
    for verifier in &*VERIFIERS {
        if let Ok(claims) = verifier.verify(&token, NOW_S) {
            assert!(token.len() <= TOKEN_BYTES_MAX);
            assert!(
                MINTED.contains(&token.as_str()) || is_signed(&token),
                "a forgery: {token}"
            );
            check_claims(&token, &claims);
        }
    }
}

/// Verifiers for each kind of key alone, and for several by name.
static VERIFIERS: LazyLock<[Verifier; 5]> = LazyLock::new(|| {
    let keys = [
        KeySet::from_secret(SECRET),
        KeySet::from_public_pem(include_bytes!("../../keys/rsa.pub.pem")),
        KeySet::from_public_pem(include_bytes!("../../keys/p256.pub.pem")),
        KeySet::from_public_pem(include_bytes!("../../keys/ed25519.pub.pem")),
        KeySet::from_jwks(include_bytes!("../../keys/jwks.json")),
    ];
    keys.map(|keys| Verifier {
        keys: keys.expect("the committed keys are good"),
        issuer: Some(ISSUER.into()),
        audience: Some(AUDIENCE.into()),
    })
});

/// What the private keys signed before they were thrown away.
const MINTED: [&str; 3] = [
    include_str!("../../corpus/token/minted-rs256"),
    include_str!("../../corpus/token/minted-es256"),
    include_str!("../../corpus/token/minted-eddsa"),
];

/// A token of this header and payload, signed with the algorithm that the header asks for.
fn signed(header: &str, payload: &str) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let signature = hmac::sign(&secret_key(header.as_bytes()), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn is_signed(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else {
        return false;
    };
    let expected = hmac::sign(&secret_key(&part(token, 0)), message.as_bytes());
    URL_SAFE_NO_PAD.encode(expected) == signature
}

fn secret_key(header: &[u8]) -> hmac::Key {
    let algorithm = match members(header) {
        Some(header) if header["alg"] == "HS384" => hmac::HMAC_SHA384,
        Some(header) if header["alg"] == "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    hmac::Key::new(algorithm, SECRET)
}

/// The JSON of a part of an accepted token.
fn part(token: &str, index: usize) -> Vec<u8> {
    let part = token.split('.').nth(index);
    let part = part.expect("an accepted token has three parts");
    URL_SAFE_NO_PAD
        .decode(part)
        .expect("an accepted token is base64")
}

/// The members of an object. Those that nobody reads are looked at for their grammar only, so that
/// a number beyond a float may be among them; it is left out.
fn members(json: &[u8]) -> Option<Value> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(json).ok()?;
    let read = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    let members = members.into_iter();
    Some(
        members
            .filter_map(|(name, raw)| Some((name, read(raw)?)))
            .collect(),
    )
}

/// The second reader.
fn check_claims(token: &str, claims: &Claims) {
    let [header, payload] =
        [0, 1].map(|index| members(&part(token, index)).expect("an accepted token is JSON"));
    for refused in ["crit", "b64", "enc", "zip"] {
        assert!(header.get(refused).is_none(), "{refused} in {header}");
    }
    assert_eq!(payload["iss"], ISSUER);
    let audiences = payload["aud"]
        .as_array()
        .map_or(vec![&payload["aud"]], |list| list.iter().collect());
    assert!(audiences.iter().any(|one| **one == AUDIENCE));
    let seconds = |name: &str| payload[name].as_f64().unwrap_or_default() as u64;
    assert_eq!(claims.exp_s, seconds("exp"));
    assert!(NOW_S < claims.exp_s + TOKEN_LEEWAY_S && !claims.is_expired(NOW_S));
    assert!(seconds("nbf") <= NOW_S + TOKEN_LEEWAY_S);
    let id = |names: [&str; 2]| names.iter().find_map(|name| text(&payload[name]));
    assert_eq!(id(["sub", "userId"]).as_deref(), Some(claims.sub.as_str()));
    assert!((1..=TOKEN_ID_BYTES_MAX).contains(&claims.sub.len()));
    assert_eq!(
        id(["sessionId", "sid"]).as_deref(),
        claims.session.as_deref()
    );
    assert_eq!(id(["jti", "jti"]).as_deref(), claims.jti.as_deref());
    let list = |name: &str| {
        payload[name]
            .as_array()
            .map(|list| list.iter().filter_map(text).collect::<Vec<_>>())
    };
    let mut projects = list("projectIds")
        .or(list("project_ids"))
        .unwrap_or_default();
    projects.sort();
    projects.dedup();
    assert_eq!(*claims.projects, *projects);
    let named = list("permissions").unwrap_or_else(|| vec!["subscribe".into()]);
    for permission in Permission::ALL {
        let is_named = named.iter().any(|name| name.parse() == Ok(permission));
        assert_eq!(
            claims.permissions.has(permission),
            is_named,
            "{permission:?}"
        );
    }
}

/// A string, or an integer as text.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
