//! Sections 2 and 3 over `POST /v1/events`: what an event may be, whose it may be, and what the
//! answer says of each.

use serde_json::{Value, json};
use sightline::auth::Permission;

use crate::harness::{Answer, Http, Server, Token, Viewer, eventually, kinds, request, sample};

fn post(server: &Server, token: &str, body: &str) -> Answer {
    server.ask("POST", "/v1/events", token, body)
}

/// The one row of `rejected`: its code and message.
fn rejection(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    let body = answer.json();
    assert_eq!(
        (&body["accepted"], &body["duplicates"]),
        (&json!(0), &json!(0)),
        "{body}"
    );
    let rows = body["rejected"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{body}");
    assert_eq!(rows[0]["index"], 0);
    let text = |name: &str| rows[0][name].as_str().unwrap().to_string();
    (text("code"), text("message"))
}

#[test]
fn an_event_that_is_refused_says_why() {
    let server = Server::start("");
    let token = server.publisher_token();
    let check = |body: &str, code: &str, named: &str| {
        let answer = post(&server, &token, body);
        let (found, message) = rejection(&answer);
        let shown = &body[..body.len().min(80)];
        assert_eq!(found, code, "{shown}: {message}");
        assert!(message.contains(named), "{shown}: {message}");
    };
    for body in [
        "",
        "{",
        "nul",
        "{\"a\":1e400}",
        "{\"a\":\"\\ud800\"}",
        "{} {}",
        "[{},]",
    ] {
        check(body, "INVALID_JSON", "");
    }
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"event_type":"x","user_id":"a","data":{open}{close}}}"#)
    };
    check(&deep(64), "TOO_DEEP", "64");
    assert_eq!(post(&server, &token, &deep(63)).status, 200);
    let sized = |bytes: usize| {
        let body = r#"{"event_type":"x","user_id":"a","data":""}"#;
        body.replace("\"\"", &format!("\"{}\"", "y".repeat(bytes - body.len())))
    };
    check(&sized(1024 * 1024 + 1), "EVENT_TOO_LARGE", "");
    assert_eq!(post(&server, &token, &sized(1024 * 1024)).status, 200);
    for (fields, named) in [
        (r#""event_type":"x","type":"x","user_id":"a""#, "type"),
        (r#""event_type":"x","user_id":"a","userId":"a""#, "userId"),
        (r#""event_type":"x","user_id":"a","user_id":"a""#, "user_id"),
        (
            r#""event_type":"x","user_\u0069d":"a","user_id":"a""#,
            "user_id",
        ),
        (
            r#""event_type":"x","data":{"projectId":1,"projectId":1}"#,
            "data.projectId",
        ),
    ] {
        check(&format!("{{{fields}}}"), "DUPLICATE_FIELD", named);
    }
    let (long, wide) = ("x".repeat(65), "x".repeat(129));
    for (fields, named) in [
        (r#""user_id":"a""#.to_string(), "event_type"),
        (r#""event_type":7,"user_id":"a""#.into(), "event_type"),
        (r#""type":"Upper","user_id":"a""#.into(), "type"),
        (r#""event_type":"9x","user_id":"a""#.into(), "event_type"),
        (
            format!(r#""event_type":"{long}","user_id":"a""#),
            "event_type",
        ),
        (r#""event_type":"x","user_id":"""#.into(), "user_id"),
        (r#""event_type":"x","user_id":1.5"#.into(), "user_id"),
        (r#""event_type":"x","user_id":null"#.into(), "user_id"),
        (format!(r#""event_type":"x","userId":"{wide}""#), "userId"),
        (
            format!(r#""event_type":"x","project_id":"{long}""#),
            "project_id",
        ),
        (r#""event_type":"x","project_id":true"#.into(), "project_id"),
        (
            r#""event_type":"x","user_id":"a","session_id":5"#.into(),
            "session_id",
        ),
        (
            r#""event_type":"x","user_id":"a","timestamp":"yesterday""#.into(),
            "timestamp",
        ),
        (
            r#""event_type":"x","user_id":"a","timestamp":1.5"#.into(),
            "timestamp",
        ),
        (
            r#""event_type":"x","user_id":"a","event_id":"""#.into(),
            "event_id",
        ),
        (
            r#""event_type":"x","data":{"projectId":[]}"#.into(),
            "data.projectId",
        ),
    ] {
        check(&format!("{{{fields}}}"), "INVALID_FIELD", named);
    }
    check("7", "INVALID_FIELD", "object");
    for name in [
        "connection_established",
        "cursor",
        "ack",
        "pong",
        "server_error",
        "agent_error",
    ] {
        let body = json!({"event_type": name, "user_id": "a"}).to_string();
        check(&body, "RESERVED_TYPE", name);
    }
    check(r#"{"event_type":"x"}"#, "NO_AUDIENCE", "user_id");
    check(
        r#"{"event_type":"x","data":{"projectId":null}}"#,
        "NO_AUDIENCE",
        "project_id",
    );
}

#[test]
fn a_publisher_speaks_for_itself_or_for_anybody() {
    let server = Server::start("");
    let own = Token::of("alice", &["7"]).with(&[Permission::Publish]);
    let own = server.mint(&own);
    let check = |event: Value, is_allowed: bool| {
        let answer = post(&server, &own, &event.to_string());
        if is_allowed {
            assert_eq!(answer.json()["accepted"], 1, "{event}: {}", answer.text());
        } else {
            assert_eq!(rejection(&answer).0, "FORBIDDEN_AUDIENCE", "{event}");
        }
    };
    check(json!({"event_type": "x", "user_id": "alice"}), true);
    check(json!({"event_type": "x", "project_id": 7}), true);
    check(
        json!({"type": "x", "userId": "alice", "projectId": "7"}),
        true,
    );
    check(
        json!({"event_type": "x", "data": {"projectInfo": {"id": 7}}}),
        true,
    );
    check(json!({"event_type": "x", "user_id": "bob"}), false);
    check(json!({"event_type": "x", "project_id": "8"}), false);
    check(
        json!({"event_type": "x", "user_id": "alice", "project_id": 8}),
        false,
    );
    check(
        json!({"event_type": "x", "user_id": "bob", "project_id": 7}),
        false,
    );
    check(
        json!({"event_type": "x", "data": {"project": {"id": 8}}}),
        false,
    );

    let viewer = server.viewer_token("alice", &["7"]);
    let refused = post(&server, &viewer, r#"{"event_type":"x","user_id":"alice"}"#);
    assert_eq!(refused.refusal(), (403, "FORBIDDEN".into()));
    assert_eq!(refused.header("connection"), Some("keep-alive"));
}

#[test]
fn a_bad_event_does_not_spoil_its_neighbours() {
    let server = Server::start("");
    let token = server.publisher_token();
    let good = json!({"event_type": "x", "user_id": "alice"});
    let body = json!([good, {"event_type": "x"}, 7, good, {"event_type": "ack", "user_id": 1}]);
    let answer = post(&server, &token, &body.to_string());
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(
        (&body["accepted"], &body["duplicates"]),
        (&json!(2), &json!(0)),
        "{body}"
    );
    let rows = body["rejected"].as_array().unwrap();
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (&row["index"], &row["code"]))
        .collect();
    let expected = [
        (json!(1), json!("NO_AUDIENCE")),
        (json!(2), json!("INVALID_FIELD")),
        (json!(4), json!("RESERVED_TYPE")),
    ];
    assert_eq!(
        rows,
        expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );

    // An unreadable array has no neighbours; an unreadable line has.
    let array = format!("[{good},{{\"event_type\":]");
    assert_eq!(rejection(&post(&server, &token, &array)).0, "INVALID_JSON");
    let lines = format!("{good}\r\n\n{{\"event_type\":\n  {good}\n");
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let mut http = server.http();
    http.send(&request("POST", "/v1/events", &headers, lines.as_bytes()));
    let body = http.receive().json();
    assert_eq!(
        (&body["accepted"], &body["rejected"][0]["index"]),
        (&json!(2), &json!(1))
    );
    // Nothing at all is nothing taken.
    assert_eq!(post(&server, &token, "[]").status, 400);
}

#[test]
fn a_repeated_event_id_is_acknowledged_and_not_delivered_again() {
    let server = Server::start("");
    let [alice, bob] = server.users_on_two_cores();
    let mut viewer = Viewer::open(
        &server,
        "/keen?subscribe=all",
        &server.viewer_token(&alice, &["p"]),
    );
    let producer = |sub: &str| server.mint(&Token::of(sub, &[]).with(&[Permission::PublishAny]));
    let (one, two) = (producer(&bob), producer("another"));
    let check = |token: &str, event: &Value, accepted: u64, duplicates: u64| {
        let answer = post(&server, token, &event.to_string());
        assert_eq!(answer.status, 200, "{event}");
        let body = answer.json();
        let expected = json!({"accepted": accepted, "duplicates": duplicates, "rejected": []});
        assert_eq!(body, expected, "{event}");
    };
    let event = |audience: &[&str], id: &str| {
        let mut event = json!({"event_type": "x", "event_id": id});
        for kind in audience {
            event[*kind] = if *kind == "user_id" {
                json!(alice)
            } else {
                json!("p")
            };
        }
        event
    };
    check(&one, &event(&["user_id"], "e1"), 1, 0);
    check(&one, &event(&["user_id"], "e1"), 0, 1);
    check(&two, &event(&["user_id"], "e1"), 1, 0);
    check(&one, &event(&["user_id"], "e2"), 1, 0);
    // A retry completes the half that is missing, and is whole only then.
    check(&one, &event(&["user_id", "project_id"], "e1"), 1, 0);
    check(&one, &event(&["user_id", "project_id"], "e1"), 0, 1);
    check(&one, &event(&["project_id"], "e1"), 0, 1);
    check(
        &one,
        &json!([event(&["project_id"], "e3"), event(&["project_id"], "e3")]),
        1,
        1,
    );
    let ids = |messages: Vec<Value>| {
        let id = |message: &Value| message["event_id"].as_str().unwrap().to_string();
        messages.iter().map(id).collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    eventually("all of it is seen", || {
        seen.extend(ids(viewer.drain()));
        (seen.len() >= 4).then_some(())
    });
    seen.sort();
    // The project's half of e1 is the own user's event: it comes on the own stream or not at all.
    assert_eq!(seen, ["e1", "e1", "e2", "e3"]);
}

#[test]
fn a_small_window_of_ids_forgets_the_oldest() {
    let server = Server::start("history.dedup_ids_max = 2");
    let token = server.publisher_token();
    let event = |id: &str| json!({"event_type": "x", "user_id": "a", "event_id": id}).to_string();
    let is_duplicate = |id: &str| post(&server, &token, &event(id)).json()["duplicates"] == 1;
    assert!(!is_duplicate("e1") && !is_duplicate("e2") && is_duplicate("e1"));
    assert!(!is_duplicate("e3") && !is_duplicate("e4") && !is_duplicate("e1"));
    let metrics = server.page("/metrics");
    assert!(sample(&metrics, "sightline_duplicates_window_ids") >= 2.0);
}

#[test]
fn requests_that_are_not_a_post_of_events_are_told_so() {
    let server = Server::start("");
    let token = server.publisher_token();
    let refusal = |method: &str, target: &str| server.ask(method, target, &token, "").refusal();
    assert_eq!(
        refusal("GET", "/v1/events"),
        (405, "METHOD_NOT_ALLOWED".into())
    );
    assert_eq!(
        refusal("PUT", "/v1/events"),
        (405, "METHOD_NOT_ALLOWED".into())
    );
    assert_eq!(refusal("POST", "/v1/event"), (404, "NOT_FOUND".into()));
    assert_eq!(
        refusal("POST", "/v1/events?ack=maybe"),
        (400, "BAD_REQUEST".into())
    );
    let event = r#"{"event_type":"x","user_id":"a"}"#;
    for ack in ["durable", "received"] {
        let target = format!("/v1/events?ack={ack}");
        assert_eq!(server.ask("POST", &target, &token, event).status, 200);
    }
    // Every carrier of a token serves here too.
    let mut http = server.http();
    http.send(&request(
        "POST",
        &format!("/v1/events?token={token}"),
        &[],
        event.as_bytes(),
    ));
    assert_eq!(http.receive().status, 200);
}

#[test]
fn a_token_is_checked_again_on_a_connection_that_stays() {
    let server = Server::start("");
    let mut token = Token::of("producer", &[]).with(&[Permission::PublishAny]);
    token.0.jti = Some("j9".into());
    let bearer = format!("Bearer {}", server.mint(&token));
    let headers = [("Authorization", bearer.as_str())];
    let event = br#"{"event_type":"x","user_id":"a"}"#;
    let mut http = Http::connect(server.address());
    let mut status = || {
        http.send(&request("POST", "/v1/events", &headers, event));
        http.receive().status
    };
    assert_eq!((status(), status()), (200, 200));
    server.ask(
        "POST",
        "/v1/admin/revoke",
        &server.admin_token(),
        r#"{"jti":"j9"}"#,
    );
    assert_eq!(status(), 401);
}

#[test]
fn bytes_a_second_are_bounded_for_one_publisher() {
    let server = Server::start("limits.publish_bytes_per_second = 1048576");
    // Each is worth a second, so that only those a second after another are taken.
    let event = json!({"event_type": "x", "user_id": "a", "data": "y".repeat(1_048_000)});
    let token = server.publisher_token();
    assert_eq!(post(&server, &token, &event.to_string()).status, 200);
    let early = eventually("one comes too early", || {
        let answer = post(&server, &token, &event.to_string());
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(early.status, 429);
    assert_eq!(early.json()["rejected"][0]["code"], "RATE_LIMITED");
    assert!(early.header("retry-after").is_some());
    // Another publisher's seconds are its own. Of a body that takes too much, the rest is refused.
    let other = server.mint(&Token::of("other", &[]).with(&[Permission::PublishAny]));
    let many = Value::Array(vec![event; 4]).to_string();
    let rows = eventually("a part of it is refused", || {
        let answer = post(&server, &other, &many);
        let rows = answer.json()["rejected"].as_array().unwrap().clone();
        (answer.status == 200 && !rows.is_empty()).then_some(rows)
    });
    assert!(
        rows.iter().all(|row| row["code"] == "RATE_LIMITED"),
        "{rows:?}"
    );
}

#[test]
fn the_largest_event_reaches_a_viewer_untouched() {
    let server = Server::start("");
    let [alice, bob] = server.users_on_two_cores();
    let target = "/observatory?subscribe=all";
    let mut here = Viewer::open(&server, target, &server.viewer_token(&alice, &["p"]));
    let mut there = Viewer::open(&server, target, &server.viewer_token(&bob, &["p"]));
    let mut body = json!({"event_type": "x", "project_id": "p", "data": ""}).to_string();
    let data = format!("\"{}\"", "z".repeat(1024 * 1024 - body.len()));
    body = body.replace("\"\"", &data);
    assert_eq!(body.len(), 1024 * 1024);
    assert_eq!(post(&server, &server.publisher_token(), &body).status, 200);
    for viewer in [&mut here, &mut there] {
        let text = viewer.next_text();
        assert!(
            text.ends_with(&format!(r#","data":{data}}}"#)),
            "{} bytes",
            text.len()
        );
        assert_eq!(kinds(&viewer.drain()), Vec::<&str>::new());
    }
}
