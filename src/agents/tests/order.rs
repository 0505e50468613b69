//! The order of arrival makes no difference, and every change is told.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::rig::Said;
use super::*;
use crate::event::KnownType;

const SESSIONS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn session() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&SESSIONS[..])
}

fn text() -> impl Strategy<Value = Value> {
    proptest::sample::select(vec!["x", "y", "z"]).prop_map(Value::from)
}

/// A field that is there as often as not.
fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::option::of(value).prop_map(|value| value.unwrap_or(Value::Null))
}

/// What an agent says: the type, and the data.
fn words() -> BoxedStrategy<(&'static str, Value)> {
    let spawn = (
        session(),
        maybe(session().prop_map(Value::from)),
        text(),
        maybe(text()),
    );
    let spawn = spawn.prop_map(|(child, parent, purpose, branch)| {
        let data = json!({"child_session": child, "parent_session": parent,
            "purpose": purpose, "git_branch": branch});
        ("agent_spawned", data)
    });
    let number = || maybe((0..5_u32).prop_map(Value::from));
    let progress = (maybe(text()), number(), number(), number());
    let progress = progress.prop_map(|(phase, progress, tokens, cost)| {
        let data = json!({"phase": phase, "overall_progress": progress,
            "tokens_used": tokens, "cost_so_far": cost});
        ("progress_update", data)
    });
    let operation = proptest::sample::select(vec!["commit", "merge"]);
    let success = || maybe(any::<bool>().prop_map(Value::from));
    let files = || maybe(vec(text(), 0..3).prop_map(Value::from));
    let git = (operation, maybe(text()), maybe(text()), files(), success());
    let git = git.prop_map(|(operation, branch, hash, files, success)| {
        let files = if files == json!([]) {
            Value::Null
        } else {
            files
        };
        let data = json!({"operation_type": operation, "branch": branch, "commit_hash": hash,
            "files_changed": files, "success": success});
        ("git_operation", data)
    });
    let tool = proptest::sample::select(vec!["Write", "Edit"]);
    let tool = (tool, files(), success()).prop_map(|(tool, files, success)| {
        let data = json!({"tool_name": tool, "files_affected": files, "success": success});
        ("tool_execution", data)
    });
    let phase = text().prop_map(|phase| ("phase_transition", json!({"to_phase": phase})));
    let end = success().prop_map(|success| ("completion", json!({"success": success})));
    let error = Just(("error", json!({"message": "no"})));
    prop_oneof![6 => spawn, 2 => progress, 2 => git, 1 => tool, 1 => phase, 1 => end, 1 => error]
        .boxed()
}

/// Events of a few agents that share their times and differ in their ids; as many as `count` says.
pub(super) fn all_said(count: usize) -> impl Strategy<Value = Vec<Said>> {
    let said = (session(), 0..8_i64, words());
    vec(said, 1..count).prop_map(|said| {
        let said = said.into_iter().enumerate();
        let said = said.map(|(at, (session, timestamp_ms, (event_type, data)))| Said {
            // Some without an id: one at each time.
            event_id: (at >= 8).then(|| format!("{:02}", (at * 37) % 100)),
            timestamp_ms: if at < 8 { at as i64 } else { timestamp_ms },
            session: Some(session.to_owned()),
            event_type,
            data,
        });
        said.collect()
    })
}

/// As `fleet` reads events.
fn published(said: &Said) -> Value {
    json!({"event_type": said.event_type, "session_id": said.session,
        "timestamp": said.timestamp_ms, "event_id": said.event_id, "data": said.data})
}

fn heard(event: &Value) -> Said {
    Said {
        event_type: KnownType::find(event["event_type"].as_str().unwrap())
            .unwrap()
            .as_str(),
        session: event["session_id"].as_str().map(String::from),
        timestamp_ms: event["timestamp"].as_i64().unwrap(),
        event_id: event["event_id"].as_str().map(String::from),
        data: event["data"].clone(),
    }
}

/// The nodes of whole trees, as `shown` has them.
fn flat(trees: &[Value]) -> BTreeMap<String, Value> {
    let (mut left, mut nodes) = (trees.to_vec(), BTreeMap::new());
    while let Some(mut node) = left.pop() {
        let children = node["children"].as_array().cloned().unwrap_or_default();
        node["children"] = children
            .iter()
            .map(|child| child["session_id"].clone())
            .collect();
        left.extend(children);
        nodes.insert(node["session_id"].as_str().unwrap().to_owned(), node);
    }
    nodes
}

fn normal(values: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let normal = |(session, value): (&String, _)| (session.clone(), fleet::normal(value));
    values.iter().map(normal).collect()
}

/// Whether the forest shows the trees that the plain fold of all events comes to.
fn check_fold(forest: &Forest, events: &[Value]) {
    let trees = fleet::trees(events);
    assert_eq!(normal(&shown(forest)), normal(&flat(&trees)));
    let stats = trees.iter().map(|tree| {
        let root = tree["session_id"].as_str().unwrap().to_owned();
        (root, fleet::stats(tree))
    });
    assert_eq!(normal(&all_stats(forest)), normal(&stats.collect()));
    check_invariants(forest);
}

/// No more claims on anyone than are remembered.
fn is_remembered(events: &[Said]) -> bool {
    let count = |child: &str| {
        let claims = events
            .iter()
            .filter(|said| said.data["child_session"] == child);
        claims.count()
    };
    SESSIONS
        .iter()
        .all(|session| count(session) <= crate::limits::AGENT_CLAIMS_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_order_gives_the_same_forest(
        (events, shuffled) in all_said(60).prop_flat_map(|events| {
            (Just(events.clone()), Just(events).prop_shuffle())
        })
    ) {
        let (one, other) = (Rig::after(&events), Rig::after(&shuffled));
        prop_assert_eq!(shown(&one.forest), shown(&other.forest));
        prop_assert_eq!(all_stats(&one.forest), all_stats(&other.forest));
        check_invariants(&other.forest);
    }

    #[test]
    fn any_order_gives_what_the_plain_fold_gives(
        said in all_said(24).prop_filter("forgotten claims", |said| is_remembered(said))
            .prop_shuffle()
    ) {
        // The fold knows of no agent of which nothing is known but its name.
        let speak = SESSIONS.map(|session| super::said("error", session, 9, json!({})));
        let said = Vec::from_iter(said.into_iter().chain(speak));
        let events = Vec::from_iter(said.iter().map(published));
        check_fold(&Rig::after(&said).forest, &events);
    }

    #[test]
    fn what_changes_is_told(said in all_said(60), takes in vec(any::<bool>(), 60)) {
        let mut rig = Rig::new(WIDE);
        let mut before = Seen::of(&rig.forest);
        for (said, is_taken) in said.iter().zip(takes) {
            rig.hear(said);
            check_invariants(&rig.forest);
            if is_taken {
                let changes = rig.forest.take_changes();
                let now = Seen::of(&rig.forest);
                before.check(&now, &changes, &rig.forest);
                before = now;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn the_fleet_comes_to_the_same_trees_in_any_order(
        events in Just(fleet::events("alice")).prop_shuffle()
    ) {
        let said = Vec::from_iter(events.iter().map(heard));
        check_fold(&Rig::after(&said).forest, &events);
    }
}

/// What somebody has seen of a forest.
pub(super) struct Seen {
    nodes: BTreeMap<NodeId, Value>,
    roots: BTreeSet<String>,
}

impl Seen {
    pub(super) fn of(forest: &Forest) -> Self {
        let nodes = every_node(forest).into_iter();
        let roots = forest.roots();
        Self {
            nodes: nodes.map(|id| (id, shown_node(forest, id))).collect(),
            roots: roots
                .map(|root| session_of(forest, root).to_owned())
                .collect(),
        }
    }

    /// Whether `changes` lead from here to `now`, what `forest` is by now.
    pub(super) fn check(&self, now: &Self, changes: &Changes, forest: &Forest) {
        let mut roots = self.roots.clone();
        for gone in &changes.gone {
            assert!(roots.remove(gone.session.as_str()), "{gone:?} was no root");
            let node = forest
                .find(&gone.session)
                .filter(|id| forest.parent(*id).is_some());
            let above = node.and_then(|node| forest.root_of(node));
            let moved_to = above.map(|above| session_of(forest, above));
            assert_eq!(gone.moved_to.as_deref(), moved_to, "{}", gone.session);
        }
        let mut told = BTreeMap::new();
        for tree in &changes.trees {
            let is_added = roots.insert(session_of(forest, tree.root).to_owned());
            assert_eq!(is_added, tree.is_new);
            assert!(!tree.nodes.is_empty());
            for change in &tree.nodes {
                assert_eq!(forest.root_of(change.node), Some(tree.root));
                assert!(told.insert(change.node, *change).is_none(), "told twice");
            }
        }
        assert_eq!(roots, now.roots);
        for (id, node) in &now.nodes {
            let told = told.get(id);
            let before = self.nodes.get(id);
            let is_reshaped =
                before.map_or(&json!([]), |before| &before["children"]) != &node["children"];
            assert!(
                !is_reshaped || told.is_some_and(|told| told.is_reshaped),
                "{id:?}: {told:?}"
            );
            let is_changed =
                before.is_none_or(|before| without_children(before) != without_children(node));
            assert!(
                !is_changed || told.is_some_and(|told| told.is_changed),
                "{id:?}: {told:?}"
            );
        }
    }
}

fn without_children(node: &Value) -> Value {
    let mut own = node.clone();
    own["children"].take();
    own
}

#[test]
fn the_node_touched_last_is_told_last() {
    let mut rig = Rig::after(&[spawn("a", "b", 1), spawn("a", "c", 2)]);
    rig.forest.take_changes();
    rig.hear(&said("error", "c", 3, json!({})));
    rig.hear(&said("error", "b", 3, json!({})));
    rig.hear(&said("error", "c", 3, json!({})));
    let [tree] = <[TreeChanges; 1]>::try_from(rig.forest.take_changes().trees).unwrap();
    assert!(!tree.is_new);
    let nodes = ["b", "c"].map(|session| NodeChange {
        node: rig.id(session),
        is_changed: true,
        is_reshaped: false,
    });
    assert_eq!(tree.nodes, nodes);
    // Of a spawn that is the parent, as in the keen document.
    rig.hear(&spawn("b", "d", 4));
    let changes = rig.forest.take_changes();
    assert_eq!(changes.trees[0].nodes.last().unwrap().node, rig.id("b"));
}

#[test]
fn a_tree_that_joins_another_is_told_as_moved() {
    let mut rig = Rig::after(&[spawn("b", "c", 1)]);
    rig.forest.take_changes();
    rig.hear(&spawn("a", "b", 2));
    let changes = rig.forest.take_changes();
    let gone = GoneRoot {
        session: "b".into(),
        moved_to: Some("a".into()),
    };
    assert_eq!(changes.gone, [gone]);
    assert_eq!((changes.trees.len(), changes.trees[0].is_new), (1, true));
    // What came and went between two looks was never there.
    rig.hear(&spawn("y", "z", 3));
    rig.hear(&spawn("a", "y", 3));
    let changes = rig.forest.take_changes();
    assert!(changes.gone.is_empty());
    assert_eq!(changes.trees.len(), 1);
}
