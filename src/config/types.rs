//! The values of a configuration that are more than a number: each is checked where it is read,
//! so that a wrong one cannot be built. `Display` writes what the configuration would say.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::limits::SECRET_BYTES_MIN;

/// An origin that may connect beside the same host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginRule {
    /// `*`: every page on the web.
    Any,
    /// Exactly this `Origin` header: lower case, without the scheme's default port.
    Exact(String),
    /// Any scheme and port on a loopback host. Only `serve --dev` makes one.
    Loopback,
}

impl OriginRule {
    /// Reads `*` or `scheme://host[:port]`, and brings it to the form in which browsers send it.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = split_port(authority)?;
        let known = is_scheme(scheme) && is_host(host);
        let default_port = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        known.then(|| match port {
            Some(port) if Some(port) != default_port => {
                Self::Exact(format!("{scheme}://{host}:{port}"))
            }
            _ => Self::Exact(format!("{scheme}://{host}")),
        })
    }
}

impl fmt::Display for OriginRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(origin) => f.write_str(origin),
            Self::Loopback => f.write_str("loopback"),
        }
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`. `None` where the port is not one.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[host_end..].find(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let (host, port) = authority.split_at(host_end + colon);
            let port: u16 = port[1..].parse().ok()?;
            (port > 0).then_some((host, Some(port)))
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Reads a network (`10.0.0.0/8`) or one address, taken as a network of its own.
pub fn parse_network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Bytes that are never printed: `Debug` tells their number only.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The fewest bytes that a secret may have: an HS256 key is not weaker than its hash.
    pub const BYTES_MIN: usize = SECRET_BYTES_MIN;

    /// Takes at least `BYTES_MIN` bytes; `None` for fewer.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len() >= Self::BYTES_MIN).then_some(Self(bytes))
    }

    /// The bytes themselves. Not for logs.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// What tokens are verified with, as read from the one key source; not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The text of a JSON Web Key Set (RFC 7517).
    Jwks(String),
    /// The text of a public key in PEM.
    PublicKeyPem(String),
    /// A shared secret.
    Secret(Secret),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_origin_takes_the_form_that_browsers_send() {
        let check = |input: &str, expected: Option<&str>| {
            let shown = OriginRule::parse(input).map(|origin| origin.to_string());
            assert_eq!(shown.as_deref(), expected, "{input}");
        };
        check("*", Some("*"));
        check("https://app.example.com", Some("https://app.example.com"));
        check(
            "HTTPS://App.Example.com:443",
            Some("https://app.example.com"),
        );
        check("http://localhost:5173", Some("http://localhost:5173"));
        check("https://host:80", Some("https://host:80"));
        check("http://[::1]:3000", Some("http://[::1]:3000"));
        check("http://[::1]", Some("http://[::1]"));
        check("tauri://localhost", Some("tauri://localhost"));
        check(
            "chrome-extension://abcdef",
            Some("chrome-extension://abcdef"),
        );
        for wrong in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://*.example.com",
            "https://app.example.com/",
            "https://user@app.example.com",
            "https://app.example.com:0",
            "https://app.example.com:99999",
            "https://app.example.com:",
            "http://[::1",
            "http://[x]:1",
            "https://a b",
            "https://bücher.example",
            "1http://x",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_secret_is_long_and_never_shown() {
        assert!(Secret::new("x".repeat(31)).is_none());
        let secret = Secret::new("hunter2-".repeat(4)).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");
        assert!(!format!("{:?}", KeySource::Secret(secret)).contains("hunter2"));
    }

    #[test]
    fn a_bare_address_is_a_network_of_its_own() {
        let shown = |text| parse_network(text).map(|network| network.to_string());
        assert_eq!(shown("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(shown("10.1.2.3").as_deref(), Some("10.1.2.3/32"));
        assert_eq!(shown("::1").as_deref(), Some("::1/128"));
        assert_eq!(shown("10.0.0.0/33"), None);
        assert_eq!(shown("proxy"), None);
    }
}
