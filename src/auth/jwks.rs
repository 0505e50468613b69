//! A JWK Set becomes keys. Source: RFC 7517, RFC 7518 §6, RFC 8037 §2.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;

use super::json::decode_base64;
use super::keys::{Key, KeyError};

/// Reads a JWK Set: see [`KeySet::from_jwks`](super::KeySet::from_jwks).
pub(super) fn parse(json: &[u8]) -> Result<Vec<Key>, KeyError> {
    let set: JwkSet = serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
    let mut keys = Vec::with_capacity(set.keys.len());
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = jwk.to_key().map_err(|fault| KeyError::InJwks {
            index,
            fault: Box::new(fault),
        })?;
        keys.extend(key);
    }
    check_kids(&keys)?;
    if keys.is_empty() {
        return Err(KeyError::JwksEmpty);
    }
    Ok(keys)
}

/// Of what is of a wrong type serde repeats the value, which may be a key.
fn unreadable(error: &serde_json::Error) -> KeyError {
    KeyError::JwksUnreadable(match error.classify() {
        Category::Data => format!(
            "a member is missing or of a wrong type at line {} column {}",
            error.line(),
            error.column()
        ),
        Category::Eof | Category::Io | Category::Syntax => error.to_string(),
    })
}

fn check_kids(keys: &[Key]) -> Result<(), KeyError> {
    let mut seen = BTreeSet::new();
    let mut named = keys.iter().filter_map(|key| key.kid.as_ref());
    match named.find(|kid| !seen.insert(*kid)) {
        Some(kid) => Err(KeyError::DuplicateKid(kid.clone())),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

/// One key as the file has it. Members of other kinds of key are not looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
    d: Option<IgnoredAny>,
}

impl Jwk {
    /// The key, or `None` where it is not one to verify tokens with here.
    fn to_key(&self) -> Result<Option<Key>, KeyError> {
        if !self.is_for_verifying() {
            return Ok(None);
        }
        let Some(mut key) = self.read_material()? else {
            return Ok(None);
        };
        if let Some(alg) = &self.alg {
            key.algorithms.retain(|own| alg.parse().ok() == Some(*own));
        }
        key.kid.clone_from(&self.kid);
        Ok((!key.algorithms.is_empty()).then_some(key))
    }

    fn is_for_verifying(&self) -> bool {
        let by_use = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let by_operations = self
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|one| one == "verify"));
        by_use && by_operations
    }

    /// A private key is refused rather than stripped: it does not belong on the gateway's disk.
    fn read_material(&self) -> Result<Option<Key>, KeyError> {
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA" | "EC" | "OKP", _) if self.d.is_some() => Err(KeyError::PrivateKey),
            ("RSA", _) => Key::from_rsa(&bytes("n", &self.n)?, &bytes("e", &self.e)?),
            ("EC", Some("P-256")) => self.read_point(32),
            ("EC", Some("P-384")) => self.read_point(48),
            ("OKP", Some("Ed25519")) => Key::from_ed25519(&bytes("x", &self.x)?),
            ("oct", _) => Key::from_secret(&bytes("k", &self.k)?),
            _ => return Ok(None),
        };
        key.map(Some)
    }

    /// Both coordinates have the curve's full length (RFC 7518 §6.2.1.2), so that together they
    /// cannot pass for a point of the other curve.
    fn read_point(&self, coordinate_bytes: usize) -> Result<Key, KeyError> {
        let (x, y) = (bytes("x", &self.x)?, bytes("y", &self.y)?);
        if x.len() != coordinate_bytes || y.len() != coordinate_bytes {
            return Err(KeyError::Ec);
        }
        Key::from_ec_point(&[&[4], x.as_slice(), y.as_slice()].concat())
    }
}

fn bytes(name: &'static str, member: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let decoded = member.as_deref().and_then(decode_base64);
    decoded.ok_or(KeyError::Member(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jsonwebtoken::Algorithm;
    use serde_json::{Value, json};

    use super::super::keys::KeySet;
    use super::super::test_keys::{ED25519, P256, P384, RSA, SHARED, TestKey};
    use super::super::token::InvalidToken;
    use super::*;

    /// The JWK of `key` with some members replaced; `null` takes one out.
    fn jwk(key: &TestKey, members: &Value) -> Value {
        let mut jwk = key.jwk.clone();
        for (name, value) in members.as_object().unwrap() {
            match value {
                Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
                value => jwk[name] = value.clone(),
            }
        }
        jwk
    }

    fn set(keys: &[Value]) -> Vec<u8> {
        json!({ "keys": keys }).to_string().into_bytes()
    }

    fn algorithms(jwk: &Value) -> Result<Vec<Algorithm>, KeyError> {
        let mut keys = parse(&set(std::slice::from_ref(jwk)))?;
        Ok(keys.pop().unwrap().algorithms)
    }

    #[test]
    fn every_kind_of_key_is_read() {
        for key in [&SHARED, &RSA, &P256, &P384, &ED25519] {
            assert_eq!(algorithms(&key.jwk).unwrap(), key.algorithms);
        }
    }

    #[test]
    fn alg_pins_a_key() {
        let pinned = jwk(&RSA, &json!({"alg": "RS384"}));
        assert_eq!(algorithms(&pinned).unwrap(), [Algorithm::RS384]);
        for alg in ["PS256", "RSA-OAEP", "ES256", "HS256", "none", ""] {
            let outcome = algorithms(&jwk(&RSA, &json!({"alg": alg})));
            assert_eq!(outcome, Err(KeyError::JwksEmpty), "{alg}");
        }
    }

    #[test]
    fn keys_for_other_purposes_are_left_out() {
        let others = [
            jwk(&RSA, &json!({"use": "enc"})),
            jwk(&RSA, &json!({"key_ops": ["sign"]})),
            jwk(&P256, &json!({"crv": "P-521"})),
            jwk(&P256, &json!({"crv": "secp256k1"})),
            jwk(&ED25519, &json!({"crv": "X25519"})),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
        ];
        for other in others {
            assert_eq!(algorithms(&other), Err(KeyError::JwksEmpty), "{other}");
            let both = parse(&set(&[other, P384.jwk.clone()])).unwrap();
            assert_eq!(both.len(), 1);
        }
        let kept = jwk(
            &RSA,
            &json!({"use": "sig", "key_ops": ["verify"], "x5t": "AA"}),
        );
        assert_eq!(algorithms(&kept).unwrap(), RSA.algorithms);
    }

    #[test]
    fn a_faulty_key_is_named_with_its_place() {
        let table = [
            (jwk(&RSA, &json!({"n": null})), KeyError::Member("n")),
            (jwk(&RSA, &json!({"e": "AQ=="})), KeyError::Member("e")),
            (jwk(&RSA, &json!({"n": "AQAB"})), KeyError::Rsa),
            (jwk(&RSA, &json!({"d": "AQAB"})), KeyError::PrivateKey),
            (jwk(&P256, &json!({"d": "AQAB"})), KeyError::PrivateKey),
            (jwk(&P256, &json!({"x": "AQAB"})), KeyError::Ec),
            (jwk(&P256, &json!({"crv": "P-384"})), KeyError::Ec),
            (jwk(&P256, &json!({"y": P256.jwk["x"]})), KeyError::Ec),
            (jwk(&ED25519, &json!({"x": "AQAB"})), KeyError::Ed25519),
            (
                jwk(&SHARED, &json!({"k": "AQAB"})),
                KeyError::SecretTooShort(3),
            ),
            (jwk(&SHARED, &json!({"k": null})), KeyError::Member("k")),
        ];
        for (faulty, fault) in table {
            let outcome = parse(&set(&[ED25519.jwk.clone(), faulty])).map(|_| ());
            let fault = Box::new(fault);
            assert_eq!(outcome, Err(KeyError::InJwks { index: 1, fault }));
        }
    }

    #[test]
    fn a_modulus_with_a_leading_zero_byte_is_the_same_key() {
        let modulus = decode_base64(RSA.jwk["n"].as_str().unwrap()).unwrap();
        let longer = super::super::json::encode_base64([&[0], modulus.as_slice()].concat());
        let keys = KeySet::from_jwks(&set(&[jwk(&RSA, &json!({ "n": longer }))])).unwrap();
        let token = RSA.sign(Algorithm::RS256, br#"{"alg":"RS256"}"#, b"{}");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let key = keys.find(None, Algorithm::RS256).unwrap();
        assert_eq!(key.verify(message, signature, Algorithm::RS256), Ok(()));
    }

    #[test]
    fn a_value_of_a_wrong_type_is_not_repeated() {
        for text in [
            r#"{"keys":["hunter2"]}"#,
            r#"{"keys":"hunter2"}"#,
            r#"{"keys":[{"kty":"oct","key_ops":"hunter2"}]}"#,
            r#""hunter2""#,
        ] {
            let told = parse(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
            assert!(
                !told.contains("hunter2") && told.contains("line 1"),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_no_jwks_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":[1]}"#,
            r#"{"keys":[{}]}"#,
        ] {
            let outcome = parse(text.as_bytes()).map(|_| ());
            assert!(
                matches!(outcome, Err(KeyError::JwksUnreadable(_))),
                "{text}"
            );
        }
        assert_eq!(parse(&set(&[])).map(|_| ()), Err(KeyError::JwksEmpty));
        let twice = [
            jwk(&RSA, &json!({"kid": "a"})),
            jwk(&P256, &json!({"kid": "a"})),
        ];
        let outcome = parse(&set(&twice)).map(|_| ());
        assert_eq!(outcome, Err(KeyError::DuplicateKid("a".into())));
    }

    #[test]
    fn a_token_finds_its_key_by_kid_or_by_being_the_only_one_that_fits() {
        let keys = KeySet::from_jwks(&set(&[
            jwk(&RSA, &json!({"kid": "a"})),
            jwk(&P256, &json!({"kid": "b"})),
            jwk(&ED25519, &json!({"kid": "c"})),
            ED25519.jwk.clone(),
        ]))
        .unwrap();
        let find = |kid, algorithm| keys.find(kid, algorithm).map(|key| key.kid.as_deref());
        assert_eq!(find(Some("a"), Algorithm::RS512), Ok(Some("a")));
        assert_eq!(find(None, Algorithm::RS256), Ok(Some("a")));
        assert_eq!(find(None, Algorithm::ES256), Ok(Some("b")));
        assert_eq!(find(Some("c"), Algorithm::EdDSA), Ok(Some("c")));
        assert_eq!(find(None, Algorithm::EdDSA), Err(InvalidToken::UnknownKey));
        assert_eq!(find(None, Algorithm::HS256), Err(InvalidToken::Algorithm));
        assert_eq!(
            find(Some("a"), Algorithm::ES256),
            Err(InvalidToken::Algorithm)
        );
        assert_eq!(
            find(Some("d"), Algorithm::RS256),
            Err(InvalidToken::UnknownKey)
        );
    }
}
