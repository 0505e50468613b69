//! Trees as clients see them: `changes` of trees that are shown, the `present` ones that a viewer
//! begins with, those that are `narrowed` by sessions, `answers`; and whatever is done (`properties`).

mod answers;
mod changes;
mod narrowed;
mod present;
mod properties;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::dialect::{ConnectQuery, SubscribeScope, TreeMode};
use crate::event::Dialect;
use crate::hub::Bounds;
use crate::hub::rig::{Client, Rig, claims, seqs};
use crate::limits::TREE_INTERVAL_MS;

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

// A viewer of the trees in which these sessions are.
fn watch_sessions(rig: &mut Rig, sessions: &[&str]) -> Client {
    let query = ConnectQuery {
        sessions: sessions.iter().map(|session| (*session).into()).collect(),
        ..query(TreeMode::Full)
    };
    rig.connect(claims("ada", &[]), Dialect::Observatory, query)
}

// Publishes events of ada's agents, each (type, session, data), and ends the turn.
fn publish(rig: &mut Rig, events: &[(&str, &str, Value)]) {
    publish_of(rig, "ada", events);
}

fn publish_of(rig: &mut Rig, user: &str, events: &[(&str, &str, Value)]) {
    publish_within_turn(rig, user, events);
    rig.settle();
}

fn publish_within_turn(rig: &mut Rig, user: &str, events: &[(&str, &str, Value)]) {
    let publisher = rig.publisher(0);
    for (event_type, session, data) in events {
        let event = json!({
            "type": event_type, "user_id": user, "session_id": session, "data": data,
        });
        rig.publish(publisher, &event.to_string());
    }
    rig.hub().handle_disconnect(publisher.key);
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
