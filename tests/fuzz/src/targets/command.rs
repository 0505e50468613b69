//! What a viewer says.
//!
//! Properties: a message is taken or refused by whether serde_json reads an object there, and has
//! the id that serde_json sees; a refusal has a code and becomes an answer in both dialects, with
//! the id; filters read back from their canonical text, to the same key; cursors read back.

use serde_json::{Map, Value};
use sightline::dialect::{Command, CommandError, Complaint, MessageId, Subscribe, Unsubscribe};
use sightline::dialect::{ERROR_CODES, encode_message, is_continue};
use sightline::event::{Dialect, Filter};
use sightline::limits::{CONVERSATIONS_PER_ANSWER_MAX, FILTERS_PER_MESSAGE_MAX};

use super::NOW_MS;
use super::query::check_cursor;
use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "command",
    run,
    tokens: TOKENS,
    bytes_max: 18 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "\"type\":", "\"data\":", "\"id\":", "\"subscribe\"", "\"unsubscribe\"", "\"ping\"",
    "\"refresh_token\"", "\"continue\"", "\"filters\":", "\"projectIds\":[", "\"eventTypes\":[",
    "\"sessionIds\":[", "\"messageTypes\":[", "\"toolNames\":[", "\"epoch\":", "\"resume\":",
    "\"get_agent_tree\"", "\"sessionId\":", "\"get_active_conversations\"", "\"projectId\":",
    "\"limit\":", "\"get_project_activity\"", "\"timeRange\":", "\"start\":", "\"end\":",
    "\"timestamp\":", "\"token\":", "\"subscriptionKey\":", "\"44136fa355b3678a\"", "\"0000000a\"",
    "\"user=1,project/7=2\"", "\"agent_error\"", "\"error\"", "null", "true", "{}", "[]",
    "[{},{}]", "{", "}", "[", "]", ",", "\"", "\\u0061", "\\ud83d\\ude00", "-1", "1.5",
];

fn run(input: &[u8]) {
    let _ = is_continue(input);
    let reference: Option<Value> = serde_json::from_slice(input).ok();
    let object = reference.as_ref().and_then(Value::as_object);
    match (Command::parse(input), object) {
        (Ok((command, id)), Some(object)) => {
            assert_eq!(id.as_ref().map(id_value), object.get("id").cloned());
            check_command(&command, object);
        }
        (Err(error), object) => {
            assert_eq!(error.complaint == Complaint::NotAnObject, object.is_none());
            check_error(&error, object);
        }
        (Ok(_), None) => panic!("serde_json reads no object here"),
    }
}

fn check_command(command: &Command, object: &Map<String, Value>) {
    let data = &object.get("data");
    let member = |name: &str| data.and_then(|data| data.get(name));
    let name = match command {
        Command::Activity(question) => {
            check_project(&question.project, member("projectId"));
            let range = question.range.as_ref();
            assert_eq!(range.is_some(), member("timeRange").is_some());
            assert!(range.is_none_or(|range| range.start_ms() <= range.end_ms()));
            "get_project_activity"
        }
        Command::AgentTree { session } => {
            assert_eq!(
                session.as_deref(),
                member("sessionId").and_then(Value::as_str)
            );
            "get_agent_tree"
        }
        Command::Conversations(question) => {
            assert!((1..=CONVERSATIONS_PER_ANSWER_MAX).contains(&question.limit));
            match &question.project {
                Some(project) => check_project(project, member("projectId")),
                None => assert_eq!(member("projectId"), None),
            }
            "get_active_conversations"
        }
        Command::Ping { echo } => {
            assert_eq!(echo.as_ref(), member("timestamp"));
            "ping"
        }
        Command::RefreshToken(token) => {
            assert_eq!(
                Some(token.as_str()),
                member("token").and_then(Value::as_str)
            );
            "refresh_token"
        }
        Command::Replay(replay) => {
            assert!(replay.to.is_none_or(|to| to >= replay.from) && replay.limit > 0);
            "replay"
        }
        Command::Subscribe(Subscribe {
            filters,
            is_array,
            cursor,
        }) => {
            assert_eq!(member("filters").is_some_and(Value::is_array), *is_array);
            assert!(*is_array || filters.len() == 1);
            check_filters(filters);
            cursor.iter().for_each(check_cursor);
            "subscribe"
        }
        Command::Unsubscribe(what) => {
            match what {
                Unsubscribe::All => {}
                Unsubscribe::Filters(filters) => check_filters(filters),
                Unsubscribe::Key(key) => {
                    assert_eq!(
                        Some(&Value::from(key.to_string())),
                        member("subscriptionKey")
                    );
                }
            }
            "unsubscribe"
        }
    };
    assert_eq!(object["type"], name);
}

fn check_project(project: &str, said: Option<&Value>) {
    let text = said.and_then(Value::as_str);
    let number = said.filter(|said| said.is_number()).map(Value::to_string);
    assert_eq!(Some(project), text.or(number.as_deref()));
}

fn check_filters(filters: &[Filter]) {
    assert!((1..=FILTERS_PER_MESSAGE_MAX).contains(&filters.len()));
    for filter in filters {
        let text = filter.canonical_json();
        let value = serde_json::from_str(&text).expect("the canonical text is JSON");
        let again = Filter::from_json(&value).expect("the canonical text is a filter");
        assert_eq!((&again, again.key()), (filter, filter.key()), "{text}");
    }
}

fn check_error(error: &CommandError, object: Option<&Map<String, Value>>) {
    let id = error.id.as_ref().map(id_value);
    if let Some(id) = &id {
        // Of an id that stands twice the first counts, and serde_json keeps the last.
        let is_same = object.and_then(|object| object.get("id")) == Some(id);
        assert!(is_same || error.complaint == Complaint::DuplicateMember);
    }
    assert!(
        error
            .answer()
            .error_index()
            .is_some_and(|index| index < ERROR_CODES.len())
    );
    for dialect in Dialect::ALL {
        let mut answer = Vec::new();
        encode_message(dialect, &error.answer(), NOW_MS, &mut answer);
        let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
        assert_eq!(answer["data"]["code"], error.complaint.code());
        assert_eq!(answer["data"].get("id"), id.as_ref());
    }
}

fn id_value(id: &MessageId) -> Value {
    match id {
        MessageId::Integer(integer) => serde_json::to_value(integer).expect("it came out of JSON"),
        MessageId::Text(text) => text.as_str().into(),
    }
}
