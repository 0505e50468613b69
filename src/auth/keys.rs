//! The keys that verify tokens, from exactly one source: a secret, a PEM public key, or a JWKS.
//!
//! Each key carries the algorithms that it may verify; a token's header only picks among those
//! of the key that its `kid` names. Every key is checked when it is read, so that a wrong one is
//! the operator's error at start and not every viewer's 401 later.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;

use super::jwks;
use super::token::InvalidToken;
use crate::limits::SECRET_BYTES_MIN;

/// The keys of one configuration. `Send + Sync`; a clone shares them.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Arc<[Key]>,
    /// A lone secret or PEM key has no name: it stands for whatever `kid` a token gives.
    is_named: bool,
}

impl KeySet {
    /// HS256, HS384 and HS512 with a shared secret, its bytes as they are.
    /// Errors: `SecretIsPem`, `SecretTooShort`.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        Key::from_secret(secret).map(Self::alone)
    }

    /// One public key as PEM (`PUBLIC KEY`, or `RSA PUBLIC KEY`): RSA verifies RS256, RS384 and
    /// RS512, EC P-256 ES256, P-384 ES384, Ed25519 EdDSA.
    /// Errors: those of [`KeyError`] that speak of PEM or of the key's kind.
    pub fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        Key::from_public_pem(pem).map(Self::alone)
    }

    /// A JWK Set (RFC 7517). A token's `kid` must name a key exactly; a token without `kid` is
    /// accepted where exactly one key fits its algorithm. `alg` pins a key to one algorithm.
    /// Left out are keys for encryption (`use`, `key_ops`) and of kinds that verify nothing here;
    /// a faulty one of a known kind is an error.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyError> {
        jwks::parse(json).map(|keys| Self {
            keys: keys.into(),
            is_named: true,
        })
    }

    /// The one key that a header with `kid` and `algorithm` may mean.
    /// Errors: `UnknownKey`, `Algorithm`.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&Key, InvalidToken> {
        let is_meant = |key: &&Key| !self.is_named || kid.is_none() || key.kid.as_deref() == kid;
        if !self.keys.iter().any(|key| is_meant(&key)) {
            return Err(InvalidToken::UnknownKey);
        }
        let mut fitting = self
            .keys
            .iter()
            .filter(is_meant)
            .filter(|key| key.algorithms.contains(&algorithm));
        match (fitting.next(), fitting.next()) {
            (None, _) => Err(InvalidToken::Algorithm),
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(InvalidToken::UnknownKey),
        }
    }

    fn alone(key: Key) -> Self {
        Self {
            keys: Arc::new([key]),
            is_named: false,
        }
    }
}

/// One key and what it may verify.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    /// Prints as `[redacted]`.
    material: DecodingKey,
}

impl Key {
    /// Whether `signature` (base64url) is this key's over `message`.
    /// `algorithm` must be one of the key's own. Errors: `Signature`.
    pub(super) fn verify(
        &self,
        message: &str,
        signature: &str,
        algorithm: Algorithm,
    ) -> Result<(), InvalidToken> {
        debug_assert!(self.algorithms.contains(&algorithm));
        let verified =
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.material, algorithm);
        match verified {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(InvalidToken::Signature),
        }
    }

    pub(super) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        check_secret(secret)?;
        let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Self::new(&algorithms, DecodingKey::from_secret(secret)))
    }

    /// From modulus and exponent, big-endian. Leading zero bytes, which some tools write and the
    /// verifier would refuse later, are dropped.
    pub(super) fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let n = without_leading_zeros(modulus);
        let e = without_leading_zeros(exponent);
        let parts = RsaPublicKeyComponents { n, e };
        // Parts are taken as they come; only reading them back from DER looks at the exponent.
        let der: PublicKeyX509Der<'_> = parts.as_der().map_err(|_| KeyError::Rsa)?;
        let key = PublicEncryptingKey::from_der(der.as_ref()).map_err(|_| KeyError::Rsa)?;
        // The size is otherwise asked for at each verification.
        if !(2048..=8192).contains(&key.key_size_bits()) {
            return Err(KeyError::Rsa);
        }
        let algorithms = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512];
        let material = DecodingKey::from_rsa_raw_components(n, e);
        Ok(Self::new(&algorithms, material))
    }

    /// From an uncompressed point (0x04, x, y): its length tells the curve, and that it lies on
    /// that curve is checked, since other curves have points as long.
    pub(super) fn from_ec_point(point: &[u8]) -> Result<Self, KeyError> {
        let (algorithm, curve): (_, &'static dyn VerificationAlgorithm) = match point.len() {
            65 => (Algorithm::ES256, &ECDSA_P256_SHA256_FIXED),
            97 => (Algorithm::ES384, &ECDSA_P384_SHA384_FIXED),
            _ => return Err(KeyError::Ec),
        };
        ParsedPublicKey::new(curve, point).map_err(|_| KeyError::Ec)?;
        Ok(Self::new(&[algorithm], DecodingKey::from_ec_der(point)))
    }

    pub(super) fn from_ed25519(public: &[u8]) -> Result<Self, KeyError> {
        if public.len() != 32 || ParsedPublicKey::new(&ED25519, public).is_err() {
            return Err(KeyError::Ed25519);
        }
        let material = DecodingKey::from_ed_der(public);
        Ok(Self::new(&[Algorithm::EdDSA], material))
    }

    fn from_public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        match pem_label(pem)? {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            "CERTIFICATE" => return Err(KeyError::Certificate),
            label if label.ends_with("PRIVATE KEY") => return Err(KeyError::PrivateKey),
            _ => return Err(KeyError::NotPem),
        }
        // Each reader takes its own kind only, told apart by the identifier inside.
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            let der = key.try_get_as_bytes().map_err(|_| KeyError::Rsa)?;
            let public = PublicKey::from_der(der).map_err(|_| KeyError::Rsa)?;
            let parts = RsaPublicKeyComponents::<Vec<u8>>::from(&public);
            return Self::from_rsa(&parts.n, &parts.e);
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return Self::from_ec_point(key.try_get_as_bytes().map_err(|_| KeyError::Ec)?);
        }
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| KeyError::KindUnsupported)?;
        Self::from_ed25519(key.try_get_as_bytes().map_err(|_| KeyError::Ed25519)?)
    }

    fn new(algorithms: &[Algorithm], material: DecodingKey) -> Self {
        Self {
            kid: None,
            algorithms: algorithms.to_vec(),
            material,
        }
    }
}

/// The label of the one PEM block in `pem`. Errors: `NotPem`, `SeveralPemBlocks`.
pub(super) fn pem_label(pem: &[u8]) -> Result<&str, KeyError> {
    let text = str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
    let mut labels = text.split("-----BEGIN ").skip(1);
    let block = labels.next().ok_or(KeyError::NotPem)?;
    if labels.next().is_some() {
        return Err(KeyError::SeveralPemBlocks);
    }
    let (label, _) = block.split_once("-----").ok_or(KeyError::NotPem)?;
    Ok(label)
}

/// A secret is long enough to withstand guessing, and is not a key that others may know.
pub(super) fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.starts_with(b"-----BEGIN ") {
        return Err(KeyError::SecretIsPem);
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError::SecretTooShort(secret.len()));
    }
    Ok(())
}

/// A secret as a file holds it, without the one line end that editors and `echo` add. Whoever
/// signs must read the file in the same way.
pub fn trim_secret(file: &[u8]) -> &[u8] {
    let line = file.strip_suffix(b"\n").unwrap_or(file);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Why a key is of no use. All are the operator's: `serve` and `check-config` end with exit code
/// 78, and whoever read the file puts its name before the words. No key material is in them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A certificate in the place of a public key.
    #[error(
        "this is a certificate; take the public key out of it: openssl x509 -pubkey -noout -in FILE"
    )]
    Certificate,
    /// Two keys of a JWKS have one name.
    #[error("two keys have the kid {0:?}; give each key its own")]
    DuplicateKid(String),
    /// Not a point on a supported curve.
    #[error("this EC key is not an uncompressed point on P-256 or P-384; use one of these curves")]
    Ec,
    /// Not an Ed25519 public key.
    #[error("this is not an Ed25519 key of 32 bytes")]
    Ed25519,
    /// One key of a JWKS is faulty.
    #[error("keys[{index}]: {fault}")]
    InJwks {
        /// Its place in `keys`, from 0.
        index: usize,
        /// What is wrong with it.
        fault: Box<KeyError>,
    },
    /// A JWKS in which no key can verify a token.
    #[error(
        "no key here can verify a token; it takes RSA, EC (P-256, P-384), OKP (Ed25519) or oct \
         keys whose use, where given, is \"sig\""
    )]
    JwksEmpty,
    /// Not the JSON of a JWKS.
    #[error("this is not a JWK Set ({0}); it must be {{\"keys\": [...]}}")]
    JwksUnreadable(String),
    /// A kind of key that verifies no supported algorithm.
    #[error("this kind of key is not supported; use RSA, EC (P-256, P-384) or Ed25519")]
    KindUnsupported,
    /// A JWK lacks a member, or it is not base64url.
    #[error("its member {0:?} is missing or not base64url")]
    Member(&'static str),
    /// Not a PEM file with a key.
    #[error("this is not a PEM file with a key; it must begin with -----BEGIN ... KEY-----")]
    NotPem,
    /// A private key in the place of a public one.
    #[error(
        "this holds a private key; the gateway needs only the public one: openssl pkey -pubout \
         -in FILE"
    )]
    PrivateKey,
    /// A signing key that cannot be read or cannot sign.
    #[error(
        "this is not an unencrypted private key of a supported kind (RSA, EC P-256 or P-384, \
         Ed25519) in PKCS#8; convert it: openssl pkcs8 -topk8 -nocrypt -in FILE"
    )]
    PrivateKeyUnusable,
    /// Not a usable RSA key.
    #[error("this is not a valid RSA key of 2048 to 8192 bits")]
    Rsa,
    /// A PEM key in the place of a secret: with a public one anybody could sign.
    #[error("this is a PEM key and not a secret; a public key belongs in auth.public_key_file")]
    SecretIsPem,
    /// A secret of too few bytes.
    #[error("the secret has {0} bytes and needs at least 32; make one: openssl rand -base64 48")]
    SecretTooShort(usize),
    /// More than one block in a PEM file.
    #[error("this file holds several PEM blocks; leave only the key in it")]
    SeveralPemBlocks,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_keys::{ED25519, P256, P384, RSA, SECRET, pem};
    use super::*;

    #[test]
    fn a_key_set_is_shared_between_threads() {
        fn is_shared<T: Send + Sync + Clone>() {}
        is_shared::<KeySet>();
    }

    #[test]
    fn each_kind_of_public_key_allows_its_own_algorithms() {
        for key in [&RSA, &P256, &P384, &ED25519] {
            for text in [key.public.clone(), key.public.replace('\n', "\r\n")] {
                let keys = KeySet::from_public_pem(text.as_bytes()).unwrap();
                assert_eq!(keys.keys[0].algorithms, key.algorithms);
            }
        }
    }

    fn check_pem(text: &str, expected: KeyError) {
        let outcome = KeySet::from_public_pem(text.as_bytes()).map(|_| ());
        assert_eq!(outcome, Err(expected), "{text}");
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_to_do() {
        check_pem("", KeyError::NotPem);
        check_pem(SECRET, KeyError::NotPem);
        check_pem("-----BEGIN PUBLIC KEY", KeyError::NotPem);
        check_pem(&RSA.private_pem, KeyError::PrivateKey);
        check_pem(&ED25519.private_pem, KeyError::PrivateKey);
        check_pem(&pem("RSA PRIVATE KEY", &[0; 9]), KeyError::PrivateKey);
        check_pem(&pem("CERTIFICATE", &[0; 9]), KeyError::Certificate);
        check_pem(&pem("EC PARAMETERS", &[0; 9]), KeyError::NotPem);
        check_pem(&RSA.public.repeat(2), KeyError::SeveralPemBlocks);
        check_pem(&pem("PUBLIC KEY", &[0; 9]), KeyError::KindUnsupported);
        assert_eq!(
            KeySet::from_public_pem(b"-----BEGIN \xff").map(|_| ()),
            Err(KeyError::NotPem)
        );
    }

    #[test]
    fn keys_that_could_never_verify_are_refused_at_once() {
        let small = Key::from_rsa(&[0xff; 128], &[1, 0, 1]).map(|_| ());
        assert_eq!(small, Err(KeyError::Rsa));
        let large = Key::from_rsa(&[0xff; 1025], &[1, 0, 1]).map(|_| ());
        assert_eq!(large, Err(KeyError::Rsa));
        // With an exponent of 1 a signature is its own padded digest: anybody's to make.
        for exponent in [&[][..], &[0], &[1], &[2], &[0xff; 9]] {
            let weak = Key::from_rsa(&[0xff; 256], exponent).map(|_| ());
            assert_eq!(weak, Err(KeyError::Rsa), "{exponent:?}");
        }
        // As long as a P-256 point, on no curve: what a secp256k1 key looks like from outside.
        let mut point = [7; 65];
        point[0] = 4;
        assert_eq!(Key::from_ec_point(&point).map(|_| ()), Err(KeyError::Ec));
        let compressed = Key::from_ec_point(&[2; 33]).map(|_| ());
        assert_eq!(compressed, Err(KeyError::Ec));
        let short = Key::from_ed25519(&[1; 31]).map(|_| ());
        assert_eq!(short, Err(KeyError::Ed25519));
    }

    #[test]
    fn a_secret_has_thirty_two_bytes_and_is_no_pem() {
        let outcome = |secret: &[u8]| KeySet::from_secret(secret).map(|_| ());
        assert_eq!(outcome(&[b'x'; 32]), Ok(()));
        assert_eq!(outcome(&[b'x'; 31]), Err(KeyError::SecretTooShort(31)));
        assert_eq!(outcome(b""), Err(KeyError::SecretTooShort(0)));
        assert_eq!(outcome(RSA.public.as_bytes()), Err(KeyError::SecretIsPem));
    }

    #[test]
    fn one_line_end_of_a_secret_file_is_not_part_of_the_secret() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"s", b"s"),
            (b"s\n", b"s"),
            (b"s\r\n", b"s"),
            (b"s\n\n", b"s\n"),
            (b" s ", b" s "),
            (b"", b""),
        ];
        for (file, secret) in table {
            assert_eq!(trim_secret(file), secret);
        }
    }
}
