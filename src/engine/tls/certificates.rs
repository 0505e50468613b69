//! The certificate that this server shows, and what it speaks: TLS 1.2 and 1.3, HTTP/1.1 inside.
//! The certificate may be replaced at any time; connections that live keep theirs.
//!
//! Nothing of a session is stored: a client keeps it in a ticket, which every core can open. There
//! is no early data, which could be replayed. Knows no file: PEM comes as bytes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, InconsistentKeys, ServerConfig};
use thiserror::Error;

/// The certificate in force, for all cores.
#[derive(Debug)]
pub struct Certificates(ArcSwap<CertifiedKey>);

impl Certificates {
    /// One that shows this.
    pub fn new(certificate: CertifiedKey) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(certificate)))
    }

    /// Shows another from now on.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.0.store(Arc::new(certificate));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Why two files are not a certificate and its key. The operator's to solve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PairError {
    /// The certificate's file has none.
    #[error("there is no certificate in it (PEM)")]
    NoCertificate,
    /// The certificate's file has one that cannot be read.
    #[error("a certificate in it cannot be read")]
    BadCertificate,
    /// The key's file has none.
    #[error("there is no private key in it (PEM)")]
    NoKey,
    /// The key's file has one under a password, which nobody here knows.
    #[error("its private key is encrypted: store it decrypted")]
    EncryptedKey,
    /// The key's file has one that is broken, or of a kind that is not supported.
    #[error("its private key cannot be used")]
    BadKey,
    /// Both are sound and not of each other.
    #[error("its private key does not match the certificate")]
    Mismatch,
}

impl PairError {
    /// Whether the key's file is at fault, and not the certificate's.
    pub fn is_about_key(self) -> bool {
        !matches!(self, Self::NoCertificate | Self::BadCertificate)
    }
}

/// Reads a chain of certificates, the server's own first, and its private key. Both are PEM.
pub fn read_pair(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, PairError> {
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| PairError::BadCertificate)?;
    if chain.is_empty() {
        return Err(PairError::NoCertificate);
    }
    let key = match PrivateKeyDer::pem_slice_iter(key).next() {
        Some(key) => key.map_err(|_| PairError::BadKey)?,
        None if is_encrypted(key) => return Err(PairError::EncryptedKey),
        None => return Err(PairError::NoKey),
    };
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => PairError::Mismatch,
        Error::InvalidCertificate(_) => PairError::BadCertificate,
        _ => PairError::BadKey,
    })
}

/// What every connection over TLS is opened with. Errors: the system has no randomness.
pub fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

// Given by name: a default of the process could be another's.
fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn is_encrypted(key: &[u8]) -> bool {
    let label = b"ENCRYPTED";
    key.windows(label.len()).any(|window| window == label)
}

#[cfg(test)]
mod tests {
    use super::super::test_pair::pems;
    use super::*;

    fn check(chain: &str, key: &str, expected: Result<usize, PairError>) {
        let found = read_pair(chain.as_bytes(), key.as_bytes());
        let length = found.map(|certified| certified.cert.len());
        assert_eq!(length, expected, "{chain}\n{key}");
    }

    #[test]
    fn a_pair_is_read_or_it_is_said_what_is_wrong() {
        let (chain, key) = pems();
        let (other, other_key) = pems();
        check(&chain, &key, Ok(1));
        check(&format!("a comment\n{chain}{other}"), &key, Ok(2));
        // Both in one file, which is then named twice.
        let both = format!("{key}{chain}");
        check(&both, &both, Ok(1));
        check("", &key, Err(PairError::NoCertificate));
        check(&key, &key, Err(PairError::NoCertificate));
        check(&chain, "", Err(PairError::NoKey));
        check(&chain, &chain, Err(PairError::NoKey));
        check(&chain, &other_key, Err(PairError::Mismatch));
        check(&format!("{other}{chain}"), &key, Err(PairError::Mismatch));
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        check(&chain, &encrypted, Err(PairError::EncryptedKey));
        let cut = &chain[..chain.len() / 2];
        check(cut, &key, Err(PairError::BadCertificate));
        let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(wrong, &key, Err(PairError::BadCertificate));
        let wrong = wrong.replace("CERTIFICATE", "PRIVATE KEY");
        check(&chain, &wrong, Err(PairError::BadKey));
    }
}
