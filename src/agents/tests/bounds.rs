//! How much is kept, and what goes first.

#![allow(clippy::unwrap_used)]

use super::super::rig::Said;
use super::*;
use crate::limits::{AGENT_FILES_BYTES_MAX, AGENT_FILES_MAX, AGENT_PURPOSE_BYTES_MAX};

fn done(session: &str) -> Said {
    said("completion", session, 50, json!({}))
}

fn error(session: &str) -> Said {
    said("error", session, 50, json!({}))
}

#[test]
fn a_finished_tree_goes_once_it_is_too_old() {
    let bounds = Bounds {
        finished_max_ms: 100,
        ..WIDE
    };
    let mut rig = Rig::new(bounds);
    rig.hear_at(1_000, &spawn("a", "b", 1));
    rig.hear_at(1_000, &done("a"));
    rig.hear_at(1_000, &error("still at work"));
    // Its child is at work until here.
    rig.hear_at(1_200, &done("b"));
    assert_eq!(rig.forest.evict(1_300), 0);
    // An event keeps it, also a late one of what is done.
    rig.hear_at(1_250, &error("a"));
    assert_eq!(rig.forest.evict(1_350), 0);
    rig.forest.take_changes();
    assert_eq!(rig.hear_at(1_351, &error("x")).trees_evicted, 1);
    assert_eq!(rig.roots(), ["still at work", "x"]);
    assert_eq!(rig.forest.find("b"), None);
    let gone = GoneRoot {
        session: "a".into(),
        moved_to: None,
    };
    assert_eq!(rig.forest.take_changes().gone, [gone]);
    assert_eq!(rig.forest.evict(i64::MAX), 0);
    check_invariants(&rig.forest);
}

#[test]
fn time_that_goes_back_makes_nothing_older() {
    let bounds = Bounds {
        finished_max_ms: 100,
        ..WIDE
    };
    let mut rig = Rig::new(bounds);
    rig.hear_at(1_000, &done("a"));
    rig.hear_at(500, &done("b"));
    assert_eq!(rig.hear_at(1_100, &done("c")).trees_evicted, 0);
    assert_eq!(rig.hear_at(1_101, &done("c")).trees_evicted, 2);
}

#[test]
fn of_too_many_finished_trees_the_one_silent_longest_goes() {
    let bounds = Bounds {
        finished_trees_max: 2,
        ..WIDE
    };
    let mut rig = Rig::new(bounds);
    for session in ["a", "b", "at work"] {
        rig.hear(&error(session));
    }
    for session in ["b", "a"] {
        assert_eq!(rig.hear(&done(session)).trees_evicted, 0);
    }
    rig.hear(&error("b"));
    assert_eq!(rig.hear(&done("c")).trees_evicted, 1);
    assert_eq!(rig.roots(), ["at work", "b", "c"]);
    // One that goes on is finished no longer.
    rig.hear(&spawn("b", "child", 60));
    assert_eq!(rig.hear(&done("d")).trees_evicted, 0);
    check_invariants(&rig.forest);
}

#[test]
fn where_no_finished_tree_is_kept_each_goes_at_once() {
    let bounds = Bounds {
        finished_trees_max: 0,
        ..WIDE
    };
    let mut rig = Rig::new(bounds);
    assert_eq!(rig.hear(&done("a")).trees_evicted, 1);
    assert!(rig.forest.is_empty());
    let changes = rig.forest.take_changes();
    assert!(changes.gone.is_empty() && changes.trees.is_empty());
}

fn small(nodes_max: usize) -> Rig {
    Rig::new(Bounds { nodes_max, ..WIDE })
}

#[test]
fn past_the_bound_the_longest_silent_tree_goes() {
    let mut rig = small(4);
    rig.hear(&spawn("a", "b", 1));
    rig.hear(&error("c"));
    rig.hear(&error("d"));
    rig.hear(&error("a"));
    let applied = rig.hear(&error("e"));
    assert_eq!((applied.trees_evicted, applied.nodes_refused), (1, 0));
    assert_eq!(rig.roots(), ["a", "d", "e"]);
    // Two are needed; `d` and then the tree of `a` are in the way, but not what the event names.
    let applied = rig.hear(&spawn("e", "f", 1));
    assert_eq!((applied.trees_evicted, applied.nodes_refused), (1, 0));
    let applied = rig.hear(&spawn("b", "g", 1));
    assert_eq!((applied.trees_evicted, applied.nodes_refused), (1, 0));
    assert_eq!(rig.roots(), ["a"]);
    check_invariants(&rig.forest);
}

#[test]
fn where_nothing_else_can_go_a_node_is_not_made() {
    let mut rig = small(2);
    rig.hear(&spawn("a", "b", 1));
    let applied = rig.hear(&spawn("b", "c", 2));
    assert_eq!((applied.trees_evicted, applied.nodes_refused), (0, 1));
    assert_eq!(shown(&rig.forest)["b"]["status"], "running");
    // Nor a parent; the child is known, and has none.
    let mut rig = small(1);
    let data = json!({"child_session": "b", "parent_session": "p", "purpose": "x"});
    rig.hear(&error("b"));
    let applied = rig.hear(&said("agent_spawned", "b", 2, data));
    assert_eq!(applied.nodes_refused, 1);
    assert_eq!(rig.forest.purpose(rig.id("b")), "x");
    assert_eq!(rig.roots(), ["b"]);
    // The speaker alone has room.
    let applied = rig.hear(&spawn("s", "t", 3));
    assert_eq!((applied.trees_evicted, applied.nodes_refused), (1, 1));
    assert_eq!(rig.roots(), ["s"]);
    check_invariants(&rig.forest);
}

#[test]
fn a_name_that_comes_again_is_another_node() {
    let mut rig = small(2);
    rig.hear(&spawn("a", "b", 1));
    let before = rig.id("a");
    rig.hear(&error("c"));
    rig.hear(&error("a"));
    assert_ne!(rig.id("a"), before);
    assert!(rig.forest.node(before).is_none() && rig.forest.root_of(before).is_none());
    assert!(rig.forest.path(before).is_empty() && rig.forest.children(before).is_empty());
    assert_eq!(rig.forest.stats(before), TreeStats::default());
    assert!(rig.forest.children(rig.id("a")).is_empty());
}

#[test]
fn a_claim_on_a_parent_that_went_is_forgotten() {
    let bounds = Bounds {
        nodes_max: 4,
        ..WIDE
    };
    let mut rig = Rig::new(bounds);
    // `c` was begun by `a`, then by `b`.
    rig.hear(&spawn("a", "c", 1));
    rig.hear(&spawn("b", "c", 2));
    rig.hear(&error("x"));
    rig.hear(&error("c"));
    // `a` goes; somebody else has its place in memory.
    rig.hear(&error("y"));
    assert_eq!(rig.forest.find("a"), None);
    // The later claim is refused: `b` is below `c` by earlier ones.
    let applied = rig.hear(&spawn("c", "b", 0));
    assert_eq!(applied.cycles_refused, 1);
    assert_eq!(rig.parent("c"), None);
    assert_eq!(rig.parent("b"), Some("c"));
    check_invariants(&rig.forest);
}

#[test]
fn changes_that_nobody_takes_stay_within_bounds() {
    let mut rig = small(10);
    rig.hear(&error("first"));
    rig.forest.take_changes();
    for round in 0..1_000 {
        rig.hear(&error(&round.to_string()));
    }
    assert!(rig.forest.touched.len() <= 2 * 10 + 1);
    let changes = rig.forest.take_changes();
    let gone: Vec<_> = changes
        .gone
        .iter()
        .map(|gone| gone.session.as_str())
        .collect();
    assert_eq!((gone, changes.trees.len()), (vec!["first"], 10));
}

/// Bytes of the texts that an agent says below; those of ids, one for each field.
const TEXT_BYTES: usize = 36 + 60 + 32 + 10 + 32 + 40 + 8 * 27 + 11 * 36;

/// Bytes that a node takes beside its texts, where agents have said all that there is to say and
/// `parent` is who began them.
fn node_bytes(parent: impl Fn(usize) -> Option<usize>) -> usize {
    const NODES: usize = 2_000;
    let mut rig = Rig::new(WIDE);
    let session = |n: usize| format!("0f8e3c1a-7b52-4c6e-9a51-{n:012}");
    let files = Vec::from_iter((0..8).map(|file| format!("src/agents/of/the/{file:09}")));
    for n in 0..NODES {
        let own = [
            ("phase_transition", json!({"to_phase": "IMPLEMENTS"})),
            (
                "progress_update",
                json!({"overall_progress": 1.5, "tokens_used": 7,
                "cost_so_far": 1.25}),
            ),
            (
                "git_operation",
                json!({"operation_type": "commit", "branch": "c".repeat(32),
                "commit_hash": "d".repeat(40), "files_changed": files}),
            ),
            ("completion", json!({})),
        ];
        let spawn = json!({"child_session": session(n), "parent_session": parent(n).map(session),
            "git_branch": "b".repeat(32), "purpose": "p".repeat(60)});
        let spawn = ("agent_spawned", spawn);
        for (at, (event_type, data)) in [spawn].into_iter().chain(own).enumerate() {
            let mut said = said(event_type, &session(n), at as i64, data);
            said.event_id = Some(session(at));
            rig.hear(&said);
        }
    }
    assert_eq!(rig.forest.len(), NODES);
    rig.forest.take_changes();
    rig.forest.heap_bytes() / NODES - TEXT_BYTES
}

#[test]
fn a_node_takes_less_than_a_kibibyte_beside_its_texts() {
    let in_a_tree = node_bytes(|n| n.checked_sub(1).map(|n| n / 8));
    let alone = node_bytes(|_| None);
    assert!(in_a_tree <= 1024, "{in_a_tree} in a tree");
    assert!(alone <= 1024, "{alone} alone");
}

#[test]
fn texts_and_files_are_cut_where_they_are_too_long() {
    let files: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let long: Vec<_> = (0..20).map(|n| "é".repeat(100 + n)).collect();
    let rig = Rig::after(&[
        said(
            "git_operation",
            "a",
            1,
            json!({"operation_type": "x", "files_changed": files}),
        ),
        said(
            "git_operation",
            "b",
            1,
            json!({"operation_type": "x", "files_changed": long}),
        ),
        said(
            "agent_spawned",
            "a",
            2,
            json!({"child_session": "b", "purpose": "é".repeat(2_000)}),
        ),
        said(
            "phase_transition",
            "b",
            3,
            json!({"to_phase": format!("x{}", "é".repeat(200))}),
        ),
    ]);
    let files = |session| Vec::from_iter(rig.forest.node(rig.id(session)).unwrap().files_changed());
    assert_eq!(files("a").len(), AGENT_FILES_MAX);
    let bytes: usize = files("b").iter().map(|file| file.len()).sum();
    assert!(bytes <= AGENT_FILES_BYTES_MAX && bytes + 256 > AGENT_FILES_BYTES_MAX);
    assert_eq!(
        rig.forest.purpose(rig.id("b")).len(),
        AGENT_PURPOSE_BYTES_MAX
    );
    assert_eq!(rig.forest.current_phase(rig.id("b")).len(), 255);
}
