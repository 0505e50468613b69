//! The files that a configuration names: the one key source and the TLS pair. Reads them while the
//! operator is still looking, so that a missing file is an error of the start and names its key.

use crate::auth::trim_secret;
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::{ConfigError, KeySource, Secret, Tls, draft::Draft};

impl Draft {
    /// Both TLS files, found readable; `None` where TLS is off or an error was reported.
    pub(super) fn tls(&mut self) -> Option<Tls> {
        let (cert, key) = (
            self.settings.tls.cert.clone(),
            self.settings.tls.key.clone(),
        );
        match (cert, key) {
            (None, None) => None,
            (Some(_), None) => {
                self.refuse("tls.cert", "tls.key with it", "tls.cert alone");
                None
            }
            (None, Some(_)) => {
                self.refuse("tls.key", "tls.cert with it", "tls.key alone");
                None
            }
            (Some(cert), Some(key)) => {
                self.read_key_file("tls.cert", &cert)?;
                self.read_key_file("tls.key", &key)?;
                Some(Tls { cert, key })
            }
        }
    }

    /// Reads the one key source. `None` where that failed, or where errors make it pointless.
    pub(super) fn key_source(&mut self) -> Option<KeySource> {
        let auth = &self.settings.auth;
        let set = [
            ("auth.jwt_secret", auth.jwt_secret.is_some()),
            ("auth.jwt_secret_file", auth.jwt_secret_file.is_some()),
            ("auth.public_key_file", auth.public_key_file.is_some()),
            ("auth.jwks_file", auth.jwks_file.is_some()),
        ];
        let set: Vec<&'static str> = set
            .iter()
            .filter(|(_, is)| *is)
            .map(|(key, _)| *key)
            .collect();
        match set.as_slice() {
            [key] => self.read_key_source(key),
            [] => {
                // A key that was set wrongly is already reported.
                if !self.errors.iter().any(is_about_keys) {
                    self.report(ConfigError::NoKeySource);
                }
                None
            }
            _ => {
                let set = set.into_iter().map(|key| (key, self.place(key))).collect();
                self.report(ConfigError::TwoKeySources { set });
                None
            }
        }
    }

    fn read_key_source(&mut self, key: &'static str) -> Option<KeySource> {
        let auth = &mut self.settings.auth;
        if let Some(secret) = auth.jwt_secret.clone() {
            return Some(KeySource::Secret(secret));
        }
        if let Some(path) = auth.jwt_secret_file.clone() {
            let bytes = self.read_key_file(key, &path)?;
            return self.secret_of_file(key, &bytes);
        }
        if let Some(path) = auth.public_key_file.clone() {
            let text = self.read_key_text(key, &path)?;
            return self.public_key(key, text);
        }
        let path = auth.jwks_file.clone()?;
        self.read_key_text(key, &path).map(KeySource::Jwks)
    }

    fn secret_of_file(&mut self, key: &'static str, bytes: &[u8]) -> Option<KeySource> {
        // Whoever signs must read the file in the same way.
        let bytes = trim_secret(bytes);
        let secret = Secret::new(bytes);
        if secret.is_none() {
            let expected = format!("a file with at least {} bytes", Secret::BYTES_MIN);
            self.refuse(key, expected, format!("{} bytes", bytes.len()));
        }
        secret.map(KeySource::Secret)
    }

    fn public_key(&mut self, key: &'static str, text: String) -> Option<KeySource> {
        let found = if text.contains("PRIVATE KEY-----") {
            "a private key"
        } else if text.contains("-----BEGIN ") {
            return Some(KeySource::PublicKeyPem(text));
        } else {
            "no PEM"
        };
        self.refuse(key, "a file with a public key in PEM", found);
        None
    }

    fn read_key_text(&mut self, key: &'static str, path: &Path) -> Option<String> {
        let bytes = self.read_key_file(key, path)?;
        let text = String::from_utf8(bytes).ok();
        if text.is_none() {
            self.refuse(key, "a file of text in UTF-8", "other bytes");
        }
        text
    }

    fn read_key_file(&mut self, key: &'static str, path: &Path) -> Option<Vec<u8>> {
        match super::read_key_file(path) {
            Ok(bytes) => Some(bytes),
            Err(source) => {
                self.report(ConfigError::KeyFileUnreadable {
                    place: self.place(key),
                    key,
                    path: path.into(),
                    source,
                });
                None
            }
        }
    }
}

fn is_about_keys(error: &ConfigError) -> bool {
    match error {
        ConfigError::Syntax { .. } => true,
        ConfigError::UnknownKey { key, .. } | ConfigError::Wrong { key, .. } => {
            key.starts_with("auth")
        }
        _ => false,
    }
}

/// Reads a file of keys or certificates, of at most 1 MiB: a larger one is not what the operator
/// meant. Errors: the system's, or that it is larger.
pub fn read_key_file(path: &Path) -> io::Result<Vec<u8>> {
    const BYTES_MAX: u64 = 1024 * 1024;
    let mut bytes = Vec::new();
    File::open(path)?
        .take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}
