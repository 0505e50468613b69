//! Who signs tokens: keys of each kind, and tokens as wrong as a test wants them.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Server, Setup, now_s};

/// The name of the key in a key set.
pub const KID: &str = "key-1";

/// A key, and what of it the server is given.
pub struct Issuer {
    pub alg: &'static str,
    key: Key,
    /// What everybody knows of it, as text; of a shared secret, nothing.
    pub public: Option<String>,
    /// The key of a set.
    pub jwk: Value,
}

enum Key {
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    Secret(String),
}

impl Issuer {
    /// HS256, by a secret.
    pub fn secret() -> Self {
        let secret = "what the issuer and the gateway share".to_string();
        let k = base64(secret.as_bytes());
        let jwk = json!({"kty": "oct", "alg": "HS256", "kid": KID, "k": k});
        Self {
            alg: "HS256",
            key: Key::Secret(secret),
            public: None,
            jwk,
        }
    }

    /// EdDSA.
    pub fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let public = pair.public_key();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": KID, "x": base64(public.as_ref())});
        let public = Some(pem(public.as_der().unwrap().as_ref()));
        Self {
            alg: "EdDSA",
            key: Key::Ed25519(pair),
            public,
            jwk,
        }
    }

    /// ES256.
    pub fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
        let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": KID, "x": x, "y": y});
        let public = Some(pem(pair.public_key().as_der().unwrap().as_ref()));
        Self {
            alg: "ES256",
            key: Key::Ec(pair),
            public,
            jwk,
        }
    }

    /// RS256.
    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public: &rsa::PublicKey = pair.public_key();
        let n = base64(public.modulus().big_endian_without_leading_zero());
        let e = base64(public.exponent().big_endian_without_leading_zero());
        let jwk = json!({"kty": "RSA", "alg": "RS256", "kid": KID, "n": n, "e": e});
        let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(public).unwrap();
        let public = Some(pem(der.as_ref()));
        Self {
            alg: "RS256",
            key: Key::Rsa(pair),
            public,
            jwk,
        }
    }

    /// One of each kind.
    pub fn all() -> Vec<Self> {
        vec![Self::secret(), Self::ed25519(), Self::p256(), Self::rsa()]
    }

    /// Another key of this kind.
    pub fn stranger(&self) -> Self {
        match self.key {
            Key::Ec(_) => Self::p256(),
            Key::Ed25519(_) => Self::ed25519(),
            Key::Rsa(_) => Self::rsa(),
            Key::Secret(_) => Self::secret(),
        }
    }

    /// A server of one core that trusts this key alone; the folder holds its file.
    pub fn server(&self, settings: &str) -> (Server, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        let key = match (&self.key, &self.public) {
            (Key::Secret(secret), _) => format!("auth.jwt_secret = {secret:?}"),
            (_, public) => {
                std::fs::write(&file, public.as_deref().unwrap_or_default()).unwrap();
                format!("auth.public_key_file = {file:?}")
            }
        };
        let server = Server::with(&Setup {
            settings,
            key: &key,
            cores: 1,
            ..Setup::default()
        });
        (server, folder)
    }

    /// A token of these parts, whatever they are, with a genuine signature.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let message = format!(
            "{}.{}",
            base64(header.as_bytes()),
            base64(payload.as_bytes())
        );
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let signature = match &self.key {
            Key::Ec(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(bytes).as_ref().to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            Key::Secret(secret) => hmac_sha256(secret.as_bytes(), bytes),
        };
        format!("{message}.{}", base64(&signature))
    }

    /// A genuine header.
    pub fn header(&self) -> Value {
        json!({"alg": self.alg, "typ": "JWT"})
    }

    /// A token that is good but for its claims.
    pub fn with_payload(&self, payload: &str) -> String {
        self.sign(&self.header().to_string(), payload)
    }

    /// A token that is good but for its header.
    pub fn with_header(&self, header: &str) -> String {
        self.sign(header, &claims("alice").to_string())
    }

    /// A good token of a user, who may do everything.
    pub fn good(&self, sub: &str) -> String {
        self.with_payload(&claims(sub).to_string())
    }
}

/// Claims of a user for an hour, with what `ISSUER` asks for.
pub fn claims(sub: &str) -> Value {
    json!({
        "sub": sub, "exp": now_s() + 3_600, "iat": now_s(), "iss": "login", "aud": "gateway",
        "permissions": ["subscribe", "publish:any"],
    })
}

/// Settings of a server that looks at who issued a token, and for whom.
pub const ISSUER: &str = "auth.issuer = \"login\"\nauth.audience = \"gateway\"";

/// An HMAC as HS256 has it.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

/// As tokens write bytes.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}
