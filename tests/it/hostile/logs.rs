//! What is left of an attack where operators look: no token, no line of an attacker's making, and
//! no more series than before.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sightline::auth::Permission;

use super::{Neighbour, Tally, on_one_core, refusals, viewer_errors};
use crate::harness::{
    Http, NO_TOKEN, Publisher, RawSocket, Server, Setup, Token, Viewer, close_frame, kind, request,
    run, run_with,
};

/// The token's own road: each way to carry it, to a viewer's path, a publisher's and a request's.
fn carry(server: &Server, token: &str) {
    let bearer = format!("Bearer {token}");
    let offer = format!("sightline.keen.v1, bearer.{token}");
    let query = format!("token={token}");
    let referer = format!("https://app.test/?{query}");
    let upgrade = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Referer", referer.as_str()),
        ("User-Agent", offer.as_str()),
    ];
    for refusals in ["", "refusals=close&"] {
        for path in ["/ws", "/keen", "/v1/publish", "/nowhere"] {
            let with_query = format!("{path}?{refusals}{query}");
            let without = format!("{path}?{refusals}");
            let roads: [(&str, &[(&str, &str)]); 4] = [
                (&without, &[("Authorization", &bearer)]),
                (&without, &[("Sec-WebSocket-Protocol", &offer)]),
                (&with_query, &[]),
                (
                    &with_query,
                    &[("Authorization", &bearer), ("Origin", &referer)],
                ),
            ];
            for (target, more) in roads {
                let mut socket = RawSocket::connect(server);
                socket.send(&request("GET", target, &[&upgrade, more].concat(), b""));
                // Its head is looked through; and what is said when the refusal is a close.
                if socket.read_head().status == 101 {
                    socket.send(&close_frame(1000));
                    while let Some(frame) = socket.next() {
                        let said = String::from_utf8_lossy(&frame.payload).into_owned();
                        crate::harness::check_secrecy("a frame", &said);
                    }
                }
            }
        }
    }
    for (method, path) in [
        ("POST", "/v1/events"),
        ("GET", "/v1/admin/connections"),
        ("POST", "/v1/admin/revoke"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
    ] {
        for with_query in [false, true] {
            let target = if with_query {
                format!("{path}?{query}")
            } else {
                path.into()
            };
            let headers = [("Authorization", bearer.as_str()), ("Referer", &referer)];
            let headers = if with_query {
                &headers[1..]
            } else {
                &headers[..]
            };
            let mut http = server.http();
            let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
            http.send(&request(method, &target, headers, body));
            http.receive();
        }
    }
}

#[test]
fn a8_no_token_leaves_by_another_way_than_it_came() {
    let server = Server::with(&Setup {
        log_level: "trace",
        may_panic: true,
        cores: 1,
        ..Setup::default()
    });
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let mut revoked = Token::of("alice", &[]);
    revoked.0.jti = Some("gone".into());
    let revoked = server.mint(&revoked);
    let body = r#"{"jti":"gone"}"#;
    assert_eq!(
        server
            .ask("POST", "/v1/admin/revoke", &server.admin_token(), body)
            .status,
        200
    );
    let good = server.viewer_token("alice", &["p"]);
    let cut = good[..good.len() - 5].to_string();
    let tokens = [
        good.clone(),
        server.publisher_token(),
        server.mint(&Token::of("alice", &[]).expiring_in(-60)),
        revoked,
        cut.clone(),
        format!("{good}.{good}"),
        NO_TOKEN.into(),
        format!("{NO_TOKEN}.{NO_TOKEN}.{NO_TOKEN}"),
        // So read that the panic's own text holds it.
        format!("{NO_TOKEN}failpoint:token"),
    ];
    for token in &tokens {
        carry(&server, token);
    }
    neighbour.assert_undisturbed();
    // Within a connection.
    let mut viewer = Viewer::open(&server, "/observatory", &good);
    for token in &tokens[..8] {
        let answer = viewer.ask(&json!({"type": "refresh_token", "data": {"token": token}}));
        assert!(
            ["error", "token_refreshed"].contains(&kind(&answer)),
            "{answer}"
        );
    }
    assert!(tally.growth(&viewer_errors("TOKEN_INVALID")) >= 4);
    // Of each bad token, on most of its roads; some are refused for another reason first.
    for (code, tokens) in [
        ("TOKEN_INVALID", 4),
        ("TOKEN_EXPIRED", 1),
        ("TOKEN_REVOKED", 1),
    ] {
        let refused = tally.growth(&refusals(code));
        assert!(refused >= 15 * tokens, "{refused} of {code}");
    }
    // On the pages of operators, which the harness looks through.
    for path in ["/livez", "/readyz", "/health", "/metrics", "/v1/stats"] {
        server.page(path);
    }
    assert!(!server.connections().is_empty());
    neighbour.assert_undisturbed();
    let lines = server.log_lines().len();
    assert!(lines > 300, "only {lines} lines, and it was to log all");
    if cfg!(feature = "failpoints") {
        server.wait_for_log("panicked", 0);
    }
}

#[test]
fn a8_commands_say_no_token_at_any_level() {
    let server = Server::start("");
    let folder = server.folder.path();
    let url = format!("ws://{}", server.address());
    let good = server
        .mint(&Token::of("alice", &[]).with(&[Permission::PublishAny, Permission::Subscribe]));
    let expired = server.mint(&Token::of("alice", &[]).expiring_in(-60));
    let file = folder.join("token");
    let event = "{\"event_type\":\"x\",\"user_id\":\"alice\"}\n{\"event_type\":7}\n";
    for (token, is_good) in [(good.as_str(), true), (&expired, false), (NO_TOKEN, false)] {
        std::fs::write(&file, token).unwrap();
        let carriers = [["--token", token], ["--token-file", file.to_str().unwrap()]];
        for [flag, value] in carriers {
            let arguments = [
                "--log-level",
                "trace",
                "publish",
                "--url",
                &url,
                flag,
                value,
            ];
            let ending = run_with(folder, &arguments, event);
            assert_ne!(
                ending.code,
                Some(0),
                "one of the events is bad: {}",
                ending.err
            );
            assert_eq!(
                ending.err.contains("INVALID_FIELD"),
                is_good,
                "{}",
                ending.err
            );
            if !is_good {
                let arguments = ["--log-level", "trace", "tail", "--url", &url, flag, value];
                assert_eq!(run(folder, &arguments).code, Some(1));
            }
        }
    }
    // Where it does connect: it ends when the node says that it may not return.
    std::thread::scope(|scope| {
        let arguments = [
            "--log-level",
            "trace",
            "tail",
            "--url",
            &url,
            "--token",
            &good,
        ];
        let tail = scope.spawn(move || run(folder, &arguments));
        let body = r#"{"userId":"alice"}"#;
        crate::harness::eventually("it watches", || {
            let answer = server.ask("POST", "/v1/admin/disconnect", &server.admin_token(), body);
            (answer.json()["closed"] == 1).then_some(())
        });
        tail.join().unwrap();
    });
    let config = folder.join("sightline.toml");
    let arguments = [
        "--log-level",
        "trace",
        "check-config",
        "--config",
        config.to_str().unwrap(),
    ];
    assert_eq!(run(folder, &arguments).code, Some(0));
}

/// Text that would end a line, a field or a terminal's patience.
const TREACHEROUS: [&str; 7] = [
    "x\r\n{\"level\":\"error\",\"message\":\"all is lost\"}",
    "\",\"level\":\"error\",\"x\":\"",
    "\u{1b}[2J\u{1b}[31mred\u{7}",
    "a\u{2028}b\u{2029}c\u{85}d",
    "\u{202e}desrever\u{202c}\u{200b}\u{feff}",
    "null\u{0}byte\u{7f}",
    "\\u000a\\n%0d%0a%s%n${jndi:ldap://x}",
];

#[test]
fn a33_nobody_writes_lines_into_the_log() {
    let server = Server::with(&Setup {
        log_level: "trace",
        cores: 1,
        ..Setup::default()
    });
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let publisher = server.publisher_token();
    for text in TREACHEROUS {
        let shown: String = text.chars().filter(|c| !c.is_control()).collect();
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        // Where a request may hold it as it is, and where it is refused for it.
        for value in [text, &shown, &shown.repeat(200)] {
            let mut http = server.http();
            let value = value.replace("\r\n", "\r\n ");
            let headers = [
                ("User-Agent", value.as_str()),
                ("X-Forwarded-For", &value),
                ("Referer", &value),
            ];
            http.send(&request(
                "GET",
                &format!("/{encoded}?x={encoded}"),
                &headers,
                b"",
            ));
            assert!((400..500).contains(&http.receive().status), "{text:?}");
        }
        let mut http = server.http();
        http.send(&request("GET", "/livez", &[("Origin", &shown)], b""));
        assert!((400..500).contains(&http.receive().status), "{text:?}");
        // A user, project, session and event of this name.
        let mut token = Token::of(text, &[text]).with(&Permission::ALL);
        (token.0.session, token.0.jti) = (Some(text.into()), Some(text.into()));
        let token = server.mint(&token);
        let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
        server.publish(
            &json!({"event_type": "x", "user_id": text, "project_id": text,
            "session_id": text, "event_id": &text[..text.len().min(40)], "data": text}),
        );
        assert_eq!(viewer.next()["data"], text);
        let bad = json!([{"event_type": text, "user_id": 1}, {"event_type": "x", "timestamp": text, "user_id": 1}]);
        server.ask("POST", "/v1/events", &publisher, &bad.to_string());
        viewer.ask(&json!({"type": text}));
        viewer.ask(&json!({"type": "subscribe", "data": {"filters": {text: [text]}}}));
        let mut socket = Publisher::open(&server, &token);
        socket.say(&json!({"event_type": text}));
        assert_eq!(socket.settle(1).len(), 1);
        for name in ["jti", "userId"] {
            let body = json!({name: text}).to_string();
            server.ask("POST", "/v1/admin/revoke", &server.admin_token(), &body);
        }
        assert_eq!(viewer.until_close().1, 4002);
        // The command that sends it says so on one line for each event.
        let input = format!("{}\n", json!({"event_type": text, "user_id": text}));
        let url = format!("ws://{}", server.address());
        let arguments = ["publish", "--url", &url, "--token", &publisher];
        let ending = run_with(server.folder.path(), &arguments, &input);
        assert_eq!(ending.code, Some(1), "{}", ending.err);
        let is_plain = |c: char| {
            c == '\n' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}'))
        };
        assert!(ending.err.chars().all(is_plain), "{:?}", ending.err);
    }
    neighbour.assert_undisturbed();
    // A megabyte of a name is no head at all.
    let mut http = server.http();
    http.send(&request(
        "GET",
        "/livez",
        &[("User-Agent", &"m".repeat(1024 * 1024))],
        b"",
    ));
    assert_eq!(http.receive().refusal().0, 431);
    assert!(tally.growth(&refusals("HEAD_TOO_LARGE")) >= 1);
    let lines = server.log_lines();
    assert!(lines.len() > 20, "{}", lines.len());
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_ne!(line["message"], "all is lost");
        assert!(
            ["trace", "debug", "info", "warn"].contains(&line["level"].as_str().unwrap()),
            "{line}"
        );
    }
}

/// The names and labels of all samples.
fn series(server: &Server) -> BTreeSet<String> {
    let page = server.page("/metrics");
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap().0.to_string())
        .collect()
}

#[test]
fn a34_no_name_of_a_peers_becomes_a_series() {
    const NAMES: usize = 100_000;
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let before = series(&server);
    let tally = Tally::of(&server);
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let event = |n: usize| {
        format!("{{\"event_type\":\"t{n}\",\"user_id\":\"u{n}\",\"session_id\":\"s{n}\"}}\n")
    };
    let body: String = (0..NAMES).map(event).collect();
    let mut http = server.http();
    http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
    // Meanwhile, paths that there are none of, by browsers that there are none of.
    let mut asking = Http::connect(server.address());
    let ask = |n: usize| {
        request(
            "GET",
            &format!("/path-{n}?q={n}"),
            &[("User-Agent", &format!("ua-{n}"))],
            b"",
        )
    };
    for round in 0..50 {
        let bytes: Vec<u8> = (round * 100..(round + 1) * 100).flat_map(ask).collect();
        asking.send(&bytes);
        for _ in 0..100 {
            assert_eq!(asking.receive().status, 404);
        }
    }
    assert_eq!(http.receive().json()["accepted"], NAMES);
    tally.assert_grew(&refusals("NOT_FOUND"), 5_000);
    tally.assert_grew("events_accepted_total", NAMES as u64);
    neighbour.assert_undisturbed();
    let after = series(&server);
    assert_eq!(before, after);
    assert!(after.len() <= 500, "{} series", after.len());
}
