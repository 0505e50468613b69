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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::engine::tls::test_pair::pems;

    #[test]
    fn the_file_at_fault_is_named_and_the_old_pair_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let files = Tls {
            cert: file("cert.pem"),
            key: file("key.pem"),
        };
        let install = |chain: &str, key: &str| {
            fs::write(&files.cert, chain).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        let (chain, key) = pems();
        install(&chain, &key);
        let pair = Pair::load(&files).unwrap();
        let refused = |expected: &str| {
            let told = pair.reload().unwrap_err().to_string();
            let path = folder.path().display().to_string();
            assert_eq!(told.replace(&path, ""), expected);
            assert_eq!(Pair::load(&files).err().unwrap().to_string(), told);
        };
        install("", &key);
        refused("tls.cert: \"/cert.pem\": there is no certificate in it (PEM)");
        install(&chain, "");
        refused("tls.key: \"/key.pem\": there is no private key in it (PEM)");
        install(&chain, &pems().1);
        refused("tls.key: \"/key.pem\": its private key does not match the certificate");
        fs::remove_file(&files.cert).unwrap();
        refused("tls.cert: cannot read \"/cert.pem\": No such file or directory (os error 2)");
        install(&chain, &key);
        pair.reload().unwrap();
    }
}
