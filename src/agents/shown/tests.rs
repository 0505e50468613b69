#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use json_patch::Patch;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::agents::Changes;
use crate::agents::rig::{Rig, WIDE, own_members, said, session_of};
use crate::limits::TREE_MESSAGE_BYTES_MAX;

const TIME_MS: i64 = 1_795_341_600_000;
const SEEN_MAX: usize = 8;

/// One user's agents, and viewers who look at every tree.
struct World {
    rig: Rig,
    at_seq: Seq,
    /// What a tree may take.
    bytes_max: usize,
    watched: BTreeMap<CompactString, Watched>,
}

/// A tree, and how viewers who looked at some time and not since have it.
struct Watched {
    shown: Shown,
    seen: Vec<(Sent, [Value; 2])>,
}

impl World {
    fn new() -> Self {
        Self::within(TREE_BYTES_MAX)
    }

    fn within(bytes_max: usize) -> Self {
        Self {
            rig: Rig::new(WIDE),
            at_seq: Seq(0),
            bytes_max,
            watched: BTreeMap::new(),
        }
    }

    fn say(&mut self, event_type: &'static str, session: &str, after_ms: i64, data: Value) {
        self.at_seq = self.at_seq.next();
        self.rig
            .hear(&said(event_type, session, TIME_MS + after_ms, data));
    }

    fn spawn(&mut self, parent: &str, child: &str, after_ms: i64, purpose: &str) {
        let data = json!({"child_session": child, "purpose": purpose});
        self.say("agent_spawned", parent, after_ms, data);
    }

    fn progress(&mut self, session: &str, after_ms: i64, progress: f64) {
        let data = json!({"overall_progress": progress, "tokens_used": 10, "cost_so_far": 0.5});
        self.say("progress_update", session, after_ms, data);
    }

    fn shown(&self, session: &str) -> &Shown {
        &self.watched[session].shown
    }

    /// Shows what has happened to all trees. Returns the roots of those that were touched.
    fn follow(&mut self) -> Vec<CompactString> {
        let forest = &mut self.rig.forest;
        let Changes { gone, trees } = forest.take_changes();
        for root in gone {
            self.watched.remove(&root.session);
        }
        let follow = |changes: TreeChanges| {
            let session = CompactString::from(session_of(forest, changes.root));
            let new = || Watched {
                shown: Shown::within(self.bytes_max, forest, changes.root, self.at_seq).unwrap(),
                seen: Vec::new(),
            };
            let watched = self.watched.entry(session.clone()).or_insert_with(new);
            watched.shown.apply(forest, &changes, self.at_seq);
            watched.shown.cut.check_invariants();
            session
        };
        let touched = trees.into_iter().map(follow).collect();
        assert_eq!(self.watched.len(), forest.roots().count());
        touched
    }

    /// The same, and checks that whoever has seen one of them can follow it; of those who have, a few.
    fn look(&mut self) {
        for session in self.follow() {
            let watched = self.watched.get_mut(&session).unwrap();
            watched.look(&self.rig.forest);
        }
    }
}

impl Watched {
    fn look(&mut self, forest: &Forest) {
        let shown = &self.shown;
        let trees = Dialect::ALL.map(|dialect| full_tree(shown, dialect));
        check_tree(forest, shown.root, &trees[1]);
        for (base, seen) in &self.seen {
            for dialect in Dialect::ALL {
                let patched = patched(shown, dialect, *base, &seen[dialect.index()]);
                assert_eq!(patched, trees[dialect.index()]);
            }
        }
        // One who saw it at first, and some of later.
        if self.seen.len() == SEEN_MAX {
            self.seen
                .remove(1 + shown.at_seq().0 as usize % (SEEN_MAX - 1));
        }
        self.seen.push((sent(shown), trees));
    }
}

fn sent(shown: &Shown) -> Sent {
    Sent {
        version: shown.version(),
        at_seq: shown.at_seq(),
    }
}

/// The `data` of an update, as bytes.
fn encoded(shown: &Shown, dialect: Dialect, content: Content) -> Vec<u8> {
    let mut out = Vec::new();
    let at_seq = shown.at_seq();
    let update = Update {
        dialect,
        content,
        at_seq,
    };
    shown.encode_update(&update, &mut out);
    out
}

/// The same, read as part of a message.
fn update(shown: &Shown, dialect: Dialect, content: Content) -> Value {
    let data = String::from_utf8(encoded(shown, dialect, content)).unwrap();
    let mut message: Value = serde_json::from_str(&format!(r#"{{"data":{data}}}"#)).unwrap();
    message["data"].take()
}

fn full_tree(shown: &Shown, dialect: Dialect) -> Value {
    update(shown, dialect, Content::FullTree { since: None })["full_tree"].take()
}

fn patch(shown: &Shown, base: Sent) -> Value {
    update(shown, Dialect::Observatory, Content::Patch { base })["patch"].take()
}

/// What a viewer has who had `seen` and gets a patch against it.
fn patched(shown: &Shown, dialect: Dialect, base: Sent, seen: &Value) -> Value {
    let mut update = update(shown, dialect, Content::Patch { base });
    assert_eq!(update["base_seq"], base.at_seq.0);
    let patch: Patch = serde_json::from_value(update["patch"].take()).unwrap();
    let mut tree = seen.clone();
    json_patch::patch(&mut tree, &patch).unwrap();
    tree
}

/// Checks a tree with times as numbers against the forest.
fn check_tree(forest: &Forest, id: NodeId, tree: &Value) {
    let mut own = tree.as_object().unwrap().clone();
    let children = own.remove("children");
    let omitted = own.remove("children_omitted");
    assert_eq!(Value::Object(own), own_members(forest, id));
    let ids = forest.children(id);
    match children {
        Some(children) => {
            let children = children.as_array().unwrap();
            assert_eq!(children.len(), ids.len());
            assert_eq!(omitted, None);
            for (&id, tree) in ids.iter().zip(children) {
                check_tree(forest, id, tree);
            }
        }
        None => assert_eq!(omitted, Some(ids.len().into())),
    }
}

/// A tree of 1 + 10 + 100 + … nodes, the last row filled up to `nodes` in all.
fn wide(nodes: usize) -> World {
    let mut world = World::new();
    for child in 1..nodes {
        let parent = format!("s{}", (child - 1) / 10);
        world.spawn(&parent, &format!("s{child}"), child as i64, "a purpose");
    }
    world
}

#[test]
fn a_node_has_the_members_of_the_source_document() {
    let mut world = World::new();
    world.spawn("root \"1\"", "b", 0, "look around");
    world.say(
        "git_operation",
        "b",
        1,
        json!({"operation_type": "commit", "branch": "feat/x", "commit_hash": "c0ffee", "files_changed": ["a.rs"]}),
    );
    world.progress("b", 2, 37.5);
    world.look();
    let shown = world.shown("root \"1\"");
    let content = Content::FullTree { since: None };
    let keen = concat!(
        r#"{"tree_root":"root \"1\"","updated_node":"b","updated_nodes":["b"],"at_seq":3,"#,
        r#""tree_stats":{"total":2,"active":2,"by_status":{"spawning":0,"running":2,"completed":0,"#,
        r#""failed":0,"cancelled":0},"max_depth":1,"tokens_used":10,"cost_so_far":0.5,"git_commits":1},"#,
        r#""full_tree":{"session_id":"root \"1\"","parent_session":null,"git_branch":"main","#,
        r#""status":"running","current_phase":"EXPLORE","purpose":"root","progress":0,"#,
        r#""metrics":{"start_time":"2026-11-22T10:00:00.000Z","tokens_used":0,"cost_so_far":0,"#,
        r#""files_created":0,"files_modified":0,"git_commits":0},"git_info":{"branch":"main","#,
        r#""latest_commit":null,"commits_count":0,"files_changed":[]},"children":["#,
        r#"{"session_id":"b","parent_session":"root \"1\"","git_branch":"feat/x","status":"running","#,
        r#""current_phase":"EXPLORE","purpose":"look around","progress":37.5,"#,
        r#""metrics":{"start_time":"2026-11-22T10:00:00.000Z","tokens_used":10,"cost_so_far":0.5,"#,
        r#""files_created":0,"files_modified":0,"git_commits":1},"git_info":{"branch":"feat/x","#,
        r#""latest_commit":"c0ffee","commits_count":1,"files_changed":["a.rs"]},"children":[]}]}}"#,
    );
    let text = String::from_utf8(encoded(shown, Dialect::Keen, content)).unwrap();
    assert_eq!(text, keen);
    let observatory = keen.replace("\"2026-11-22T10:00:00.000Z\"", "1795341600000");
    let text = String::from_utf8(encoded(shown, Dialect::Observatory, content)).unwrap();
    assert_eq!(text, observatory);
}

/// What a viewer is sent who saw the tree before `happen`.
fn check_patch(happen: impl FnOnce(&mut World), expected: &Value) {
    let mut world = World::new();
    for (child, after_ms) in [("a", 10), ("b", 20), ("c", 30)] {
        world.spawn("root", child, after_ms, "");
    }
    world.look();
    let base = sent(world.shown("root"));
    happen(&mut world);
    world.look();
    let mut patch = patch(world.shown("root"), base);
    for operation in patch.as_array_mut().unwrap() {
        // What a node holds is shown elsewhere.
        if let Some(session) = operation["value"].get("session_id").cloned() {
            operation["value"] = session;
        }
    }
    assert_eq!(&patch, expected);
}

#[test]
fn a_patch_holds_what_changed_and_no_more() {
    check_patch(
        |world| world.say("error", "root", 40, json!({})),
        &json!([]),
    );
    check_patch(
        |world| world.progress("b", 40, 25.0),
        &json!([
            {"op": "replace", "path": "/children/1/status", "value": "running"},
            {"op": "replace", "path": "/children/1/progress", "value": 25},
            {"op": "replace", "path": "/children/1/metrics/tokens_used", "value": 10},
            {"op": "replace", "path": "/children/1/metrics/cost_so_far", "value": 0.5},
        ]),
    );
    check_patch(
        |world| world.spawn("root", "d", 15, ""),
        &json!([{"op": "add", "path": "/children/1", "value": "d"}]),
    );
    check_patch(
        |world| world.spawn("c", "a", 40, ""),
        &json!([
            {"op": "remove", "path": "/children/0"},
            {"op": "add", "path": "/children/1/children/0", "value": "a"},
            {"op": "replace", "path": "/children/1/status", "value": "running"},
        ]),
    );
    check_patch(
        |world| world.spawn("root", "a", 25, ""),
        &json!([
            {"op": "remove", "path": "/children/0"},
            {"op": "add", "path": "/children/1", "value": "a"},
        ]),
    );
}

#[test]
fn what_changed_often_is_told_once_and_where_it_is_by_now() {
    check_patch(
        |world| {
            for step in 0..50 {
                world.progress("c", 40 + step, step as f64);
                world.look();
            }
            world.spawn("root", "d", 15, "");
        },
        &json!([
            {"op": "add", "path": "/children/1", "value": "d"},
            {"op": "replace", "path": "/children/3/status", "value": "running"},
            {"op": "replace", "path": "/children/3/progress", "value": 49},
            {"op": "replace", "path": "/children/3/metrics/tokens_used", "value": 10},
            {"op": "replace", "path": "/children/3/metrics/cost_so_far", "value": 0.5},
        ]),
    );
}

#[test]
fn who_has_not_looked_for_long_gets_the_tree_in_one_operation() {
    let mut world = World::new();
    world.progress("root", 0, 1.0);
    world.look();
    let base = sent(world.shown("root"));
    for child in 0..100 {
        world.spawn("root", &format!("child {child}"), child, "");
        world.look();
        world.spawn(
            &format!("other {child}"),
            &format!("child {child}"),
            1_000,
            "",
        );
        world.look();
    }
    let shown = world.shown("root");
    let tree = full_tree(shown, Dialect::Observatory);
    let expected = json!([{"op": "replace", "path": "", "value": tree}]);
    assert_eq!(patch(shown, base), expected);
    assert!(shown.heap_bytes() < 16 * 1024, "{}", shown.heap_bytes());
}

#[test]
fn an_update_names_those_touched_since_the_last_one() {
    let mut world = wide(200);
    world.look();
    let base = sent(world.shown("s0"));
    for session in ["s3", "s4", "s3", "s5"] {
        world.say("error", session, 0, json!({}));
        world.look();
    }
    let shown = world.shown("s0");
    let check = |content, expected: Value| {
        let update = update(shown, Dialect::Keen, content);
        assert_eq!(update["updated_node"], "s5");
        assert_eq!(update["updated_nodes"], expected);
    };
    let since = Some(base.version);
    check(Content::Patch { base }, json!(["s4", "s3", "s5"]));
    check(Content::FullTree { since }, json!(["s4", "s3", "s5"]));
    check(Content::FullTree { since: None }, json!(["s5"]));
    let base = sent(shown);
    check(Content::Patch { base }, json!(["s5"]));
}

#[test]
fn a_tree_of_many_nodes_is_cut_breadth_first() {
    let mut world = wide(10_000);
    world.look();
    let shown = world.shown("s0");
    let tree = full_tree(shown, Dialect::Observatory);
    let row = &tree["children"][9]["children"][9];
    assert_eq!(row["session_id"], "s110");
    assert_eq!(row["children_omitted"], 10);
    for dialect in Dialect::ALL {
        let content = Content::FullTree { since: None };
        assert!(encoded(shown, dialect, content).len() < TREE_BYTES_MAX);
    }
}

#[test]
fn what_is_not_shown_is_told_as_touched() {
    let mut world = wide(10_000);
    world.look();
    let base = sent(world.shown("s0"));
    world.progress("s9999", 20_000, 1.0);
    world.spawn("s110", "new", 20_000, "");
    world.look();
    let shown = world.shown("s0");
    let update = update(shown, Dialect::Keen, Content::Patch { base });
    let path = "/children/9/children/9/children_omitted";
    let expected = json!([{"op": "replace", "path": path, "value": 11}]);
    assert_eq!(update["patch"], expected);
    assert_eq!(update["updated_nodes"], json!(["s9999", "new", "s110"]));
    assert_eq!(update["tree_stats"]["total"], 10_001);
    assert_eq!(update["tree_stats"]["tokens_used"], 10);
}

#[test]
fn an_update_of_a_large_tree_is_small() {
    let mut world = wide(10_000);
    world.look();
    for session in ["s0", "s7", "s55", "s110"] {
        let base = sent(world.shown("s0"));
        world.progress(session, 20_000, 12.5);
        world.look();
        let shown = world.shown("s0");
        let update = encoded(shown, Dialect::Keen, Content::Patch { base });
        assert!(update.len() < 1024, "{}", update.len());
        assert!(patch(shown, base).as_array().unwrap().len() >= 3);
    }
}

#[test]
fn a_tree_that_outgrows_the_bound_is_cut_back_with_slack() {
    let mut world = World::within(32 * 1024);
    world.progress("s0", 0, 1.0);
    world.look();
    let mut cuts = 0;
    for child in 1..1_000_usize {
        let parent = format!("s{}", (child - 1) / 5);
        world.spawn(&parent, &format!("s{child}"), child as i64, "a purpose");
        let before = world.shown("s0").cut.bytes();
        world.follow();
        let bytes = world.shown("s0").cut.bytes();
        assert!(bytes <= 32 * 1024);
        if bytes < before {
            assert!(bytes <= with_slack(32 * 1024));
            world.look();
            cuts += 1;
        }
    }
    assert!((1..10).contains(&cuts), "{cuts}");
}

#[test]
fn children_that_are_few_enough_again_are_shown() {
    let mut world = World::new();
    for child in 0..700 {
        world.spawn("root", &format!("s{child}"), child, "");
    }
    world.look();
    let tree = full_tree(world.shown("root"), Dialect::Keen);
    assert_eq!(tree["children_omitted"], 700);
    for child in 0..600 {
        world.spawn("other", &format!("s{child}"), 1_000, "");
    }
    world.look();
    let tree = full_tree(world.shown("root"), Dialect::Keen);
    assert_eq!(tree["children"].as_array().unwrap().len(), 100);
}

#[test]
fn a_deep_tree_is_shown_as_deep_as_json_readers_go() {
    let mut world = World::new();
    world.progress("s0", 0, 0.0);
    world.look();
    let base = sent(world.shown("s0"));
    for child in 1..100 {
        let parent = format!("s{}", child - 1);
        world.spawn(&parent, &format!("s{child}"), child, "");
        world.follow();
    }
    let shown = world.shown("s0");
    // Reading the message again is the point: the whole tree as the value of an operation is deepest.
    let mut tree = &patch(shown, base)[0]["value"];
    assert_eq!(tree["session_id"], "s0");
    for _ in 0..TREE_DEPTH_SHOWN_MAX {
        tree = &tree["children"][0];
    }
    assert_eq!(tree["session_id"], format!("s{TREE_DEPTH_SHOWN_MAX}"));
    assert_eq!(tree["children_omitted"], 1);
}

fn check_trees(world: &World, sessions: &[&str], omitted: usize) -> Vec<Value> {
    let tops: Vec<_> = sessions
        .iter()
        .map(|session| world.rig.id(session))
        .collect();
    let mut out = Vec::new();
    let count = encode_trees(&world.rig.forest, &tops, Dialect::Observatory, &mut out);
    assert_eq!(tops.len() - count, omitted);
    assert!(out.len() <= TREE_BYTES_MAX);
    let trees: Vec<Value> = serde_json::from_slice(&out).unwrap();
    assert_eq!(trees.len() + omitted, tops.len());
    for (&top, tree) in tops.iter().zip(&trees) {
        check_tree(&world.rig.forest, top, tree);
    }
    trees
}

#[test]
fn any_subtree_can_be_asked_for() {
    let world = wide(10_000);
    assert_eq!(check_trees(&world, &[], 0), [] as [Value; 0]);
    let trees = check_trees(&world, &["s110"], 0);
    assert_eq!(trees[0]["parent_session"], "s10");
    assert_eq!(trees[0]["children"].as_array().unwrap().len(), 10);
    check_trees(&world, &["s1", "s2", "s110"], 0);
}

#[test]
fn trees_without_room_for_their_roots_are_counted() {
    let mut world = World::new();
    let sessions: Vec<_> = (0..1_000).map(|root| format!("s{root}")).collect();
    for session in &sessions {
        world.progress(session, 0, 1.0);
    }
    let sessions: Vec<_> = sessions.iter().map(String::as_str).collect();
    let fitting = TREE_BYTES_MAX / 450;
    check_trees(&world, &sessions[..fitting], 0);
    let tops: Vec<_> = sessions
        .iter()
        .map(|session| world.rig.id(session))
        .collect();
    let count = encode_trees(&world.rig.forest, &tops, Dialect::Keen, &mut Vec::new());
    let omitted = tops.len() - count;
    assert!((300..600).contains(&omitted), "{omitted}");
    check_trees(&world, &sessions, omitted);
}

#[test]
fn as_many_sessions_are_named_as_a_tree_has_bytes() {
    let mut world = World::new();
    let check = |world: &World, sessions: &[String], expected: usize| {
        let nodes: Vec<_> = sessions.iter().map(|it| world.rig.id(it)).collect();
        let mut out = Vec::new();
        encode_sessions(&world.rig.forest, &nodes, &mut out);
        assert!(out.len() <= TREE_BYTES_MAX);
        let named: Vec<String> = serde_json::from_slice(&out).unwrap();
        assert_eq!(named, sessions[..expected]);
    };
    check(&world, &[], 0);
    let sessions: Vec<String> = (0..2_500).map(|n| format!("{n:0>120}")).collect();
    for session in &sessions {
        world.progress(session, 0, 1.0);
    }
    check(&world, &sessions[..9], 9);
    check(&world, &sessions, (TREE_BYTES_MAX - 2) / 123);
}

#[test]
fn a_root_that_goes_is_told() {
    let check = |moved_to: Option<&str>, expected| {
        let gone = GoneRoot {
            session: "a\"".into(),
            moved_to: moved_to.map(CompactString::from),
        };
        let mut out = Vec::new();
        encode_removed(&gone, Seq(9), &mut out);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    };
    check(
        None,
        json!({"tree_root": "a\"", "at_seq": 9, "removed": true}),
    );
    let moved = json!({"tree_root": "a\"", "at_seq": 9, "removed": true, "moved_to": "b"});
    check(Some("b"), moved);
}

#[test]
fn the_largest_message_is_within_the_bound() {
    let mut world = World::new();
    let session = |number: usize| format!("{}{number:03}", "\u{1}".repeat(125));
    for child in 1..500 {
        world.spawn(&session(0), &session(child), child as i64, "");
        world.progress(&session(child), child as i64, 1.0);
        world.follow();
    }
    let shown = world.shown(&session(0));
    for dialect in Dialect::ALL {
        let since = Some(Version::default());
        let length = encoded(shown, dialect, Content::FullTree { since }).len();
        assert!(length + 256 <= TREE_MESSAGE_BYTES_MAX, "{length}");
    }
}

#[test]
fn no_node_is_smaller_than_is_assumed() {
    let mut world = World::new();
    let spawn = json!({"child_session": "c", "purpose": "", "git_branch": ""});
    world.say("agent_spawned", "r", 0, spawn);
    world.say("phase_transition", "c", 1, json!({"to_phase": ""}));
    world.say("completion", "c", 2, json!({"success": false}));
    let text = NodeText::new(&world.rig.forest, world.rig.id("c")).unwrap();
    let bytes = text.bytes_max();
    assert!(
        (NODE_BYTES_MIN..NODE_BYTES_MIN + 10).contains(&bytes),
        "{bytes}"
    );
}

/// Something that happens, to sessions with small numbers.
#[derive(Clone, Debug)]
enum Happening {
    Complete(usize),
    Commit(usize),
    Look,
    Progress(usize, u8),
    Spawn(usize, usize, u8),
    Write(usize),
}

fn happenings(sessions: usize) -> impl Strategy<Value = (Happening, i64)> {
    let any_session = move || 0..sessions;
    let happening = prop_oneof![
        1 => any_session().prop_map(Happening::Complete),
        1 => any_session().prop_map(Happening::Commit),
        3 => Just(Happening::Look),
        2 => (any_session(), any::<u8>()).prop_map(|(s, value)| Happening::Progress(s, value)),
        4 => (any_session(), any_session(), any::<u8>())
            .prop_map(|(parent, child, purpose)| Happening::Spawn(parent, child, purpose)),
        1 => any_session().prop_map(Happening::Write),
    ];
    (happening, 0..20_i64)
}

impl World {
    /// `purpose_bytes` is what a purpose may have at most, in a character that takes six as JSON.
    fn happen(&mut self, happening: &Happening, after_ms: i64, purpose_bytes: usize) {
        let name = |session: usize| format!("s{session}");
        match *happening {
            Happening::Complete(session) => {
                self.say("completion", &name(session), after_ms, json!({}));
            }
            Happening::Commit(session) => {
                let data = json!({"operation_type": "commit", "commit_hash": after_ms.to_string(),
                    "branch": format!("b/{after_ms}"), "files_changed": ["a", "b\n"]});
                self.say("git_operation", &name(session), after_ms, data);
            }
            Happening::Look => self.look(),
            Happening::Progress(session, value) => {
                self.progress(&name(session), after_ms, f64::from(value) / 2.0);
            }
            Happening::Spawn(parent, child, purpose) => {
                let purpose = "\u{1}".repeat(purpose_bytes * usize::from(purpose) / 255);
                self.spawn(&name(parent), &name(child), after_ms, &purpose);
            }
            Happening::Write(session) => {
                let data = json!({"tool_name": "Write", "files_affected": ["x"]});
                self.say("tool_execution", &name(session), after_ms, data);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_patched_tree_equals_the_whole_one(
        happenings in prop::collection::vec(happenings(12), 1..80),
    ) {
        let mut world = World::new();
        for (happening, after_ms) in &happenings {
            world.happen(happening, *after_ms, 8);
        }
        world.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_patched_tree_equals_the_whole_one_where_it_is_cut(
        happenings in prop::collection::vec(happenings(60), 100..300),
    ) {
        let mut world = World::within(16 * 1024);
        for (happening, after_ms) in &happenings {
            world.happen(happening, *after_ms, 128);
        }
        world.look();
    }
}
