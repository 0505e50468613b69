//! The forest as its users see it: what events come to, in whatever order they arrive.

#![allow(clippy::unwrap_used)]

mod bounds;
#[path = "../../tests/fleet/mod.rs"]
mod fleet;
mod order;
mod saved;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::rig::{Rig, WIDE, own_members, said, session_of, spawn};
use super::stats::RollUp;
use super::*;
use crate::event::time;

/// All that viewers can be shown of a forest, by session, as the keen document spells it; children
/// by their sessions alone.
fn shown(forest: &Forest) -> BTreeMap<String, Value> {
    let nodes = every_node(forest).into_iter();
    let nodes = nodes.map(|id| (session_of(forest, id).to_owned(), shown_node(forest, id)));
    nodes.collect()
}

fn shown_node(forest: &Forest, id: NodeId) -> Value {
    let mut node = own_members(forest, id);
    let start_time = &mut node["metrics"]["start_time"];
    *start_time = iso(start_time.as_i64().unwrap()).into();
    let children = forest.children(id).iter();
    node["children"] = children.map(|id| session_of(forest, *id)).collect();
    node
}

fn iso(ms: i64) -> String {
    let mut text = Vec::new();
    time::write_rfc3339_ms(&mut text, ms);
    String::from_utf8(text).unwrap()
}

fn shown_stats(stats: &TreeStats) -> Value {
    let by_status = Status::ALL.map(|status| {
        let count = stats.by_status[status.index()];
        (status.as_str().to_owned(), count.into())
    });
    json!({
        "total": stats.total,
        "active": stats.active,
        "by_status": Map::from_iter(by_status),
        "max_depth": stats.max_depth,
        "tokens_used": stats.tokens_used,
        "cost_so_far": stats.cost_so_far,
        "git_commits": stats.git_commits,
    })
}

/// The roll-up of each tree, by the session of its root.
fn all_stats(forest: &Forest) -> BTreeMap<String, Value> {
    let roots = forest.roots();
    let stats = roots.map(|root| {
        let session = session_of(forest, root).to_owned();
        (session, shown_stats(&forest.stats(root)))
    });
    stats.collect()
}

fn every_node(forest: &Forest) -> Vec<NodeId> {
    let mut nodes = Vec::from_iter(forest.roots());
    let mut at = 0;
    while at < nodes.len() {
        nodes.extend_from_slice(forest.children(nodes[at]));
        at += 1;
    }
    nodes
}

/// Whether what is kept as events come equals what it can be worked out from.
fn check_invariants(forest: &Forest) {
    let nodes = every_node(forest);
    assert_eq!(nodes.len(), forest.len(), "each node is in one place");
    let mut sums: BTreeMap<NodeId, RollUp> = BTreeMap::new();
    for id in &nodes {
        let node = forest.node(*id).unwrap();
        let path = forest.path(*id);
        assert_eq!(forest.find(node.session()), Some(*id));
        assert_eq!(forest.root_of(*id), Some(path[0]));
        assert_eq!(forest.depth(*id) as usize, path.len() - 1);
        let sums = sums.entry(path[0]).or_default();
        sums.add(node.share(), forest.depth(*id));
        let claimed = forest.claims.parent(id.index).map(|(parent, _)| parent);
        assert_eq!(claimed, forest.parent(*id).map(|parent| parent.index));
        let order = forest.children(*id).iter().map(|child| {
            let (_, spawned_ms) = forest.claims.parent(child.index).unwrap();
            (spawned_ms, session_of(forest, *child))
        });
        assert!(order.is_sorted());
    }
    for root in forest.roots() {
        assert_eq!(forest.stats(root), sums[&root].stats());
    }
    let finished = forest
        .roots()
        .filter(|root| forest.stats(*root).active == 0);
    assert_eq!(forest.trees.finished_count(), finished.count());
}

#[test]
fn a_spawn_makes_a_child_that_waits_and_a_parent_that_runs() {
    let data = json!({"child_session": "b", "git_branch": "feat/x", "purpose": "look"});
    let rig = Rig::after(&[said("agent_spawned", "a", 5, data)]);
    let all = shown(&rig.forest);
    let child = json!({
        "session_id": "b", "parent_session": "a", "git_branch": "feat/x", "status": "spawning",
        "current_phase": "EXPLORE", "purpose": "look", "progress": 0,
        "metrics": {
            "start_time": "1970-01-01T00:00:00.005Z", "tokens_used": 0, "cost_so_far": 0,
            "files_created": 0, "files_modified": 0, "git_commits": 0,
        },
        "git_info": {
            "branch": "feat/x", "latest_commit": null, "commits_count": 0, "files_changed": [],
        },
        "children": [],
    });
    assert_eq!(all["b"], child);
    assert_eq!(all["a"]["status"], "running");
    assert_eq!(all["a"]["purpose"], "root");
    assert_eq!(all["a"]["git_branch"], "main");
    let stats = rig.forest.stats(rig.id("b"));
    assert_eq!((stats.total, stats.active, stats.max_depth), (2, 2, 1));
}

#[test]
fn a_parent_that_nobody_announced_is_a_root_until_its_own_is_known() {
    let mut rig = Rig::new(WIDE);
    let data = json!({"child_session": "c", "parent_session": "b"});
    rig.hear(&said("agent_spawned", "x", 5, data));
    assert_eq!(rig.roots(), ["b", "x"]);
    assert_eq!(shown(&rig.forest)["b"]["status"], "spawning");
    rig.hear(&spawn("a", "b", 7));
    assert_eq!(rig.roots(), ["a", "x"]);
    let path = rig.forest.path(rig.id("c"));
    let path = path.iter().map(|id| session_of(&rig.forest, *id));
    assert_eq!(Vec::from_iter(path), ["a", "b", "c"]);
    check_invariants(&rig.forest);
}

#[test]
fn a_later_spawn_gives_another_parent_and_an_earlier_one_does_not() {
    let mut rig = Rig::after(&[spawn("a", "c", 5), spawn("c", "d", 6), spawn("b", "c", 7)]);
    assert_eq!(rig.parent("c"), Some("b"));
    assert_eq!(rig.forest.stats(rig.id("b")).total, 3);
    assert_eq!(rig.forest.stats(rig.id("a")).total, 1);
    rig.hear(&spawn("a", "c", 6));
    assert_eq!(rig.parent("c"), Some("b"));
    check_invariants(&rig.forest);
}

#[test]
fn a_spawn_is_its_speakers_event_and_never_the_childs() {
    let data = json!({"child_session": "c", "parent_session": "p"});
    let rig = Rig::after(&[said("agent_spawned", "c", 5, data)]);
    let all = shown(&rig.forest);
    assert_eq!(all["c"]["status"], "spawning");
    assert_eq!(all["c"]["parent_session"], "p");
    let rig = Rig::after(&[said("agent_spawned", "c", 5, json!({"child_session": "c"}))]);
    assert_eq!(shown(&rig.forest)["c"]["status"], "spawning");
    assert_eq!(rig.roots(), ["c"]);
}

#[test]
fn nobody_is_its_own_parent() {
    let mut rig = Rig::new(WIDE);
    let data = json!({"child_session": "c", "parent_session": "c"});
    let applied = rig.hear(&said("agent_spawned", "a", 5, data));
    assert_eq!(applied.cycles_refused, 1);
    assert_eq!(rig.roots(), ["a", "c"]);
    let applied = rig.hear(&said(
        "agent_spawned",
        "c",
        5,
        json!({"child_session": "c"}),
    ));
    assert_eq!(applied, Applied::default());
}

#[test]
fn a_cycle_is_refused_and_counted() {
    let mut rig = Rig::after(&[spawn("a", "b", 1), spawn("b", "c", 2)]);
    assert_eq!(rig.hear(&spawn("c", "a", 3)).cycles_refused, 1);
    assert_eq!(rig.roots(), ["a"]);
    // Said before the others, it is one of them that must go.
    let mut rig = Rig::after(&[spawn("a", "b", 1), spawn("b", "c", 2)]);
    assert_eq!(rig.hear(&spawn("c", "a", 0)).cycles_refused, 1);
    assert_eq!(rig.roots(), ["c"]);
    check_invariants(&rig.forest);
}

#[test]
fn children_are_in_the_order_of_their_spawns_then_of_their_names() {
    let spawns = [("d", 9), ("b", 5), ("c", 5), ("a", 7)].map(|(child, at)| spawn("p", child, at));
    let mut rig = Rig::after(&spawns);
    assert_eq!(rig.children("p"), ["b", "c", "a", "d"]);
    // Announced once more, it is as young as that.
    rig.hear(&spawn("p", "b", 8));
    assert_eq!(rig.children("p"), ["c", "a", "b", "d"]);
    check_invariants(&rig.forest);
}

#[test]
fn what_names_no_agent_changes_nothing() {
    let mut rig = Rig::new(WIDE);
    let mut nameless = said("completion", "", 5, json!({}));
    nameless.session = None;
    rig.hear(&nameless);
    rig.hear(&said(
        "conversation_started",
        "a",
        5,
        json!({"sessionId": "a"}),
    ));
    assert!(rig.forest.is_empty());
    // A child without a name, or with one that no session can have: its speaker has spoken.
    rig.hear(&said("agent_spawned", "a", 5, json!({"child_session": ""})));
    rig.hear(&said(
        "agent_spawned",
        "a",
        5,
        json!({"child_session": "x".repeat(129)}),
    ));
    assert_eq!(rig.roots(), ["a"]);
    assert_eq!(rig.forest.len(), 1);
}

#[test]
fn a_child_that_nobody_began_is_a_root() {
    let mut orphan = said(
        "agent_spawned",
        "",
        5,
        json!({"child_session": "c", "purpose": "p"}),
    );
    orphan.session = None;
    let rig = Rig::after(&[orphan]);
    assert_eq!(rig.roots(), ["c"]);
    assert_eq!(rig.forest.purpose(rig.id("c")), "p");
}

#[test]
fn only_a_root_without_a_purpose_is_called_one() {
    let mut rig = Rig::after(&[spawn("a", "b", 5)]);
    rig.forest.take_changes();
    assert_eq!(rig.forest.purpose(rig.id("a")), "root");
    assert_eq!(rig.forest.purpose(rig.id("b")), "");
    rig.hear(&spawn("z", "a", 5));
    assert_eq!(rig.forest.purpose(rig.id("a")), "");
    let changes = rig.forest.take_changes();
    let mut nodes = changes.trees[0].nodes.iter();
    let change = nodes.find(|change| change.node == rig.id("a"));
    assert!(change.unwrap().is_changed);
}

#[test]
fn a_chain_of_any_length_is_moved_and_let_go_of() {
    let names: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let spawns: Vec<_> = names
        .windows(2)
        .map(|pair| spawn(&pair[0], &pair[1], 1))
        .collect();
    let mut rig = Rig::after(&spawns);
    rig.hear(&spawn("top", "0", 2));
    assert_eq!(rig.forest.stats(rig.id("0")).max_depth, 20_000);
    assert_eq!(rig.hear(&spawn("19999", "top", 3)).cycles_refused, 1);
    assert_eq!(rig.forest.root_of(rig.id("19999")), Some(rig.id("top")));
}
