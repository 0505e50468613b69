//! Section 6: what a viewer may say, and what it is answered.

use serde_json::{Value, json};

use crate::harness::{Server, Viewer, kind, kinds, text};

/// A viewer of alice, who may see `a` and `b`, subscribed to nothing.
fn viewer(server: &Server) -> Viewer {
    Viewer::open(
        server,
        "/observatory",
        &server.viewer_token("alice", &["a", "b"]),
    )
}

fn subscribe(filters: &Value) -> Value {
    json!({"type": "subscribe", "id": "s", "data": {"filters": filters}})
}

/// The names of the events that `viewer` gets of `events`, which it may see all of.
fn names_seen(server: &Server, viewer: &mut Viewer, events: &Value) -> Vec<String> {
    server.publish(events);
    // On each stream a last event, which a second viewer of the same user waits for as well.
    let ends = json!([
        {"event_type": "end", "user_id": "alice"},
        {"event_type": "end", "project_id": "a"},
        {"event_type": "end", "project_id": "b"},
    ]);
    let target = "/observatory?subscribe=all";
    let mut all = Viewer::open(server, target, &server.viewer_token("alice", &["a", "b"]));
    server.publish(&ends);
    for _ in 0..3 {
        all.skip_to("end");
    }
    let messages = viewer.drain();
    let names = kinds(&messages).into_iter().filter(|name| *name != "end");
    names.map(str::to_string).collect()
}

#[test]
fn filters_narrow_what_is_seen() {
    let server = Server::start("");
    let events = json!([
        {"event_type": "own", "user_id": "alice"},
        {"event_type": "own.s1", "user_id": "alice", "session_id": "s1"},
        {"event_type": "own.in.a", "user_id": "alice", "project_id": "a"},
        {"event_type": "a", "project_id": "a", "data": {"tool_name": "Bash"}},
        {"event_type": "a.s1", "project_id": "a", "session_id": "s1"},
        {"event_type": "b", "project_id": "b", "data": {"toolName": "Edit"}},
        {"event_type": "b.m", "project_id": "b", "data": {"message": {"type": "user"}}},
        {"event_type": "error", "user_id": "alice", "session_id": "s2"},
    ]);
    let check = |filters: Value, expected: &[&str]| {
        let mut viewer = viewer(&server);
        viewer.subscribe(&filters);
        let mut seen = names_seen(&server, &mut viewer, &events);
        seen.sort();
        assert_eq!(seen, expected, "{filters}");
    };
    let all = [
        "a",
        "a.s1",
        "agent_error",
        "b",
        "b.m",
        "own",
        "own.in.a",
        "own.s1",
    ];
    check(json!({}), &all);
    check(json!({"projectIds": [], "eventTypes": []}), &all);
    check(json!({"projectIds": ["a"]}), &["a", "a.s1", "own.in.a"]);
    check(
        json!({"projectIds": ["a", "b"]}),
        &["a", "a.s1", "b", "b.m", "own.in.a"],
    );
    check(
        json!({"sessionIds": ["s1", "s2"]}),
        &["a.s1", "agent_error", "own.s1"],
    );
    check(
        json!({"sessionIds": ["s1"], "projectIds": ["a"]}),
        &["a.s1"],
    );
    check(json!({"eventTypes": ["own", "b"]}), &["b", "own"]);
    check(json!({"eventTypes": ["error"]}), &["agent_error"]);
    check(json!({"eventTypes": ["agent_error"]}), &["agent_error"]);
    check(json!({"toolNames": ["Bash", "Edit"]}), &["a", "b"]);
    check(json!({"messageTypes": ["user"]}), &["b.m"]);
    check(json!({"messageTypes": ["assistant"]}), &[]);
    // Several are a union, and each event comes once.
    check(
        json!([{"projectIds": ["a"]}, {"sessionIds": ["s1"]}]),
        &["a", "a.s1", "own.in.a", "own.s1"],
    );
    check(
        json!([{"projectIds": ["b"]}, {"eventTypes": ["b"]}, {}]),
        &all,
    );
}

#[test]
fn subscriptions_have_keys_and_are_confirmed_with_their_place() {
    let server = Server::start("");
    server.publish(&json!([
        {"event_type": "x", "user_id": "alice"},
        {"event_type": "x", "project_id": "a"},
        {"event_type": "x", "project_id": "a"},
    ]));
    let mut viewer = viewer(&server);
    let confirmed = viewer.ask(&subscribe(
        &json!({"projectIds": ["a"], "eventTypes": ["y", "x"]}),
    ));
    assert_eq!(kind(&confirmed), "subscription_confirmed", "{confirmed}");
    let data = &confirmed["data"];
    assert_eq!(data["id"], "s");
    assert_eq!(
        data["filters"],
        json!({"projectIds": ["a"], "eventTypes": ["x", "y"]})
    );
    let key = text(&data["subscriptionKey"]).to_string();
    let at = data["at"].as_object().unwrap();
    assert_eq!(at.keys().collect::<Vec<_>>(), ["project/a", "user"]);
    // Numbers of another life's events are not told: the seq before the next one is.
    server.publish(&json!([{"event_type": "x", "project_id": "a"}]));
    let event = viewer.next();
    assert_eq!(
        event["seq"].as_u64(),
        at["project/a"].as_u64().map(|at| at + 1),
        "{confirmed}"
    );

    // Equal filters are one subscription, however they are written.
    let same = json!({"eventTypes": ["x", "y", "x"], "projectIds": ["a"], "toolNames": []});
    assert_eq!(viewer.subscribe(&same)["data"]["subscriptionKey"], key);
    let list = viewer.subscribe(&json!([same, {}]));
    let keys = list["data"]["subscriptionKeys"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[0]), (2, &json!(key)));
    assert_eq!(list["data"]["filters"].as_array().unwrap().len(), 2);
    assert!(list["data"].get("subscriptionKey").is_none());

    let say = |data: Value| json!({"type": "unsubscribe", "id": 9, "data": data});
    let gone = viewer.ask(&say(json!({"subscriptionKey": key})));
    assert_eq!(kind(&gone), "unsubscribed");
    assert_eq!(gone["data"], json!({"subscriptionKeys": [key], "id": 9}));
    let again = viewer.ask(&say(json!({"subscriptionKey": key})));
    assert_eq!(again["data"]["subscriptionKeys"], json!([]));
    let by_filters = viewer.ask(&say(json!({"filters": {}})));
    assert_eq!(by_filters["data"]["subscriptionKeys"], json!([keys[1]]));
    viewer.subscribe(&json!([{}, {"eventTypes": ["x"]}]));
    let all = viewer.ask(&json!({"type": "unsubscribe"}));
    assert_eq!(all["data"]["subscriptionKeys"].as_array().unwrap().len(), 2);
    let events = json!([{"event_type": "x", "user_id": "alice"}]);
    assert_eq!(
        names_seen(&server, &mut viewer, &events),
        Vec::<String>::new()
    );
}

#[test]
fn the_first_subscription_can_be_removed() {
    let server = Server::start("");
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &["a"]));
    let first = viewer.greeting()["subscriptions"][0]["subscriptionKey"].clone();
    server.publish(&json!([
        {"event_type": "mine", "user_id": "alice"},
        {"event_type": "mine.in.a", "user_id": "alice", "project_id": "a"},
        {"event_type": "not.mine", "project_id": "a"},
    ]));
    assert_eq!(kind(&viewer.next()), "mine");
    assert_eq!(kind(&viewer.next()), "mine.in.a");
    let gone = viewer.ask(&json!({"type": "unsubscribe", "data": {"subscriptionKey": first}}));
    assert_eq!(gone["data"]["subscriptionKeys"], json!([first]));
    server.publish(&json!({"event_type": "mine", "user_id": "alice"}));
    assert_eq!(viewer.drain(), Vec::<Value>::new());
}

#[test]
fn sessions_of_the_query_narrow_the_first_subscription() {
    let server = Server::start("");
    let check = |target: &str, expected: &[&str]| {
        let token = server.viewer_token("alice", &["a"]);
        let mut viewer = Viewer::open(&server, target, &token);
        let event = |name: &str, session: &str| json!({"event_type": name, "user_id": "alice", "session_id": session});
        server.publish(&json!([
            event("one", "s1"), event("two", "s2"), event("three", "s3"),
            {"event_type": "none", "user_id": "alice"},
            {"event_type": "in.a", "project_id": "a", "session_id": "s1"},
        ]));
        server.publish(&json!([
            {"event_type": "end", "project_id": "a", "session_id": "s1"},
            {"event_type": "end", "user_id": "alice", "session_id": "s1"},
        ]));
        let ends = if target.contains("all") { 2 } else { 1 };
        let mut names: Vec<String> = Vec::new();
        while names.iter().filter(|name| *name == "end").count() < ends {
            names.push(kind(&viewer.next()).to_string());
        }
        names.retain(|name| name != "end");
        names.sort();
        assert_eq!(names, expected, "{target}");
    };
    check("/keen?sessions=s1,s2", &["one", "two"]);
    check("/keen?sessions=s1&subscribe=all", &["in.a", "one"]);
    check("/observatory?sessions=s1&subscribe=all", &["in.a", "one"]);
    check("/keen?sessions=", &["none", "one", "three", "two"]);
}

#[test]
fn what_cannot_be_subscribed_is_told() {
    let server = Server::start("limits.subscriptions_max = 3");
    let mut viewer = viewer(&server);
    let mut check = |message: Value, name: &str, code: &str| {
        let answer = viewer.ask(&message);
        assert_eq!(
            (kind(&answer), text(&answer["data"]["code"])),
            (name, code),
            "{message}"
        );
        assert_eq!(answer["data"].get("id"), message.get("id"), "{message}");
        assert!(answer["data"]["message"].is_string());
    };
    for filters in [
        json!({"projectIds": ["c"]}),
        json!({"projectIds": ["a", "c"]}),
        json!([{}, {"projectIds": ["c"]}]),
        json!({"projects": ["a"]}),
        json!({"eventTypes": "x"}),
        json!({"eventTypes": [7]}),
        json!("all"),
        json!(null),
        json!([]),
        json!([{}, 5]),
    ] {
        check(subscribe(&filters), "subscription_error", "INVALID_FILTERS");
    }
    check(
        json!({"type": "subscribe", "id": 1}),
        "subscription_error",
        "INVALID_FILTERS",
    );
    let four: Vec<_> = (0..4)
        .map(|n| json!({"eventTypes": [format!("t{n}")]}))
        .collect();
    check(
        subscribe(&json!(four)),
        "subscription_error",
        "TOO_MANY_SUBSCRIPTIONS",
    );
    let cursor = json!({"filters": {}, "resume": "x"});
    check(
        json!({"type": "subscribe", "data": cursor}),
        "subscription_error",
        "INVALID_CURSOR",
    );
    assert_eq!(
        viewer.subscribe(&json!(four[..3]))["data"]["filters"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn what_cannot_be_understood_is_told_and_the_connection_goes_on() {
    let server = Server::start("");
    let mut viewer = viewer(&server);
    let mut check = |said: &str, code: &str, id: Value| {
        viewer.say_text(said);
        let answer = viewer.next();
        assert_eq!(
            (kind(&answer), text(&answer["data"]["code"])),
            ("error", code),
            "{said}"
        );
        assert_eq!(
            answer["data"].get("id").unwrap_or(&Value::Null),
            &id,
            "{said}"
        );
    };
    for said in ["", "not JSON", "[]", "7", "{}", r#"{"type":7}"#] {
        check(said, "INVALID_MESSAGE", Value::Null);
    }
    check(
        r#"{"type":7,"id":"mine"}"#,
        "INVALID_MESSAGE",
        json!("mine"),
    );
    check(r#"{"type":"ping","id":{}}"#, "INVALID_MESSAGE", Value::Null);
    check(
        r#"{"type":"ping","type":"ping","id":1}"#,
        "INVALID_MESSAGE",
        json!(1),
    );
    check(
        r#"{"type":"ping","data":{"timestamp":[]}}"#,
        "INVALID_MESSAGE",
        Value::Null,
    );
    check(
        r#"{"type":"unsubscribe","data":{"subscriptionKey":"x"}}"#,
        "INVALID_MESSAGE",
        Value::Null,
    );
    check(
        r#"{"type":"refresh_token","data":{}}"#,
        "INVALID_MESSAGE",
        Value::Null,
    );
    for name in ["get_conversations", "Ping"] {
        let said = json!({"type": name, "id": -3}).to_string();
        check(&said, "UNKNOWN_MESSAGE_TYPE", json!(-3));
    }
}

#[test]
fn a_ping_is_answered_with_its_echo() {
    let server = Server::start("");
    for target in ["/keen", "/observatory"] {
        let mut viewer = Viewer::open(&server, target, &server.viewer_token("alice", &[]));
        let mut check = |timestamp: Value, id: Value| {
            let ping = json!({"type": "ping", "id": id, "data": {"timestamp": timestamp}});
            let pong = viewer.ask(&ping);
            assert_eq!(kind(&pong), "pong");
            assert_eq!(
                (&pong["data"]["echo"], &pong["data"]["id"]),
                (&timestamp, &id),
                "{target}"
            );
            assert!(
                pong["data"]["timestamp"].is_i64(),
                "milliseconds in both: {pong}"
            );
        };
        check(json!(1_763_805_600_000_u64), json!("p1"));
        check(
            json!("2026-11-22T10:00:00Z"),
            json!(9_007_199_254_740_993_u64),
        );
        check(json!(1.25), json!(""));
    }
}

#[test]
fn cursors_of_another_life_are_answered_row_by_row() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["a", "b"]);
    let rows = |viewer: &Viewer| {
        let rows = viewer.greeting()["resume"].as_array().unwrap().clone();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    text(&row["stream"]).to_string(),
                    text(&row["outcome"]).to_string(),
                )
            })
            .collect();
        rows.sort();
        rows
    };
    let check = |target: &str, expected: &[(&str, &str)]| {
        let viewer = Viewer::open(&server, target, &token);
        let expected: Vec<_> = expected
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        assert_eq!(rows(&viewer), expected, "{target}");
        viewer
    };
    let epoch = text(&Viewer::open(&server, "/keen", &token).greeting()["epoch"]).to_string();
    check("/keen", &[("user", "fresh")]);
    check("/keen?resume=5", &[("user", "reset")]);
    check(
        &format!("/keen?epoch={epoch}&resume=5"),
        &[("user", "reset")],
    );
    check("/keen?epoch=00000000&resume=5", &[("user", "reset")]);
    check("/observatory?resume=5", &[("user", "pending")]);
    let all = "/observatory?subscribe=all&resume=user%3D5%2Cproject%2Fa%3D3";
    check(
        all,
        &[
            ("project/a", "reset"),
            ("project/b", "fresh"),
            ("user", "reset"),
        ],
    );

    // A pending stream starts with the first subscription that reaches it.
    let mut viewer = check(
        "/observatory?resume=user%3D5%2Cproject%2Fa%3D3",
        &[("project/a", "pending"), ("user", "pending")],
    );
    let confirmed = viewer.subscribe(&json!({"projectIds": ["a"]}));
    let started = confirmed["data"]["resume"].as_array().unwrap();
    let outcome = |row: &Value| (row["stream"].clone(), row["outcome"].clone());
    let mut started: Vec<_> = started
        .iter()
        .map(outcome)
        .map(|(s, o)| format!("{s} {o}"))
        .collect();
    started.sort();
    assert_eq!(
        started,
        ["\"project/a\" \"reset\"", "\"user\" \"reset\""],
        "{confirmed}"
    );

    // `subscribe` takes a cursor too.
    let mut viewer = check("/observatory", &[]);
    let message =
        json!({"filters": {"projectIds": ["b"]}, "epoch": epoch, "resume": "project/b=9"});
    let confirmed = viewer.ask(&json!({"type": "subscribe", "data": message}));
    let rows = confirmed["data"]["resume"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["stream"] == "project/b")
        .unwrap();
    assert_eq!(row["outcome"], "reset", "{confirmed}");
    assert!(row["to"].is_u64());
}
