//! What a viewer may do how often, and how many of them there may be: rates, tiers, addresses,
//! the node.

use serde_json::json;

use crate::harness::{
    Publisher, RawSocket, Refused, Server, Token, Viewer, eventually, kind, kinds, sample, text,
};

#[test]
fn the_21st_message_in_a_second_is_dropped_and_told() {
    let server = Server::start("");
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    for _ in 0..25 {
        viewer.say(&json!({"type": "ping"}));
    }
    let answers: Vec<_> = (0..25).map(|_| viewer.next()).collect();
    let names = kinds(&answers);
    let (accepted, dropped) = names.split_at(20);
    assert!(accepted.iter().all(|name| *name == "pong"), "{names:?}");
    assert_eq!(dropped, ["server_error"; 5]);
    let data = &answers[24]["data"];
    assert_eq!(data["code"], "RATE_LIMIT_EXCEEDED");
    let wait_ms = data["details"]["retryAfter"].as_u64().unwrap();
    assert!((1..=1000).contains(&wait_ms), "{data}");
    // Those that were dropped do not count.
    eventually("the second is over", || {
        (kind(&viewer.ask(&json!({"type": "ping"}))) == "pong").then_some(())
    });
}

#[test]
fn a_minute_has_its_limit_too() {
    let server = Server::start("limits.messages_per_minute = 5");
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    assert_eq!(viewer.greeting()["limits"]["messageRateLimit"], 5);
    for _ in 0..5 {
        assert_eq!(kind(&viewer.ask(&json!({"type": "ping"}))), "pong");
    }
    let error = viewer.ask(&json!({"type": "ping", "id": 1}));
    assert_eq!(error["data"]["code"], "RATE_LIMIT_EXCEEDED");
    let wait_ms = error["data"]["details"]["retryAfter"].as_u64().unwrap();
    assert!((30_000..=60_000).contains(&wait_ms), "{error}");
}

#[test]
fn a_list_of_filters_is_one_message() {
    let server = Server::start("limits.messages_per_second = 1");
    let mut viewer = Viewer::open(&server, "/observatory", &server.viewer_token("alice", &[]));
    let filters: Vec<_> = (0..50)
        .map(|n| json!({"eventTypes": [format!("t{n}")]}))
        .collect();
    let confirmed = viewer.subscribe(&json!(filters));
    assert_eq!(
        confirmed["data"]["subscriptionKeys"]
            .as_array()
            .unwrap()
            .len(),
        50
    );
}

fn tier_token(server: &Server, tier: &str) -> String {
    let mut token = Token::of("alice", &[]);
    token.0.tier = Some(tier.into());
    server.mint(&token)
}

#[test]
fn a_user_whose_connections_all_live_gets_no_further_one() {
    let server = Server::start("tiers.individual = 3\ntiers.pair = 2");
    let check = |tier: &str, limit: usize| {
        let token = tier_token(&server, tier);
        // Threads that read, and so answer pings, as browsers do.
        let open = |_| {
            let mut viewer = Viewer::open(&server, "/keen", &token);
            std::thread::spawn(move || viewer.until_close().1)
        };
        let viewers: Vec<_> = (0..limit).map(open).collect();
        let refused = Viewer::try_open(
            &server,
            "/keen",
            &[("authorization", &format!("Bearer {token}"))],
        );
        let expected = Refused {
            status: 429,
            code: "USER_LIMIT".into(),
        };
        assert_eq!(refused.err(), Some(expected), "{tier}");
        // As a close, for a browser.
        let target = format!("/keen?refusals=close&token={token}");
        let mut socket = RawSocket::open(&server, &target, &token, b"");
        assert!(socket.next_answer().text().contains("USER_LIMIT"));
        assert_eq!(socket.close_code(), 4429);
        let closed = server.ask(
            "POST",
            "/v1/admin/disconnect",
            &server.admin_token(),
            r#"{"userId":"alice"}"#,
        );
        assert_eq!(closed.json(), json!({"closed": limit}));
        for viewer in viewers {
            assert_eq!(viewer.join().unwrap(), 4503);
        }
        eventually("they are gone", || {
            server.connections().is_empty().then_some(())
        });
    };
    check("pair", 2);
    check("no such tier", 3);
}

#[test]
fn a_silent_connection_gives_way_to_a_newer_one() {
    let server = Server::start("tiers.pair = 2");
    let token = tier_token(&server, "pair");
    let mut silent = RawSocket::open(&server, "/keen", &token, b"");
    let mut alive = Viewer::open(&server, "/keen", &token);
    let reader = std::thread::spawn(move || {
        let _ = alive.try_next();
        alive
    });
    let mut newer = Viewer::open(&server, "/keen", &token);
    assert_eq!(silent.close_code(), 4010);
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    assert_eq!(kind(&newer.next()), "x");
    drop(reader.join().unwrap());
}

#[test]
fn a_connection_that_is_gone_makes_room_at_once() {
    let server = Server::start("tiers.one = 1");
    let token = tier_token(&server, "one");
    for _ in 0..20 {
        drop(Viewer::open(&server, "/keen", &token));
    }
    for _ in 0..20 {
        Viewer::open(&server, "/keen", &token).close();
    }
}

/// Upgrades as a proxy would, for a client at `address`; the status and the code word.
fn upgrade_for(server: &Server, address: &str, token: &str) -> (crate::harness::Http, u16, String) {
    let bytes = crate::harness::upgrade_request("/keen", token);
    let head = String::from_utf8(bytes).unwrap();
    let head = head.replacen("\r\n", &format!("\r\nX-Forwarded-For: {address}\r\n"), 1);
    let mut http = server.http();
    http.send(head.as_bytes());
    let answer = http.receive_to("HEAD");
    let code = if answer.status == 101 {
        String::new()
    } else {
        assert!(answer.header("retry-after").is_some() || answer.status < 429);
        let length = answer.header("content-length").unwrap().parse().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&http.take(length)).unwrap();
        text(&body["error"]["code"]).to_string()
    };
    (http, answer.status, code)
}

const PROXIED: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

#[test]
fn connections_of_one_address_are_bounded() {
    let server = Server::start(&format!("{PROXIED}limits.connections_per_ip = 2"));
    let token = server.viewer_token("alice", &[]);
    let open = |address: &str| upgrade_for(&server, address, &token);
    let (first, second) = (open("203.0.113.5"), open("203.0.113.5"));
    assert_eq!((first.1, second.1), (101, 101));
    let refused = (429, "IP_LIMIT".to_string());
    let third = open("198.51.100.1, 203.0.113.5");
    assert_eq!(
        (third.1, third.2),
        refused,
        "the proxy's word counts, not the client's"
    );
    let other = open("203.0.113.6");
    assert_eq!(other.1, 101);
    // All of one IPv6 /64 is one address.
    let held: Vec<_> = ["2001:db8::1", "2001:db8::2"].map(open).into();
    assert_eq!(open("2001:db8::3").2, refused.1);
    assert_eq!(open("2001:db8:0:1::1").1, 101);
    drop(held);
    drop(first);
    eventually("there is room again", || {
        (open("203.0.113.5").1 == 101).then_some(())
    });
    // A publisher has a seat too; a request has none.
    drop(second);
}

#[test]
fn handshakes_of_one_address_have_a_rate() {
    let server = Server::start(&format!("{PROXIED}limits.handshakes_per_second_per_ip = 3"));
    let token = server.viewer_token("alice", &[]);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let (_, status, code) = upgrade_for(&server, "203.0.113.5", &token);
        statuses.push(status);
        assert!(status == 101 || code == "RATE_LIMITED", "{status} {code}");
    }
    assert_eq!(statuses[..3], [101; 3], "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(upgrade_for(&server, "203.0.113.9", &token).1, 101);
    // This machine itself is exempt, as is who comes without a proxy's word.
    for _ in 0..10 {
        assert_eq!(upgrade_for(&server, "127.0.0.1", &token).1, 101);
    }
}

#[test]
fn a_full_node_says_so_and_still_answers() {
    let server = Server::start("limits.connections_max = 2");
    let token = server.viewer_token("alice", &[]);
    let viewer = Viewer::open(&server, "/keen", &token);
    let publisher = Publisher::open(&server, &server.publisher_token());
    let bearer = format!("Bearer {token}");
    let open = || Viewer::try_open(&server, "/keen", &[("authorization", &bearer)]);
    assert_eq!(
        open().err(),
        Some(Refused {
            status: 503,
            code: "NODE_FULL".into()
        })
    );
    let mut socket = RawSocket::open(&server, "/keen?refusals=close", &token, b"");
    let error: serde_json::Value = serde_json::from_str(socket.next_answer().text()).unwrap();
    assert_eq!(error["data"]["code"], "NODE_FULL");
    assert!(error["data"]["details"]["retryAfter"].as_u64().unwrap() > 0);
    assert_eq!(socket.close_code(), 4013);
    let metrics = server.page("/metrics");
    assert_eq!(
        sample(&metrics, "sightline_refusals_total{code=\"NODE_FULL\"}"),
        2.0
    );
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    drop(publisher);
    eventually("there is room again", || open().ok());
    viewer.close();
}
