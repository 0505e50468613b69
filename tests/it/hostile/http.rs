//! Requests that two servers could read differently, heads without end, and clients that dawdle.

use std::time::{Duration, Instant};

use super::{Neighbour, Tally, on_one_core, refusals, timeouts};
use crate::harness::{Http, RawSocket, Server, eventually, request, sample, upgrade_request};

/// Sends a POST with `headers` and then `rest`, in which a second request is hidden, and expects the
/// one refusal, and the end. Where the hidden event were served, the neighbour would see it.
fn check_smuggled(server: &Server, start: &str, headers: &str, rest: &str) {
    let token = server.publisher_token();
    let hidden = r#"{"event_type":"hidden","user_id":"neighbour"}"#;
    let length = hidden.len();
    let authorization = format!("Host: g\r\nAuthorization: Bearer {token}");
    let second = format!(
        "POST /v1/events HTTP/1.1\r\n{authorization}\r\nContent-Length: {length}\r\n\r\n{hidden}"
    );
    let mut http = server.http();
    http.send(format!("{start}\r\n{authorization}\r\n{headers}\r\n\r\n{rest}{second}").as_bytes());
    let shown = format!("{start} {headers:?}");
    assert_eq!(
        http.receive().refusal(),
        (400, "BAD_REQUEST".into()),
        "{shown}"
    );
    assert!(http.is_over(), "{shown}");
}

#[test]
fn a1_a_request_of_two_lengths_smuggles_nothing() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let cases = [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n",
        ),
        ("Content-Length: 0\r\nContent-Length: 5", ""),
        ("Content-Length: 0, 5", ""),
        ("Content-Length: +0", ""),
        ("Content-Length: -1", ""),
        ("Content-Length: 18446744073709551616", ""),
        ("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        ("Transfer-Encoding: identity", ""),
        ("Transfer-Encoding:\x0bchunked", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "10000000000000000\r\n"),
        ("Transfer-Encoding: chunked", "0x0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0;a\nb\r\n\r\n"),
    ];
    for (headers, rest) in cases {
        check_smuggled(&server, "POST /v1/events HTTP/1.1", headers, rest);
    }
    check_smuggled(
        &server,
        "GET /livez HTTP/1.1",
        "Transfer-Encoding: chunked",
        "0\r\n\r\n",
    );
    // Extensions are read over, up to a bound.
    let flood = format!("1;{}\r\n", "x".repeat(16_000));
    check_smuggled(
        &server,
        "POST /v1/events HTTP/1.1",
        "Transfer-Encoding: chunked",
        &flood,
    );
    neighbour.assert_undisturbed();
    tally.assert_grew(&refusals("BAD_REQUEST"), cases.len() as u64 + 2);
    tally.assert_grew("events_received_total", 1);
}

#[test]
fn a2_a_line_that_two_servers_end_differently_is_refused() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let cases = [
        ("GET /livez HTTP/1.1\nX: y", "X: y"),
        ("GET /livez HTTP/1.1", "X: y\nZ: w"),
        ("GET /livez HTTP/1.1", "X: a\rb"),
        ("GET /livez HTTP/1.1", "X: a\r\n b"),
        ("GET /livez HTTP/1.1", "X : a"),
        ("GET /livez HTTP/1.1", "X: \0"),
        ("GET /livez HTTP/1.1", "X: \x7f"),
        ("GET /livez HTTP/1.1", "Host: other"),
        ("GET http://other/livez HTTP/1.1", "X: y"),
    ];
    for (start, headers) in cases {
        check_smuggled(&server, start, headers, "");
    }
    let mut http = server.http();
    http.send(b"GET /livez HTTP/1.1\r\n\r\n");
    assert_eq!(http.receive().refusal().1, "BAD_REQUEST", "no Host");
    let upgrade = String::from_utf8(upgrade_request("/keen", &server.viewer_token("a", &[])));
    let upgrade = upgrade.unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut http = server.http();
    http.send(upgrade.as_bytes());
    assert_eq!(
        http.receive().refusal().1,
        "BAD_REQUEST",
        "an upgrade of HTTP/1.0"
    );
    neighbour.assert_undisturbed();
    tally.assert_grew(&refusals("BAD_REQUEST"), cases.len() as u64 + 2);
}

#[test]
fn a4_a_header_bomb_costs_its_sender_alone() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let too_large = (431, "HEAD_TOO_LARGE".to_string());
    let long = format!("X: {}\r\n", "a".repeat(64 * 1024));
    let many: String = (0..2_000).map(|n| format!("X{n}: y\r\n")).collect();
    for headers in [long, many] {
        let mut http = server.http();
        http.send(format!("GET /livez HTTP/1.1\r\nHost: g\r\n{headers}\r\n").as_bytes());
        assert_eq!(http.receive().refusal(), too_large);
        assert!(http.is_over());
    }
    neighbour.assert_undisturbed();
    // A byte at a time, up to the bound; that no byte is searched twice is a test of the parser's.
    let mut http = server.http();
    for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(&[b'a'; 8_192]) {
        http.send(&[*byte]);
    }
    assert_eq!(http.receive().refusal(), too_large);
    tally.assert_grew(&refusals("HEAD_TOO_LARGE"), 3);
    // What a greedy pattern would take minutes for.
    let token = server.viewer_token("alice", &[]);
    for filler in [", ", " ,\t", "a ", "\t", "bearer."] {
        let offer = filler.repeat(7_000 / filler.len());
        let upgrade = String::from_utf8(upgrade_request("/ws", &token)).unwrap();
        let header = format!("\r\nSec-WebSocket-Protocol: x{offer}\"\r\n");
        let mut http = server.http();
        http.send(upgrade.replacen("\r\n", &header, 1).as_bytes());
        assert_eq!(http.receive().status, 400, "{filler:?}");
    }
    neighbour.assert_undisturbed();
}

/// What the contract gives a head, and about what the slowest machine adds.
const HEAD: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(8);
/// Of each kind of dawdler; they wait at the same time.
const DAWDLERS: u64 = 40;

#[test]
fn a5_and_a11_who_dawdles_is_let_go() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let bearer = format!("Bearer {}", server.publisher_token());
    let viewer = server.viewer_token("alice", &[]);
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Length", "8000000"),
    ];
    let many = |first: &[u8]| -> Vec<Http> {
        let open = |_| {
            let mut http = Http::connect_for(server.address(), HEAD + SLACK);
            http.send(first);
            http
        };
        (0..DAWDLERS).map(open).collect()
    };
    let resident_bytes = server.resident_bytes();
    let tally = Tally::of(&server);
    let begun = Instant::now();
    let silent = many(b"");
    let partial = many(b"GET /livez HTTP/1.1\r\nHost:");
    let trickling = many(&request("POST", "/v1/events", &headers, b"{"));
    // The most that a message may have, announced, and the first byte of it.
    let claim = |target: &str, bytes: u32| -> Vec<RawSocket> {
        let header = [
            &[0x81, 0xff, 0, 0, 0, 0],
            &bytes.to_be_bytes()[..],
            &[0; 4],
            b"{",
        ]
        .concat();
        let token = if target == "/keen" {
            &viewer
        } else {
            &bearer[7..]
        };
        let open = |_| RawSocket::open(&server, target, token, &header);
        (0..DAWDLERS).map(open).collect()
    };
    let claiming = claim("/v1/publish", 8 * 1024 * 1024);
    let mut half = claim("/keen", 65_536);
    assert_eq!(
        half.pop().unwrap().close_code(),
        1009,
        "too much is not waited for"
    );
    drop(half);
    let mut kept = server.http();
    kept.send(&request("GET", "/livez", &[], b""));
    assert_eq!(kept.receive().status, 200);
    neighbour.assert_undisturbed();
    let grown = server.resident_bytes().saturating_sub(resident_bytes);
    assert!(
        grown < 32 * 1024 * 1024,
        "{grown} bytes for what was only announced"
    );
    // One that sends a byte of its head now and then is no better off.
    let mut dribbling = partial;
    for http in &mut dribbling {
        http.send(b" g");
    }
    for mut http in dribbling.into_iter().chain(trickling) {
        assert_eq!(http.receive().refusal(), (408, "REQUEST_TIMEOUT".into()));
        assert!(http.is_over());
    }
    for mut http in silent {
        assert!(http.is_over());
    }
    let took = begun.elapsed();
    assert!(took >= HEAD && took < HEAD + SLACK, "{took:?}");
    for mut socket in claiming {
        assert_eq!(socket.close_code_within(HEAD), 1008);
    }
    for awaited in ["request", "head", "body"] {
        tally.assert_grew(&timeouts(awaited), DAWDLERS);
    }
    tally.assert_grew(&refusals("REQUEST_TIMEOUT"), 2 * DAWDLERS);
    tally.assert_grew(&super::closes("policy_violation"), DAWDLERS);
    neighbour.assert_undisturbed();
    // One that said something before is given longer between two requests.
    kept.send(&request("GET", "/livez", &[], b""));
    assert_eq!(kept.receive().status, 200);
}

#[test]
fn a5_sockets_without_a_token_are_bounded() {
    let proxied = "trusted_proxies = [\"127.0.0.0/8\"]\nlimits.unauthenticated_per_ip = 3";
    let server = on_one_core(proxied);
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let asking = |address: &str| {
        let mut http = server.http();
        let forwarded = [("X-Forwarded-For", address)];
        http.send(&request("GET", "/livez", &forwarded, b""));
        let status = http.receive().status;
        (http, status)
    };
    let held: Vec<_> = (0..3).map(|_| asking("203.0.113.5")).collect();
    assert!(held.iter().all(|(_, status)| *status == 200));
    assert_eq!(asking("203.0.113.5").1, 429);
    assert_eq!(asking("203.0.113.6").1, 200);
    neighbour.assert_undisturbed();
    tally.assert_grew(&refusals("IP_LIMIT"), 1);
    drop(held);
    eventually("there is room again", || {
        (asking("203.0.113.5").1 == 200).then_some(())
    });
}

#[test]
fn a5_who_is_turned_away_at_the_door_is_counted() {
    // Two seats, and as many sockets beyond them as a full node keeps to say so.
    let server = on_one_core("limits.connections_max = 2");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let mut held: Vec<Http> = (0..1_100).map(|_| server.http()).collect();
    let mut last = held.pop().unwrap();
    assert_eq!(last.receive().refusal(), (503, "NODE_FULL".into()));
    assert!(last.is_over());
    neighbour.assert_served();
    drop((held, last));
    let turned_away = eventually("there is room again", || {
        let mut http = server.http();
        http.send(&request("GET", "/metrics", &[], b""));
        let answer = http.receive();
        let code = refusals("NODE_FULL");
        (answer.status == 200).then(|| sample(&answer.text(), &format!("sightline_{code}")))
    });
    assert!(turned_away >= 70.0, "{turned_away}");
    assert!(tally.growth(&refusals("NODE_FULL")) >= 70);
    neighbour.assert_undisturbed();
}
