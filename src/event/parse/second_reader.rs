//! A second reader, slow and on serde_json, with which the parser must agree on every text.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::tests::{NOW_MS, RESERVED, parse};
use super::*;
use RejectionCode::{DuplicateField, InvalidField, InvalidJson, NoAudience, ReservedType};

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

/// What the contract makes of a text that is neither too deep nor too large, read by serde_json.
fn reference(text: &[u8]) -> Result<Event, RejectionCode> {
    serde_json::from_slice::<Value>(text).map_err(|_| InvalidJson)?;
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
            None => NOW_MS,
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

fn check_agrees(parser: &mut Parser, text: &[u8]) -> Result<(), TestCaseError> {
    let found = parser.parse(&Bytes::copy_from_slice(text), NOW_MS);
    if let Err(refusal) = &found {
        prop_assert!(refusal.message.len() < 300, "{}", refusal.message);
    }
    let shown = String::from_utf8_lossy(text).into_owned();
    prop_assert_eq!(found.map_err(|r| r.code), reference(text), "{}", shown);
    Ok(())
}

const SPACES: [&str; 5] = ["", "", " ", "\n", "\r\n\t "];

fn json_object(
    names: &'static [&'static str],
    value: BoxedStrategy<String>,
) -> BoxedStrategy<String> {
    let members = prop::collection::vec(json_member(names, value), 0..7);
    members
        .prop_map(|members| format!("{{{}}}", members.join(",")))
        .boxed()
}

fn json_member(
    names: &'static [&'static str],
    value: BoxedStrategy<String>,
) -> BoxedStrategy<String> {
    let spaces = || select(&SPACES[..]);
    (select(names), value, spaces(), spaces())
        .prop_map(|(name, value, a, b)| format!("{a}\"{name}\"{b}:{a}{value}{b}"))
        .boxed()
}

fn json_value() -> BoxedStrategy<String> {
    let fixed = select(
        &[
            "7",
            "0",
            "-0",
            "-3",
            "7.5",
            "1e3",
            "1e400",
            "18446744073709551615",
            "9223372036854775808",
            "123456789012345678901234567890",
            "null",
            "true",
            "false",
            "\"\"",
            "\"ada\"",
            "\"t\"",
            "\"x.y-z_0\"",
            "\"lag\"",
            "\"error\"",
            "\"a\\u0064a\"",
            "\"\\ud83d\\ude00\"",
            "\"q\\\"}\"",
            "\"2026-11-22T10:00:00Z\"",
            "1763805600000",
            "[]",
            "[1,[2],{}]",
            "{}",
            "{\"id\":3}",
            "{\"id\":\"p\"}",
            "{\"id\":null}",
            "{\"id\":1,\"id\":2}",
            "{\"type\":\"user\"}",
            "\"é\"",
        ][..],
    );
    let lengths = select(&[63_usize, 64, 65, 127, 128, 129, 256, 257][..]);
    let long = lengths.prop_map(|length| format!("\"{}\"", "k".repeat(length)));
    prop_oneof![12 => fixed.prop_map(str::to_owned), 1 => long].boxed()
}

/// A member that is there mostly and good mostly, so that faults come one at a time.
fn likely(
    presence: f64,
    names: &'static [&'static str],
    good: BoxedStrategy<String>,
) -> impl Strategy<Value = Option<String>> {
    let value = prop_oneof![12 => good, 1 => json_value()];
    prop::option::weighted(presence, json_member(names, value.boxed()))
}

fn json_event() -> impl Strategy<Value = String> {
    let one_of = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned).boxed();
    let ids = || one_of(&["\"ada\"", "7", "\"\\u0061\"", "-1", "18446744073709551615"]);
    let names = || one_of(&["\"s-1\"", "\"Bash\"", "\"x\\n\""]);
    let in_data = &[
        "projectId",
        "projectInfo",
        "project",
        "sessionId",
        "message",
        "tool_name",
        "toolName",
        "user_id",
        "other",
    ];
    let in_data = prop_oneof![3 => json_object(in_data, json_value()), 1 => json_value()];
    let types = one_of(&[
        "\"t\"",
        "\"tool_execution\"",
        "\"error\"",
        "\"lag\"",
        "\"a.b-c_0\"",
    ]);
    let times = one_of(&["0", "1763805600000", "\"2026-11-22T10:00:00.5+01:00\""]);
    let stray = &[
        "type",
        "userId",
        "project_id",
        "sessionId",
        "timestamp",
        "event_id",
        "data",
        "x",
    ];
    let members = (
        likely(0.95, &["event_type", "type", "typ\\u0065"], types),
        likely(0.4, &["user_id", "userId", "user\\u005fid"], ids()),
        likely(0.3, &["project_id", "projectId"], ids()),
        likely(0.4, &["session_id", "sessionId"], names()),
        likely(0.4, &["timestamp"], times),
        likely(0.4, &["event_id"], names()),
        likely(0.8, &["data"], in_data.boxed()),
        prop::option::weighted(0.2, json_member(stray, json_value())),
    );
    let members = members
        .prop_map(|m| [m.0, m.1, m.2, m.3, m.4, m.5, m.6, m.7])
        .prop_shuffle();
    members.prop_map(|members| {
        let members: Vec<String> = members.into_iter().flatten().collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Text with every character plain or escaped, as the bits say.
fn spelled(text: &str, bits: u64) -> String {
    let spell = |(i, unit): (usize, u16)| match char::from_u32(unit.into()) {
        Some(c) if bits >> (i % 64) & 1 == 0 && c >= ' ' && c != '"' && c != '\\' => c.to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    let spelled: String = text.encode_utf16().enumerate().map(spell).collect();
    format!("\"{spelled}\"")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn agrees_with_the_second_reader(texts in prop::collection::vec(json_event(), 1..4)) {
        let mut parser = Parser::new();
        for text in texts {
            check_agrees(&mut parser, text.as_bytes())?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn agrees_about_damaged_texts_and_never_panics(
        text in json_event(),
        damage in prop::collection::vec((any::<Index>(), any::<Index>(), 0..5_u8, any::<u8>()), 1..4),
    ) {
        let mut text = text.into_bytes();
        for (place, other, kind, byte) in damage {
            let (at, end) = (place.index(text.len() + 1), other.index(text.len() + 1));
            let range = at.min(end)..at.max(end);
            match kind {
                0 if at < text.len() => text[at] = byte,
                1 => text.insert(at, b"{}[]:,\"\\ 0eu"[usize::from(byte) % 12]),
                2 => drop(text.drain(range)),
                3 => text.truncate(at),
                _ => text.extend_from_within(range),
            }
        }
        // Of these serde_json sees no more than the grammar where it makes no string of them.
        let lone_surrogates = text.windows(3).any(|w| w.eq_ignore_ascii_case(b"\\ud"));
        prop_assume!(!lone_surrogates);
        check_agrees(&mut Parser::new(), &text)?;
    }

    #[test]
    fn reads_any_bytes_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(bytes);
    }
}

proptest! {
    #[test]
    fn spelling_order_and_white_space_change_nothing(
        order in Just([0, 1, 2, 3, 4, 5, 6]).prop_shuffle(),
        bits in prop::array::uniform14(any::<u64>()),
        space in select(&SPACES[..]),
        user in "\\PC{1,20}",
        session in "[\\x00-\\x7f]{1,20}",
        aliases in any::<[bool; 4]>(),
        data in json_value().prop_filter("numbers in range", |text| text != "1e400"),
    ) {
        let name = |alias: bool, a, b| if alias { a } else { b };
        let fields = [
            (name(aliases[0], "type", "event_type"), spelled("tool_execution", bits[0])),
            (name(aliases[1], "userId", "user_id"), spelled(&user, bits[1])),
            (name(aliases[2], "projectId", "project_id"), spelled("7", bits[2])),
            (name(aliases[3], "sessionId", "session_id"), spelled(&session, bits[3])),
            ("timestamp", spelled("2026-11-22T10:00:00Z", bits[4])),
            ("event_id", spelled("e-1", bits[5])),
            ("data", data.clone()),
        ];
        let member = |i: usize| {
            let (name, value) = &fields[i];
            let name = spelled(name, bits[7 + i]);
            format!("{space}{name}{space}:{space}{value}{space}")
        };
        let text = format!("{space}{{{}}}{space}", order.map(member).join(","));
        let expected = Event {
            event_type: "tool_execution".into(),
            user: Some(user.into()),
            project: Some("7".into()),
            session: Some(session.into()),
            event_id: Some("e-1".into()),
            timestamp_ms: NOW_MS,
            data: data.into(),
            message_type: None,
            tool_name: None,
        };
        prop_assert_eq!(parse(text), Ok(expected));
    }
}
