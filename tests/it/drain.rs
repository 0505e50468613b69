//! Section 7: SIGTERM. Nobody loses what was acknowledged, everybody is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Publisher, RawSocket, Refused, Server, Viewer, close_frame, eventually, kind, request,
};

/// What one viewer saw of a drain: seqs by stream, checked for order, gaps and the farewell.
fn watch(mut viewer: Viewer) -> BTreeMap<String, u64> {
    let mut heads = BTreeMap::new();
    for row in viewer.greeting()["resume"].as_array().unwrap() {
        heads.insert(
            row["stream"].as_str().unwrap().to_string(),
            row["to"].as_u64().unwrap(),
        );
    }
    let (messages, code) = viewer.until_close();
    assert_eq!(code, 1001);
    let mut is_warned = false;
    for message in &messages {
        match kind(message) {
            "server_shutdown" => {
                let wait_ms = message["data"]["reconnectAfter"].as_u64().unwrap();
                assert!((500..=5_000).contains(&wait_ms), "{message}");
                assert!(!std::mem::replace(&mut is_warned, true), "told twice");
            }
            "cursor" => {
                let streams: BTreeMap<String, u64> =
                    serde_json::from_value(message["data"]["streams"].clone()).unwrap();
                assert_eq!(streams, heads);
            }
            _ => {
                let stream = message["stream"].as_str().unwrap().to_string();
                let head = heads.get_mut(&stream).unwrap();
                *head += 1;
                assert_eq!(message["seq"], *head, "{stream}");
            }
        }
    }
    assert!(is_warned);
    assert_eq!(messages.last().map(kind), Some("cursor"));
    heads
}

/// Publishes to `user` and `project` in turn until it is told to go. Returns how many events of
/// each were acknowledged.
fn produce(server: &Server, user: &str, started: &AtomicBool) -> (u64, u64) {
    let mut publisher = Publisher::open(server, &server.publisher_token());
    let (mut sent, mut refused) = (0_u64, Vec::new());
    let mut through = 0;
    loop {
        for _ in 0..20 {
            let audience = if sent % 2 == 0 {
                ("user_id", user)
            } else {
                ("project_id", "p")
            };
            publisher.try_say(&json!({"event_type": "x", audience.0: audience.1, "data": sent}));
            sent += 1;
        }
        while through < sent {
            let answer = match publisher.next() {
                Ok(answer) => answer,
                Err(code) => {
                    assert_eq!(code, 1001);
                    let accepted = (0..through).filter(|n| !refused.contains(&(n + 1)));
                    let (own, shared): (Vec<_>, Vec<_>) = accepted.partition(|n| n % 2 == 0);
                    return (own.len() as u64, shared.len() as u64);
                }
            };
            let data = &answer["data"];
            if kind(&answer) == "nack" {
                assert_eq!(data["code"], "DRAINING", "{data}");
                refused.push(data["message"].as_u64().unwrap());
            } else {
                through = data["through"].as_u64().unwrap();
            }
        }
        started.store(true, Ordering::Release);
    }
}

/// Posts events of project `h` until it is refused, or nobody listens any more. Returns how many were
/// acknowledged.
fn post(server: &Server, started: &AtomicBool) -> u64 {
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [("Authorization", bearer.as_str())];
    let body = br#"[{"event_type":"x","project_id":"h"},{"event_type":"x","project_id":"h"}]"#;
    let mut http = server.http();
    let mut accepted = 0;
    loop {
        http.send(&request("POST", "/v1/events", &headers, body));
        if http.is_over() {
            return accepted;
        }
        let answer = http.receive();
        if answer.status != 200 {
            assert_eq!(answer.status, 503, "{}", answer.text());
            return accepted;
        }
        accepted += answer.json()["accepted"].as_u64().unwrap();
        started.store(true, Ordering::Release);
    }
}

#[test]
fn a_drain_under_load_loses_nothing_and_tells_everybody() {
    let mut server = Server::start("");
    let users = server.users_on_two_cores();
    let open = |user: &String, path: &str| {
        let target = format!("{path}?subscribe=all");
        Viewer::open(&server, &target, &server.viewer_token(user, &["p", "h"]))
    };
    let viewers: Vec<_> = users
        .iter()
        .flat_map(|user| [0, 1, 2].map(|_| open(user, "/observatory")))
        .collect();
    let started = [const { AtomicBool::new(false) }; 3];
    let (accepted, posted, seen) = std::thread::scope(|scope| {
        let viewers: Vec<_> = viewers
            .into_iter()
            .map(|viewer| scope.spawn(|| watch(viewer)))
            .collect();
        let pairs = users.iter().zip(&started);
        let server = &server;
        let producers: Vec<_> = pairs
            .map(|(user, started)| scope.spawn(move || produce(server, user, started)))
            .collect();
        let posting = scope.spawn(|| post(server, &started[2]));
        eventually("all publish", || {
            started
                .iter()
                .all(|flag| flag.load(Ordering::Acquire))
                .then_some(())
        });
        server.signal("TERM");
        let accepted: Vec<_> = producers
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        let seen: Vec<_> = viewers.into_iter().map(|one| one.join().unwrap()).collect();
        (accepted, posting.join().unwrap(), seen)
    });
    let shared = accepted[0].1 + accepted[1].1;
    for (at, heads) in seen.iter().enumerate() {
        let own = accepted[at / 3].0;
        let expected = BTreeMap::from([
            ("user".into(), own),
            ("project/p".into(), shared),
            ("project/h".into(), posted),
        ]);
        assert_eq!(
            heads, &expected,
            "viewer {at}: acknowledged and seen are the same"
        );
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn while_it_drains_it_answers_and_takes_nobody_in() {
    let mut server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let mut holding = RawSocket::open(&server, "/observatory", &token, b"");
    holding.expect_established();
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    let mut kept = server.http();
    kept.send(&request("GET", "/readyz", &[], b""));
    assert_eq!(kept.receive().status, 200);
    server.signal("TERM");
    assert!(holding.next_answer().text().contains("server_shutdown"));
    kept.send(&request("GET", "/readyz", &[], b""));
    assert_eq!(kept.receive().status, 503);
    let answer = server.ask("GET", "/livez", "none", "");
    assert_eq!(answer.status, 200);
    assert_eq!(server.ask("GET", "/readyz", "none", "").status, 503);
    let event = r#"{"event_type":"x","user_id":"alice"}"#;
    let refused = server.ask("POST", "/v1/events", &server.publisher_token(), event);
    assert_eq!(refused.refusal(), (503, "DRAINING".into()));
    assert!(refused.header("retry-after").is_some());
    let bearer = format!("Bearer {token}");
    let newcomer = Viewer::try_open(&server, "/keen", &[("authorization", &bearer)]);
    assert_eq!(
        newcomer.err(),
        Some(Refused {
            status: 503,
            code: "DRAINING".into()
        })
    );
    let mut socket = RawSocket::open(&server, "/keen?refusals=close", &token, b"");
    assert_eq!(socket.close_code(), 4013);
    assert_eq!(publisher.next(), Err(1001));
    let cursor: Value = serde_json::from_str(holding.next_answer().text()).unwrap();
    assert_eq!(kind(&cursor), "cursor");
    assert_eq!(holding.next_answer().close_code(), 1001);
    holding.send(&close_frame(1001));
    assert_eq!(holding.next(), None);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_client_that_does_not_go_holds_it_up_for_so_long_only() {
    let mut server = Server::start("shutdown.drain_ms = 300");
    let token = server.viewer_token("alice", &[]);
    let _holding = RawSocket::open(&server, "/keen", &token, b"");
    let started = Instant::now();
    server.signal("INT");
    assert_eq!(server.wait().code(), Some(0));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    server.wait_for_log("the drain's time is up", 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // No wait here is as long as the drain.
    let mut server = Server::start("shutdown.drain_ms = 600000");
    let token = server.viewer_token("alice", &[]);
    let mut holding = RawSocket::open(&server, "/keen", &token, b"");
    server.signal("TERM");
    while !holding.next_answer().text().contains("server_shutdown") {}
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut server = Server::start("");
    let idle = server.http();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    drop(idle);
}
