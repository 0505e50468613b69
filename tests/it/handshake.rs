//! Section 4: which paths, dialects and token carriers a viewer may choose, and what each refusal
//! looks like, as HTTP and as a close.

use serde_json::json;
use sightline::auth::Permission;

use crate::harness::{
    Http, Publisher, Refused, Server, Token, Viewer, close_frame, kind, request, text,
};

const KEEN: &str = "sightline.keen.v1";
const OBSERVATORY: &str = "sightline.observatory.v1";

/// Opens a viewer whose token is carried as `carrier` says; `offer` are subprotocols beside it.
/// Checks its dialect and the subprotocol that is echoed.
fn check(server: &Server, path: &str, carrier: &str, offer: &str, expected: (&str, Option<&str>)) {
    let token = server.viewer_token("alice", &[]);
    let (mut target, mut headers) = (path.to_string(), Vec::new());
    let mut offers = offer.to_string();
    match carrier {
        "header" => headers.push(("authorization", format!("Bearer {token}"))),
        "query" => target = format!("{path}?token={token}"),
        "subprotocol" => offers = format!("{offer}, bearer.{token}"),
        other => panic!("no carrier {other}"),
    }
    if !offers.is_empty() {
        headers.push(("sec-websocket-protocol", offers));
    }
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let viewer = Viewer::try_open(server, &target, &headers)
        .unwrap_or_else(|refused| panic!("{path} {carrier} {offer}: {refused:?}"));
    let echoed = viewer.response.headers().get("sec-websocket-protocol");
    let found = (viewer.dialect(), echoed.map(|name| name.to_str().unwrap()));
    assert_eq!(found, expected, "{path} {carrier} {offer}");
}

#[test]
fn every_path_takes_every_token_carrier() {
    let server = Server::start("");
    for carrier in ["header", "query", "subprotocol"] {
        for path in ["/ws", "/"] {
            check(&server, path, carrier, KEEN, ("keen", Some(KEEN)));
            check(
                &server,
                path,
                carrier,
                OBSERVATORY,
                ("observatory", Some(OBSERVATORY)),
            );
        }
        check(&server, "/keen", carrier, KEEN, ("keen", Some(KEEN)));
        check(
            &server,
            "/observatory",
            carrier,
            OBSERVATORY,
            ("observatory", Some(OBSERVATORY)),
        );
    }
    for carrier in ["header", "query"] {
        check(&server, "/keen", carrier, "", ("keen", None));
        for path in ["/observatory", "/ws", "/"] {
            check(&server, path, carrier, "", ("observatory", None));
        }
        // Where it offers others too, none of those is echoed.
        let more = format!("chat.v1, {KEEN}");
        check(&server, "/ws", carrier, &more, ("keen", Some(KEEN)));
        // The client's first choice, where the path leaves one.
        let both = format!("{KEEN}, {OBSERVATORY}");
        check(&server, "/ws", carrier, &both, ("keen", Some(KEEN)));
        check(
            &server,
            "/observatory",
            carrier,
            &both,
            ("observatory", Some(OBSERVATORY)),
        );
    }
}

#[test]
fn the_default_dialect_can_be_configured() {
    let server = Server::start("default_dialect = \"keen\"");
    for path in ["/ws", "/"] {
        check(&server, path, "header", "", ("keen", None));
        check(
            &server,
            path,
            "header",
            OBSERVATORY,
            ("observatory", Some(OBSERVATORY)),
        );
    }
}

#[test]
fn the_first_carrier_that_holds_a_token_counts() {
    let server = Server::start("");
    let good = server.viewer_token("alice", &[]);
    let offers = format!("{KEEN}, bearer.{good}");
    let open = |target: &str, headers: &[(&str, &str)]| {
        Viewer::try_open(&server, target, headers).map(drop)
    };
    let invalid = Err(Refused {
        status: 401,
        code: "TOKEN_INVALID".into(),
    });
    let bearer = ("authorization", "Bearer x.y.z");
    assert_eq!(
        open("/keen", &[bearer, ("sec-websocket-protocol", &offers)]),
        invalid
    );
    assert_eq!(open(&format!("/keen?token={good}"), &[bearer]), invalid);
    // A proxy's own credentials are not ours: the next carrier is looked at.
    let basic = ("authorization", "Basic dTpw");
    assert_eq!(open(&format!("/keen?token={good}"), &[basic]), Ok(()));
    assert_eq!(
        open("/keen?token=x.y.z", &[("sec-websocket-protocol", &offers)]),
        Ok(())
    );
}

/// What a request is refused for.
struct Case<'a> {
    target: &'a str,
    /// In place of, or besides, those of a good upgrade; an empty value leaves the header out.
    headers: &'a [(&'a str, &'a str)],
    status: u16,
    code: &'a str,
    /// A header that the answer must have.
    has: Option<(&'a str, &'a str)>,
    /// The close under `refusals=close`; 0: plain all the same.
    close: u16,
}

/// The upgrade of a case.
fn upgrade(case: &Case<'_>, target: &str) -> Vec<u8> {
    let good = [
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let is_given = |name: &str| case.headers.iter().any(|(given, _)| *given == name);
    let mut headers: Vec<_> = good
        .into_iter()
        .filter(|(name, _)| !is_given(name))
        .collect();
    headers.extend(case.headers.iter().filter(|(_, value)| !value.is_empty()));
    request("GET", target, &headers, b"")
}

/// Checks the plain refusal, and that what was pipelined behind it is not served.
fn check_refused(server: &Server, case: &Case<'_>) {
    let mut http = server.http();
    let second = request("GET", "/livez", &[], b"");
    http.send(&[upgrade(case, case.target), second].concat());
    let answer = http.receive();
    let refusal = answer.refusal();
    assert_eq!(
        refusal,
        (case.status, case.code.to_string()),
        "{}",
        case.target
    );
    if let Some((name, value)) = case.has {
        assert_eq!(
            answer.header(name),
            Some(value),
            "{}: {answer:?}",
            case.target
        );
    }
    let retry_after = answer
        .header("retry-after")
        .map(|s| s.parse::<u32>().unwrap() > 0);
    let expected = matches!(case.status, 429 | 503).then_some(true);
    assert_eq!(retry_after, expected, "{}", case.target);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(
        http.is_over(),
        "{} {}: a second request was served",
        case.target,
        case.code
    );
}

/// Checks the same with `refusals=close`.
fn check_refused_by_close(server: &Server, case: &Case<'_>) {
    let separator = if case.target.contains('?') { '&' } else { '?' };
    let target = format!("{}{separator}refusals=close", case.target);
    if case.close == 0 {
        return check_refused(
            server,
            &Case {
                target: &target,
                ..*case
            },
        );
    }
    let mut socket = crate::harness::RawSocket::connect(server);
    socket.send(&upgrade(case, &target));
    let answer = socket.read_head();
    assert_eq!(answer.status, 101, "{target} {}", case.code);
    let frame = socket.next_answer();
    let error: serde_json::Value = serde_json::from_str(frame.text()).unwrap();
    let name = if case.target.starts_with("/keen") {
        "server_error"
    } else {
        "error"
    };
    assert_eq!(kind(&error), name, "{error}");
    assert_eq!(error["data"]["code"], case.code, "{error}");
    let has_wait = error["data"]["details"]["retryAfter"].is_u64();
    assert_eq!(has_wait, matches!(case.status, 429 | 503), "{error}");
    assert!(error.get("seq").is_none());
    assert_eq!(socket.next_answer().close_code(), case.close, "{error}");
    socket.send(&close_frame(case.close));
    assert_eq!(socket.next(), None);
}

#[test]
fn refusals_have_their_status_code_headers_and_close() {
    let server = Server::start("");
    let bearer = |token: &Token| format!("Bearer {}", server.mint(token));
    let good = bearer(&Token::of("alice", &["7"]));
    let expired = bearer(&Token::of("alice", &[]).expiring_in(-60));
    let publisher = bearer(&Token::of("alice", &[]).with(&[Permission::Publish]));
    let mut revoked = Token::of("alice", &[]);
    revoked.0.jti = Some("j1".into());
    let revoked = bearer(&revoked);
    let revoke = server.ask(
        "POST",
        "/v1/admin/revoke",
        &server.admin_token(),
        r#"{"jti":"j1"}"#,
    );
    assert_eq!(revoke.status, 200, "{}", revoke.text());
    let unsigned = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.";

    let auth = |value| [("Authorization", value)];
    let (good, revoked) = (auth(good.as_str()), auth(revoked.as_str()));
    let (expired, publisher) = (auth(expired.as_str()), auth(publisher.as_str()));
    let (unsigned, garbage) = (auth(unsigned), auth("Bearer x"));
    let challenge = Some(("www-authenticate", "Bearer error=\"invalid_token\""));
    let with = |name, value| [good[0], (name, value)];
    let row = |target, headers, status, code, has, close| Case {
        target,
        headers,
        status,
        code,
        has,
        close,
    };
    let bad = |target, headers, close| row(target, headers, 400, "BAD_REQUEST", None, close);
    let foreign = with("Origin", "https://elsewhere.test");
    let contradiction = with("Sec-WebSocket-Protocol", "sightline.observatory.v1");
    let bearer_only = [("Sec-WebSocket-Protocol", "bearer.a.b.c")];
    let (two, zero) = (
        [(
            "Sec-WebSocket-Protocol",
            "sightline.keen.v1, bearer.a, bearer.b",
        )],
        [("Sec-WebSocket-Protocol", "sightline.keen.v1, \"x\"")],
    );
    let (old, none) = (
        with("Sec-WebSocket-Version", "8"),
        with("Sec-WebSocket-Version", ""),
    );
    let (no_upgrade, other) = (with("Upgrade", ""), with("Upgrade", "h2c"));
    let not_connected = with("Connection", "keep-alive");
    let (short, missing) = (
        with("Sec-WebSocket-Key", "dGhlIHNhbXBsZQ=="),
        with("Sec-WebSocket-Key", ""),
    );
    let version = Some(("sec-websocket-version", "13"));
    let mut cases = vec![
        row(
            "/keen",
            &[],
            401,
            "TOKEN_MISSING",
            Some(("www-authenticate", "Bearer")),
            4401,
        ),
        row("/keen?token=", &[], 401, "TOKEN_MISSING", None, 4401),
        row("/ws", &garbage, 401, "TOKEN_INVALID", challenge, 4401),
        row("/", &unsigned, 401, "TOKEN_INVALID", challenge, 4401),
        row(
            "/observatory",
            &expired,
            401,
            "TOKEN_EXPIRED",
            challenge,
            4401,
        ),
        row("/keen", &revoked, 401, "TOKEN_REVOKED", challenge, 4401),
        row("/keen", &publisher, 403, "FORBIDDEN", None, 4503),
        row("/v1/publish", &good, 403, "FORBIDDEN", None, 4503),
        row("/keen", &foreign, 403, "ORIGIN_REFUSED", None, 0),
        row("/keen", &bearer_only, 400, "SUBPROTOCOL_REQUIRED", None, 0),
        row("/keen", &old, 426, "UPGRADE_REQUIRED", version, 0),
        row("/ws", &none, 426, "UPGRADE_REQUIRED", version, 0),
        row("/nowhere", &good, 404, "NOT_FOUND", None, 0),
    ];
    cases.extend([
        bad("/keen", &contradiction, 0),
        bad("/keen", &two, 0),
        bad("/keen", &zero, 0),
        bad("/keen", &no_upgrade, 0),
        bad("/v1/publish", &no_upgrade, 0),
        bad("/observatory", &other, 0),
        bad("/keen", &not_connected, 0),
        bad("/keen", &short, 0),
        bad("/keen", &missing, 0),
        bad("/keen?tree=on", &good, 1002),
        bad("/keen?subscribe=some", &good, 1002),
        bad("/keen?sessions=a,,b", &good, 1002),
        row("/keen?resume=x", &good, 400, "INVALID_CURSOR", None, 1002),
        row(
            "/keen?epoch=z&resume=1",
            &good,
            400,
            "INVALID_CURSOR",
            None,
            1002,
        ),
    ]);
    for case in &cases {
        check_refused(&server, case);
        check_refused_by_close(&server, case);
    }
}

#[test]
fn a_connection_may_ask_before_it_is_upgraded() {
    let server = Server::start("");
    let livez = request("GET", "/livez", &[], b"");
    let bearer = format!("Bearer {}", server.publisher_token());
    let event = br#"{"event_type":"x","user_id":"alice"}"#;
    let post = request("POST", "/v1/events", &[("Authorization", &bearer)], event);
    let ping = crate::harness::text_frame(r#"{"type":"ping"}"#);
    for user in 0..8 {
        let token = server.viewer_token(&format!("user-{user}"), &[]);
        let upgrade = crate::harness::upgrade_request("/observatory", &token);
        let mut socket = crate::harness::RawSocket::connect(&server);
        socket.send(&[&livez[..], &post, &livez, &upgrade, &ping].concat());
        let mut read = |status: u16, body: &str| {
            let answer = socket.read_head();
            assert_eq!(answer.status, status, "{answer:?}");
            assert_eq!(socket.take(body.len()), body.as_bytes());
        };
        read(200, "ok\n");
        read(200, r#"{"accepted":1,"duplicates":0,"rejected":[]}"#);
        read(200, "ok\n");
        read(101, "");
        socket.expect_established();
        assert!(socket.next_answer().text().contains("pong"));
    }
}

#[test]
fn a_greeting_says_what_the_contract_lists() {
    let server = Server::start("limits.subscriptions_max = 7\nheartbeat.interval_ms = 20000");
    let token = server.viewer_token("alice", &["b", "a"]);
    let viewer = Viewer::open(&server, "/keen?sessions=s2,s1&subscribe=all", &token);
    let data = viewer.greeting();
    assert_eq!(kind(&viewer.established), "connection_established");
    assert_eq!(data["connectionId"], data["clientId"]);
    assert_eq!(text(&data["epoch"]).len(), 8);
    assert_eq!(data["sessionFilters"], json!(["s2", "s1"]));
    let limits = json!({
        "messageRateLimit": 100, "maxSubscriptions": 7, "maxMessageBytes": 16_384,
        "heartbeatIntervalMs": 20_000,
    });
    assert_eq!(data["limits"], limits);
    assert!(
        data["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("resume"))
    );
    let subscription = &data["subscriptions"][0];
    assert_eq!(text(&subscription["subscriptionKey"]).len(), 16);
    assert_eq!(subscription["filters"], json!({"sessionIds": ["s1", "s2"]}));
    for name in ["serverTime", "expiresAt"] {
        assert!(text(&data[name]).ends_with('Z'), "{data}");
    }
    let streams: Vec<_> = data["resume"].as_array().unwrap().iter().collect();
    let outcomes: Vec<_> = streams.iter().map(|row| text(&row["outcome"])).collect();
    assert_eq!(outcomes, ["fresh"; 3], "{data}");

    let viewer = Viewer::open(&server, "/observatory", &token);
    let data = viewer.greeting();
    assert!(
        data["serverTime"].is_i64() && data["expiresAt"].is_i64(),
        "{data}"
    );
    assert_eq!(
        (&data["subscriptions"], &data["resume"]),
        (&json!([]), &json!([]))
    );
}

#[test]
fn an_address_of_another_kind_serves_the_same() {
    let path = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", path.path().join("s.sock").display());
    let server = Server::with(&crate::harness::Setup {
        listen: &["127.0.0.1:0", "[::1]:0", &unix],
        ..Default::default()
    });
    for address in &server.addresses {
        let mut http = Http::connect(address);
        let token = server.viewer_token("alice", &[]);
        http.send(&request("GET", "/livez", &[], b""));
        assert_eq!(http.receive().status, 200, "{address}");
        let publish = format!("Bearer {}", server.publisher_token());
        let body = br#"{"event_type":"x","user_id":"alice"}"#;
        http.send(&request(
            "POST",
            "/v1/events",
            &[("Authorization", &publish)],
            body,
        ));
        assert_eq!(http.receive().json()["accepted"], 1, "{address}");
        http.send(&crate::harness::upgrade_request("/keen", &token));
        assert_eq!(http.receive().status, 101, "{address}");
    }
    let ipv6 = &server.addresses[1];
    assert!(ipv6.starts_with("[::1]:"), "{ipv6}");
}

#[test]
fn a_publisher_may_name_its_dialect_or_not() {
    let server = Server::start("");
    let token = server.publisher_token();
    let mut publisher = Publisher::open(&server, &token);
    publisher.say(&json!({"event_type": "x", "user_id": "alice"}));
    assert!(publisher.settle(1).is_empty());
    let offers = format!("{OBSERVATORY}, bearer.{token}");
    let headers = [("sec-websocket-protocol", offers.as_str())];
    let target = "/v1/publish";
    let response = Viewer::try_upgrade(&server, target, &headers).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], OBSERVATORY);
}
