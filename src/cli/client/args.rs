//! The flags that every client command has.

use std::env;
use std::path::PathBuf;

use clap::Args;

use super::ClientError;
use super::address::Address;
use super::token::TokenSource;

/// Where the gateway is, and the token to show it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnectArgs {
    /// The gateway's address
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:4040")]
    url: String,
    /// The token; other users of this machine can see it among the processes, a file they cannot.
    /// Without either flag: the environment's SIGHTLINE_TOKEN
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the token; read again at each connection
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ConnectArgs {
    /// Checks all of it before anything is read or connected.
    pub(super) fn resolve(&self) -> Result<(Address, TokenSource), ClientError> {
        let address = Address::parse(&self.url)?;
        let source = self.token_source()?;
        source.read()?;
        Ok((address, source))
    }

    fn token_source(&self) -> Result<TokenSource, ClientError> {
        if let Some(path) = &self.token_file {
            return Ok(TokenSource::File(path.clone()));
        }
        self.token
            .clone()
            .or_else(|| env::var("SIGHTLINE_TOKEN").ok())
            .map(TokenSource::Value)
            .ok_or(ClientError::TokenMissing)
    }
}

#[cfg(test)]
impl ConnectArgs {
    /// For the gateway at `url`, with a token that the tests' server does not look at.
    pub(crate) fn for_test(url: String) -> Self {
        Self {
            url,
            token: Some("test-token".to_owned()),
            token_file: None,
        }
    }
}
