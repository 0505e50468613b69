//! The shapes against their second description, and what is read of them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::description::{self, Field};
use super::*;
use crate::event::{Parsed, Parser, Rejection, RejectionCode};

fn text_of(event_type: &str, data: &str) -> Bytes {
    let text =
        format!(r#"{{"type":"{event_type}","user_id":"ada","session_id":"s","data":{data}}}"#);
    Bytes::from(text)
}

fn parse(event_type: &str, data: &str) -> Parsed {
    let text = text_of(event_type, data);
    let parsed = Parser::new().parse(&text, 0).expect(data);
    assert_eq!(parsed.event.data, data, "as it came");
    parsed
}

fn parse_strict(event_type: &str, data: &str) -> Result<Parsed, Rejection> {
    Parser::new().parse_strict(&text_of(event_type, data), 0)
}

/// Where the `data` of an event is said to be wrong.
fn fault(event_type: &str, data: &str) -> Option<String> {
    let error = parse(event_type, data).shape_error?;
    assert_eq!(error.event_type.as_str(), event_type);
    let refusal = parse_strict(event_type, data).expect_err(data);
    assert_eq!(refusal.code, RejectionCode::InvalidField);
    assert_eq!(refusal.message, error.to_string());
    assert!(refusal.message.starts_with(&error.path), "{refusal}");
    Some(error.path)
}

fn check(event_type: &str, data: &str, message: &str) {
    let error = parse(event_type, data).shape_error;
    let error = error.map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(error, message, "{event_type} {data}");
}

#[test]
fn known_are_the_types_of_the_second_description() {
    let names: BTreeSet<_> = KnownType::ALL.iter().map(|known| known.as_str()).collect();
    assert_eq!(names, description::names().collect());
    for (index, known) in KnownType::ALL.into_iter().enumerate() {
        assert_eq!(known.index(), index);
        assert_eq!(KnownType::find(known.as_str()), Some(known));
    }
    for name in ["", "agent_error", "Completion", "completion ", "test_event"] {
        assert_eq!(KnownType::find(name), None, "{name}");
    }
}

#[test]
fn the_places_of_counters_suffice() {
    assert!(KnownType::ALL.len() <= crate::counters::KNOWN_TYPES_MAX);
}

#[test]
fn the_documents_own_examples_are_what_their_types_say() {
    let phases = r#"{ "from_phase": "EXPLORE", "to_phase": "PLAN" }"#;
    check("phase_transition", phases, "");
    let message = r#"{"conversationId":"test-conv-1",
        "message":{"id":"msg-1","content":"Hello world","type":"user"},
        "projectInfo":{"id":1,"name":"Test Project"}}"#;
    check("message_added", message, "");
    check("test_event", r#"{"message":"Performance test"}"#, "");
    check("completion", "{}", "");
}

#[test]
fn a_wrong_field_is_told_with_its_path() {
    check(
        "agent_spawned",
        r#"{"child_session":7}"#,
        "data.child_session is an integer; in agent_spawned it must be a string",
    );
    check(
        "agent_spawned",
        "{}",
        "data.child_session is missing; in agent_spawned it must be a string",
    );
    check(
        "phase_transition",
        r#"{"to_phase":null}"#,
        "data.to_phase is null; in phase_transition it must be a string",
    );
    check(
        "git_operation",
        r#"{"operation_type":"commit","files_changed":["a",{}]}"#,
        "data.files_changed[1] is an object; in git_operation it must be a string",
    );
    check(
        "git_operation",
        r#"{"operation_type":"commit","file_change_stats":{"added":-1}}"#,
        "data.file_change_stats.added is an integer; in git_operation it must be a whole number \
         from 0",
    );
    check(
        "message_added",
        r#"{"conversationId":"c","message":"hello"}"#,
        "data.message is a string of 5 bytes; in message_added it must be an object",
    );
    check(
        "analytics_update",
        r#"{"metrics":{},"projectId":1.5}"#,
        "data.projectId is a number with a fraction, or beyond 64 bits; in analytics_update it must \
         be an integer of 64 bits or a string that is not empty",
    );
    check(
        "completion",
        r#""done""#,
        "data is a string of 4 bytes; in completion it must be an object",
    );
    check(
        "completion",
        "null",
        "data is null; in completion it must be an object",
    );
}

#[test]
fn without_data_only_what_is_required_is_missed() {
    let fault = |event_type: &str| {
        let text = format!(r#"{{"type":"{event_type}","user_id":1}}"#);
        let parsed = Parser::new().parse(&text.into(), 0).unwrap();
        parsed.shape_error.map(|error| error.path)
    };
    assert_eq!(fault("completion"), None);
    assert_eq!(fault("tool_execution").unwrap(), "data.tool_name");
}

#[test]
fn of_a_field_twice_the_last_counts() {
    check("completion", r#"{"success":1,"success":true}"#, "");
    check(
        "completion",
        r#"{"success":true,"success":1}"#,
        "data.success is an integer; in completion it must be true or false",
    );
}

#[test]
fn whole_numbers_are_counts_however_they_are_written() {
    let is_count = |number: &str| fault("progress_update", &tokens(number)).is_none();
    for number in ["0", "-0", "-0.0", "3.0", "1e3", "18446744073709551615"] {
        assert!(is_count(number), "{number}");
    }
    for number in ["-1", "0.5", "18446744073709551616", "1e300"] {
        assert!(!is_count(number), "{number}");
    }
}

fn tokens(number: &str) -> String {
    format!(r#"{{"tokens_used":{number}}}"#)
}

#[test]
fn the_first_code_that_holds_is_given_to_strict_publishers_too() {
    let code = |text: &str| {
        let parsed = Parser::new().parse_strict(&Bytes::copy_from_slice(text.as_bytes()), 0);
        parsed.expect_err(text).code
    };
    let nobodys = r#"{"type":"completion","data":{"success":0}}"#;
    assert_eq!(code(nobodys), RejectionCode::InvalidField);
    let twice = r#"{"type":"completion","data":{"success":0},"data":1}"#;
    assert_eq!(code(twice), RejectionCode::DuplicateField);
    let well_formed = r#"{"type":"completion","data":{"success":true}}"#;
    assert_eq!(code(well_formed), RejectionCode::NoAudience);
}

#[test]
fn every_field_is_read_by_its_own_name() {
    let data = br#"{"operation_type":"commit","branch":"feat/a","commit_hash":"abc",
        "commit_message":"m","files_changed":["a\n","b"],"lines_added":3,"lines_deleted":2.0,
        "merge_conflicts":false,"success":true,"duration_ms":1.5,
        "file_change_stats":{"files":2,"added":3,"deleted":4},"other":[]}"#;
    let read = |known: &Known<'_>| {
        let Known::GitOperation(git) = known else {
            panic!("{known:?}");
        };
        assert_eq!(git.operation_type, Some("commit"));
        assert_eq!((git.branch, git.commit_hash), (Some("feat/a"), Some("abc")));
        assert_eq!(git.commit_message, Some("m"));
        let files = git.files_changed.unwrap();
        assert_eq!(files.iter().collect::<Vec<_>>(), ["a\n", "b"]);
        assert_eq!((git.lines_added, git.lines_deleted), (Some(3), Some(2)));
        assert_eq!(
            (git.merge_conflicts, git.success),
            (Some(false), Some(true))
        );
        assert_eq!(git.duration_ms, Some(1.5));
        let stats = git.file_change_stats.as_ref().unwrap();
        let stats = (stats.files, stats.added, stats.deleted);
        assert_eq!(stats, (Some(2), Some(3), Some(4)));
    };
    let shown = Parser::new().with_known(KnownType::GitOperation, data, read);
    assert_eq!(shown, Some(()));
}

#[test]
fn ids_are_read_as_text() {
    let id = |id: &str| {
        let data = format!(r#"{{"projectId":{id}}}"#);
        let read = |known: &Known<'_>| match known {
            Known::ProjectUpdated(project) => project.project_id.map(|id| id.text()),
            _ => panic!("{known:?}"),
        };
        let shown = Parser::new().with_known(KnownType::ProjectUpdated, data.as_bytes(), read);
        shown.unwrap().map(String::from)
    };
    assert_eq!(id("7").as_deref(), Some("7"));
    assert_eq!(id("\"7\"").as_deref(), Some("7"));
    assert_eq!(id("18446744073709551615").unwrap(), u64::MAX.to_string());
    assert_eq!(id("-9223372036854775808").unwrap(), i64::MIN.to_string());
    assert_eq!(id("\"\""), None);
}

#[test]
fn a_slip_in_one_field_hides_no_other() {
    let data = br#"{"child_session":"c","git_branch":7,"agent_depth":null,"purpose":"p"}"#;
    let read = |known: &Known<'_>| match known {
        Known::AgentSpawned(spawn) => (
            spawn.child_session == Some("c") && spawn.purpose == Some("p"),
            spawn.git_branch.is_none() && spawn.agent_depth.is_none(),
        ),
        _ => panic!("{known:?}"),
    };
    let shown = Parser::new().with_known(KnownType::AgentSpawned, data, read);
    assert_eq!(shown, Some((true, true)));
}

#[test]
fn nothing_is_shown_of_what_is_no_object() {
    for data in ["[]", "7", "null", "{", ""] {
        let shown = Parser::new().with_known(KnownType::Completion, data.as_bytes(), |_| ());
        assert_eq!(shown, None, "{data}");
    }
}

/// A value that a field of this kind may have.
fn good(kind: &'static str) -> BoxedStrategy<Value> {
    let text = || "\\PC{0,6}";
    match kind {
        "any" => prop_oneof![
            Just(json!([1, {"a": "]"}])),
            Just(json!(7)),
            text().prop_map(Value::from)
        ]
        .boxed(),
        "count" => prop_oneof![any::<u64>().prop_map(Value::from), Just(json!(3.0))].boxed(),
        "flag" => any::<bool>().prop_map(Value::from).boxed(),
        "id" => prop_oneof![any::<i64>().prop_map(Value::from), Just(json!("p-1"))].boxed(),
        "list" => Just(json!([1, "a", {}])).boxed(),
        "number" => prop_oneof![any::<i64>().prop_map(Value::from), Just(json!(0.25))].boxed(),
        "object" => Just(json!({"other": {"id": []}})).boxed(),
        "text" => text().prop_map(Value::from).boxed(),
        "texts" => prop::collection::vec(text(), 0..3)
            .prop_map(Value::from)
            .boxed(),
        _ => panic!("{kind} is no kind"),
    }
}

/// Values of every JSON type, and some that only look right.
fn candidates() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(7),
        json!(-7),
        json!(1.5),
        json!(1e30),
        json!(""),
        json!("7"),
        json!([]),
        json!(["a"]),
        json!(["a", 1]),
        json!([[]]),
        json!({}),
        json!({"id": 1}),
    ]
}

/// Sets a field, where the object that it is in is there.
fn set(data: &mut Value, field: Field, value: Value) {
    let (owner, name) = match field.path.split_once('.') {
        Some((owner, name)) => (data.get_mut(owner), name),
        None => (Some(data), field.path),
    };
    if let Some(Value::Object(owner)) = owner {
        owner.insert(name.to_owned(), value);
    }
}

/// The `data` of an event of a type, with all its fields.
fn whole(event_type: &'static str) -> BoxedStrategy<Value> {
    let fields = description::fields(event_type);
    let values: Vec<_> = fields.iter().map(|field| good(field.kind)).collect();
    let whole = values.prop_map(move |values| {
        let mut data = json!({"unknown": {"to_phase": 7}});
        for (field, value) in fields.iter().zip(values) {
            set(&mut data, *field, value);
        }
        data
    });
    whole.boxed()
}

fn types() -> impl Strategy<Value = &'static str> {
    select(description::names().collect::<Vec<_>>())
}

fn of_any_type(
    data: impl Fn(&'static str) -> BoxedStrategy<Value>,
) -> impl Strategy<Value = (&'static str, Value)> {
    types().prop_flat_map(move |event_type| (Just(event_type), data(event_type)))
}

/// An object of some of a type's fields, with any values.
fn arbitrary(event_type: &'static str) -> BoxedStrategy<Value> {
    let fields = description::fields(event_type);
    let value = |field: &Field| {
        let value = prop_oneof![3 => good(field.kind), 1 => select(candidates())];
        prop::option::weighted(0.8, value)
    };
    let values: Vec<_> = fields.iter().map(value).collect();
    let some = values.prop_map(move |values| {
        let mut data = Value::Object(Map::new());
        for (field, value) in fields.iter().zip(values) {
            if let Some(value) = value {
                set(&mut data, *field, value);
            }
        }
        data
    });
    prop_oneof![20 => some, 1 => select(candidates())].boxed()
}

/// The text of an object with its members the other way round.
fn reversed(data: &Value) -> String {
    let members = data.as_object().unwrap().iter().rev();
    let members: Vec<_> = members
        .map(|(name, value)| format!("{} : {value}", json!(name)))
        .collect();
    format!("{{ {} }}", members.join(" ,\n"))
}

proptest! {
    #[test]
    fn what_a_type_describes_passes((event_type, data) in of_any_type(whole)) {
        prop_assert!(description::faults(event_type, &data).is_empty(), "{}", data);
        prop_assert_eq!(fault(event_type, &data.to_string()), None);
        prop_assert_eq!(fault(event_type, &reversed(&data)), None);
        prop_assert!(parse_strict(event_type, &data.to_string()).is_ok());
    }

    #[test]
    fn any_data_is_judged_as_the_second_description_does(
        (event_type, data) in of_any_type(arbitrary),
    ) {
        let expected = description::faults(event_type, &data);
        match fault(event_type, &data.to_string()) {
            Some(path) => prop_assert!(expected.contains(&path), "{} {:?}", path, expected),
            None => prop_assert_eq!(expected, Vec::<String>::new()),
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written(
        value in select(candidates()),
        (before, after) in (select(candidates()), select(candidates())),
        space in select(vec!["", " ", "\n\t"]),
    ) {
        let value = spread(&value, space);
        let data = format!(
            r#"{{"before":{before},"details":{space}{value}{space},"after":{after}}}"#
        );
        let read = |known: &Known<'_>| match known {
            Known::AgentError(error) => error.details.map(|json| json.text().to_vec()),
            _ => panic!("{known:?}"),
        };
        let shown = Parser::new().with_known(KnownType::AgentError, data.as_bytes(), read).unwrap();
        let expected: &RawValue = serde_json::from_str(&value).unwrap();
        let expected = expected.get().as_bytes();
        prop_assert_eq!(shown, (expected != b"null").then(|| expected.to_vec()));
    }
}

proptest! {
    // Each case goes through all fields of a type, and all values for each.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_field_of_another_type_is_told((event_type, data) in of_any_type(whole)) {
        for field in description::fields(event_type) {
            let mut seen = BTreeSet::new();
            for value in candidates() {
                let mut data = data.clone();
                set(&mut data, field, value);
                let expected = description::faults(event_type, &data);
                prop_assert!(expected.len() < 2, "{:?}", expected);
                prop_assert_eq!(fault(event_type, &data.to_string()), expected.first().cloned());
                prop_assert_eq!(fault(event_type, &reversed(&data)), expected.first().cloned());
                seen.extend(expected);
            }
            let path = format!("data.{}", field.path);
            prop_assert_eq!(seen.contains(&path), field.kind != "any", "{}", path);
        }
    }

    #[test]
    fn a_required_field_is_missed((event_type, data) in of_any_type(whole)) {
        for field in description::fields(event_type) {
            let mut data = data.clone();
            data.as_object_mut().unwrap().remove(field.path);
            let expected = field.is_required.then(|| format!("data.{}", field.path));
            prop_assert_eq!(fault(event_type, &data.to_string()), expected);
        }
    }
}

/// A value's text, spread out.
fn spread(value: &Value, space: &str) -> String {
    let text = value.to_string();
    let text = text.replace(',', &format!("{space},{space}"));
    text.replace(']', &format!("{space}]"))
}
