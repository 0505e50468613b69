use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::dialect::{ConnectQuery, Cursor, SubscribeScope, TreeMode};
use crate::event::Dialect;
use crate::hub::Bounds;
use crate::hub::catch_up::tests::NARROW;
use crate::hub::frames::Variant;
use crate::hub::ledger::Deliver;
use crate::hub::rig::{Client, EPOCH, OUTBOX_BYTES_MAX, Rig, claims, seqs};
use crate::limits::{TREE_INTERVAL_MS, TREE_QUESTIONS_WAITING_MAX};

fn rig() -> Rig {
    rig_with(Bounds::default())
}

fn rig_with(bounds: Bounds) -> Rig {
    Rig::with(1, bounds, |options| {
        options.tiers.insert("individual".into(), 2_000);
    })
}

fn query(tree: TreeMode) -> ConnectQuery {
    ConnectQuery {
        subscribe: SubscribeScope::All,
        tree: Some(tree),
        ..ConnectQuery::default()
    }
}

fn watch(rig: &mut Rig, tree: TreeMode) -> Client {
    rig.connect(claims("ada", &[]), Dialect::Observatory, query(tree))
}

// Publishes events of ada's agents, each (type, session, data), and ends the turn.
fn publish(rig: &mut Rig, events: &[(&str, &str, Value)]) {
    publish_of(rig, "ada", events);
}

fn publish_of(rig: &mut Rig, user: &str, events: &[(&str, &str, Value)]) {
    let core = 0;
    let publisher = rig.publisher(core);
    for (event_type, session, data) in events {
        let event = json!({
            "type": event_type, "user_id": user, "session_id": session, "data": data,
        });
        rig.publish(publisher, &event.to_string());
    }
    rig.settle();
    rig.read(publisher);
    rig.hubs[core].handle_disconnect(publisher.key);
}

fn spawn(child: &str) -> Value {
    json!({"child_session": child, "purpose": "to help", "git_branch": "b"})
}

fn progress(tokens: u64) -> Value {
    json!({"tokens_used": tokens, "overall_progress": 0.5})
}

// Lets the interval pass, and what is due be sent.
fn pass(rig: &mut Rig) {
    rig.wait(TREE_INTERVAL_MS + 1);
    rig.settle();
}

fn is_update(message: &Value) -> bool {
    message["type"] == "agent_tree_update" || message["event_type"] == "agent_tree_update"
}

// The updates that wait for a client, as their data.
fn updates(rig: &mut Rig, client: Client) -> Vec<Value> {
    let said = rig.read(client);
    let updates = said.iter().filter(|message| is_update(message));
    updates.map(|message| message["data"].clone()).collect()
}

fn ask(rig: &mut Rig, client: Client, session: Option<&str>) -> Value {
    let data = session.map_or(json!({}), |session| json!({"sessionId": session}));
    rig.say(
        client,
        &json!({"type": "get_agent_tree", "id": "q", "data": data}),
    );
    rig.settle();
    let said = rig.read(client);
    let mut answers = said.iter().filter(|it| it["type"] == "agent_tree");
    answers.next().expect("an answer")["data"].clone()
}

// What a client that follows the messages has on its screen.
#[derive(Default)]
struct Screen {
    // By root, with the `at_seq` that came with it.
    trees: BTreeMap<String, (Value, u64)>,
    head: u64,
}

impl Screen {
    fn see(&mut self, message: &Value) {
        if let Some(seq) = message["seq"].as_u64() {
            self.head = seq;
        }
        if !is_update(message) {
            return;
        }
        let data = &message["data"];
        let root = data["tree_root"].as_str().expect("a root").to_owned();
        let at_seq = data["at_seq"].as_u64().expect("a seq");
        if data["removed"] == true {
            assert!(self.trees.remove(&root).is_some(), "{root} was shown");
            return;
        }
        match data.get("full_tree") {
            Some(tree) => {
                assert_eq!(data.get("patch"), None);
                self.trees.insert(root, (tree.clone(), at_seq));
            }
            None => {
                let (tree, before) = self.trees.get_mut(&root).expect("it came whole before");
                assert_eq!(data["base_seq"], *before);
                let patch: json_patch::Patch =
                    serde_json::from_value(data["patch"].clone()).expect("a patch");
                json_patch::patch(tree, &patch).expect("it can be applied");
                *before = at_seq;
            }
        }
        assert!(data["tree_stats"]["total"].is_u64());
    }

    fn read(&mut self, rig: &mut Rig, client: Client) -> Vec<Value> {
        let said = rig.read(client);
        for message in &said {
            self.see(message);
        }
        said
    }

    // Reads until nothing more comes.
    fn read_all(&mut self, rig: &mut Rig, client: Client) -> Vec<Value> {
        let mut said = Vec::new();
        loop {
            let more = self.read(rig, client);
            if more.is_empty() {
                return said;
            }
            said.extend(more);
            pass(rig);
        }
    }

    // Fails unless it shows what the server has.
    fn check(&self, rig: &mut Rig, client: Client) {
        let answer = ask(rig, client, None);
        let trees = answer["trees"].as_array().expect("trees").iter();
        let shown: BTreeMap<String, Value> = trees
            .map(|tree| {
                (
                    tree["session_id"].as_str().unwrap_or_default().to_owned(),
                    tree.clone(),
                )
            })
            .collect();
        let mine = self
            .trees
            .iter()
            .map(|(root, (tree, _))| (root.clone(), tree.clone()));
        assert_eq!(mine.collect::<BTreeMap<_, _>>(), shown);
    }
}

#[test]
fn present_trees_come_first_all_at_one_seq_and_then_what_changes() {
    for mode in [TreeMode::Full, TreeMode::Patch] {
        let mut rig = rig();
        publish(
            &mut rig,
            &[
                ("agent_spawned", "a", spawn("a.1")),
                ("progress_update", "b", progress(7)),
                ("note", "b", json!({})),
            ],
        );
        let client = watch(&mut rig, mode);
        rig.settle();
        let said = rig.read(client);
        assert_eq!(said[0]["type"], "connection_established");
        let first: Vec<(&Value, &Value)> = said[1..]
            .iter()
            .map(|it| (&it["data"]["tree_root"], &it["data"]["at_seq"]))
            .collect();
        assert_eq!(first, [(&json!("a"), &json!(3)), (&json!("b"), &json!(3))]);
        let tree = &said[1]["data"]["full_tree"];
        assert_eq!(tree["children"][0]["session_id"], "a.1");
        assert_eq!(said[2]["data"]["tree_stats"]["tokens_used"], 7);
        pass(&mut rig);
        assert!(rig.read(client).is_empty(), "nothing changed");
        publish(&mut rig, &[("progress_update", "a.1", progress(9))]);
        let said = rig.read(client);
        assert_eq!(seqs(&said), [4]);
        let update = &said[1]["data"];
        assert_eq!(
            (&update["at_seq"], &update["updated_node"]),
            (&json!(4), &json!("a.1"))
        );
        assert_eq!(update["updated_nodes"], json!(["a.1"]));
        let is_patch = mode == TreeMode::Patch;
        assert_eq!(update.get("patch").is_some(), is_patch, "{update}");
        assert_eq!(update.get("full_tree").is_some(), !is_patch);
    }
}

#[test]
fn a_tree_is_told_at_most_once_in_an_interval_and_its_last_state_always() {
    let mut rig = rig();
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    let client = watch(&mut rig, TreeMode::Patch);
    let mut screen = Screen::default();
    rig.settle();
    screen.read(&mut rig, client);
    pass(&mut rig);
    for tokens in 2..9 {
        publish(&mut rig, &[("progress_update", "a", progress(tokens))]);
        rig.wait(1);
    }
    let said = screen.read(&mut rig, client);
    assert_eq!(said.iter().filter(|it| is_update(it)).count(), 1);
    let due_ms = rig.hub().next_deadline_ms().expect("more is owed");
    assert!(due_ms > rig.now.ms() && due_ms <= rig.now.ms() + TREE_INTERVAL_MS + 1);
    pass(&mut rig);
    let said = screen.read(&mut rig, client);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0]["data"]["at_seq"], 8);
    assert_eq!(rig.hub().next_deadline_ms(), None);
    screen.check(&mut rig, client);
}

#[test]
fn keen_without_a_word_begins_with_a_spawn() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("progress_update", "b", progress(1)),
        ],
    );
    let client = rig.connect(claims("ada", &[]), Dialect::Keen, ConnectQuery::default());
    rig.settle();
    assert_eq!(rig.names(client), ["connection_established"]);
    publish(
        &mut rig,
        &[
            ("progress_update", "a.1", progress(2)),
            ("progress_update", "b", progress(2)),
        ],
    );
    pass(&mut rig);
    assert_eq!(updates(&mut rig, client), [json!(null); 0]);
    pass(&mut rig);
    publish(&mut rig, &[("agent_spawned", "a.1", spawn("a.2"))]);
    let told = updates(&mut rig, client);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["updated_node"], "a.1", "the parent is named");
    let child = &told[0]["full_tree"]["children"][0];
    assert_eq!(child["children"][0]["session_id"], "a.2");
    assert!(
        child["metrics"]["start_time"].is_string(),
        "times are keen's"
    );
    pass(&mut rig);
    publish(
        &mut rig,
        &[
            ("progress_update", "a", progress(3)),
            ("progress_update", "b", progress(3)),
        ],
    );
    let told = updates(&mut rig, client);
    assert_eq!(told.len(), 1, "b has not begun");
    assert_eq!(told[0]["tree_root"], "a");
}

#[test]
fn a_finished_tree_goes_when_its_time_is_up_though_nothing_happens() {
    let mut rig = Rig::with(1, Bounds::default(), |options| {
        options.states.bounds.finished_max_ms = 500;
    });
    let client = watch(&mut rig, TreeMode::Patch);
    publish(&mut rig, &[("completion", "a", json!({"success": true}))]);
    pass(&mut rig);
    assert_eq!(updates(&mut rig, client).len(), 1);
    rig.wait(300);
    rig.settle();
    assert_eq!(updates(&mut rig, client), [json!(null); 0]);
    rig.wait(300);
    rig.settle();
    let told = updates(&mut rig, client);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&told[0]["tree_root"], &told[0]["removed"]),
        (&json!("a"), &json!(true))
    );
}

#[test]
fn who_wants_no_trees_is_told_of_none() {
    let mut rig = rig();
    let check = |rig: &mut Rig, dialect, tree| {
        let query = ConnectQuery {
            subscribe: SubscribeScope::All,
            tree,
            ..ConnectQuery::default()
        };
        let client = rig.connect(claims("ada", &[]), dialect, query);
        publish(rig, &[("agent_spawned", "a", spawn("a.1"))]);
        assert!(updates(rig, client).is_empty());
        rig.hub().handle_disconnect(client.key);
    };
    check(&mut rig, Dialect::Observatory, None);
    check(&mut rig, Dialect::Observatory, Some(TreeMode::Off));
    check(&mut rig, Dialect::Keen, Some(TreeMode::Off));
}

#[test]
fn a_root_that_moves_is_told_to_be_gone_and_where_to() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("progress_update", "a", progress(1)),
            ("progress_update", "b", progress(1)),
        ],
    );
    let client = watch(&mut rig, TreeMode::Patch);
    let mut screen = Screen::default();
    rig.settle();
    screen.read(&mut rig, client);
    pass(&mut rig);
    publish(&mut rig, &[("agent_spawned", "a", spawn("b"))]);
    let said = screen.read(&mut rig, client);
    let gone: Vec<&Value> = said
        .iter()
        .filter(|it| it["data"]["removed"] == true)
        .collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(
        gone[0]["data"],
        json!({"tree_root": "b", "at_seq": 3, "removed": true, "moved_to": "a"})
    );
    assert_eq!(screen.trees.len(), 1);
    screen.check(&mut rig, client);
}

#[test]
fn sessions_narrow_trees_and_filters_do_not() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("progress_update", "b", progress(1)),
        ],
    );
    let query = ConnectQuery {
        sessions: vec!["a.1".into(), "c.1".into()],
        ..query(TreeMode::Full)
    };
    let client = rig.connect(claims("ada", &[]), Dialect::Observatory, query);
    rig.say(client, &json!({"type": "unsubscribe"}));
    rig.settle();
    let roots = |told: Vec<Value>| -> Vec<Value> {
        told.into_iter().map(|it| it["tree_root"].clone()).collect()
    };
    assert_eq!(roots(updates(&mut rig, client)), ["a"]);
    pass(&mut rig);
    publish(
        &mut rig,
        &[
            ("progress_update", "a", progress(2)),
            ("progress_update", "b", progress(2)),
            ("agent_spawned", "c", spawn("c.1")),
        ],
    );
    assert_eq!(roots(updates(&mut rig, client)), ["a", "c"]);
    assert_eq!(
        ask(&mut rig, client, None)["trees"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        ask(&mut rig, client, Some("b"))["trees"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn any_subtree_can_be_asked_for_whether_trees_are_watched_or_not() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("agent_spawned", "a.1", spawn("a.2")),
        ],
    );
    let client = rig.viewer("ada", &[]);
    rig.settle();
    rig.read(client);
    let answer = ask(&mut rig, client, Some("a.1"));
    assert_eq!((&answer["id"], &answer["at_seq"]), (&json!("q"), &json!(2)));
    assert_eq!(answer["trees"][0]["session_id"], "a.1");
    assert_eq!(answer["trees"][0]["children"][0]["session_id"], "a.2");
    assert_eq!(ask(&mut rig, client, None)["trees"][0]["session_id"], "a");
    assert_eq!(ask(&mut rig, client, Some("nobody"))["trees"], json!([]));
    let bob = rig.viewer("bob", &[]);
    assert_eq!(ask(&mut rig, bob, Some("a"))["trees"], json!([]));
    assert!(rig.hub().trees.watches.is_empty(), "nobody watches");
}

#[test]
fn questions_that_nobody_reads_the_answers_of_are_bounded() {
    let mut rig = Rig::with(1, Bounds::default(), |options| {
        options.limits.messages_per_second = 1_000;
        options.limits.messages_per_minute = 1_000;
    });
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    let client = rig.viewer("ada", &[]);
    let question = json!({"type": "get_agent_tree"});
    for _ in 0..TREE_QUESTIONS_WAITING_MAX + 20 {
        rig.say(client, &question);
        rig.turn();
    }
    assert_eq!(rig.closing(client), None);
    let said = rig.read(client);
    let refused = said
        .iter()
        .filter(|it| it["data"]["code"] == "RATE_LIMIT_EXCEEDED");
    assert!(refused.count() > 0);
    rig.settle();
    assert!(rig.names(client).iter().any(|name| name == "agent_tree"));
}

#[test]
fn what_was_missed_comes_behind_the_present_trees_and_changes_behind_that() {
    for bounds in [Bounds::default(), NARROW] {
        let mut rig = rig_with(bounds);
        for tokens in 0..5 {
            publish(&mut rig, &[("progress_update", "a", progress(tokens))]);
        }
        let query = ConnectQuery {
            cursor: Cursor::parse(Some(&EPOCH.to_string()), Some("2")).unwrap_or_default(),
            ..query(TreeMode::Patch)
        };
        rig.holds_reads = true;
        let client = rig.connect(claims("ada", &[]), Dialect::Observatory, query);
        rig.turn();
        publish(&mut rig, &[("progress_update", "a", progress(9))]);
        rig.holds_reads = false;
        rig.settle();
        pass(&mut rig);
        let said = rig.read(client);
        let short = |message: &Value| match message["seq"].as_u64() {
            Some(seq) => seq.to_string(),
            None if is_update(message) => format!("tree {}", message["data"]["at_seq"]),
            None => message["type"].as_str().unwrap_or_default().to_owned(),
        };
        let told: Vec<String> = said.iter().map(short).collect();
        let place = |what: &str| told.iter().position(|it| it == what);
        assert_eq!(told[0], "connection_established");
        assert!(told[1].starts_with("tree"), "{told:?}");
        assert_eq!(seqs(&said), [3, 4, 5, 6]);
        assert_eq!(
            place("replay_complete").max(place("5")),
            place("replay_complete")
        );
        if told[1] == "tree 5" {
            assert!(place("tree 6") > place("6"), "{told:?}");
        }
    }
}

#[test]
fn a_slow_viewer_gets_fewer_and_current_ones() {
    let mut rig = rig();
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    let slow = watch(&mut rig, TreeMode::Patch);
    let quick = watch(&mut rig, TreeMode::Patch);
    let (mut slow_screen, mut quick_screen) = (Screen::default(), Screen::default());
    rig.settle();
    slow_screen.read(&mut rig, slow);
    quick_screen.read(&mut rig, quick);
    let mut told = 0;
    for tokens in 2..12 {
        pass(&mut rig);
        let event = (
            "progress_update",
            "a",
            json!({"tokens_used": tokens, "pad": "x".repeat(OUTBOX_BYTES_MAX / 20)}),
        );
        publish(&mut rig, &[event]);
        let said = quick_screen.read(&mut rig, quick);
        told += said.iter().filter(|it| is_update(it)).count();
    }
    assert_eq!(told, 10);
    assert_eq!(rig.closing(slow), None);
    let said = slow_screen.read(&mut rig, slow);
    assert_eq!(seqs(&said).len(), 10, "no event is skipped");
    let fewer = said.iter().filter(|it| is_update(it)).count();
    assert!(fewer < 6, "{fewer}");
    pass(&mut rig);
    slow_screen.read(&mut rig, slow);
    assert_eq!(slow_screen.trees["a"].0["metrics"]["tokens_used"], 11);
    slow_screen.check(&mut rig, slow);
    quick_screen.check(&mut rig, quick);
}

#[test]
fn present_trees_beyond_an_outbox_come_as_it_has_room() {
    let mut rig = rig();
    let names: Vec<String> = (0..100).map(|n| format!("agent {n:03}")).collect();
    for name in &names {
        publish(&mut rig, &[("progress_update", name, progress(1))]);
    }
    let client = watch(&mut rig, TreeMode::Full);
    rig.settle();
    let waiting = rig.stats[0].counters.outbox_bytes.value();
    assert!(waiting > 2 * OUTBOX_BYTES_MAX as u64, "{waiting}");
    publish(&mut rig, &[("progress_update", &names[99], progress(2))]);
    let mut screen = Screen::default();
    let mut said = Vec::new();
    while screen.trees.len() < names.len() {
        let more = screen.read(&mut rig, client);
        assert!(!more.is_empty());
        said.extend(more);
        rig.settle();
    }
    let first = said.iter().filter(|it| is_update(it)).take(100);
    assert!(first.map(|it| &it["data"]["at_seq"]).all(|seq| *seq == 100));
    assert_eq!(rig.closing(client), None);
    pass(&mut rig);
    screen.read(&mut rig, client);
    screen.check(&mut rig, client);
    let again = watch(&mut rig, TreeMode::Full);
    rig.settle();
    rig.hub().handle_disconnect(again.key);
    assert_eq!(rig.stats[0].counters.outbox_bytes.value(), 0);
    rig.check_balance();
}

#[test]
fn under_durable_delivery_no_tree_is_ahead_of_its_events() {
    let mut rig = Rig::with_slow_log(|options| {
        options.deliver = Deliver::Durable;
        options.tiers.insert("individual".into(), 10);
    });
    rig.keep(0);
    let client = watch(&mut rig, TreeMode::Full);
    rig.settle();
    rig.read(client);
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    pass(&mut rig);
    assert!(rig.read(client).is_empty());
    let late = watch(&mut rig, TreeMode::Full);
    rig.settle();
    assert_eq!(rig.names(late), ["connection_established"]);
    rig.say(late, &json!({"type": "get_agent_tree"}));
    rig.settle();
    assert!(rig.read(late).is_empty());
    rig.keep(0);
    rig.settle();
    let said = rig.read(client);
    assert_eq!(seqs(&said), [1]);
    assert!(is_update(&said[1]), "{said:?}");
    assert_eq!(
        rig.names(late),
        ["progress_update", "agent_tree_update", "agent_tree"]
    );
}

#[test]
fn all_who_take_the_same_bytes_cost_one_encoding() {
    let mut rig = rig();
    let spawns: Vec<(&str, &str, Value)> = ["1", "2", "3", "4"]
        .map(|child| ("agent_spawned", "a", spawn(child)))
        .into();
    publish(&mut rig, &spawns);
    let twin = Variant::deflated(Dialect::Observatory);
    let clients: Vec<Client> = (0..20)
        .map(|_| {
            let (core, outcome) = rig.ask_for(claims("ada", &[]), twin, query(TreeMode::Full));
            let key = outcome.and_then(Result::ok).expect("it is let in");
            Client { core, key }
        })
        .collect();
    rig.settle();
    for client in &clients {
        rig.read(*client);
    }
    pass(&mut rig);
    let before = rig.stats[0].counters.frames_deflated.value();
    publish(&mut rig, &[("progress_update", "1", progress(1))]);
    assert_eq!(rig.stats[0].counters.frames_deflated.value() - before, 1);
    for client in clients {
        assert_eq!(updates(&mut rig, client).len(), 1);
    }
}

#[test]
fn a_restart_loses_no_tree() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("completion", "a.1", json!({"success": true})),
        ],
    );
    let client = watch(&mut rig, TreeMode::Full);
    rig.settle();
    let tree = updates(&mut rig, client)[0]["full_tree"].clone();
    rig.restart(|_| {});
    let client = watch(&mut rig, TreeMode::Full);
    // A turn begins to load, others take in what was read.
    (0..5).for_each(|_| pass(&mut rig));
    let told = updates(&mut rig, client);
    assert_eq!(
        (&told[0]["full_tree"], &told[0]["at_seq"]),
        (&tree, &json!(2))
    );
}

// What one of two users does, with names that both use.
#[derive(Clone, Debug)]
enum Act {
    Publish {
        kind: usize,
        session: usize,
        other: usize,
    },
    Pass,
    Ask {
        session: usize,
    },
    Watch {
        mode: TreeMode,
    },
}

fn act() -> impl Strategy<Value = (bool, Act)> {
    let publish =
        (0..7_usize, 0..5_usize, 0..5_usize).prop_map(|(kind, session, other)| Act::Publish {
            kind,
            session,
            other,
        });
    let act = prop_oneof![
        6 => publish,
        2 => Just(Act::Pass),
        1 => (0..5_usize).prop_map(|session| Act::Ask { session }),
        1 => prop_oneof![Just(TreeMode::Full), Just(TreeMode::Patch)].prop_map(|mode| Act::Watch { mode }),
    ];
    (any::<bool>(), act)
}

// An event of a user that names `session` and `other` wherever it can, and marks what it says.
fn marked(kind: usize, session: usize, other: usize, mark: &str) -> Value {
    let sessions = ["s0", "s1", "s2", "s3", "s4"];
    let (session, other) = (sessions[session], sessions[other]);
    let (name, data) = match kind {
        0 => (
            "agent_spawned",
            json!({"parent_session": session, "child_session": other, "purpose": mark, "git_branch": mark}),
        ),
        1 => (
            "phase_transition",
            json!({"to_phase": mark, "session_id": other}),
        ),
        2 => (
            "git_operation",
            json!({"operation_type": "commit", "branch": mark, "commit_hash": mark, "session": other}),
        ),
        3 => (
            "tool_execution",
            json!({"tool_name": mark, "files_affected": [mark]}),
        ),
        4 => ("progress_update", json!({"phase": mark, "tokens_used": 1})),
        5 => ("completion", json!({"success": true, "sessionId": other})),
        _ => ("error", json!({"message": mark, "session_id": other})),
    };
    json!({"type": name, "session_id": session, "data": data})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Two users with the same sessions: nothing of one is in any frame of the other, and all screens
    // show what the server has.
    #[test]
    fn users_who_name_each_others_sessions_see_their_own_alone(acts in prop::collection::vec(act(), 1..60)) {
        let mut rig = rig();
        let users = ["ada", "bob"];
        let marks = ["of-ada", "of-bob"];
        let mut screens: Vec<(usize, Client, Screen)> = Vec::new();
        for (is_bob, act) in acts {
            let me = usize::from(is_bob);
            match act {
                Act::Pass => pass(&mut rig),
                Act::Publish { kind, session, other } => {
                    let mut event = marked(kind, session, other, marks[me]);
                    event["user_id"] = json!(users[me]);
                    let publisher = rig.publisher(0);
                    rig.publish(publisher, &event.to_string());
                    rig.settle();
                    rig.read(publisher);
                    rig.hub().handle_disconnect(publisher.key);
                }
                Act::Ask { session } => {
                    rig.wait(1_000);
                    if let Some((me, client, screen)) = screens.get_mut(session) {
                        let foreign = marks[1 - *me];
                        rig.say(*client, &json!({"type": "get_agent_tree", "data": {"sessionId": format!("s{session}")}}));
                        rig.settle();
                        let said = screen.read(&mut rig, *client);
                        prop_assert!(!json!(said).to_string().contains(foreign));
                    }
                }
                Act::Watch { mode } => {
                    let client = rig.connect(claims(users[me], &[]), Dialect::Observatory, query(mode));
                    rig.settle();
                    screens.push((me, client, Screen::default()));
                }
            }
        }
        pass(&mut rig);
        for (me, client, mut screen) in screens {
            let said = screen.read_all(&mut rig, client);
            prop_assert!(!json!(said).to_string().contains(marks[1 - me]));
            rig.wait(60_000);
            screen.check(&mut rig, client);
        }
    }

    // Whatever a viewer has read of, its screen is right in the end.
    #[test]
    fn screens_are_right_however_slowly_they_are_read(
        mode in prop_oneof![Just(TreeMode::Full), Just(TreeMode::Patch)],
        acts in prop::collection::vec((0..7_usize, 0..5_usize, 0..5_usize, 0..4_000_usize, any::<bool>()), 1..60),
    ) {
        let mut rig = rig();
        let client = watch(&mut rig, mode);
        let mut bytes = Vec::new();
        for (kind, session, other, read, waits) in acts {
            let mut event = marked(kind, session, other, "m");
            event["user_id"] = json!("ada");
            let publisher = rig.publisher(0);
            rig.publish(publisher, &event.to_string());
            rig.turn();
            rig.read(publisher);
            rig.hub().handle_disconnect(publisher.key);
            bytes.extend(rig.write(client, read));
            if waits {
                pass(&mut rig);
            }
        }
        for _ in 0..3 {
            bytes.extend(rig.write(client, usize::MAX));
            pass(&mut rig);
        }
        prop_assert_eq!(rig.closing(client), None);
        let start = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let said = crate::hub::rig::messages(&bytes[start.map_or(0, |at| at + 4)..]);
        let mut screen = Screen::default();
        for message in &said {
            screen.see(message);
            if is_update(message) {
                prop_assert!(message["data"]["at_seq"].as_u64() <= Some(screen.head));
            }
        }
        screen.check(&mut rig, client);
        // Nothing is owed: only finished trees get too old one day.
        let soon_ms = rig.now.ms() + 60_000;
        let next_ms = rig.hub().trees.next_look_ms();
        prop_assert!(next_ms.is_none_or(|at_ms| at_ms > soon_ms));
    }
}
