use serde_json::{Value, json};

use super::*;
use crate::limits::{TREE_MESSAGE_BYTES_MAX, TREE_QUESTIONS_WAITING_MAX};

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
fn trees_that_find_no_room_in_an_answer_are_named_behind_it() {
    let mut rig = rig();
    let names: Vec<String> = (0..900).map(|n| format!("agent {n:03}")).collect();
    for some in names.chunks(100) {
        let events = some
            .iter()
            .map(|name| ("progress_update", name.as_str(), progress(1)));
        publish(&mut rig, &events.collect::<Vec<_>>());
    }
    let client = rig.viewer("ada", &[]);
    rig.settle();
    rig.read(client);
    rig.say(client, &json!({"type": "get_agent_tree", "id": "q"}));
    let mut said = Vec::new();
    while said.len() < 2 {
        rig.settle();
        said.extend(rig.read(client));
    }
    let (answer, error) = (&said[0]["data"], &said[1]["data"]);
    assert!(answer.to_string().len() <= TREE_MESSAGE_BYTES_MAX);
    let members = answer.as_object().expect("an answer").keys();
    assert_eq!(members.collect::<Vec<_>>(), ["at_seq", "id", "trees"]);
    assert_eq!(said[1]["type"], "error");
    assert_eq!(
        (&error["id"], &error["code"]),
        (&json!("q"), &json!("TREES_OMITTED"))
    );
    let shown = answer["trees"].as_array().expect("trees").iter();
    let shown = shown.map(|tree| tree["session_id"].clone());
    let omitted = error["details"]["sessions"].as_array().expect("sessions");
    assert_eq!(error["details"]["count"], omitted.len());
    let mut all: Vec<Value> = shown.chain(omitted.iter().cloned()).collect();
    all.sort_by_key(Value::to_string);
    assert_eq!(
        all,
        names.iter().map(|name| json!(name)).collect::<Vec<_>>()
    );
    let one = ask(&mut rig, client, omitted[0].as_str());
    assert_eq!(one["trees"][0]["session_id"], omitted[0]);
}
