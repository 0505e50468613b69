//! The files of the TLS pair: read when the server starts, and again at SIGHUP by the signals'
//! thread. No core's loop touches them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::config::{Tls, read_key_file};
use crate::engine::tls::certificates::{Certificates, PairError, read_pair, server_config};

/// Where the pair is, and what of it is in force.
pub(super) struct Pair {
    files: Tls,
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

/// Why a pair cannot be used. The operator's to solve.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: cannot read {path:?}: {source}")]
    Unreadable {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file's content is wrong.
    #[error("{key}: {path:?}: {source}")]
    Wrong {
        /// The setting that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PairError,
    },
    /// The system has no randomness.
    #[error("tls.cert: {0}")]
    Session(#[from] rustls::Error),
}

impl Pair {
    /// Reads both files.
    pub fn load(files: &Tls) -> Result<Self, TlsError> {
        let certificates = Certificates::new(read(files)?);
        let config = server_config(Arc::clone(&certificates))?;
        Ok(Self {
            files: files.clone(),
            certificates,
            config,
        })
    }

    /// What connections are opened with; it follows `reload`.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads both files again: connections from now on are shown what is in them. Errors: the old
    /// pair stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.certificates.replace(read(&self.files)?);
        Ok(())
    }
}

fn read(files: &Tls) -> Result<CertifiedKey, TlsError> {
    let file = |key, path: &PathBuf| {
        read_key_file(path).map_err(|source| TlsError::Unreadable {
            key,
            path: path.clone(),
            source,
        })
    };
    let (chain, key) = (file("tls.cert", &files.cert)?, file("tls.key", &files.key)?);
    read_pair(&chain, &key).map_err(|source| {
        let (key, path) = if source.is_about_key() {
            ("tls.key", &files.key)
        } else {
            ("tls.cert", &files.cert)
        };
        let path = path.clone();
        TlsError::Wrong { key, path, source }
    })
}
