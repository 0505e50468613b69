//! Questions of viewers on one core about streams of others.

use serde_json::{Value, json};

use crate::dialect::ConnectQuery;
use crate::event::{Dialect, StreamKind};
use crate::hub::rig::{Client, Rig, WALL_MS, claims};
use crate::hub::{Bounds, Hub};
use crate::limits::{QUESTION_TIMEOUT_MS, QUESTIONS_PER_VIEWER_MAX};

const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Two cores, a user of the first one, and a project of each.
struct Scene {
    rig: Rig,
    user: String,
    projects: [String; 2],
    publisher: Client,
}

impl Scene {
    fn new() -> Self {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let user = rig.id_on(0, StreamKind::User);
        let projects = [0, 1].map(|core| rig.id_on(core, StreamKind::Project));
        let publisher = rig.publisher(1);
        Self {
            rig,
            user,
            projects,
            publisher,
        }
    }

    fn viewer(&mut self) -> Client {
        let [first, second] = self.projects.clone();
        let client = self.rig.viewer(&self.user, &[&first, &second]);
        self.rig.settle();
        self.rig.read(client);
        client
    }

    fn publish(&mut self, event: &Value) {
        self.rig.publish(self.publisher, &event.to_string());
        self.rig.settle();
    }

    /// A conversation begins.
    fn begin(&mut self, id: &str, user: Option<&str>, project: Option<&str>) {
        self.rig.wait(10);
        let mut event = json!({
            "type": "conversation_started", "session_id": "s",
            "data": {"conversationId": id},
        });
        if let Some(user) = user {
            event["user_id"] = json!(user);
        }
        if let Some(project) = project {
            event["project_id"] = json!(project);
        }
        self.publish(&event);
    }

    /// What a viewer is told when it asks; events that wait for it are passed over.
    fn ask(&mut self, client: Client, question: &Value) -> Value {
        self.rig.read(client);
        self.rig.say(client, question);
        self.rig.settle();
        let said = self.rig.read(client).into_iter();
        let said: Vec<Value> = said.filter(|said| said["seq"].is_null()).collect();
        assert_eq!(said.len(), 1, "{said:?}");
        said[0].clone()
    }

    fn conversations(&mut self, client: Client, data: &Value) -> Vec<String> {
        let question = json!({"type": "get_active_conversations", "id": 7, "data": data});
        let answer = self.ask(client, &question);
        assert_eq!(
            (&answer["type"], &answer["data"]["id"]),
            (&json!("active_conversations"), &json!(7)),
            "{answer}"
        );
        let rows = answer["data"]["conversations"].as_array();
        let ids = rows.into_iter().flatten().map(|row| &row["conversationId"]);
        ids.filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    }

    fn activity(&mut self, client: Client, data: &Value) -> Value {
        let question = json!({"type": "get_project_activity", "data": data});
        let answer = self.ask(client, &question);
        assert_eq!(answer["type"], "project_activity", "{answer}");
        answer["data"].clone()
    }
}

#[test]
fn conversations_of_all_cores_are_told_the_newest_first() {
    let mut scene = Scene::new();
    let (user, [first, second]) = (scene.user.clone(), scene.projects.clone());
    scene.begin("a", Some(&user), None);
    scene.begin("b", None, Some(&first));
    scene.begin("c", Some(&user), Some(&second));
    scene.begin("d", Some("somebody"), None);
    scene.begin("e", None, Some("another"));
    let client = scene.viewer();
    let mut check = |data: Value, expected: &[&str]| {
        assert_eq!(scene.conversations(client, &data), expected, "{data}");
    };
    check(json!({}), &["c", "b", "a"]);
    check(json!({"limit": 2}), &["c", "b"]);
    check(json!({"projectId": second}), &["c"]);
    let ended = json!({
        "type": "conversation_ended", "project_id": first, "data": {"conversationId": "b"},
    });
    scene.publish(&ended);
    assert_eq!(scene.conversations(client, &json!({})), ["c", "a"]);
    scene.rig.wait(60_000);
    assert!(
        scene.conversations(client, &json!({})).is_empty(),
        "silence ends them"
    );
}

#[test]
fn of_two_copies_the_one_that_heard_more_is_told() {
    let mut scene = Scene::new();
    let (user, [_, second]) = (scene.user.clone(), scene.projects.clone());
    scene.begin("c", Some(&user), Some(&second));
    let said = json!({
        "type": "message_added", "user_id": "bob", "project_id": second,
        "data": {"conversationId": "c", "message": {}},
    });
    scene.publish(&said);
    let client = scene.viewer();
    let answer = scene.ask(client, &json!({"type": "get_active_conversations"}));
    let rows = answer["data"]["conversations"]
        .as_array()
        .map(Vec::as_slice);
    let counts: Vec<_> = rows
        .into_iter()
        .flatten()
        .map(|row| &row["messageCount"])
        .collect();
    assert_eq!(counts, [1]);
}

#[test]
fn a_project_that_the_token_does_not_show_is_refused() {
    let mut scene = Scene::new();
    scene.begin("e", Some("somebody"), Some("another"));
    let client = scene.viewer();
    for name in ["get_active_conversations", "get_project_activity"] {
        let question = json!({"type": name, "id": "q", "data": {"projectId": "another"}});
        let answer = scene.ask(client, &question);
        assert_eq!(
            (&answer["data"]["code"], &answer["data"]["id"]),
            (&json!("FORBIDDEN"), &json!("q"))
        );
    }
}

#[test]
fn who_names_anothers_conversation_and_session_has_one_of_its_own() {
    let mut scene = Scene::new();
    let (user, [first, _]) = (scene.user.clone(), scene.projects.clone());
    scene.begin("c", Some(&user), None);
    for name in [
        "conversation_started",
        "message_added",
        "tool_execution",
        "conversation_ended",
    ] {
        scene.publish(&json!({
            "type": name, "user_id": "bob", "session_id": "s",
            "data": {
                "conversationId": "c", "sessionId": "s", "message": {}, "tool_name": "Read",
                "user_id": user, "userId": user, "projectId": first, "projectInfo": {"id": first},
            },
        }));
    }
    scene.rig.wait(10);
    scene.begin("c", Some("bob"), None);
    let client = scene.viewer();
    let answer = scene.ask(client, &json!({"type": "get_active_conversations"}));
    let expected = json!([{
        "conversationId": "c", "sessionId": "s", "projectId": null,
        "startTime": WALL_MS + 10, "lastActivity": WALL_MS + 10,
        "messageCount": 0, "toolUsageCount": 0,
    }]);
    assert_eq!(answer["data"]["conversations"], expected);
    let counts = scene.activity(client, &json!({"projectId": first}));
    assert_eq!(counts["counts"], json!({}));
}

#[test]
fn a_projects_activity_is_told_from_memory_and_from_the_log() {
    let mut scene = Scene::new();
    let [_, project] = scene.projects.clone();
    let client = scene.viewer();
    let old_ms = WALL_MS - 100 * HOUR_MS;
    for (event_type, at_ms) in [
        ("a", WALL_MS - HOUR_MS / 2),
        ("a", WALL_MS - HOUR_MS / 2),
        ("b", WALL_MS),
        ("a", old_ms),
        ("c", old_ms + 1),
    ] {
        scene.publish(&json!({"type": event_type, "project_id": project, "timestamp": at_ms}));
    }
    let recent = scene.activity(client, &json!({"projectId": project}));
    assert_eq!(recent["counts"], json!({"a": 2, "b": 1}));
    assert_eq!(recent["buckets"][30]["counts"], json!({"a": 2}));
    assert_eq!(recent["lastActivity"], WALL_MS);
    let range = json!({"start": old_ms, "end": old_ms + 59});
    let old = scene.activity(client, &json!({"projectId": project, "timeRange": range}));
    assert_eq!(old["counts"], json!({"a": 1, "c": 1}));
    assert_eq!(old["lastActivity"], WALL_MS);
    let all = json!({"start": 0, "end": WALL_MS});
    let all = scene.activity(client, &json!({"projectId": project, "timeRange": all}));
    assert_eq!(all["counts"], json!({"a": 3, "b": 1, "c": 1}));
}

#[test]
fn answers_are_the_same_after_a_restart() {
    let mut scene = Scene::new();
    let (user, [first, second]) = (scene.user.clone(), scene.projects.clone());
    scene.begin("b", None, Some(&first));
    scene.begin("c", Some(&user), Some(&second));
    let client = scene.viewer();
    let before = scene.activity(client, &json!({"projectId": second}));
    scene.rig.restart(|_| {});
    let client = scene.viewer();
    assert_eq!(scene.conversations(client, &json!({})), ["c", "b"]);
    assert_eq!(
        scene.activity(client, &json!({"projectId": second})),
        before
    );
}

#[test]
fn nobody_waits_for_a_log_that_does_not_answer() {
    let mut scene = Scene::new();
    let [_, project] = scene.projects.clone();
    scene.publish(&json!({"type": "a", "project_id": project}));
    scene.rig.restart(|_| {});
    // It follows nothing, so that nothing is loaded before it asks.
    let claims = claims(&scene.user, &[&project]);
    let query = ConnectQuery::default();
    let client = scene.rig.connect(claims, Dialect::Observatory, query);
    scene.rig.settle();
    scene.rig.plain.is_silent = true;
    let question = json!({"type": "get_project_activity", "data": {"projectId": project}});
    for _ in 0..QUESTIONS_PER_VIEWER_MAX {
        scene.rig.say(client, &question);
    }
    scene.rig.settle();
    let refused = scene.ask(client, &question);
    assert_eq!(refused["data"]["code"], "RATE_LIMIT_EXCEEDED");
    let hub = &scene.rig.hubs[client.core];
    let ends_ms = hub.next_deadline_ms().expect("questions end");
    assert!(ends_ms <= scene.rig.now.ms() + QUESTION_TIMEOUT_MS);
    scene.rig.wait(QUESTION_TIMEOUT_MS);
    scene.rig.settle();
    let said = scene.rig.read(client);
    assert_eq!(said.len(), usize::from(QUESTIONS_PER_VIEWER_MAX));
    assert!(
        said.iter().all(|said| said["data"]["code"] == "OVERLOADED"),
        "{said:?}"
    );
    let is_open = |hub: &Hub| !hub.questions.open.is_empty();
    assert!(!scene.rig.hubs.iter().any(is_open), "the owner goes on");
    scene.rig.plain.is_silent = false;
    scene.rig.settle();
    assert_eq!(
        scene.ask(client, &question)["data"]["counts"],
        json!({"a": 1})
    );
}

#[test]
fn the_log_counts_no_longer_for_a_question_that_was_given_up() {
    let mut scene = Scene::new();
    let [_, project] = scene.projects.clone();
    for at_ms in 1..4 {
        scene.publish(&json!({"type": "a", "project_id": project, "timestamp": at_ms}));
    }
    let client = scene.viewer();
    scene.rig.holds_reads = true;
    let data = json!({"projectId": project, "timeRange": {"start": 0, "end": 10}});
    let question = json!({"type": "get_project_activity", "data": data});
    scene.rig.say(client, &question);
    scene.rig.settle();
    assert!(scene.rig.answer_reads(), "the first event of three");
    scene.rig.wait(QUESTION_TIMEOUT_MS);
    scene.rig.settle();
    assert_eq!(scene.rig.read(client)[0]["data"]["code"], "OVERLOADED");
    assert!(scene.rig.answer_reads(), "the one that was under way");
    scene.rig.settle();
    assert!(!scene.rig.answer_reads());
}

#[test]
fn a_viewer_that_goes_meanwhile_leaves_nothing() {
    let mut scene = Scene::new();
    let [_, project] = scene.projects.clone();
    scene.publish(&json!({"type": "a", "project_id": project, "timestamp": 5}));
    let client = scene.viewer();
    let range = json!({"start": 0, "end": 10});
    let data = json!({"projectId": project, "timeRange": range});
    scene.rig.say(
        client,
        &json!({"type": "get_project_activity", "data": data}),
    );
    scene.rig.hubs[client.core].handle_disconnect(client.key);
    scene.rig.settle();
    for hub in &scene.rig.hubs {
        assert!(hub.questions.asked.is_empty() && hub.questions.open.is_empty());
    }
}
