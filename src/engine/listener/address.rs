//! Where to listen, as an operator writes it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// `127.0.0.1:4040`, `[::1]:4040`, or `unix:/run/sightline.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ListenAddressError::NoPath),
            Some(path) if path.len() > UNIX_PATH_BYTES_MAX => Err(ListenAddressError::PathTooLong),
            Some(path) => Ok(Self::Unix(path.into())),
            None => parse_tcp(text).ok_or_else(|| ListenAddressError::NoAddress(text.to_owned())),
        }
    }
}

/// The host is an address or `localhost` (127.0.0.1); no other name is looked up, since what it
/// means could change between two starts.
fn parse_tcp(text: &str) -> Option<ListenAddress> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().ok()?;
        return Some(ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into()));
    }
    text.parse().ok().map(ListenAddress::Tcp)
}

/// A text that names no place to listen on; the operator's mistake.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenAddressError {
    /// Neither form.
    #[error("\"{0}\" is no address: write \"127.0.0.1:4040\", \"[::1]:4040\" or \"unix:/path\"")]
    NoAddress(String),
    /// `unix:` alone.
    #[error("the path is missing: write \"unix:/path\"")]
    NoPath,
    /// The system has no room for it.
    #[error("the path of a unix socket has at most {UNIX_PATH_BYTES_MAX} bytes")]
    PathTooLong,
}

/// Bytes of `sockaddr_un.sun_path` on Linux, without the final zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in [
            "127.0.0.1:4040",
            "[::1]:0",
            "0.0.0.0:80",
            "unix:/run/sightline.sock",
            "unix:relative",
        ] {
            let address: Result<ListenAddress, _> = text.parse();
            assert_eq!(
                address.map(|address| address.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn only_loopback_and_files_are_out_of_the_network_s_reach() {
        let check = |text: &str, expected| {
            let address: Result<ListenAddress, _> = text.parse();
            assert_eq!(
                address.map(|address| address.is_loopback()),
                Ok(expected),
                "{text}"
            );
        };
        check("localhost:0", true);
        check("[::1]:4040", true);
        check("[::ffff:127.0.0.1]:1", true);
        check("unix:/run/s.sock", true);
        check("0.0.0.0:80", false);
        check("[::]:80", false);
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write() {
        let check = |text: &str, expected| {
            assert_eq!(text.parse::<ListenAddress>(), Err(expected), "{text}");
        };
        for text in [
            "",
            "4040",
            ":4040",
            "127.0.0.1",
            "::1:4040",
            "127.0.0.1:70000",
        ] {
            check(text, ListenAddressError::NoAddress(text.to_owned()));
        }
        check("unix:", ListenAddressError::NoPath);
        check(
            &format!("unix:/{}", "x".repeat(107)),
            ListenAddressError::PathTooLong,
        );
    }
}
