//! Producers that speak for others, and viewers that guess what others have.

use serde_json::{Value, json};
use sightline::auth::Permission;

use super::{Neighbour, Tally, events_refused, on_one_core, refusals, viewer_errors};
use crate::harness::{Publisher, Server, Token, Viewer, kind, request, text};

/// Names that only the server says.
const RESERVED: [&str; 23] = [
    "connection_established",
    "cursor",
    "replay_complete",
    "subscription_confirmed",
    "subscription_error",
    "unsubscribed",
    "pong",
    "active_conversations",
    "project_activity",
    "agent_tree",
    "agent_tree_update",
    "token_refreshed",
    "token_expiring",
    "lag",
    "server_error",
    "agent_error",
    "server_shutdown",
    "ack",
    "nack",
    "connection_\\u0065stablished",
    "curso\\u0072",
    "\\u0061ck",
    "po\\u006eg",
];

/// Publishes over both ways in; each must give this code, or with `None` take the event.
struct Producer<'s> {
    server: &'s Server,
    token: String,
    socket: Publisher,
    messages: u64,
}

impl<'s> Producer<'s> {
    fn new(server: &'s Server, token: String) -> Self {
        let socket = Publisher::open(server, &token);
        Self {
            server,
            token,
            socket,
            messages: 0,
        }
    }

    fn check(&mut self, event: &str, code: Option<&str>) {
        let answer = self.server.ask("POST", "/v1/events", &self.token, event);
        let rows = answer.json()["rejected"].as_array().unwrap().clone();
        let codes: Vec<_> = rows.iter().map(|row| text(&row["code"])).collect();
        assert_eq!(codes, Vec::from_iter(code), "{event}: {}", answer.text());
        self.socket.say_text(event.into());
        self.messages += 1;
        let nacks = self.socket.settle(self.messages);
        let codes: Vec<_> = nacks.iter().map(|nack| text(&nack["code"])).collect();
        assert_eq!(codes, Vec::from_iter(code), "{event}");
    }
}

#[test]
fn a24_a_producer_speaks_for_nobody_else_and_not_for_the_server() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    // Another tenant: everything of its own, and nothing of the producer's.
    let other = server.viewer_token("bob", &["8"]);
    let mut bob = Viewer::open(&server, "/keen?subscribe=all", &other);
    let own = Token::of("alice", &["7"]).with(&[Permission::Publish]);
    let mut alice = Viewer::open(
        &server,
        "/keen?subscribe=all",
        &server.viewer_token("alice", &["7"]),
    );
    let mut producer = Producer::new(&server, server.mint(&own));

    let foreign = [
        r#""user_id":"bob""#,
        r#""userId":"bob""#,
        r#""user\u005fid":"bob""#,
        r#""project_id":"8""#,
        r#""project_id":8"#,
        r#""projectId":8"#,
        r#""data":{"projectId":8}"#,
        r#""data":{"projectInfo":{"id":"8"}}"#,
        r#""data":{"project":{"id":8}}"#,
        r#""user_id":"alice","project_id":8"#,
        r#""user_id":"bob","project_id":7"#,
        r#""user_id":"Alice""#,
        r#""user_id":"alice ""#,
        r#""user_id":"alice\u0000""#,
        r#""project_id":"07""#,
        r#""project_id":" 7""#,
        r#""project_id":-7"#,
    ];
    for fields in foreign {
        producer.check(
            &format!(r#"{{"event_type":"x",{fields}}}"#),
            Some("FORBIDDEN_AUDIENCE"),
        );
    }
    tally.assert_grew(
        &events_refused("FORBIDDEN_AUDIENCE"),
        2 * foreign.len() as u64,
    );
    for name in RESERVED {
        for field in ["event_type", "type"] {
            producer.check(
                &format!(r#"{{"{field}":"{name}","user_id":"alice"}}"#),
                Some("RESERVED_TYPE"),
            );
        }
    }
    tally.assert_grew(&events_refused("RESERVED_TYPE"), 4 * RESERVED.len() as u64);
    assert_eq!(alice.drain(), [] as [Value; 0]);

    // What the server alone says of an event is not the producer's to say; the rest is its own.
    let forged = [
        ("seq", json!(9_999)),
        ("epoch", json!("00000000")),
        ("offset", json!(1)),
        ("stream", json!("project/8")),
        ("replay", json!(true)),
        ("sub", json!("bob")),
        ("tenant", json!("bob")),
        ("connectionId", json!("x")),
        ("__proto__", json!({"user_id": "bob"})),
        ("constructor", json!({"prototype": {"user_id": "bob"}})),
    ];
    for (n, (field, value)) in (1..).zip(&forged) {
        let mut event = json!({"event_type": "x", "user_id": "alice", "data": {*field: value}});
        event[*field] = value.clone();
        producer.check(&event.to_string(), None);
        for seq in [2 * n - 1, 2 * n] {
            let mut message = alice.next();
            assert_eq!(
                message["data"],
                json!({*field: value}),
                "the producer's own"
            );
            let envelope = message.as_object_mut().unwrap();
            assert_eq!(envelope.remove("seq"), Some(json!(seq)), "{field}");
            let mut names: Vec<_> = envelope.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["data", "event_type", "timestamp"], "{field}");
        }
    }
    assert_eq!(bob.drain(), [] as [Value; 0]);
    neighbour.assert_undisturbed();
}

/// What a viewer of nothing else is told of a stream, project or session; with the name left out,
/// which is the viewer's own word.
fn told(server: &Server, token: &str, epoch: &str, id: &str) -> Vec<String> {
    let mut said = Vec::new();
    let mut without = |text: &str| said.push(text.replace(id, "…"));
    for kind in ["project", "user"] {
        let target = format!("/observatory?epoch={epoch}&resume={kind}%2F{id}%3D1&subscribe=all");
        without(&Viewer::open(server, &target, token).greeting()["resume"].to_string());
    }
    let target = format!("/observatory?sessions={id}&subscribe=all");
    without(&Viewer::open(server, &target, token).greeting()["resume"].to_string());
    let mut viewer = Viewer::open(server, "/observatory", token);
    let asked = [
        json!({"type": "subscribe", "data": {"filters": {"projectIds": [id]}}}),
        json!({"type": "subscribe", "data": {"filters": {"projectIds": ["7", id]}}}),
        json!({"type": "subscribe", "data": {"filters": {"sessionIds": [id]}, "epoch": epoch,
            "resume": format!("project/{id}=1,user/{id}=1")}}),
        json!({"type": "replay", "data": {"stream": format!("project/{id}"), "from": 1}}),
        json!({"type": "get_agent_tree", "data": {"sessionId": id}}),
        json!({"type": "get_project_activity", "data": {"projectId": id}}),
    ];
    for message in asked {
        let mut answer = viewer.ask(&message);
        answer["timestamp"].take();
        // The key is a hash of the filters, which hold the viewer's own word.
        answer["data"]["subscriptionKey"].take();
        without(&answer.to_string());
    }
    assert_eq!(viewer.drain(), [] as [Value; 0]);
    for event in [
        json!({"event_type": "x", "user_id": id}),
        json!({"event_type": "x", "project_id": id}),
    ] {
        let token = server.mint(&Token::of("alice", &["7"]).with(&[Permission::Publish]));
        let answer = server.ask("POST", "/v1/events", &token, &event.to_string());
        without(&format!(
            "{} {:?} {}",
            answer.status,
            answer.headers,
            answer.text()
        ));
    }
    for (method, path, body) in [
        ("POST", "revoke", json!({"userId": id})),
        ("POST", "disconnect", json!({"userId": id})),
        ("GET", "connections", json!("")),
    ] {
        let body = if body == "" {
            String::new()
        } else {
            body.to_string()
        };
        let answer = server.ask(method, &format!("/v1/admin/{path}"), token, &body);
        without(&format!(
            "{} {:?} {}",
            answer.status,
            answer.headers,
            answer.text()
        ));
    }
    said
}

#[test]
fn a25_what_one_may_not_see_is_not_told_apart_from_what_is_not_there() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let token = server.viewer_token("alice", &["7"]);
    let epoch = Viewer::open(&server, "/keen", &token).greeting()["epoch"].clone();
    // All that there can be of another: a user, project and session of this name, watched and in use.
    let there = "there-1";
    let other = server.viewer_token(there, &[there]);
    let mut watching = Viewer::open(&server, "/observatory?subscribe=all", &other);
    for _ in 0..3 {
        server.publish(&json!([
            {"event_type": "x", "user_id": there, "session_id": there},
            {"event_type": "x", "project_id": there, "session_id": there},
        ]));
    }
    for _ in 0..6 {
        assert_eq!(kind(&watching.next()), "x");
    }
    let tally = Tally::of(&server);
    let of_there = told(&server, &token, text(&epoch), there);
    let of_nowhere = told(&server, &token, text(&epoch), "nowhere");
    assert_eq!(of_there, of_nowhere);
    assert_eq!(
        of_there[0],
        r#"[{"earliest":1,"outcome":"fresh","stream":"user","to":0},{"earliest":1,"outcome":"fresh","stream":"project/7","to":0},{"outcome":"reset","stream":"project/…"}]"#
    );
    tally.assert_grew(&viewer_errors("INVALID_FILTERS"), 4);
    tally.assert_grew(&events_refused("FORBIDDEN_AUDIENCE"), 4);
    tally.assert_grew(&refusals("FORBIDDEN"), 6);
    assert_eq!(
        watching.drain(),
        [] as [Value; 0],
        "nobody was disconnected, and nothing came"
    );
    neighbour.assert_undisturbed();
}

#[test]
fn a25_a_path_that_is_not_there_is_not_told_apart_by_who_asks() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let ask = |path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let mut http = server.http();
        http.send(&request("GET", path, &[("Authorization", &bearer)], b""));
        let answer = http.receive();
        format!("{} {:?} {}", answer.status, answer.headers, answer.text())
    };
    let (admin, viewer) = (server.admin_token(), server.viewer_token("alice", &[]));
    for path in [
        "/v1/nowhere",
        "/.env",
        "/../etc/passwd",
        "/v1/admin",
        "/metrics/",
        "//metrics",
    ] {
        assert_eq!(ask(path, &admin), ask(path, &viewer), "{path}");
        assert!(ask(path, &viewer).starts_with("404 "), "{path}");
    }
    tally.assert_grew(&refusals("NOT_FOUND"), 18);
    neighbour.assert_undisturbed();
}
