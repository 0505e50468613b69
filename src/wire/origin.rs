//! Which pages may connect, and the CORS answer to those that may.
//!
//! Browsers send `Origin` and cannot forge it; other clients send none and are held by their token
//! alone. Source: RFC 6454, the fetch standard; the contract's `origins`.

use super::http::Authority;

/// The origins beyond the same host that an operator allows.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    /// `*` was written.
    allows_any: bool,
    /// Any port of this machine, for `serve --dev`.
    allows_loopback: bool,
    origins: Box<[AllowedOrigin]>,
}

/// An entry of `origins` that is neither `*` nor `scheme://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin: write scheme://host or scheme://host:port, without a path, or *")]
pub struct OriginError(String);

impl OriginPolicy {
    /// Reads the configured origins. `allows_loopback` adds every origin of this machine.
    /// Errors: the first entry that is none.
    pub fn new<S: AsRef<str>>(origins: &[S], allows_loopback: bool) -> Result<Self, OriginError> {
        let mut policy = Self {
            allows_loopback,
            ..Self::default()
        };
        let mut allowed = Vec::new();
        for text in origins.iter().map(AsRef::as_ref) {
            match Origin::parse(text) {
                Some(origin) => allowed.push(AllowedOrigin::from(&origin)),
                None if text == "*" => policy.allows_any = true,
                None => return Err(OriginError(text.to_owned())),
            }
        }
        policy.origins = allowed.into();
        Ok(policy)
    }

    /// Whether a request with this `Origin` may connect to this `Host`. `is_secure`: it came over
    /// TLS, here or at a trusted proxy. No `Origin`: allowed.
    pub fn allows(&self, origin: Option<&str>, host: &str, is_secure: bool) -> bool {
        let Some(text) = origin else { return true };
        if self.allows_any {
            return true;
        }
        let Some(origin) = Origin::parse(text) else {
            return false;
        };
        origin.is_same_host(host, is_secure)
            || (self.allows_loopback && origin.authority.is_loopback())
            || self.origins.iter().any(|allowed| allowed.is_same(&origin))
    }
}

/// The headers of an answer to a page of `origin`, which the policy allows.
pub fn cors_headers(origin: &str) -> [(&'static str, &str); 3] {
    [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", "Retry-After"),
        ("Vary", "Origin"),
    ]
}

/// The headers of the 204 to a preflight from a page of `origin`, which the policy allows.
pub fn preflight_headers(origin: &str) -> [(&'static str, &str); 5] {
    [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Methods", "GET, POST, DELETE"),
        (
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Content-Encoding",
        ),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Origin"),
    ]
}

/// An origin as a browser sends it.
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and for whatever is more or less than an origin.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(is_scheme_byte);
        let authority = Authority::parse(authority)?;
        is_scheme.then_some(Self { scheme, authority })
    }

    /// The port, where written or known; 0 where the scheme has none.
    fn port(&self) -> u16 {
        self.authority
            .port
            .unwrap_or_else(|| default_port(self.scheme))
    }

    /// A `Host` without port names 443 over TLS. Without TLS it names the origin's own default:
    /// TLS may have ended at a proxy of which nobody told us, and the page is of that host.
    fn is_same_host(&self, host: &str, is_secure: bool) -> bool {
        let Some(host) = Authority::parse(host) else {
            return false;
        };
        let host_port = host.port.unwrap_or(if is_secure {
            443
        } else {
            default_port(self.scheme)
        });
        self.authority.host.eq_ignore_ascii_case(host.host)
            && self.port() == host_port
            && host_port != 0
    }
}

/// One configured origin, lowercased.
#[derive(Clone, Debug)]
struct AllowedOrigin {
    scheme: String,
    host: String,
    port: u16,
}

impl AllowedOrigin {
    fn is_same(&self, origin: &Origin<'_>) -> bool {
        self.scheme.eq_ignore_ascii_case(origin.scheme)
            && self.host.eq_ignore_ascii_case(origin.authority.host)
            && self.port == origin.port()
    }
}

impl From<&Origin<'_>> for AllowedOrigin {
    fn from(origin: &Origin<'_>) -> Self {
        Self {
            scheme: origin.scheme.to_ascii_lowercase(),
            host: origin.authority.host.to_ascii_lowercase(),
            port: origin.port(),
        }
    }
}

fn default_port(scheme: &str) -> u16 {
    match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(policy: &OriginPolicy, origin: &str, host: &str, is_secure: bool, expected: bool) {
        let found = policy.allows(Some(origin), host, is_secure);
        assert_eq!(found, expected, "{origin} to {host}, secure: {is_secure}");
    }

    #[test]
    fn the_same_host_is_allowed_and_nothing_like_it() {
        let policy = OriginPolicy::default();
        assert!(policy.allows(None, "app.com", false));
        check(&policy, "http://app.com", "app.com", false, true);
        check(&policy, "http://APP.com", "app.COM:80", false, true);
        check(&policy, "https://app.com", "app.com", true, true);
        check(&policy, "https://app.com", "app.com", false, true);
        check(&policy, "http://app.com:4040", "app.com:4040", false, true);
        check(&policy, "http://[::1]:4040", "[::1]:4040", false, true);
        check(&policy, "http://app.com", "app.com", true, false);
        check(&policy, "http://app.com:8080", "app.com", false, false);
        check(&policy, "http://app.com", "app.com:4040", false, false);
        for evil in [
            "null",
            "",
            "https://evil.com",
            "https://app.com.evil",
            "https://evilapp.com",
            "https://app.com@evil.com",
            "https://evil.com/app.com",
            "https://app.com/",
            "https://app.com, https://evil.com",
            "app.com",
            "://app.com",
            "chrome-extension://app.com",
            "https://app.com.",
        ] {
            check(&policy, evil, "app.com", true, false);
            check(&policy, evil, "app.com", false, false);
        }
    }

    #[test]
    fn configured_origins_are_exact() {
        let origins = [
            "https://App.com",
            "http://localhost:3000",
            "tauri://localhost",
        ];
        let policy = OriginPolicy::new(&origins, false).unwrap();
        let check = |origin: &str, expected: bool| check(&policy, origin, "gw.net", true, expected);
        check("https://app.com", true);
        check("https://app.com:443", true);
        check("http://localhost:3000", true);
        check("tauri://localhost", true);
        check("http://app.com", false);
        check("https://app.com:8443", false);
        check("https://app.com.evil", false);
        check("https://sub.app.com", false);
        check("http://localhost:3001", false);
        check("https://localhost:3000", false);
        check("null", false);
    }

    #[test]
    fn a_star_allows_all_and_only_when_written() {
        let policy = OriginPolicy::new(&["*"], false).unwrap();
        check(&policy, "null", "gw.net", true, true);
        check(&policy, "https://evil.com", "gw.net", true, true);
    }

    #[test]
    fn dev_allows_any_port_of_this_machine() {
        let policy = OriginPolicy::new::<&str>(&[], true).unwrap();
        for origin in [
            "http://localhost:3000",
            "https://127.0.0.1:1",
            "http://[::1]:9",
        ] {
            check(&policy, origin, "127.0.0.1:4040", false, true);
        }
        check(
            &policy,
            "http://localhost.evil.com",
            "127.0.0.1:4040",
            false,
            false,
        );
        check(
            &policy,
            "http://127.0.0.1.evil.com",
            "127.0.0.1:4040",
            false,
            false,
        );
    }

    #[test]
    fn what_is_no_origin_is_refused_in_the_configuration() {
        for wrong in [
            "app.com",
            "https://app.com/",
            "https://*.app.com",
            "",
            "null",
            "https://",
        ] {
            assert!(OriginPolicy::new(&[wrong], false).is_err(), "{wrong}");
        }
    }
}
