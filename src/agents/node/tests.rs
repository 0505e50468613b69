//! What events say of one agent.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::agents::rig::{Rig, Said, said};

/// What `show` says of `a` after events of its own, of which each has a type and data.
fn check<T: PartialEq + std::fmt::Debug>(
    events: &[(&'static str, Value)],
    show: impl Fn(&Node) -> T,
    expected: &T,
) {
    let events = events.iter().zip(1..);
    let said = events.map(|((event_type, data), at)| said(event_type, "a", at, data.clone()));
    let said: Vec<Said> = said.collect();
    for said in [said.iter().collect::<Vec<_>>(), said.iter().rev().collect()] {
        let rig = Rig::after(said);
        assert_eq!(&show(rig.forest.node(rig.id("a")).unwrap()), expected);
    }
}

#[test]
fn a_completion_is_final() {
    let end = |data| ("completion", data);
    let work = || ("error", json!({}));
    check(&[work()], Node::status, &Status::Running);
    check(
        &[work(), end(json!({})), work()],
        Node::status,
        &Status::Completed,
    );
    check(
        &[end(json!({"success": false})), work()],
        Node::status,
        &Status::Failed,
    );
    let twice = [
        end(json!({"success": false})),
        end(json!({"success": true})),
    ];
    check(&twice, Node::status, &Status::Completed);
}

#[test]
fn the_latest_progress_counts_field_by_field() {
    let update = |data| ("progress_update", data);
    let events = [
        update(json!({"phase": "PLAN", "overall_progress": 40, "tokens_used": 7})),
        update(json!({"overall_progress": 12.5, "cost_so_far": 0.25, "tokens_used": -1})),
        ("phase_transition", json!({"to_phase": "VERIFY"})),
        update(json!({"cost_so_far": null, "overall_progress": "much"})),
    ];
    let show = |node: &Node| (node.progress(), node.tokens_used(), node.cost_so_far());
    check(&events, show, &(12.5, 7, 0.25));
    check(
        &events,
        |node| node.phase().map(String::from),
        &Some("VERIFY".into()),
    );
}

#[test]
fn commits_are_counted_where_they_succeed() {
    let git = |data| ("git_operation", data);
    let events = [
        git(json!({"operation_type": "commit", "commit_hash": "1", "branch": "x"})),
        git(json!({"operation_type": "commit", "commit_hash": "2", "success": true})),
        git(json!({"operation_type": "commit", "files_changed": ["a.rs", "b.rs"]})),
        git(json!({"operation_type": "commit", "commit_hash": "3", "success": false})),
        git(json!({"operation_type": "merge", "commit_hash": "4", "files_changed": []})),
        git(json!({"branch": "y"})),
    ];
    check(&events, Node::git_commits, &3);
    check(
        &events,
        |node| node.latest_commit().map(String::from),
        &Some("2".into()),
    );
    check(
        &events,
        |node| node.git_branch().to_owned(),
        &"y".to_owned(),
    );
    let files = |node: &Node| node.files_changed().map(String::from).collect::<Vec<_>>();
    check(&events, files, &vec!["a.rs".to_owned(), "b.rs".to_owned()]);
}

#[test]
fn files_are_counted_by_the_tool_that_touched_them() {
    let tool = |name, files, success| {
        let data = json!({"tool_name": name, "files_affected": files, "success": success});
        ("tool_execution", data)
    };
    let events = [
        tool("Write", json!(["a", "b"]), json!(null)),
        tool("Edit", json!(["a"]), json!(true)),
        tool("Write", json!(["a"]), json!(true)),
        tool("Write", json!(["c"]), json!(false)),
        tool("Edit", json!(["c"]), json!(false)),
        tool("Read", json!(null), json!(true)),
        ("tool_execution", json!({"files_affected": ["d", 7]})),
    ];
    check(
        &events,
        |node| (node.files_created(), node.files_modified()),
        &(3, 2),
    );
}

#[test]
fn what_was_given_and_what_is_used_stand_in_for_each_other() {
    let given = json!({"child_session": "a", "git_branch": "given"});
    let spawn = said("agent_spawned", "p", 9, given);
    let used = said("git_operation", "a", 5, json!({"branch": "used"}));
    let branches = |said: &[Said]| {
        let rig = Rig::after(said);
        let node = rig.forest.node(rig.id("a")).unwrap();
        (node.branch().to_owned(), node.git_branch().to_owned())
    };
    let pair = |branch: &str, git_branch: &str| (branch.to_owned(), git_branch.to_owned());
    assert_eq!(
        branches(std::slice::from_ref(&spawn)),
        pair("given", "given")
    );
    assert_eq!(branches(std::slice::from_ref(&used)), pair("used", "used"));
    // The spawn is later, and says nothing of what the agent did itself.
    assert_eq!(branches(&[used, spawn]), pair("given", "used"));
}

#[test]
fn an_agent_begins_with_its_latest_spawn_else_with_its_first_word() {
    let error = |at| said("error", "a", at, json!({}));
    let spawn = |at| said("agent_spawned", "p", at, json!({"child_session": "a"}));
    let named = said(
        "agent_spawned",
        "x",
        1,
        json!({"child_session": "y", "parent_session": "a"}),
    );
    let start = |said: &[Said]| {
        let rig = Rig::after(said);
        rig.forest.node(rig.id("a")).unwrap().start_ms()
    };
    assert_eq!(start(&[error(5), error(3), error(4)]), 3);
    assert_eq!(start(std::slice::from_ref(&named)), 1);
    assert_eq!(start(&[named, error(5)]), 5);
    assert_eq!(start(&[error(3), spawn(9), spawn(8)]), 9);
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(cut("añb", 2), "a");
    assert_eq!(cut("añb", 3), "añ");
    assert_eq!(cut("añb", 9), "añb");
    assert_eq!(cut("ñ", 1), "");
}

#[test]
fn statuses_are_numbered_in_order() {
    for (index, status) in Status::ALL.into_iter().enumerate() {
        assert_eq!(status.index(), index);
    }
}
