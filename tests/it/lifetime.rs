//! A connection's life: its token's end and renewal, heartbeats and signs of life.

use std::time::{Duration, Instant};

use serde_json::json;
use sightline::auth::Permission;

use crate::harness::{Publisher, RawSocket, Server, Token, Viewer, kind, kinds, now_s};

#[test]
fn a_token_that_ends_is_announced_and_closes_the_connection() {
    let server = Server::start("");
    for target in ["/keen?subscribe=all", "/observatory"] {
        // Past `exp`, and with a second of the leeway left.
        let token = server.mint(&Token::of("alice", &["p"]).expiring_in(-3));
        let mut viewer = Viewer::open(&server, target, &token);
        server.publish(&json!({"event_type": "x", "project_id": "p"}));
        let (messages, code) = viewer.until_close();
        assert_eq!(code, 4001);
        let of_kind = |name: &str| messages.iter().find(|message| kind(message) == name);
        let expiring = &of_kind("token_expiring").unwrap()["data"]["expiresAt"];
        assert_eq!(expiring, &viewer.greeting()["expiresAt"]);
        let cursor = messages.last().unwrap();
        assert_eq!(kind(cursor), "cursor", "{messages:?}");
        assert_eq!(cursor["data"]["epoch"], viewer.greeting()["epoch"]);
        let streams = &cursor["data"]["streams"];
        match of_kind("x") {
            Some(event) => assert_eq!(streams["project/p"], event["seq"]),
            None => assert_eq!((target, streams), ("/observatory", &json!({}))),
        }
    }
    // Within the leeway and a second.
    let token = server.mint(&Token::of("alice", &[]).expiring_in(-4));
    let mut viewer = Viewer::open(&server, "/keen", &token);
    assert_eq!(viewer.until_close().1, 4001);
    let exp = viewer.greeting()["expiresAt"].as_str().unwrap();
    let exp: jiff::Timestamp = exp.parse().unwrap();
    let late = now_s() as i64 - exp.as_second();
    assert!((5..=15).contains(&late), "closed {late} s after exp");
    // A publisher's too.
    let token = Token::of("producer", &[]).with(&[Permission::PublishAny]);
    let mut publisher = Publisher::open(&server, &server.mint(&token.expiring_in(-4)));
    assert_eq!(publisher.next(), Err(4001));
}

#[test]
fn the_end_of_a_token_is_announced_30_s_before() {
    let server = Server::start("");
    let token = server.mint(&Token::of("alice", &[]).expiring_in(32));
    let mut viewer = Viewer::open(&server, "/keen", &token);
    assert!(viewer.drain().is_empty());
    let message = viewer.next();
    assert_eq!(kind(&message), "token_expiring");
    let expires = message["data"]["expiresAt"].as_str().unwrap();
    let expires: jiff::Timestamp = expires.parse().unwrap();
    let left = expires.as_second() - now_s() as i64;
    assert!((20..=30).contains(&left), "{left} s before");
}

#[test]
fn a_refreshed_token_keeps_the_connection_and_changes_its_rights() {
    let server = Server::start("");
    let mint = |projects: &[&str], seconds: i64| {
        server.mint(&Token::of("alice", projects).expiring_in(seconds))
    };
    let mut viewer = Viewer::open(&server, "/observatory", &mint(&["a", "b"], 60));
    viewer.subscribe(&json!([
        {"projectIds": ["a"]}, {"projectIds": ["b"]}, {"eventTypes": ["x"]}, {"projectIds": ["a", "b"]},
    ]));
    let mut refresh = |token: &str| {
        let message = json!({"type": "refresh_token", "id": "r", "data": {"token": token}});
        let answer = viewer.ask(&message);
        assert_eq!(answer["data"]["id"], "r", "{answer}");
        answer
    };
    let answer = refresh(&mint(&["b", "c"], 600));
    assert_eq!(kind(&answer), "token_refreshed", "{answer}");
    let data = &answer["data"];
    assert!(data["expiresAt"].is_i64());
    assert_eq!(data["removed"], json!(["project/a"]));
    let added = data["added"].as_array().unwrap();
    assert_eq!(
        (added.len(), &added[0]["stream"]),
        (1, &json!("project/c")),
        "{data}"
    );
    assert_eq!(added[0]["outcome"], "fresh");
    assert_eq!(
        data["removedSubscriptions"].as_array().unwrap().len(),
        1,
        "{data}"
    );

    // What is refused leaves the old one in force.
    let mut check = |token: &str, code: &str| {
        let answer = refresh(token);
        assert_eq!(
            (kind(&answer), &answer["data"]["code"]),
            ("error", &json!(code))
        );
    };
    check(&server.viewer_token("bob", &[]), "TOKEN_SUBJECT");
    check(&mint(&["b"], -60), "TOKEN_EXPIRED");
    check("no.token.this", "TOKEN_INVALID");
    let publisher = Token::of("alice", &[]).with(&[Permission::Publish]);
    check(&server.mint(&publisher), "FORBIDDEN");

    server.publish(&json!([
        {"event_type": "y", "project_id": "a"},
        {"event_type": "y", "project_id": "c"},
        {"event_type": "x", "project_id": "c"},
        {"event_type": "y", "project_id": "b"},
    ]));
    let mut seen = [viewer.next(), viewer.next()].map(|event| event["stream"].clone().to_string());
    seen.sort();
    assert_eq!(seen, ["\"project/b\"", "\"project/c\""]);
    assert_eq!(kinds(&viewer.drain()), Vec::<&str>::new());
}

#[test]
fn a_refreshed_connection_outlives_its_first_token() {
    let server = Server::start("");
    let short = server.mint(&Token::of("alice", &[]).expiring_in(-3));
    let mut viewer = Viewer::open(&server, "/keen", &short);
    let long = server.mint(&Token::of("alice", &[]).expiring_in(600));
    viewer.say(&json!({"type": "refresh_token", "data": {"token": long}}));
    assert_eq!(kind(&viewer.skip_to("token_refreshed")), "token_refreshed");
    // A second connection with the first token shows when it ends.
    let mut witness = Viewer::open(&server, "/keen", &short);
    assert_eq!(witness.until_close().1, 4001);
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    assert_eq!(kind(&viewer.next()), "x");
}

#[test]
fn heartbeats_ask_for_life_and_bring_cursors() {
    let server = Server::start("heartbeat.interval_ms = 200\nheartbeat.grace_ms = 200");
    let token = server.viewer_token("alice", &[]);
    let started = Instant::now();
    let mut silent = RawSocket::open(&server, "/keen", &token, b"");
    silent.expect_established();
    let ping = silent.next().unwrap();
    assert_eq!(ping.opcode, 9, "ahead of the cursor: {ping:?}");
    assert!(
        started.elapsed() >= Duration::from_millis(195),
        "the first comes after an interval"
    );
    assert!(silent.next().unwrap().text().contains(r#""cursor""#));
    assert_eq!(silent.close_code(), 4009);
    // Any frame is a sign of life, not only a pong.
    let mut talking = RawSocket::open(&server, "/keen", &token, b"");
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    let mut heartbeats = 0;
    while heartbeats < 4 {
        let frame = talking.next().expect("it stays");
        assert_ne!(frame.opcode, 8, "{frame:?}");
        if frame.opcode == 9 {
            heartbeats += 1;
            talking.send(&crate::harness::text_frame(r#"{"type":"ping"}"#));
        }
    }
    let mut alive = Viewer::open(&server, "/keen", &token);
    let cursors: Vec<_> = (0..3).map(|_| alive.next()).collect();
    assert_eq!(kinds(&cursors), ["cursor"; 3]);
    assert_eq!(cursors[2]["data"]["streams"], json!({"user": 1}));
    // A publisher answers pings too, and one that does not is closed.
    let mut publisher = RawSocket::open(&server, "/v1/publish", &server.publisher_token(), b"");
    assert_eq!(publisher.close_code(), 4009);
}

#[test]
fn silence_counts_from_the_ping() {
    // The next ping is far away, and nothing else wakes the server.
    let server = Server::start("heartbeat.interval_ms = 6000\nheartbeat.grace_ms = 200");
    let token = server.viewer_token("alice", &[]);
    let mut silent = RawSocket::open(&server, "/keen", &token, b"");
    while silent.next().unwrap().opcode != 9 {}
    let pinged = Instant::now();
    assert_eq!(silent.close_code(), 4009);
    let took = pinged.elapsed();
    assert!(took < Duration::from_secs(5), "at the next ping: {took:?}");
}

#[test]
fn a_cursor_comes_in_order_with_the_events() {
    let server = Server::start("heartbeat.interval_ms = 150\nheartbeat.grace_ms = 150");
    let token = server.viewer_token("alice", &["p"]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let producer = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            for n in 0..60 {
                let audience = if n % 2 == 0 { "user_id" } else { "project_id" };
                let id = if n % 2 == 0 { "alice" } else { "p" };
                server.publish(&json!({"event_type": "x", audience: id}));
            }
        });
        let mut seen = std::collections::BTreeMap::from([("user".to_string(), 0)]);
        seen.insert("project/p".into(), 0);
        let (mut events, mut cursors) = (0, 0);
        while events < 60 || cursors < 2 {
            let message = viewer.next();
            if kind(&message) == "cursor" {
                cursors += 1;
                for (stream, seq) in message["data"]["streams"].as_object().unwrap() {
                    assert_eq!(
                        seq.as_u64(),
                        seen.get(stream).copied(),
                        "{message} after {seen:?}"
                    );
                }
            } else {
                events += 1;
                let stream = message["stream"].as_str().unwrap().to_string();
                let last = seen.insert(stream, message["seq"].as_u64().unwrap());
                assert_eq!(message["seq"].as_u64(), last.map(|last| last + 1));
            }
        }
        producer.join()
    });
    producer.unwrap();
}

#[test]
fn a_process_that_was_stopped_does_not_blame_its_clients() {
    let server = Server::start("heartbeat.interval_ms = 300\nheartbeat.grace_ms = 300");
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(&server, "/keen", &token, b"");
    while socket.next().unwrap().opcode != 9 {}
    server.signal("STOP");
    // The answer lies in the socket while the grace goes by.
    socket.send(&crate::harness::masked(0x8a, b""));
    std::thread::sleep(Duration::from_millis(1_500));
    server.signal("CONT");
    server.wait_for_log("this process was stopped for a while", 0);
    socket.send(&crate::harness::text_frame(r#"{"type":"ping"}"#));
    loop {
        let frame = socket.next().expect("it stays");
        assert_ne!(frame.opcode, 8, "{frame:?}");
        if frame.opcode == 1 && frame.text().contains("pong") {
            return;
        }
    }
}
