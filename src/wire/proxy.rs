//! Whom a request is from when a trusted proxy brings it: `X-Forwarded-For`, `-Proto`, `-Host`.
//!
//! Whatever a client writes into these headers stays on the left; each proxy adds on the right. So
//! the client is the right-most address that is not itself a trusted proxy.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::http::{Authority, RequestHead, list_elements};

/// Where a request comes from, as far as it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origination<'a> {
    /// The client's address, to which limits apply.
    pub client: IpAddr,
    /// Whether the client came over TLS.
    pub is_secure: bool,
    /// The host that the client asked for.
    pub host: &'a str,
}

impl<'a> Origination<'a> {
    /// Reads the head of a request that came from `peer`, over TLS or not. The headers count only
    /// where `peer` is in `trusted`.
    pub fn resolve(
        head: &'a RequestHead,
        peer: IpAddr,
        is_secure: bool,
        trusted: &[IpNet],
    ) -> Self {
        let peer = peer.to_canonical();
        if !is_trusted(peer, trusted) {
            return Self {
                client: peer,
                is_secure,
                host: head.host(),
            };
        }
        let host =
            last_element(head, "x-forwarded-host").filter(|host| Authority::parse(host).is_some());
        let is_secure = match last_element(head, "x-forwarded-proto") {
            Some(scheme) => {
                scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
            }
            None => is_secure,
        };
        Self {
            client: client(head, peer, trusted),
            is_secure,
            host: host.unwrap_or(head.host()),
        }
    }
}

/// Walks from the nearest proxy outwards, up to the first address that is none, or to what cannot
/// be read, beyond which nothing is known.
fn client(head: &RequestHead, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    let values = head.header_values("x-forwarded-for").rev();
    for address in values
        .flat_map(|value| value.rsplit(','))
        .map(parse_address)
    {
        let Some(address) = address else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// An address, alone, in brackets, or with a port; some proxies write these.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = in_brackets.unwrap_or(text).parse::<IpAddr>().ok();
    let address = address.or_else(|| text.parse::<SocketAddr>().map(|address| address.ip()).ok());
    address.map(|address| address.to_canonical())
}

/// What the nearest proxy wrote.
fn last_element<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    list_elements(head.header_values(name)).last()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::http::parse_head;

    const PROXY: &str = "10.0.0.1";

    /// Resolves a request with `headers` from `peer`, with 10.0.0.0/8 and fd00::/8 trusted.
    fn check(peer: &str, headers: &str, expected: (&str, bool, &str)) {
        let request = format!("GET / HTTP/1.1\r\nHost: gw\r\n{headers}\r\n");
        let (_, head) = parse_head(request.as_bytes()).unwrap().unwrap();
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let found = Origination::resolve(&head, peer.parse().unwrap(), false, &trusted);
        let (client, is_secure, host) = expected;
        let expected = Origination {
            client: client.parse().unwrap(),
            is_secure,
            host,
        };
        assert_eq!(found, expected, "{peer} {headers}");
    }

    #[test]
    fn headers_of_strangers_are_ignored() {
        check("9.9.9.9", "", ("9.9.9.9", false, "gw"));
        let forged =
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n";
        check("9.9.9.9", forged, ("9.9.9.9", false, "gw"));
        check("::ffff:9.9.9.9", forged, ("9.9.9.9", false, "gw"));
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        check(PROXY, "", (PROXY, false, "gw"));
        check(
            PROXY,
            "X-Forwarded-For: 1.2.3.4\r\n",
            ("1.2.3.4", false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n",
            ("1.2.3.4", false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.2.2.2\r\n",
            ("1.2.3.4", false, "gw"),
        );
        let two_lines = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n";
        check(PROXY, two_lines, ("1.2.3.4", false, "gw"));
        check(
            PROXY,
            "X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n",
            ("10.3.3.3", false, "gw"),
        );
        check(
            "::ffff:10.0.0.1",
            "X-Forwarded-For: 1.2.3.4\r\n",
            ("1.2.3.4", false, "gw"),
        );
        check(
            "fd00::1",
            "X-Forwarded-For: 2001:db8::7\r\n",
            ("2001:db8::7", false, "gw"),
        );
    }

    #[test]
    fn addresses_may_have_ports_and_what_cannot_be_read_ends_the_walk() {
        check(
            PROXY,
            "X-Forwarded-For: 1.2.3.4:567\r\n",
            ("1.2.3.4", false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: [2001:db8::7]:80\r\n",
            ("2001:db8::7", false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: [2001:db8::7]\r\n",
            ("2001:db8::7", false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: 6.6.6.6, unknown\r\n",
            (PROXY, false, "gw"),
        );
        check(
            PROXY,
            "X-Forwarded-For: 6.6.6.6, ,10.2.2.2\r\n",
            ("10.2.2.2", false, "gw"),
        );
    }

    #[test]
    fn scheme_and_host_are_the_nearest_proxys() {
        let headers = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: app.com:8443\r\n";
        check(PROXY, headers, (PROXY, true, "app.com:8443"));
        check(
            PROXY,
            "X-Forwarded-Proto: https, http\r\n",
            (PROXY, false, "gw"),
        );
        check(PROXY, "X-Forwarded-Host: a/b\r\n", (PROXY, false, "gw"));
    }
}
