//! `host[:port]`, as it stands in `Host`, in an absolute target and in an origin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host and its port, not yet lowercased. Source: RFC 3986 §3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct Authority<'a> {
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    pub(in crate::wire) host: &'a str,
    /// `None`: the default of the scheme.
    pub(in crate::wire) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `text`; `None` where it is empty, holds user information, or is malformed.
    pub(in crate::wire) fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match split_port(text)? {
            (host, Some(port)) => (host, Some(parse_port(port)?)),
            (host, None) => (host, None),
        };
        is_host(host).then_some(Self { host, port })
    }

    /// Whether both name the same place, where an absent port is `default_port`.
    pub(in crate::wire) fn is_same(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }

    /// Whether this names the machine itself.
    pub(in crate::wire) fn is_loopback(&self) -> bool {
        let address = match self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(host) => host.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
            None => self.host.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
        };
        self.host.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
    }
}

fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let host_end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(host_end);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None => rest.is_empty().then_some((host, None)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
            !host.is_empty() && host.bytes().all(is_name_byte)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Authority;

    #[test]
    fn hosts_and_ports() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let found = Authority::parse(text).map(|a| (a.host, a.port));
            assert_eq!(found, expected, "{text}");
        };
        check("example.com", Some(("example.com", None)));
        check("example.com:8080", Some(("example.com", Some(8080))));
        check("127.0.0.1:1", Some(("127.0.0.1", Some(1))));
        check("[::1]", Some(("[::1]", None)));
        check("[::1]:4040", Some(("[::1]", Some(4040))));
        for wrong in [
            "", ":80", "a:", "a:x", "a:+1", "a:65536", "a:1:2", "a b", "a/b", "u@a", "a,b", "[::1",
            "[::1]x", "[zz]", "::1", "a\u{e9}", "a?b", "a#b", "a%41",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn loopback_is_the_machine_itself() {
        let check = |text: &str, expected: bool| {
            let found = Authority::parse(text).is_some_and(|authority| authority.is_loopback());
            assert_eq!(found, expected, "{text}");
        };
        check("localhost:3000", true);
        check("LOCALHOST", true);
        check("127.8.0.1", true);
        check("[::1]:80", true);
        check("localhost.evil.com", false);
        check("127.0.0.1.evil.com", false);
        check("10.0.0.1", false);
    }
}
