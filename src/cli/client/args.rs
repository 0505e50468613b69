//! The flags that every client command has.

use std::env;
use std::path::PathBuf;

use clap::Args;

use super::ClientError;
use super::address::Address;
use super::socket::Gateway;
use super::tls::Tls;
use super::token::TokenSource;

/// Where the gateway is, and the token to show it.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConnectArgs {
    /// The gateway's address; wss:// for TLS
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:4040")]
    url: String,
    /// Certificates (PEM) of the authorities to trust under wss://, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
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
    pub(super) fn resolve(&self) -> Result<(Gateway, TokenSource), ClientError> {
        let gateway = self.gateway_at(Address::parse(&self.url)?)?;
        let source = self.token_source()?;
        source.read()?;
        Ok((gateway, source))
    }

    /// The same where HTTP is spoken, and a token may not be needed.
    pub(super) fn resolve_http(&self) -> Result<(Gateway, Option<TokenSource>), ClientError> {
        let gateway = self.gateway_at(Address::parse_http(&self.url)?)?;
        let source = match self.token_source() {
            Err(ClientError::TokenMissing) => None,
            source => Some(source?),
        };
        source.as_ref().map(TokenSource::read).transpose()?;
        Ok((gateway, source))
    }

    fn gateway_at(&self, address: Address) -> Result<Gateway, ClientError> {
        let tls = match &self.ca_file {
            ca_file if address.is_tls => Some(Tls::new(&address, ca_file.as_deref())?),
            Some(_) => return Err(ClientError::CaWithoutTls),
            None => None,
        };
        Ok(Gateway { address, tls })
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
            ca_file: None,
            token: Some("test-token".to_owned()),
            token_file: None,
        }
    }

    /// The same, trusting the authorities in `ca_file`.
    pub(crate) fn trusting(self, ca_file: PathBuf) -> Self {
        Self {
            ca_file: Some(ca_file),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_ca_file_without_tls_is_a_mistake_and_not_ignored() {
        let args = ConnectArgs::for_test("ws://127.0.0.1:9".to_owned()).trusting("x.pem".into());
        let error = args.resolve().err().unwrap();
        assert_eq!(
            (error.exit_code(), error.to_string().contains("wss://")),
            (2, true)
        );
    }
}
