//! TLS for tests: an authority with certificates for this machine, and a client on rustls.
//!
//! A server with `Setup::tls` has `ca.pem`, `cert.pem` and `key.pem` in its folder; a client that is
//! a program of its own is given the first.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::{DEADLINE, Server};

/// A client's end of a TLS connection. Reading is strict: an end without a goodbye is an error.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Whoever signs the certificates of a test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "authority of a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// A certificate for `localhost` and `127.0.0.1`, and its key; both PEM.
    pub fn issue(&self) -> (String, String) {
        self.sign(&for_this_machine())
    }

    /// The same, past its last day.
    pub fn issue_expired(&self) -> (String, String) {
        let mut params = for_this_machine();
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Issues a certificate and writes all three files into a folder.
    pub fn install(&self, folder: &Path) {
        let (certificate, key) = self.issue();
        fs::write(folder.join("ca.pem"), self.issuer.pem()).unwrap();
        fs::write(folder.join("cert.pem"), certificate).unwrap();
        fs::write(folder.join("key.pem"), key).unwrap();
    }

    /// Its own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

fn for_this_machine() -> CertificateParams {
    let names = ["localhost".to_string(), "127.0.0.1".to_string()];
    let mut params = CertificateParams::new(names).unwrap();
    // What the strictest clients ask for.
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

impl Server {
    /// The file of the authority that signed this server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// SHA-256 of this server's public key, in Base64, as browsers' flags want it.
    pub fn key_pin(&self) -> String {
        let key = fs::read_to_string(self.folder.path().join("key.pem")).unwrap();
        let key = KeyPair::from_pem(&key).unwrap().subject_public_key_info();
        BASE64_STANDARD.encode(digest::digest(&digest::SHA256, &key))
    }

    /// A client that trusts this server, speaks these versions, and offers HTTP/1.1. Clones share
    /// the tickets that they were given.
    pub fn tls_client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let authority = self.authority.as_ref().expect("a server with TLS");
        roots.add(authority.certificate()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// A connection on which nothing was said yet: the first byte sent or read begins the handshake.
    pub fn connect_tls(&self, config: &ClientConfig) -> TlsStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        StreamOwned::new(session, stream)
    }
}
