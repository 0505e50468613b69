//! Section 8: agent trees as viewers are sent them.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{RawSocket, Server, Viewer, eventually, kind, sample};

fn event(name: &str, session: &str, data: &Value) -> Value {
    json!({"event_type": name, "user_id": "alice", "session_id": session, "data": data})
}

fn spawn(parent: &str, child: &str) -> Value {
    let data = json!({"child_session": child, "git_branch": "feature/x", "purpose": "to help"});
    event("agent_spawned", parent, &data)
}

fn progress(session: &str, tokens: u64) -> Value {
    event("progress_update", session, &json!({"tokens_used": tokens}))
}

fn watch(server: &Server, target: &str) -> Viewer {
    Viewer::open(server, target, &server.viewer_token("alice", &[]))
}

/// The next update's `data`.
fn update(viewer: &mut Viewer) -> Value {
    viewer.skip_to("agent_tree_update")["data"].clone()
}

fn ask(viewer: &mut Viewer, session: Option<&str>) -> Value {
    let data = session.map_or(json!({}), |session| json!({"sessionId": session}));
    viewer.say(&json!({"type": "get_agent_tree", "id": 7, "data": data}));
    let answer = viewer.skip_to("agent_tree");
    assert_eq!(answer["data"]["id"], 7);
    answer["data"].clone()
}

/// Brings a tree to where an update says that it is.
fn apply(update: &Value, tree: &mut Value) {
    match update.get("full_tree") {
        Some(whole) => *tree = whole.clone(),
        None => {
            let patch: json_patch::Patch = serde_json::from_value(update["patch"].clone()).unwrap();
            json_patch::patch(tree, &patch).unwrap();
        }
    }
}

#[test]
fn a_tree_comes_whole_first_and_then_as_it_changes() {
    let server = Server::start("");
    for (user_agent, target) in [
        ("keen", "/keen?tree=full"),
        ("keen", "/keen?tree=patch"),
        ("observatory", "/observatory?tree=full"),
        ("observatory", "/observatory?tree=patch"),
    ] {
        let root = target.replace(['/', '?', '='], "-");
        server.publish(&json!([spawn(&root, "child"), progress("child", 1)]));
        let mut viewer = watch(&server, target);
        assert_eq!(viewer.dialect(), user_agent);
        let mut first = update(&mut viewer);
        while first["tree_root"] != root {
            first = update(&mut viewer);
        }
        let child = &first["full_tree"]["children"][0];
        assert_eq!(child["session_id"], "child", "{target}");
        assert_eq!(child["git_branch"], "feature/x");
        assert_eq!(first["tree_stats"]["total"], 2);
        let start = &child["metrics"]["start_time"];
        assert_eq!(start.is_string(), user_agent == "keen", "{start}");
        assert!(child.get("user_id").is_none());
        server.publish(&progress("child", 5));
        let is_there = |tree: &Value| tree["children"][0]["metrics"]["tokens_used"] == 5;
        let mut tree = first["full_tree"].clone();
        while !is_there(&tree) {
            apply(&update(&mut viewer), &mut tree);
        }
        assert_eq!(ask(&mut viewer, Some(&root))["trees"], json!([tree]));
        assert_eq!(ask(&mut viewer, Some("nobody"))["trees"], json!([]));
    }
}

#[test]
fn keen_begins_with_the_first_spawn_and_observatory_asks_for_trees() {
    let server = Server::start("");
    server.publish(&json!([spawn("old", "older"), progress("older", 1)]));
    let mut keen = watch(&server, "/keen");
    let mut observatory = watch(&server, "/observatory?subscribe=all");
    server.publish(&json!([progress("older", 2), spawn("new", "newer")]));
    let first = update(&mut keen);
    assert_eq!(first["tree_root"], "new");
    assert_eq!(first["full_tree"]["children"][0]["session_id"], "newer");
    server.publish(&event("end", "x", &json!({})));
    let told = observatory.until("end");
    assert!(told.iter().all(|it| kind(it) != "agent_tree_update"));
    let trees = ask(&mut observatory, None)["trees"].clone();
    assert_eq!(trees.as_array().map(Vec::len), Some(2));
}

#[test]
fn updates_follow_their_events_and_keep_their_distance() {
    let server = Server::start("");
    let mut viewer = watch(&server, "/observatory?subscribe=all&tree=patch");
    let started = Instant::now();
    let mut tokens = 0;
    while started.elapsed().as_millis() < 500 {
        tokens += 1;
        server.publish(&progress("a", tokens));
    }
    let (mut head, mut times, mut tree) = (0, Vec::new(), json!(null));
    while tree["metrics"]["tokens_used"] != tokens {
        let message = viewer.next();
        if let Some(seq) = message["seq"].as_u64() {
            head = seq;
            continue;
        }
        let update = &message["data"];
        assert!(update["at_seq"].as_u64().unwrap() <= head);
        times.push(message["timestamp"].as_i64().unwrap());
        apply(update, &mut tree);
    }
    assert!(times.len() > 2, "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] >= 100),
        "{times:?}"
    );
}

#[test]
fn trees_outlive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = {:?}", folder.path().join("data"));
    let mut server = Server::start(&settings);
    server.publish(&json!([
        spawn("root", "one"),
        spawn("one", "two"),
        progress("two", 9),
        event("completion", "two", &json!({"success": false})),
    ]));
    let target = "/keen?tree=full";
    let before = update(&mut watch(&server, target));
    assert_eq!(before["tree_stats"]["by_status"]["failed"], 1);
    server.signal("KILL");
    server.wait();
    let server = Server::start(&settings);
    let after = update(&mut watch(&server, target));
    for part in ["tree_root", "full_tree", "tree_stats"] {
        assert_eq!(after[part], before[part], "{part}");
    }
}

#[test]
fn a_viewer_that_reads_slowly_gets_fewer_and_the_last_state() {
    let server = Server::start("");
    // A tree of about 200 KiB, so that few of it fill every buffer on the way.
    let spawns: Vec<Value> = (0..400)
        .map(|n| spawn("root", &format!("child {n:03}")))
        .collect();
    server.publish(&json!(spawns));
    let token = server.viewer_token("alice", &[]);
    let mut slow = RawSocket::open(&server, "/observatory?tree=full", &token, b"");
    slow.expect_established();
    let mut quick = watch(&server, "/observatory?tree=patch");
    update(&mut quick);
    let made = |server: &Server| {
        sample(
            &server.page("/metrics"),
            "sightline_agent_tree_messages_queued_total",
        )
    };
    // Until the quick one alone is sent more: the other's way is full.
    let mut tokens = 0;
    eventually("the slow one is sent nothing more", || {
        let before = made(&server);
        for _ in 0..5 {
            tokens += 1;
            server.publish(&progress("root", tokens));
            while update(&mut quick)["patch"] == json!([]) {}
        }
        (made(&server) - before < 6.0).then_some(())
    });
    tokens += 1;
    server.publish(&progress("root", tokens));
    let mut frames = 0_u64;
    loop {
        let frame = slow.next_answer();
        let message: Value = serde_json::from_str(frame.text()).unwrap();
        assert_eq!(kind(&message), "agent_tree_update");
        frames += 1;
        if message["data"]["full_tree"]["metrics"]["tokens_used"] == tokens {
            break;
        }
    }
    assert!(frames < tokens, "{frames} of {tokens}");
}
