//! The whole command against a small gateway.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::super::client::test_server::{Peer, TestServer, within};
use super::super::tests::{Sink, args};
use super::*;

/// Runs the command against a gateway that follows `script`; returns the outcome and the last
/// drawing on the page.
fn watch(
    change: impl FnOnce(&mut TailArgs),
    script: impl FnOnce(&TestServer) + Send + 'static,
) -> (Result<(), ClientError>, Vec<String>) {
    let (url, server) = TestServer::start(script);
    let mut args = args(url);
    change(&mut args);
    let sink = Sink::default();
    let screen = Screen::page(sink.clone());
    let outcome = within(move || view(&args, Stop::default(), screen, || Size::UNBOUNDED));
    within(move || server.join().unwrap());
    let text = sink.text();
    let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default();
    (outcome, last.lines().map(str::to_owned).collect())
}

/// The next connection, established.
fn established(server: &TestServer) -> Peer {
    let mut peer = server.accept();
    peer.send(&json!({"type": "connection_established", "data": {"epoch": "0000000a"}}));
    peer
}

/// The last drawing of one that is sent `messages`, and then closed.
fn drawn_of(messages: Vec<Value>) -> Vec<String> {
    let script = move |server: &TestServer| {
        let mut peer = established(server);
        messages.iter().for_each(|message| peer.send(message));
        peer.close(1000);
    };
    let (outcome, drawn) = watch(|_| (), script);
    outcome.unwrap();
    drawn
}

fn update(at_seq: u64, fields: &Value) -> Value {
    let mut data = json!({"tree_root": "r", "updated_node": "r", "updated_nodes": ["r"],
        "at_seq": at_seq, "tree_stats": {"total": 1}});
    let all = data.as_object_mut().unwrap();
    all.extend(fields.as_object().unwrap().clone());
    json!({"type": "agent_tree_update", "timestamp": 0, "data": data})
}

fn whole(at_seq: u64, status: &str) -> Value {
    let tree = json!({"session_id": "r", "status": status, "children": []});
    update(at_seq, &json!({"full_tree": tree}))
}

fn patch(base_seq: u64, at_seq: u64, patch: &Value) -> Value {
    update(at_seq, &json!({"base_seq": base_seq, "patch": patch}))
}

#[test]
fn patches_change_the_tree_that_was_sent_whole() {
    let child = json!({"session_id": "c", "status": "running", "children": []});
    let drawn = drawn_of(vec![
        whole(3, "spawning"),
        patch(
            3,
            5,
            &json!([
                {"op": "replace", "path": "/status", "value": "running"},
                {"op": "add", "path": "/children/0", "value": child},
            ]),
        ),
        patch(5, 6, &json!([])),
        patch(
            6,
            9,
            &json!([{"op": "replace", "path": "/children/0/status", "value": "completed"}]),
        ),
    ]);
    assert_eq!(drawn[1..], ["r     running", "└─ c  completed"]);
}

#[test]
fn a_tree_that_goes_is_no_longer_drawn() {
    let gone = json!({"type": "agent_tree_update", "data": {
        "tree_root": "r", "at_seq": 4, "removed": true, "moved_to": "x",
    }});
    assert_eq!(drawn_of(vec![whole(3, "running"), gone]), ["no agents yet"]);
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let (outcome, drawn) = watch(
        |_| (),
        |server| {
            let mut peer = established(server);
            peer.send(&json!({"type": "agent_tree_update", "data": {"tree_root": 7}}));
            peer.send(&json!({"type": "agent_tree_update"}));
            peer.send_text("not JSON");
            peer.send(&whole(3, "failed"));
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(drawn[1..], ["r  failed"]);
}

#[test]
fn sessions_are_asked_for_in_the_address() {
    let (outcome, _) = watch(
        |args| args.sessions = vec!["r".into(), "s t".into()],
        |server| {
            let peer = established(server);
            assert_eq!(peer.path, "/observatory?tree=patch&sessions=r%2Cs+t");
            peer.close(1000);
        },
    );
    outcome.unwrap();
}

#[test]
fn each_connection_begins_with_whole_trees() {
    let (outcome, drawn) = watch(
        |_| (),
        |server| {
            let mut peer = established(server);
            peer.send(&whole(3, "running"));
            peer.close(4008);
            established(server).close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(drawn, ["no agents yet"]);
}

#[test]
fn a_patch_to_another_tree_ends_it() {
    let cases = [
        patch(2, 4, &json!([])),
        patch(3, 4, &json!([{"op": "remove", "path": "/children/0"}])),
        update(4, &json!({})),
    ];
    for case in cases {
        let (outcome, _) = watch(
            |_| (),
            move |server| {
                let mut peer = established(server);
                peer.send(&whole(3, "running"));
                peer.send(&case);
                assert_eq!(peer.read_close(), Some(1000));
            },
        );
        assert!(
            matches!(outcome, Err(ClientError::Patch { .. })),
            "{outcome:?}"
        );
    }
}
