//! Where the gateway is: `--url`, read once.

use tungstenite::http::Uri;

use super::ClientError;

/// A gateway's address: host, port, and the path prefix that a proxy may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without the brackets of an IPv6 literal.
    pub(crate) host: String,
    /// 80 where the URL names none, 443 under TLS.
    pub(crate) port: u16,
    /// Whether the scheme is `wss`.
    pub(crate) is_tls: bool,
    /// `HOST[:PORT]` as written, for the `Host` header.
    authority: String,
    /// Begins with `/` or is empty; never ends with `/`.
    prefix: String,
}

impl Address {
    /// Reads `ws://HOST[:PORT][/PREFIX]`, or the same with `wss`. Errors: `Address`.
    pub(crate) fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |why| ClientError::Address {
            url: url.to_owned(),
            why,
        };
        let uri: Uri = url.parse().map_err(|_| wrong("not a URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong("the scheme is neither ws nor wss")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user name; give the token by --token-file"));
        }
        if uri.query().is_some() {
            return Err(wrong("a query; give the token by --token-file"));
        }
        let host = authority.host().trim_matches(['[', ']']);
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        if authority.as_str() != authority.host() && authority.port_u16().is_none() {
            return Err(wrong("not a port number"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The same where it is HTTP that will be spoken: `http` and `https` stand for `ws` and `wss`.
    pub(crate) fn parse_http(url: &str) -> Result<Self, ClientError> {
        let socket_url = match url.split_once("://") {
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(("https", rest)) => format!("wss://{rest}"),
            _ => url.to_owned(),
        };
        Self::parse(&socket_url)
    }

    /// `HOST[:PORT]`, for the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// What a request for `path_and_query` (which begins with `/`) asks this gateway for.
    pub(crate) fn target(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.prefix)
    }

    /// The URL of `path_and_query` (which begins with `/`) at this gateway.
    pub(crate) fn url(&self, path_and_query: &str) -> String {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        let (authority, prefix) = (&self.authority, &self.prefix);
        format!("{scheme}://{authority}{prefix}{path_and_query}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_addresses() {
        let cases = [
            (
                "ws://127.0.0.1:4040",
                "127.0.0.1",
                4040,
                "ws://127.0.0.1:4040/keen",
            ),
            (
                "ws://gate.example/",
                "gate.example",
                80,
                "ws://gate.example/keen",
            ),
            ("ws://[::1]:9/live/", "::1", 9, "ws://[::1]:9/live/keen"),
            (
                "wss://gate.example",
                "gate.example",
                443,
                "wss://gate.example/keen",
            ),
            ("wss://[::1]:9", "::1", 9, "wss://[::1]:9/keen"),
        ];
        for (url, host, port, full) in cases {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{url}");
            assert_eq!(address.url("/keen"), full, "{url}");
            assert_eq!(address.is_tls, url.starts_with("wss:"), "{url}");
        }
    }

    #[test]
    fn http_is_another_name_for_the_same_place() {
        let check = |http: &str, ws: &str| {
            let address = Address::parse_http(http).unwrap();
            assert_eq!(address, Address::parse(ws).unwrap(), "{http}");
        };
        check("http://gate.example/live", "ws://gate.example/live");
        check("https://gate.example", "wss://gate.example");
        check("wss://[::1]:9", "wss://[::1]:9");
        let address = Address::parse_http("https://gate.example:8443/live/").unwrap();
        assert_eq!(address.target("/v1/stats"), "/live/v1/stats");
        assert_eq!(address.authority(), "gate.example:8443");
        assert!(Address::parse_http("gate.example").is_err());
    }

    #[test]
    fn refuses_what_is_no_address() {
        for url in [
            "",
            "127.0.0.1:4040",
            "http://a",
            "ws://",
            "ws://u:p@h",
            "ws://h?token=x",
            "ws://h:99999",
            "wss://",
            "https://h",
            "/keen",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{url}: {error}");
        }
    }
}
