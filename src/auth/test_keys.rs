//! Keys for tests, drawn once a run; nothing secret is committed.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::json::encode_base64;

/// One key in every form in which an operator may have it.
pub(super) struct TestKey {
    /// What it signs with, the usual one first.
    pub(super) algorithms: &'static [Algorithm],
    pub(super) signing: EncodingKey,
    pub(super) private_pem: String,
    /// The secret itself, for a shared one.
    pub(super) public: String,
    /// Without `kid`.
    pub(super) jwk: Value,
}

pub(super) const SECRET: &str = "an owl counts the stars, slowly, twice";

pub(super) static SHARED: LazyLock<TestKey> = LazyLock::new(|| secret(SECRET));
pub(super) static RSA: LazyLock<TestKey> = LazyLock::new(rsa);
pub(super) static P256: LazyLock<TestKey> = LazyLock::new(|| {
    ec(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &[Algorithm::ES256],
        "P-256",
    )
});
pub(super) static P384: LazyLock<TestKey> = LazyLock::new(|| {
    ec(
        &ECDSA_P384_SHA384_FIXED_SIGNING,
        &[Algorithm::ES384],
        "P-384",
    )
});
pub(super) static ED25519: LazyLock<TestKey> = LazyLock::new(ed25519);

impl TestKey {
    /// A token with exactly these bytes as header and payload, signed by this key with
    /// `algorithm`, whatever the header says.
    pub(super) fn sign(&self, algorithm: Algorithm, header: &[u8], payload: &[u8]) -> String {
        let message = format!("{}.{}", encode_base64(header), encode_base64(payload));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

pub(super) fn secret(text: &str) -> TestKey {
    TestKey {
        algorithms: &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        signing: EncodingKey::from_secret(text.as_bytes()),
        private_pem: String::new(),
        public: text.to_owned(),
        jwk: json!({"kty": "oct", "k": encode_base64(text)}),
    }
}

pub(super) fn rsa() -> TestKey {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    TestKey {
        algorithms: &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512],
        signing: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
        private_pem,
        public: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "RSA", "n": encode_base64(parts.n), "e": encode_base64(parts.e)}),
    }
}

pub(super) fn ec(
    curve: &'static EcdsaSigningAlgorithm,
    algorithms: &'static [Algorithm],
    name: &str,
) -> TestKey {
    let private = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    TestKey {
        algorithms,
        signing: EncodingKey::from_ec_pem(private_pem.as_bytes()).unwrap(),
        private_pem,
        public: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "EC", "crv": name, "x": encode_base64(x), "y": encode_base64(y)}),
    }
}

pub(super) fn ed25519() -> TestKey {
    let private = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let x = encode_base64(pair.public_key().as_ref());
    let private_pem = pem("PRIVATE KEY", private.as_ref());
    TestKey {
        algorithms: &[Algorithm::EdDSA],
        signing: EncodingKey::from_ed_pem(private_pem.as_bytes()).unwrap(),
        private_pem,
        public: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
    }
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
