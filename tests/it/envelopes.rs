//! Section 5: who sees which event, in which envelope, in which order, byte for byte.

use serde_json::{Value, json};

use crate::harness::{Server, Viewer, kind, kinds};

/// Publishes bytes as they stand.
fn publish(server: &Server, body: &str) {
    let answer = server.ask("POST", "/v1/events", &server.publisher_token(), body);
    assert_eq!(answer.json()["accepted"], 1, "{}", answer.text());
}

#[test]
fn envelopes_are_written_as_the_contract_has_them() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["7"]);
    let mut keen = Viewer::open(&server, "/keen?subscribe=all", &token);
    let mut observatory = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let mut check = |event: &str, in_keen: &str, in_observatory: &str| {
        publish(&server, event);
        assert_eq!(keen.next_text(), in_keen, "{event}");
        assert_eq!(observatory.next_text(), in_observatory, "{event}");
    };
    // All fields; `data` as odd as it came.
    let data = "{ \"z\" : 1.0e+2,\t\"a\":[1 ,2],\n\"\\u0041\":\"\\u00e9\u{1f980}\\/\",\"z\":-0, \"big\":12345678901234567890123 }";
    check(
        &format!(
            "{{\"data\":{data} ,\"event_id\":\"e-1\",\"timestamp\":\"2026-11-22T11:00:00.0009+01:00\",\
             \"session_id\":\"s/1\",\"user_id\":\"alice\",\"event_type\":\"tool_execution\",\"more\":1}}"
        ),
        &format!(
            "{{\"event_type\":\"tool_execution\",\"session_id\":\"s/1\",\
             \"timestamp\":\"2026-11-22T10:00:00.000Z\",\"seq\":1,\"event_id\":\"e-1\",\"data\":{data}}}"
        ),
        &format!(
            "{{\"type\":\"tool_execution\",\"timestamp\":1795341600000,\"stream\":\"user\",\"seq\":1,\
             \"session_id\":\"s/1\",\"event_id\":\"e-1\",\"data\":{data}}}"
        ),
    );
    // As few as there may be, on a project's stream.
    check(
        r#"{"type":"x.y","projectId":7,"timestamp":0}"#,
        r#"{"event_type":"x.y","timestamp":"1970-01-01T00:00:00.000Z","seq":1,"stream":"project/7","data":{}}"#,
        r#"{"type":"x.y","timestamp":0,"stream":"project/7","seq":1,"data":{}}"#,
    );
    // An agent's error has the server's name in one dialect, and so another in the other.
    check(
        r#"{"type":"error","userId":"alice","sessionId":"s","timestamp":-1,"data":null}"#,
        r#"{"event_type":"error","session_id":"s","timestamp":"1969-12-31T23:59:59.999Z","seq":2,"data":null}"#,
        r#"{"type":"agent_error","timestamp":-1,"stream":"user","seq":2,"session_id":"s","data":null}"#,
    );
    // Audience and session found in `data`, which says so itself and is passed on.
    check(
        r#"{"type":"x","timestamp":1,"data":{"project":{"id":"7"},"sessionId":"in","user_id":"u"}}"#,
        r#"{"event_type":"x","session_id":"in","timestamp":"1970-01-01T00:00:00.001Z","seq":2,"stream":"project/7","data":{"project":{"id":"7"},"sessionId":"in","user_id":"u"}}"#,
        r#"{"type":"x","timestamp":1,"stream":"project/7","seq":2,"session_id":"in","data":{"project":{"id":"7"},"sessionId":"in","user_id":"u"}}"#,
    );
}

#[test]
fn ids_with_odd_characters_are_encoded_in_cursors_only() {
    let server = Server::start("");
    let project = "a,b=c/d é";
    let token = server.viewer_token("alice", &[project]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let event = json!({"event_type": "x", "project_id": project});
    publish(&server, &event.to_string());
    let stream = viewer.next()["stream"].clone();
    assert_eq!(stream, "project/a,b=c/d é");
    let has_row = |viewer: &Viewer, outcome: &str| {
        let rows = viewer.greeting()["resume"].as_array().unwrap();
        let is_row = |row: &Value| row["stream"] == stream && row["outcome"] == outcome;
        rows.iter().any(is_row)
    };
    assert!(has_row(&viewer, "fresh"));
    // The id is encoded within the value, and the value as any of a query.
    let cursor = "project%2Fa%252Cb%253Dc%252Fd%2520%25C3%25A9%3D1";
    let target = format!("/observatory?subscribe=all&resume={cursor}");
    assert!(has_row(&Viewer::open(&server, &target, &token), "reset"));
}

#[test]
fn errors_of_the_server_are_named_by_dialect() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    for (target, name) in [("/keen", "server_error"), ("/observatory", "error")] {
        let mut viewer = Viewer::open(&server, target, &token);
        let error = viewer.ask(&json!({"type": "no such thing", "id": 5}));
        assert_eq!(kind(&error), name);
        assert_eq!(error["data"]["code"], "UNKNOWN_MESSAGE_TYPE");
        assert_eq!(error["data"]["id"], 5);
        assert!(
            error["data"]["message"].is_string() && error.get("seq").is_none(),
            "{error}"
        );
        assert_eq!(error["timestamp"].is_string(), target == "/keen");
    }
}

/// What one viewer is told of the events below, as (type, stream, seq).
type Seen = Vec<(String, String, u64)>;

fn seen(viewer: &mut Viewer, last: &str) -> Seen {
    let mut seen = Vec::new();
    loop {
        let message = viewer.next();
        let (name, stream) = (kind(&message).to_string(), message["stream"].as_str());
        let row = (name.clone(), stream.unwrap_or("user").to_string());
        if name == last {
            return seen;
        }
        seen.push((row.0, row.1, message["seq"].as_u64().unwrap()));
    }
}

#[test]
fn two_users_two_dialects_a_shared_project_two_cores() {
    let server = Server::start("");
    let [alice, bob] = server.users_on_two_cores();
    let tokens = [&alice, &bob].map(|user| server.viewer_token(user, &["shared", user]));
    let open =
        |path: &str, token: &str| Viewer::open(&server, &format!("{path}?subscribe=all"), token);
    let mut alices = [open("/keen", &tokens[0]), open("/observatory", &tokens[0])];
    let mut bobs = [open("/keen", &tokens[1]), open("/observatory", &tokens[1])];
    let rows = server.connections();
    let core = |user: &str| rows.iter().find(|row| row["userId"] == *user).unwrap()["core"].clone();
    assert_ne!(core(&alice), core(&bob));

    let event = |name: &str, user: Option<&str>, project: Option<&str>| {
        let mut event = json!({"event_type": name, "data": {"of": name}});
        if let Some(user) = user {
            event["user_id"] = json!(user);
        }
        if let Some(project) = project {
            event["project_id"] = json!(project);
        }
        event
    };
    server.publish(&json!([
        event("a-own", Some(&alice), None),
        event("b-own", Some(&bob), None),
        event("a-shared", Some(&alice), Some("shared")),
        event("b-shared", Some(&bob), Some("shared")),
        event("shared", None, Some("shared")),
        event("a-private", None, Some(&alice)),
        event("a-in-bobs", Some(&alice), Some(&bob)),
        event("nobodys", Some("carol"), Some("elsewhere")),
        event("carols", Some("carol"), Some("shared")),
    ]));
    // One marker on each stream: what comes before it has come. Streams have no order among each
    // other, so every stream is looked at by itself.
    let markers = json!([
        event("end", Some(&alice), None),
        event("end", Some(&bob), None),
        event("end", None, Some("shared")),
        event("end", None, Some(&alice)),
        event("end", None, Some(&bob)),
    ]);
    server.publish(&markers);
    let rows = |list: &[(&str, &str, u64)]| {
        let row =
            |(name, stream, seq): &(&str, &str, u64)| (name.to_string(), stream.to_string(), *seq);
        list.iter().map(row).collect::<Seen>()
    };
    let (own_a, own_b) = (format!("project/{alice}"), format!("project/{bob}"));
    let expected_a = rows(&[
        ("a-in-bobs", "user", 3),
        ("a-own", "user", 1),
        ("a-private", &own_a, 1),
        ("a-shared", "user", 2),
        ("b-shared", "project/shared", 2),
        ("carols", "project/shared", 4),
        ("shared", "project/shared", 3),
    ]);
    let expected_b = rows(&[
        ("a-in-bobs", &own_b, 1),
        ("a-shared", "project/shared", 1),
        ("b-own", "user", 1),
        ("b-shared", "user", 2),
        ("carols", "project/shared", 4),
        ("shared", "project/shared", 3),
    ]);
    for (viewers, expected) in [(&mut alices, expected_a), (&mut bobs, expected_b)] {
        for viewer in viewers {
            let mut all: Seen = (0..3).flat_map(|_| seen(viewer, "end")).collect();
            for stream in ["user", "project/shared"] {
                let seqs = all.iter().filter(|row| row.1 == stream).map(|row| row.2);
                assert!(seqs.is_sorted_by(|one, next| one < next), "{all:?}");
            }
            all.sort();
            assert_eq!(all, expected);
            assert_eq!(viewer.drain(), Vec::<Value>::new());
        }
    }
}

#[test]
fn no_envelope_holds_a_user_id() {
    let server = Server::start("");
    let secret = "user-with-a-telling-name";
    let token = server.viewer_token(secret, &["p"]);
    let other = server.viewer_token("other", &["p"]);
    let mut viewers = Vec::new();
    for target in ["/keen?subscribe=all", "/observatory?subscribe=all"] {
        viewers.push(Viewer::open(&server, target, &token));
        viewers.push(Viewer::open(&server, target, &other));
    }
    for field in ["user_id", "userId"] {
        let event = format!(r#"{{"event_type":"x","{field}":"{secret}","project_id":"p"}}"#);
        publish(&server, &event);
    }
    for viewer in &mut viewers {
        assert!(!viewer.established.to_string().contains(secret));
        for _ in 0..2 {
            let text = viewer.next_text();
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn a_late_subscriber_sees_what_comes_after() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["p"]);
    let event = |n: u64| json!({"event_type": "x", "project_id": "p", "data": n});
    let early = json!([event(1), event(2), event(3)]);
    server.publish(&early);
    let mut viewer = Viewer::open(&server, "/keen?subscribe=all", &token);
    server.publish(&event(4));
    let message = viewer.next();
    assert_eq!(message["data"], 4);
    let head = viewer.greeting()["resume"].as_array().unwrap().iter();
    let row = head
        .into_iter()
        .find(|row| row["stream"] == "project/p")
        .unwrap();
    let to = row["to"].as_u64().unwrap();
    assert_eq!(message["seq"].as_u64().unwrap(), to + 1, "{row}");
    assert_eq!(kinds(&viewer.drain()), Vec::<&str>::new());
}
