//! The parser agrees with the second reader on every text.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::reference::reference;
use super::tests::{NOW_MS, parse};
use super::*;

fn check_agrees(parser: &mut Parser, text: &[u8]) -> Result<(), TestCaseError> {
    let found = parser.parse(&Bytes::copy_from_slice(text), NOW_MS);
    if let Err(refusal) = &found {
        prop_assert!(refusal.message.len() < 300, "{}", refusal.message);
    }
    let shown = String::from_utf8_lossy(text).into_owned();
    prop_assert_eq!(
        found.map(|parsed| parsed.event).map_err(|r| r.code),
        reference(text, NOW_MS),
        "{}",
        shown
    );
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
