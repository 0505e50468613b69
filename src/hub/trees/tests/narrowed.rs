use serde_json::{Value, json};

use super::*;

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

// The updates that a client is sent after an interval, in short: what is shown, and what is gone.
fn told(rig: &mut Rig, client: Client) -> Vec<String> {
    pass(rig);
    let in_short = |data: &Value| {
        let root = data["tree_root"].as_str().unwrap_or_default();
        match (data["removed"] == true, data["moved_to"].as_str()) {
            (false, _) => root.to_owned(),
            (true, None) => format!("{root} is gone"),
            (true, Some(to)) => format!("{root} is gone to {to}"),
        }
    };
    updates(rig, client).iter().map(in_short).collect()
}

#[test]
fn a_tree_that_a_session_leaves_is_told_to_be_gone_and_where_the_session_went() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("progress_update", "b", progress(1)),
        ],
    );
    let client = watch_sessions(&mut rig, &["a.1"]);
    rig.settle();
    assert_eq!(told(&mut rig, client), ["a"]);
    publish(&mut rig, &[("agent_spawned", "b", spawn("a.1"))]);
    assert_eq!(told(&mut rig, client), ["a is gone to b", "b"]);
    let changes = ["a", "b"].map(|name| ("progress_update", name, progress(2)));
    publish(&mut rig, &changes);
    assert_eq!(told(&mut rig, client), ["b"]);
    let watches = rig.hub().trees.watches.values();
    assert!(
        watches
            .into_iter()
            .all(|watch| watch.showing.find("a").is_none())
    );
    // A tree of which it knew nothing is not told to be gone.
    publish(&mut rig, &[("agent_spawned", "c", spawn("a"))]);
    assert_eq!(told(&mut rig, client), [""; 0]);
}

#[test]
fn a_tree_stays_for_as_long_as_one_of_the_sessions_is_in_it() {
    let mut rig = rig();
    publish(
        &mut rig,
        &[
            ("agent_spawned", "a", spawn("a.1")),
            ("agent_spawned", "a", spawn("a.2")),
        ],
    );
    let client = watch_sessions(&mut rig, &["a.1", "a.2", "nobody"]);
    rig.settle();
    assert_eq!(told(&mut rig, client), ["a"]);
    publish(&mut rig, &[("agent_spawned", "b", spawn("a.1"))]);
    assert_eq!(told(&mut rig, client), ["a", "b"]);
    publish(&mut rig, &[("agent_spawned", "c", spawn("a.2"))]);
    assert_eq!(told(&mut rig, client), ["a is gone to c", "c"]);
    publish(&mut rig, &[("agent_spawned", "c", spawn("b"))]);
    assert_eq!(told(&mut rig, client), ["b is gone to c", "c"]);
}

#[test]
fn a_tree_that_a_session_leaves_and_comes_back_to_is_told_whole() {
    let mut rig = rig();
    publish(&mut rig, &[("agent_spawned", "a", spawn("a.1"))]);
    let client = watch_sessions(&mut rig, &["a.1"]);
    rig.settle();
    assert_eq!(told(&mut rig, client), ["a"]);
    let there_and_back = ["b", "a"].map(|parent| ("agent_spawned", parent, spawn("a.1")));
    publish(&mut rig, &there_and_back[..1]);
    publish(&mut rig, &there_and_back[1..]);
    let said = told(&mut rig, client);
    assert_eq!(said, ["a is gone to b", "b", "a", "b is gone to a"]);
    publish(&mut rig, &[("progress_update", "b", progress(1))]);
    assert_eq!(told(&mut rig, client), [""; 0]);
}

#[test]
fn a_narrowed_tree_that_is_evicted_is_gone() {
    let mut rig = Rig::with(1, Bounds::default(), |options| {
        options.states.bounds.finished_max_ms = 500;
    });
    publish(&mut rig, &[("completion", "a", json!({"success": true}))]);
    let client = watch_sessions(&mut rig, &["a"]);
    rig.settle();
    assert_eq!(told(&mut rig, client), ["a"]);
    rig.wait(600);
    rig.settle();
    assert_eq!(told(&mut rig, client), ["a is gone"]);
}
