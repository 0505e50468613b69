//! Section 6's questions about conversations and projects: over sockets, in both dialects, and after
//! a kill.

use serde_json::{Value, json};

use crate::harness::{Server, Viewer, kind, now_s};

/// Three conversations, two of which go on: one of alice in project 7, one of the project alone.
fn events(now_ms: u64) -> Value {
    let event = |name: &str, id: &str, ago_ms: u64, user: Option<&str>| {
        let mut event = json!({
            "type": name, "project_id": 7, "session_id": format!("s-{id}"),
            "timestamp": now_ms - ago_ms, "event_id": format!("{name}-{id}-{ago_ms}"),
            "data": {"conversationId": id, "message": {"type": "user"}, "tool_name": "Read"},
        });
        if let Some(user) = user {
            event["user_id"] = json!(user);
        }
        event
    };
    json!([
        event("conversation_started", "a", 50_000, Some("alice")),
        event("message_added", "a", 40_000, Some("alice")),
        event("tool_execution", "a", 30_000, Some("alice")),
        event("conversation_started", "b", 45_000, None),
        event("conversation_started", "c", 20_000, Some("bob")),
        event("conversation_ended", "c", 10_000, Some("bob")),
    ])
}

fn ask(server: &Server, target: &str, question: &Value) -> Value {
    let mut viewer = Viewer::open(server, target, &server.viewer_token("alice", &["7"]));
    viewer.drain();
    let mut answer = viewer.ask(question);
    answer["data"].take()
}

fn check_answers(server: &Server, now_ms: u64) {
    let ms = |ago_ms: u64| now_ms - ago_ms;
    let asked = json!({"type": "get_active_conversations", "id": "q"});
    let told = ask(server, "/observatory", &asked);
    let row = |id: &str, start: u64, last: u64, messages: u64, tools: u64| {
        json!({
            "conversationId": id, "sessionId": format!("s-{id}"), "projectId": 7,
            "startTime": start, "lastActivity": last, "messageCount": messages,
            "toolUsageCount": tools,
        })
    };
    let rows = [
        row("b", ms(45_000), ms(45_000), 0, 0),
        row("a", ms(50_000), ms(30_000), 1, 1),
    ];
    assert_eq!(told, json!({"conversations": rows, "id": "q"}));
    let told = ask(server, "/keen", &asked);
    let start = told["conversations"][1]["startTime"].as_str();
    assert!(start.is_some_and(|start| start.ends_with('Z')), "{told}");

    let range = json!({"start": ms(60_000), "end": now_ms});
    let data = json!({"projectId": "7", "timeRange": range});
    let asked = json!({"type": "get_project_activity", "data": data});
    let told = ask(server, "/observatory", &asked);
    let counts = json!({
        "conversation_started": 3, "conversation_ended": 1, "message_added": 1, "tool_execution": 1,
    });
    assert_eq!((&told["projectId"], &told["counts"]), (&json!(7), &counts));
    assert_eq!(told["lastActivity"], ms(10_000));
    let bucket = json!({
        "start": ms(50_000), "end": ms(49_000), "counts": {"conversation_started": 1},
    });
    assert_eq!(told["buckets"][10], bucket);
    let old = json!({"start": 0, "end": ms(30_001)});
    let data = json!({"projectId": 7, "timeRange": old});
    let told = ask(
        server,
        "/observatory",
        &json!({"type": "get_project_activity", "data": data}),
    );
    let counts = json!({"conversation_started": 2, "message_added": 1});
    assert_eq!(told["counts"], counts, "of all time");
}

#[test]
fn conversations_and_activity_are_told_and_outlive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = {:?}", folder.path().join("log"));
    let now_ms = now_s() * 1_000;
    let mut server = Server::start(&settings);
    server.publish(&events(now_ms));
    check_answers(&server, now_ms);
    server.signal("KILL");
    server.wait();
    let server = Server::start(&settings);
    check_answers(&server, now_ms);
}

#[test]
fn what_the_token_does_not_show_is_not_told() {
    let server = Server::start("");
    server.publish(&events(now_s() * 1_000));
    let token = server.viewer_token("eve", &["8"]);
    let mut viewer = Viewer::open(&server, "/observatory", &token);
    let asked = json!({"type": "get_active_conversations"});
    let told = viewer.ask(&asked);
    assert_eq!(told["data"]["conversations"], json!([]));
    for name in ["get_active_conversations", "get_project_activity"] {
        let told = viewer.ask(&json!({"type": name, "id": 1, "data": {"projectId": 7}}));
        assert_eq!(kind(&told), "error");
        assert_eq!(
            (&told["data"]["code"], &told["data"]["id"]),
            (&json!("FORBIDDEN"), &json!(1))
        );
    }
}
