//! Upgrades that are none, pages that may not connect, keys that are not keys.

use super::{Neighbour, Tally, on_one_core, refusals};
use crate::harness::{Answer, RawSocket, Server, request, text_frame, upgrade_request};

/// An upgrade with a token, whose headers named in `changed` are others, more, or (empty) missing.
fn upgrade(server: &Server, method: &str, changed: &[(&str, &str)]) -> Vec<u8> {
    let bearer = format!("Bearer {}", server.viewer_token("alice", &[]));
    let good = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        ("Authorization", bearer.as_str()),
    ];
    let is_changed = |name: &str| changed.iter().any(|(other, _)| *other == name);
    let mut headers: Vec<_> = good
        .into_iter()
        .filter(|(name, _)| !is_changed(name))
        .collect();
    headers.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
    request(method, "/keen", &headers, b"")
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer to an upgrade, behind which a request stands that must not be served.
fn refused(server: &Server, upgrade: &[u8]) -> Answer {
    let shown = String::from_utf8_lossy(upgrade).replace("\r\n", " | ");
    let mut http = server.http();
    http.send(&[upgrade, &request("GET", "/metrics", &[], b"")].concat());
    let answer = http.receive();
    assert_eq!(answer.header("connection"), Some("close"), "{shown}");
    assert!(http.is_over(), "{shown}: a second request was served");
    answer
}

#[test]
fn a3_a_refused_upgrade_leaves_no_tunnel() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let version = "Sec-WebSocket-Version";
    for wrong in ["", "0", "8", "12", "14", "013", "1 3", "13, 8", "x"] {
        let answer = refused(&server, &upgrade(&server, "GET", &[(version, wrong)]));
        assert_eq!(
            answer.refusal(),
            (426, "UPGRADE_REQUIRED".into()),
            "{wrong}"
        );
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    tally.assert_grew(&refusals("UPGRADE_REQUIRED"), 9);
    let mut malformed = vec![
        upgrade(&server, "GET", &[("Sec-WebSocket-Key", "")]),
        upgrade(&server, "GET", &[("Upgrade", "")]),
        upgrade(&server, "GET", &[("Upgrade", "h2c")]),
        upgrade(&server, "GET", &[("Upgrade", "websocketx")]),
        upgrade(&server, "GET", &[("Connection", "")]),
        upgrade(&server, "GET", &[("Connection", "close")]),
        upgrade(&server, "GET", &[(version, "13"), (version, "13")]),
    ];
    malformed.extend(["POST", "PUT", "HEADX", "get"].map(|method| upgrade(&server, method, &[])));
    let old = String::from_utf8(upgrade(&server, "GET", &[])).unwrap();
    malformed.push(old.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes());
    for upgrade in &malformed {
        assert_eq!(
            refused(&server, upgrade).refusal(),
            (400, "BAD_REQUEST".into())
        );
    }
    tally.assert_grew(&refusals("BAD_REQUEST"), malformed.len() as u64);
    neighbour.assert_undisturbed();
}

#[test]
fn a6_a_frame_that_comes_with_the_upgrade_is_handled_once() {
    let server = Server::start("");
    let tally = Tally::of(&server);
    // Whichever core accepts it, and whichever owns the user.
    for user in 0..16 {
        let token = server.viewer_token(&format!("user-{user}"), &[]);
        let ping = text_frame(r#"{"type":"ping","id":"early"}"#);
        let mut socket = RawSocket::open(&server, "/observatory", &token, &ping);
        socket.expect_established();
        let pong = socket.next_answer();
        assert!(pong.text().contains(r#""id":"early""#), "{}", pong.text());
        socket.send(&text_frame(r#"{"type":"ping","id":"late"}"#));
        let pong = socket.next_answer();
        assert!(pong.text().contains(r#""id":"late""#), "{}", pong.text());
    }
    tally.assert_grew("viewer_messages_total", 32);
    tally.assert_grew("handshakes_total{role=\"viewer\"}", 16);
    for user in server.users_on_two_cores() {
        Neighbour::of(&server, &user).assert_undisturbed();
    }
}

#[test]
fn a7_only_pages_of_the_same_host_and_of_listed_origins_connect() {
    let origins = "origins = [\"https://app.example.com\", \"http://dev.example.com:3000\"]";
    let server = on_one_core(origins);
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let ask = |headers: &[(&str, &str)]| {
        let mut http = server.http();
        http.send(&upgrade(&server, "GET", headers));
        http.receive_to("HEAD").status
    };
    let check = |origin: &str, host: &str, expected: u16| {
        let found = ask(&[("Origin", origin), ("Host", host)]);
        assert_eq!(found, expected, "{origin} on {host}");
        u64::from(expected == 403)
    };
    let allowed = [
        ("http://gw.test:4040", "gw.test:4040"),
        ("http://GW.test:4040", "gw.test:4040"),
        ("http://gw.test", "gw.test"),
        ("http://gw.test:80", "gw.test"),
        ("https://app.example.com", "gw.test"),
        ("https://app.example.com:443", "gw.test"),
        ("https://APP.example.com", "gw.test"),
        ("http://dev.example.com:3000", "gw.test"),
    ];
    for (origin, host) in allowed {
        check(origin, host, 101);
    }
    let evil = [
        ("https://evil.test", "gw.test"),
        ("null", "gw.test"),
        ("file://", "gw.test"),
        ("http://gw.test:4041", "gw.test:4040"),
        ("https://gw.test:4040", "gw.test"),
        ("http://gw.test.evil.com:4040", "gw.test:4040"),
        ("http://evilgw.test", "gw.test"),
        ("http://gw.test@evil.test", "gw.test"),
        ("http://evil.test/gw.test", "gw.test"),
        ("http://evil.test#gw.test", "gw.test"),
        ("http://app.example.com", "gw.test"),
        ("https://app.example.com:444", "gw.test"),
        ("https://www.app.example.com", "gw.test"),
        ("https://app.example.com.evil.com", "gw.test"),
        ("https://app.example.comevil", "gw.test"),
        ("https://app.example.com.", "gw.test"),
        ("https://app.example.com/", "gw.test"),
        ("https://app.example.com,https://evil.test", "gw.test"),
        ("https://appxexample.com", "gw.test"),
        ("https://app%2eexample.com", "gw.test"),
        ("wss://app.example.com", "gw.test"),
        ("//app.example.com", "gw.test"),
        ("app.example.com", "gw.test"),
        ("*", "gw.test"),
        ("http://dev.example.com", "gw.test"),
        ("http://dev.example.com:30000", "gw.test"),
    ];
    let refused: u64 = evil
        .map(|(origin, host)| check(origin, host, 403))
        .iter()
        .sum();
    tally.assert_grew(&refusals("ORIGIN_REFUSED"), refused);
    // Two of them: whichever is looked at, the other is not.
    let two = [
        ("Origin", "https://app.example.com"),
        ("Origin", "https://evil.test"),
    ];
    assert_eq!(ask(&two), 400);
    // A page's name makes up for no token: without one it is refused, whoever sends it.
    for origin in ["https://app.example.com", ""] {
        assert_eq!(ask(&[("Origin", origin), ("Authorization", "")]), 401);
    }
    assert_eq!(ask(&[]), 101, "who is no page has a token of its own");
    neighbour.assert_undisturbed();
}

#[test]
fn a9_a_key_that_is_not_16_bytes_is_refused() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let name = "Sec-WebSocket-Key";
    let mut keys = vec![
        "x",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "dGhlIHNhbXBsZS Bub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZ?==",
        "dGhlIHNhbXBsZSBub25jZQ==,x",
        "========================",
        "dGhl_HNhbXBsZSBub25j-Q==",
    ];
    let long = "A".repeat(4_096);
    keys.push(&long);
    for key in &keys {
        let answer = refused(&server, &upgrade(&server, "GET", &[(name, key)]));
        assert_eq!(answer.refusal(), (400, "BAD_REQUEST".into()), "{key}");
    }
    let twice = refused(
        &server,
        &upgrade(&server, "GET", &[(name, KEY), (name, KEY)]),
    );
    assert_eq!(twice.refusal(), (400, "BAD_REQUEST".into()));
    tally.assert_grew(&refusals("BAD_REQUEST"), keys.len() as u64 + 1);
    // The same key again and again is no offence: it proves that we read it, and nothing else.
    let token = server.viewer_token("alice", &[]);
    for _ in 0..2 {
        let mut socket = RawSocket::connect(&server);
        socket.send(&upgrade_request("/keen", &token));
        assert_eq!(socket.read_head().status, 101);
    }
    neighbour.assert_undisturbed();
}
