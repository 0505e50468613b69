//! What the contract makes of an event's text, read a second time: slowly, and by serde_json. Where
//! the two readers of JSON differ, a rule below says which of them the contract follows.
//!
//! Stands apart from the tests that use it because the fuzz target of the same name takes it in as
//! well; so it names its surroundings by `super` alone.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use compact_str::CompactString;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::RejectionCode::{
    DuplicateField, EventTooLarge, InvalidField, InvalidJson, NoAudience, ReservedType, TooDeep,
};
use super::{EVENT_BYTES_MAX, EVENT_DEPTH_MAX, FILTER_VALUE_BYTES_MAX};
use super::{Event, RejectionCode, time};

/// The event in `text`, which arrived at `now_ms`, or the first code that holds.
pub(super) fn reference(text: &[u8], now_ms: i64) -> Result<Event, RejectionCode> {
    let utf8 = std::str::from_utf8(text).map_err(|_| InvalidJson)?;
    serde_json::from_str::<IgnoredAny>(utf8).map_err(|_| InvalidJson)?;
    // Of what is too deep or too large, no more than the grammar is looked at.
    if depth(text) > EVENT_DEPTH_MAX {
        return Err(TooDeep);
    }
    if text.len() > EVENT_BYTES_MAX {
        return Err(EventTooLarge);
    }
    // Half a surrogate pair and a number beyond a float pass for JSON until they become values.
    serde_json::from_str::<Value>(utf8).map_err(|_| InvalidJson)?;
    let top = serde_json::from_slice::<Members>(text)
        .map_err(|_| InvalidField)?
        .0;
    let event_type = one(&top, &["event_type", "type"])?;
    let user = one(&top, &["user_id", "userId"])?;
    let mut project = one(&top, &["project_id", "projectId"])?;
    let mut session = one(&top, &["session_id", "sessionId"])?;
    let timestamp = one(&top, &["timestamp"])?;
    let event_id = one(&top, &["event_id"])?;
    let data = one(&top, &["data"])?;
    let inner = members(data);
    if user.is_none() && project.is_none() {
        project = one_in_data(&inner, "projectId")?;
        for name in ["projectInfo", "project"] {
            if project.is_none() {
                project = one_in_data(&members(one_in_data(&inner, name)?), "id")?;
            }
        }
    }
    if session.is_none() {
        session = one_in_data(&inner, "sessionId")?;
    }

    let event = Event {
        event_type: id(event_type.ok_or(InvalidField)?, 64, false)?,
        user: user.map(|raw| id(raw, 128, true)).transpose()?,
        project: project.map(|raw| id(raw, 64, true)).transpose()?,
        session: session.map(|raw| id(raw, 128, false)).transpose()?,
        event_id: event_id.map(|raw| id(raw, 64, false)).transpose()?,
        timestamp_ms: match timestamp.map(value) {
            None => now_ms,
            Some(Value::String(text)) => time::parse_rfc3339_ms(&text).ok_or(InvalidField)?,
            Some(other) => other
                .as_i64()
                .and_then(time::checked_ms)
                .ok_or(InvalidField)?,
        },
        data: Bytes::copy_from_slice(data.map_or("{}", RawValue::get).as_bytes()),
        message_type: {
            let message = inner.iter().rev().find(|m| m.0 == "message");
            last_text(&members(message.map(|m| m.1)), "type")
        },
        tool_name: last_text(&inner, "tool_name").or_else(|| last_text(&inner, "toolName")),
    };
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    if !event
        .event_type
        .starts_with(|c: char| c.is_ascii_lowercase())
        || !event.event_type.chars().all(inside)
    {
        return Err(InvalidField);
    }
    if RESERVED.contains(&event.event_type.as_str()) {
        return Err(ReservedType);
    }
    if event.user.is_none() && event.project.is_none() {
        return Err(NoAudience);
    }
    Ok(event)
}

/// How deep brackets are nested in a JSON text.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The members of an object, in order, repeated ones too; values as they were written.
struct Members<'t>(Vec<(String, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

type Found<'t> = Result<Option<&'t RawValue>, RejectionCode>;

fn one<'t>(members: &[(String, &'t RawValue)], names: &[&str]) -> Found<'t> {
    let mut found = members
        .iter()
        .filter(|m| names.contains(&m.0.as_str()))
        .map(|m| m.1);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(DuplicateField),
        (first, None) => Ok(first),
    }
}

fn one_in_data<'t>(members: &[(String, &'t RawValue)], name: &str) -> Found<'t> {
    Ok(one(members, &[name])?.filter(|raw| raw.get() != "null"))
}

fn members(raw: Option<&RawValue>) -> Vec<(String, &RawValue)> {
    let read = raw.and_then(|raw| serde_json::from_str::<Members>(raw.get()).ok());
    read.map(|members| members.0).unwrap_or_default()
}

fn value(raw: &RawValue) -> Value {
    match raw.get() {
        // An integer, though serde_json makes it a float.
        "-0" => Value::from(0),
        text => serde_json::from_str(text).unwrap(),
    }
}

fn last_text(members: &[(String, &RawValue)], name: &str) -> Option<CompactString> {
    let raw = members.iter().rev().find(|m| m.0 == name)?.1;
    let text = value(raw).as_str()?.to_owned();
    (text.len() <= FILTER_VALUE_BYTES_MAX).then(|| text.into())
}

fn id(raw: &RawValue, max: usize, integers: bool) -> Result<CompactString, RejectionCode> {
    match value(raw) {
        Value::String(text) if !text.is_empty() && text.len() <= max => Ok(text.into()),
        Value::Number(n) if integers && (n.is_i64() || n.is_u64()) => Ok(n.to_string().into()),
        _ => Err(InvalidField),
    }
}

/// Section 7's names, and an agent's error as the observatory dialect calls it.
pub(super) const RESERVED: [&str; 19] = [
    "connection_established",
    "cursor",
    "replay_complete",
    "subscription_confirmed",
    "subscription_error",
    "unsubscribed",
    "pong",
    "active_conversations",
    "project_activity",
    "agent_tree",
    "agent_tree_update",
    "token_refreshed",
    "token_expiring",
    "lag",
    "server_error",
    "server_shutdown",
    "ack",
    "nack",
    "agent_error",
];
