//! Where the token comes from. It is read anew for every connection, so that a file which
//! something else keeps fresh outlives any one token. It is never printed.

use std::fs;
use std::path::PathBuf;

use super::ClientError;

/// A token, or the file that holds one.
#[derive(Clone)]
pub(crate) enum TokenSource {
    /// Read at each use; white space around the token is ignored.
    File(PathBuf),
    /// Given once.
    Value(String),
}

impl TokenSource {
    /// The present token, fit for a header. Errors: `TokenUnreadable`, `TokenMissing` where it is
    /// empty, `TokenMalformed`.
    pub(crate) fn read(&self) -> Result<String, ClientError> {
        let text = match self {
            Self::File(path) => {
                fs::read_to_string(path).map_err(|source| ClientError::TokenUnreadable {
                    path: path.clone(),
                    source,
                })?
            }
            Self::Value(token) => token.clone(),
        };
        let token = text.trim();
        if token.is_empty() {
            return Err(ClientError::TokenMissing);
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::TokenMalformed);
        }
        Ok(token.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn trims_and_refuses() {
        let read = |text: &str| TokenSource::Value(text.to_owned()).read();
        assert_eq!(read(" a.b.c\n").unwrap(), "a.b.c");
        assert!(matches!(read(" \n"), Err(ClientError::TokenMissing)));
        assert!(matches!(
            read("a\r\nX: y"),
            Err(ClientError::TokenMalformed)
        ));
        assert!(matches!(
            read("schlüssel"),
            Err(ClientError::TokenMalformed)
        ));
    }

    #[test]
    fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::File(path.clone());
        assert!(matches!(
            source.read(),
            Err(ClientError::TokenUnreadable { .. })
        ));
        for token in ["one", "two"] {
            fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(source.read().unwrap(), token);
        }
    }
}
