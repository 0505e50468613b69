//! The client's side of TLS: whom it trusts, and a session for each connection.
//!
//! TLS 1.3 alone, with aws-lc-rs, as the gateway's own side. Source: rustls' documentation.

use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use serde::Serialize;

/// Why there is no TLS to be had. All of these are the user's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file cannot be read as PEM.
    #[error("--ca-file {path}: {source}")]
    CaFile {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A certificate in it is none, or there is none.
    #[error("--ca-file {path}: no certificate that can be trusted")]
    NoCertificate {
        /// As given.
        path: PathBuf,
    },
    /// The URL's host is neither a name nor an address.
    #[error("{0:?} is no name that a certificate can have")]
    BadName(String),
}

/// Begins sessions with one server.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// One that trusts the certificates in `ca_file` and expects the server to be `host` (a name,
    /// or an address without port), with `sessions_max` tickets to resume by.
    pub(crate) fn new(host: &str, ca_file: &Path, sessions_max: usize) -> Result<Self, TlsError> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsError::BadName(host.to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("aws-lc-rs has suites for TLS 1.3")
            .with_root_certificates(roots(ca_file)?)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match sessions_max {
            0 => Resumption::disabled(),
            sessions_max => Resumption::in_memory_sessions(sessions_max),
        };
        let config = Arc::new(config);
        Ok(Self { config, name })
    }

    /// A session that has said nothing yet.
    /// Errors: rustls cannot make one, such as when the system gives no random numbers.
    pub(crate) fn begin(&self) -> Result<TlsSession, rustls::Error> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(TlsSession(Box::new(session)))
    }
}

/// The TLS of one connection: text in, records out, and the reverse.
#[derive(Debug)]
pub(crate) struct TlsSession(Box<ClientConnection>);

impl TlsSession {
    /// Takes records as they were received and appends what they say to `text`.
    /// Errors: the server broke TLS, or showed a certificate that is not trusted.
    pub(crate) fn decrypt(&mut self, mut records: &[u8], text: &mut Vec<u8>) -> io::Result<()> {
        // After `close_notify` nothing more is taken.
        while !records.is_empty() && self.0.read_tls(&mut records)? > 0 {
            self.0
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            while let Ok(chunk) = self.0.reader().into_first_chunk()
                && !chunk.is_empty()
            {
                text.extend_from_slice(chunk);
                let bytes = chunk.len();
                self.0.reader().consume(bytes);
            }
        }
        Ok(())
    }

    /// Takes text to be sent, as much as it has room for; none before the handshake is over.
    pub(crate) fn encrypt(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.0.is_handshaking() {
            return Ok(0);
        }
        self.0.writer().write(text)
    }

    /// Whether it has records to send.
    pub(crate) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// Writes records to `socket`, once.
    pub(crate) fn write_records(&mut self, socket: &mut dyn io::Write) -> io::Result<usize> {
        self.0.write_tls(socket)
    }

    /// Whether the handshake went on from an earlier session; `None` before it is over.
    pub(crate) fn is_resumed(&self) -> Option<bool> {
        let kind = self.0.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }
}

/// How TLS handshakes went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct TlsHandshakes {
    /// From nothing.
    pub(crate) full: u64,
    /// From an earlier session.
    pub(crate) resumed: u64,
}

impl TlsHandshakes {
    /// For people; nothing where there was no TLS.
    pub(crate) fn text(&self) -> String {
        let Self { full, resumed } = self;
        match full + resumed {
            0 => String::new(),
            _ => format!(" (TLS: {full} full, {resumed} resumed)"),
        }
    }
}

/// The certificates in `ca_file`, each of them trusted.
fn roots(ca_file: &Path) -> Result<RootCertStore, TlsError> {
    let path = ca_file.to_owned();
    let unreadable = |source| TlsError::CaFile {
        path: path.clone(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(ca_file).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|_| TlsError::NoCertificate { path: path.clone() })?;
    }
    if roots.is_empty() {
        return Err(TlsError::NoCertificate { path });
    }
    Ok(roots)
}
