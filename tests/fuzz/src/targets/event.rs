//! One event's text.
//!
//! Properties: the parser and a second reader on serde_json find the same event or the same code;
//! what was read before leaves nothing behind; a refusal's message stays short; in both dialects a
//! viewer gets JSON of the contract's members, the data byte for byte, and not the user. The shape
//! of a known type's data is judged as a second description judges it; a strict publisher is refused
//! for it and for nothing else; reading what is wrong does no harm.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use sightline::dialect::{StreamName, encode_event};
use sightline::event::{
    Dialect, Event, KnownType, Parsed, Parser, Rejection, RejectionCode, Seq, time,
};
use sightline::limits::{
    ENVELOPE_BYTES_MAX, EVENT_BYTES_MAX, EVENT_DEPTH_MAX, FILTER_VALUE_BYTES_MAX,
};

use super::NOW_MS;
use crate::Target;

/// The unit tests' own second reader, which holds the rules where the two readers differ.
#[path = "../../../../src/event/parse/reference.rs"]
mod reference;

/// The unit tests' own second description of the known types.
#[path = "../../../../src/event/known/description.rs"]
#[allow(dead_code, reason = "the tests make events of it as well")]
mod description;

pub(super) const TARGET: Target = Target {
    name: "event",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "\"event_type\":", "\"type\":", "\"user_id\":", "\"userId\":", "\"project_id\":",
    "\"projectId\":", "\"session_id\":", "\"sessionId\":", "\"timestamp\":", "\"event_id\":",
    "\"data\":", "\"projectInfo\":{\"id\":1}", "\"project\":{\"id\":\"p\"}",
    "\"message\":{\"type\":\"user\"}", "\"tool_name\":\"Bash\"", "\"toolName\":\"Read\"", "\"t\"",
    "\"agent_error\"", "\"error\"", "\"2026-11-22T10:00:00.5+01:00\"", "1763805600000",
    "18446744073709551616", "-9223372036854775809", "1e400", "-0", "null", "true", "\\u0064",
    "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\u0000", "{", "}", "[", "]", ",", ":", "\"", "\\",
    "[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]", "\u{feff}", "\"agent_spawned\"", "\"child_session\":",
    "\"resource_limits\":", "\"git_operation\"", "\"operation_type\":", "\"files_changed\":",
    "\"file_change_stats\":", "\"files\":", "\"message_added\"", "\"conversationId\":",
    "\"isLatest\":", "\"progress_update\"", "\"tokens_used\":", "\"performance_metrics\":",
    "\"recent_activities\":", "\"completion\"", "\"success\":", "\"details\":",
];

fn run(input: &[u8]) {
    let text = Bytes::copy_from_slice(input);
    let mut parser = Parser::new();
    let first = parser.parse(&text, NOW_MS);
    assert_eq!(
        first,
        parser.parse(&text, NOW_MS),
        "read for the first time, and again"
    );
    check_strict(&first, parser.parse_strict(&text, NOW_MS));
    match &first {
        Ok(parsed) => {
            check_shape(parsed, &mut parser);
            for dialect in Dialect::ALL {
                check_envelope(dialect, &parsed.event);
            }
        }
        Err(refusal) => assert!(refusal.message.len() < MESSAGE_BYTES_MAX, "{refusal}"),
    }
    let found = first
        .map(|parsed| parsed.event)
        .map_err(|refusal| refusal.code);
    assert_eq!(
        found,
        reference::reference(input, NOW_MS),
        "by the parser, and by the second reader"
    );
}

/// A refusal names a place and what to do, and repeats hardly anything of the input.
const MESSAGE_BYTES_MAX: usize = 300;

/// A strict publisher is refused where the shape is wrong, even if nobody would have seen the event.
fn check_strict(lenient: &Result<Parsed, Rejection>, strict: Result<Parsed, Rejection>) {
    match (lenient, strict) {
        (Ok(parsed), strict) => {
            let expected = match &parsed.shape_error {
                Some(error) => Err((RejectionCode::InvalidField, error.to_string())),
                None => Ok(parsed.clone()),
            };
            assert_eq!(
                strict.map_err(|refusal| (refusal.code, refusal.message)),
                expected
            );
        }
        (Err(refusal), strict) => {
            let code = strict.expect_err("it was refused before").code;
            let is_nobodys = refusal.code == RejectionCode::NoAudience;
            assert!(code == refusal.code || is_nobodys && code == RejectionCode::InvalidField);
        }
    }
}

fn check_shape(Parsed { event, shape_error }: &Parsed, parser: &mut Parser) {
    let data: Value = serde_json::from_slice(&event.data).expect("data is JSON");
    let expected = description::faults(&event.event_type, &data);
    // An integer for us, and a float for serde_json: a difference where an id is asked for.
    let has_minus_zero = event.data.windows(2).any(|two| two == b"-0");
    match shape_error {
        _ if has_minus_zero => {}
        Some(error) => assert!(expected.contains(&error.path), "{error} of {expected:?}"),
        None => assert!(expected.is_empty(), "{expected:?}"),
    }
    if let Some(known) = KnownType::find(&event.event_type) {
        let shown = parser.with_known(known, &event.data, |known| format!("{known:?}"));
        assert_eq!(shown.is_some(), data.is_object());
    }
}

fn check_envelope(dialect: Dialect, event: &Event) {
    let project = event.project.as_deref();
    let stream = project.map_or(StreamName::Own, StreamName::Project);
    let mut envelope = Vec::new();
    encode_event(dialect, stream, Seq::MAX, event, &mut envelope);
    assert!(envelope.len() <= event.data.len() + ENVELOPE_BYTES_MAX);
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(&envelope).expect("an envelope is JSON");
    let text = |name: &str| {
        let raw = members.get(name).map(|raw| raw.get());
        raw.map(|raw| serde_json::from_str::<String>(raw).expect("it is a string"))
    };
    let (type_name, event_type) = match (dialect, event.event_type.as_str()) {
        (Dialect::Keen, name) => ("event_type", name),
        (Dialect::Observatory, "error") => ("type", "agent_error"),
        (Dialect::Observatory, name) => ("type", name),
    };
    assert_eq!(text(type_name).as_deref(), Some(event_type));
    assert_eq!(text("session_id").as_deref(), event.session.as_deref());
    assert_eq!(text("event_id").as_deref(), event.event_id.as_deref());
    assert_eq!(members["seq"].get(), Seq::MAX.to_string());
    assert_eq!(members["data"].get().as_bytes(), event.data);
    let stream = project.map(|id| format!("project/{id}"));
    let own = (dialect == Dialect::Observatory).then(|| "user".to_owned());
    assert_eq!(text("stream"), stream.or(own));
    let always = [type_name, "timestamp", "seq", "data"];
    let sometimes = ["session_id", "event_id", "stream"];
    let is_known = |name: &String| always.iter().chain(&sometimes).any(|known| known == name);
    assert!(members.keys().all(is_known), "{:?}", members.keys());
}
