//! One event's text.
//!
//! Properties: the parser and a second reader on serde_json find the same event or the same code;
//! what was read before leaves nothing behind; a refusal's message stays short; in both dialects a
//! viewer gets JSON of the contract's members, the data byte for byte, and not the user.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use sightline::dialect::{StreamName, encode_event};
use sightline::event::{Dialect, Event, Parser, RejectionCode, Seq, time};
use sightline::limits::{
    ENVELOPE_BYTES_MAX, EVENT_BYTES_MAX, EVENT_DEPTH_MAX, FILTER_VALUE_BYTES_MAX,
};

use super::NOW_MS;
use crate::Target;

/// The unit tests' own second reader, which holds the rules where the two readers differ.
#[path = "../../../../src/event/parse/reference.rs"]
mod reference;

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
    "[[[[[[[[[[[[[[[[", "]]]]]]]]]]]]]]]]", "\u{feff}",
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
    match &first {
        Ok(event) => Dialect::ALL
            .iter()
            .for_each(|dialect| check_envelope(*dialect, event)),
        Err(refusal) => assert!(refusal.message.len() < MESSAGE_BYTES_MAX, "{refusal}"),
    }
    let found = first.map_err(|refusal| refusal.code);
    assert_eq!(
        found,
        reference::reference(input, NOW_MS),
        "by the parser, and by the second reader"
    );
}

/// A refusal names a place and what to do, and repeats hardly anything of the input.
const MESSAGE_BYTES_MAX: usize = 300;

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
