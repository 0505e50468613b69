use serde_json::{Value, json};

use super::*;
use crate::dialect::{Cursor, SubscribeScope};
use crate::hub::catch_up::tests::NARROW;
use crate::hub::ledger::Deliver;
use crate::hub::rig::{EPOCH, OUTBOX_BYTES_MAX};
use crate::hub::trees::{Present, TreeView};
use crate::limits::TREE_BYTES_PER_TURN;

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

// What was said, in short: events by their seq, trees by what they are and their `at_seq`.
fn in_short(said: &[Value]) -> Vec<String> {
    let short = |message: &Value| match message["seq"].as_u64() {
        Some(seq) => seq.to_string(),
        None if is_update(message) => {
            let data = &message["data"];
            format!(
                "{} at {}",
                data["tree_root"].as_str().unwrap_or_default(),
                data["at_seq"]
            )
        }
        None => message["type"].as_str().unwrap_or_default().to_owned(),
    };
    said.iter().map(short).collect()
}

#[test]
fn events_of_the_turn_in_which_a_viewer_comes_follow_its_present_trees() {
    let mut rig = rig();
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    let client = watch(&mut rig, TreeMode::Patch);
    publish(
        &mut rig,
        &[
            ("progress_update", "a", progress(2)),
            ("progress_update", "b", progress(3)),
        ],
    );
    let said = rig.read(client);
    assert_eq!(
        in_short(&said),
        ["connection_established", "a at 3", "b at 3", "2", "3"]
    );
    assert_eq!(said[0]["data"]["resume"][0]["to"], 1);
    pass(&mut rig);
    assert!(rig.read(client).is_empty(), "it has had all of it");
    publish(&mut rig, &[("progress_update", "a", progress(4))]);
    assert_eq!(in_short(&rig.read(client)), ["4", "a at 4"]);
}

#[test]
fn events_that_come_while_the_trees_are_loaded_follow_them() {
    let mut rig = rig();
    publish(&mut rig, &[("agent_spawned", "a", spawn("a.1"))]);
    rig.restart(|options| {
        options.tiers.insert("individual".into(), 10);
    });
    rig.holds_reads = true;
    let client = watch(&mut rig, TreeMode::Full);
    // What the log has of the stream is known, what led to its trees is not.
    rig.answer_reads();
    rig.settle();
    assert_eq!(rig.names(client), ["connection_established"]);
    for tokens in 0..3 {
        publish(&mut rig, &[("progress_update", "a", progress(tokens))]);
        pass(&mut rig);
    }
    assert!(rig.read(client).is_empty(), "the trees come before");
    rig.holds_reads = false;
    (0..5).for_each(|_| pass(&mut rig));
    let said = rig.read(client);
    let seqs = seqs(&said);
    let events: Vec<String> = seqs.iter().map(u64::to_string).collect();
    assert_eq!(events.len(), 3);
    assert_eq!(in_short(&said)[0], format!("a at {}", events[2]));
    assert_eq!(in_short(&said)[1..], events);
    assert_eq!(said[0]["data"]["full_tree"]["metrics"]["tokens_used"], 2);
}

#[test]
fn events_that_a_viewer_subscribes_to_meanwhile_follow_its_present_trees() {
    let mut rig = rig_for_many();
    publish_many(&mut rig, 50);
    let quiet = ConnectQuery {
        subscribe: SubscribeScope::Dialect,
        ..query(TreeMode::Full)
    };
    let client = rig.connect(claims("ada", &[]), Dialect::Observatory, quiet);
    rig.settle();
    rig.say(
        client,
        &json!({"type": "subscribe", "data": {"filters": {}}}),
    );
    rig.settle();
    publish(&mut rig, &[("progress_update", "agent 0001", progress(1))]);
    let mut said = Vec::new();
    while seqs(&said).is_empty() {
        said.extend(rig.read(client));
        rig.settle();
    }
    let event = said.iter().position(|message| message["seq"] == 51);
    let before = said[..event.expect("it was published")].iter();
    let trees = before.filter(|message| is_update(message));
    assert!(trees.clone().all(|tree| tree["data"]["at_seq"] == 50));
    assert_eq!(trees.count(), 50);
}

// Whether some of the trees that a viewer begins with are still to be made.
fn awaits_making(rig: &mut Rig, client: Client) -> bool {
    let view = rig.hub().tree_view(client.key);
    let present = view.map(TreeView::present);
    !matches!(present, None | Some(Present::Held | Present::Sent))
}

fn rig_for_many() -> Rig {
    Rig::with(1, Bounds::default(), |options| {
        options.tiers.insert("individual".into(), 10);
        options.states.bounds.nodes_max = 10_000;
    })
}

// Publishes agents that each take about a kilobyte and a half when they are shown.
fn publish_many(rig: &mut Rig, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|n| format!("agent {n:04}")).collect();
    let purpose = json!({"child_session": "", "purpose": "p".repeat(1_000)});
    for name in &names {
        let mut data = purpose.clone();
        data["child_session"] = json!(format!("{name}.1"));
        publish(rig, &[("agent_spawned", name, data)]);
    }
    names
}

#[test]
fn many_present_trees_take_turns_and_are_of_one_moment() {
    let mut rig = rig_for_many();
    let names = publish_many(&mut rig, 1_000);
    let (first, last) = (names[0].as_str(), names[999].as_str());
    let other = watch_sessions(&mut rig, &[first]);
    rig.settle();
    rig.read(other);
    let clients = [TreeMode::Full, TreeMode::Patch].map(|mode| watch(&mut rig, mode));
    let made = |rig: &Rig| rig.stats[0].counters.agent_tree_messages_made.value();
    let (before, mut turns, mut tokens) = (made(&rig), 0, 0);
    let mut held_most = 0;
    while clients
        .iter()
        .any(|client| awaits_making(&mut rig, *client))
    {
        (turns, tokens) = (turns + 1, tokens + 1);
        let held = rig.stats[0].counters.outbox_bytes.value();
        let events = [first, last].map(|name| ("progress_update", name, progress(tokens)));
        publish_within_turn(&mut rig, "ada", &events);
        rig.turn();
        let added = rig.stats[0].counters.outbox_bytes.value() - held;
        held_most = held_most.max(added as usize);
    }
    assert!(turns >= 4, "{turns}");
    // Both viewers hold the same bytes.
    assert!(
        held_most < 2 * TREE_BYTES_PER_TURN + 64 * 1024,
        "{held_most}"
    );
    let told = updates(&mut rig, other);
    let made = made(&rig) - before - told.len() as u64;
    assert_eq!(made, 1_000, "each was made once for both");
    for client in clients {
        let mut screen = Screen::default();
        let mut said = Vec::new();
        while seqs(&said).len() < 2 * tokens as usize {
            said.extend(screen.read(&mut rig, client));
            rig.settle();
        }
        let present = said.iter().filter(|it| is_update(it)).take(1_000);
        let present: Vec<&Value> = present.map(|it| &it["data"]).collect();
        let at_seq = present[0]["at_seq"].as_u64().unwrap_or_default();
        assert!(present.iter().all(|it| it["at_seq"] == at_seq));
        // What was published since, two events at a time, is in both trees or in neither.
        for tree in [present[0], present[999]] {
            let shown = &tree["full_tree"]["metrics"]["tokens_used"];
            assert_eq!(*shown, (at_seq - 1_000) / 2);
        }
        assert_eq!(rig.closing(client), None);
        pass(&mut rig);
        screen.read_all(&mut rig, client);
        for root in [first, last] {
            assert_eq!(screen.trees[root].0["metrics"]["tokens_used"], tokens);
        }
    }
}

#[test]
fn a_viewer_that_reads_nothing_holds_up_no_other() {
    let mut rig = rig_for_many();
    publish_many(&mut rig, 400);
    let silent = watch(&mut rig, TreeMode::Full);
    let other = watch(&mut rig, TreeMode::Full);
    (0..20).for_each(|_| rig.turn());
    assert!(rig.hub().awaits_trees(silent.key), "it reads nothing");
    let mut screen = Screen::default();
    screen.read_all(&mut rig, other);
    let mut check = |rig: &mut Rig, tokens: u64| {
        let event = ("progress_update", "agent 0007", progress(tokens));
        publish(rig, &[event]);
        pass(rig);
        screen.read_all(rig, other);
        let (tree, _) = &screen.trees["agent 0007"];
        assert_eq!(tree["metrics"]["tokens_used"], tokens);
    };
    check(&mut rig, 5);
    // Nor does one that leaves while its trees are made.
    let gone = watch(&mut rig, TreeMode::Patch);
    rig.turn();
    assert!(awaits_making(&mut rig, gone));
    rig.hub().handle_disconnect(gone.key);
    check(&mut rig, 6);
    assert_eq!(rig.closing(silent), None);
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
        let told = in_short(&said);
        let place = |what: &str| told.iter().position(|it| it == what);
        assert_eq!(told[0], "connection_established");
        assert!(told[1].starts_with("a at"), "{told:?}");
        assert_eq!(seqs(&said), [3, 4, 5, 6]);
        assert_eq!(
            place("replay_complete").max(place("5")),
            place("replay_complete")
        );
        if told[1] == "a at 5" {
            assert!(place("a at 6") > place("6"), "{told:?}");
        }
    }
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
        ["agent_tree_update", "agent_tree", "progress_update"],
        "what a viewer begins with comes before all else"
    );
}

#[test]
fn an_update_that_waits_for_the_log_follows_what_a_viewer_subscribes_to_meanwhile() {
    let mut rig = Rig::with_slow_log(|options| options.deliver = Deliver::Durable);
    rig.keep(0);
    let quiet = ConnectQuery {
        subscribe: SubscribeScope::Dialect,
        ..query(TreeMode::Full)
    };
    let client = rig.connect(claims("ada", &[]), Dialect::Observatory, quiet);
    rig.settle();
    publish(&mut rig, &[("progress_update", "a", progress(1))]);
    pass(&mut rig);
    let subscribe = json!({"type": "subscribe", "data": {"filters": {}}});
    rig.say(client, &subscribe);
    rig.keep(0);
    rig.settle();
    assert_eq!(
        in_short(&rig.read(client)),
        [
            "connection_established",
            "subscription_confirmed",
            "1",
            "a at 1"
        ]
    );
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
