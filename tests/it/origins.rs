//! `origins`, CORS, and what a trusted proxy may say of its client.

use crate::harness::{Answer, Server, request};

/// Upgrades with these headers; the status.
fn upgrade(server: &Server, headers: &[(&str, &str)]) -> u16 {
    let token = server.viewer_token("alice", &[]);
    let mut all = vec![
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    all.extend(headers);
    let target = format!("/keen?token={token}");
    ask(server, "GET", &target, &all).status
}

fn ask(server: &Server, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut http = server.http();
    http.send(&request(method, target, headers, b""));
    http.receive()
}

#[test]
fn a_star_lets_every_page_connect() {
    let server = Server::start("origins = [\"*\"]");
    assert_eq!(
        upgrade(&server, &[("Origin", "https://anywhere.test")]),
        101
    );
    assert_eq!(upgrade(&server, &[("Origin", "null")]), 101);
}

#[test]
fn listed_origins_are_the_cors_answer() {
    let server = Server::start("origins = [\"https://app.example.com\"]");
    let allowed = ("Origin", "https://app.example.com");
    let asked = ("Access-Control-Request-Method", "POST");
    for target in ["/v1/events", "/v1/stats", "/v1/admin/revoke"] {
        let preflight = ask(&server, "OPTIONS", target, &[allowed, asked]);
        assert_eq!(preflight.status, 204, "{target}: {preflight:?}");
        let header = |name| preflight.header(name).unwrap_or_default();
        assert_eq!(
            header("access-control-allow-origin"),
            "https://app.example.com"
        );
        assert!(header("access-control-allow-methods").contains("DELETE"));
        assert!(header("access-control-allow-headers").contains("Authorization"));
        assert_eq!(header("vary"), "Origin");
    }
    // Refusals too can be read by the page.
    let refused = ask(&server, "POST", "/v1/events", &[allowed]);
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.example.com")
    );
    let foreign = ask(
        &server,
        "OPTIONS",
        "/v1/events",
        &[("Origin", "https://x.test"), asked],
    );
    assert_eq!(foreign.refusal(), (403, "ORIGIN_REFUSED".into()));
    assert_eq!(foreign.header("access-control-allow-origin"), None);
    let plain = ask(&server, "GET", "/livez", &[]);
    assert_eq!(plain.header("access-control-allow-origin"), None);
}

#[test]
fn a_trusted_proxy_tells_host_and_scheme() {
    let server = Server::start("trusted_proxies = [\"127.0.0.0/8\"]");
    let origin = ("Origin", "https://public.example.com");
    let host = ("X-Forwarded-Host", "public.example.com");
    let secure = ("X-Forwarded-Proto", "https");
    assert_eq!(upgrade(&server, &[origin, host, secure]), 101);
    assert_eq!(upgrade(&server, &[origin, secure]), 403);
    let other = ("X-Forwarded-Host", "other.example.com");
    assert_eq!(upgrade(&server, &[origin, other, secure]), 403);

    let server = Server::start("");
    assert_eq!(
        upgrade(&server, &[origin, host, secure]),
        403,
        "nobody is trusted"
    );
}
