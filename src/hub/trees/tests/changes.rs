use serde_json::{Value, json};

use super::*;
use crate::hub::frames::Variant;
use crate::hub::rig::OUTBOX_BYTES_MAX;

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
fn a_root_that_comes_back_shows_what_became_of_it_meanwhile() {
    let mut rig = rig();
    publish(&mut rig, &[("agent_spawned", "b", spawn("c"))]);
    let client = watch(&mut rig, TreeMode::Patch);
    let mut screen = Screen::default();
    rig.settle();
    screen.read(&mut rig, client);
    pass(&mut rig);
    let start_ms = rig.now.wall_ms;
    let mut claim = |parent: &str, child: &str, timestamp_ms: i64| {
        let publisher = rig.publisher(0);
        let event = json!({
            "type": "agent_spawned", "user_id": "ada", "session_id": parent,
            "timestamp": timestamp_ms, "data": spawn(child),
        });
        rig.publish(publisher, &event.to_string());
        rig.hub().handle_disconnect(publisher.key);
        rig.settle();
        pass(&mut rig);
        publish(&mut rig, &[("progress_update", "c", progress(9))]);
        pass(&mut rig);
        screen.read(&mut rig, client);
        screen.trees.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(claim("a", "b", start_ms), ["a"]);
    // Of a cycle the latest claim is refused.
    assert_eq!(claim("b", "a", start_ms - 1_000), ["b"]);
    screen.check(&mut rig, client);
}
