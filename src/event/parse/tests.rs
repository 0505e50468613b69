//! Tables: every field, every code, and their order.

#![allow(clippy::unwrap_used)]

use super::reference::RESERVED;
use super::*;
use RejectionCode::{
    DuplicateField, EventTooLarge, InvalidField, InvalidJson, NoAudience, ReservedType, TooDeep,
};

pub(super) const NOW_MS: i64 = 1_795_341_600_000;

pub(super) fn parse(text: impl AsRef<[u8]>) -> Result<Event, Rejection> {
    let parsed = Parser::new().parse(&Bytes::copy_from_slice(text.as_ref()), NOW_MS)?;
    Ok(parsed.event)
}

/// The event in `fields`, the inside of an object, with a type and a user.
fn event_of(fields: &str) -> Event {
    parse(format!(r#"{{"type":"t","user_id":"ada",{fields}}}"#)).unwrap()
}

fn check_refused(text: impl AsRef<[u8]>, code: RejectionCode, words: &str) {
    let shown = String::from_utf8_lossy(text.as_ref());
    let shown: String = shown.chars().take(200).collect();
    let refusal = parse(text).expect_err(&shown);
    assert_eq!(refusal.code, code, "{shown}: {}", refusal.message);
    assert!(
        refusal.message.contains(words),
        "{shown}: {}",
        refusal.message
    );
}

#[test]
fn reads_the_keen_documents_shape() {
    let text = r#"{"event_type":"tool_execution","user_id":"ada","project_id":7,"session_id":"s-1",
        "timestamp":"2026-11-22T12:00:00.250+02:00","event_id":"e-1",
        "data":{"tool_name":"Bash", "n":1.10, "message":{"type":"assistant"}}}"#;
    let expected = Event {
        event_type: "tool_execution".into(),
        user: Some("ada".into()),
        project: Some("7".into()),
        session: Some("s-1".into()),
        event_id: Some("e-1".into()),
        timestamp_ms: 1_795_341_600_250,
        data: Bytes::from_static(
            br#"{"tool_name":"Bash", "n":1.10, "message":{"type":"assistant"}}"#,
        ),
        message_type: Some("assistant".into()),
        tool_name: Some("Bash".into()),
    };
    assert_eq!(parse(text), Ok(expected));
}

#[test]
fn reads_the_observatory_documents_shape() {
    let event = parse(
        r#"{"type":"message_added","timestamp":1763805600000,
            "data":{"projectInfo":{"id":12},"sessionId":"s","toolName":"Read"},"extra":{"type":1}}"#,
    )
    .unwrap();
    assert_eq!(event.event_type, "message_added");
    assert_eq!(event.user, None);
    assert_eq!(event.project.as_deref(), Some("12"));
    assert_eq!(event.session.as_deref(), Some("s"));
    assert_eq!(event.timestamp_ms, 1_763_805_600_000);
    assert_eq!(event.tool_name.as_deref(), Some("Read"));
}

#[test]
fn fills_in_what_is_absent() {
    let event = parse(r#"{"type":"t","userId":"ada"}"#).unwrap();
    assert_eq!(event.timestamp_ms, NOW_MS);
    assert_eq!(event.data, "{}");
    assert_eq!((event.session, event.event_id), (None, None));
}

#[test]
fn names_compare_after_unescaping() {
    let event = parse(r#"{"typ\u0065":"t","user\u005fid":"a\u0064a"}"#).unwrap();
    assert_eq!(event.user.as_deref(), Some("ada"));
    check_refused(
        r#"{"type":"t","user_id":"a","user\u005fid":"b"}"#,
        DuplicateField,
        "user_id",
    );
    check_refused(
        r#"{"Type":"t","user_id":"a"}"#,
        InvalidField,
        "event_type is missing",
    );
}

#[test]
fn ids_may_be_integers_or_text() {
    let check = |value: &str, expected: &str| {
        let text = format!(r#"{{"type":"t","user_id":{value},"projectId":{value}}}"#);
        let event = parse(&text).unwrap();
        assert_eq!(event.user.as_deref(), Some(expected), "{text}");
        assert_eq!(event.project.as_deref(), Some(expected), "{text}");
    };
    check("7", "7");
    check("\"7\"", "7");
    check("-1", "-1");
    check("9223372036854775807", "9223372036854775807");
    check("18446744073709551615", "18446744073709551615");
    check("-9223372036854775808", "-9223372036854775808");
    check(r#""a\u0000\n\"\u00e9""#, "a\0\n\"é");
    check(&format!("\"{}\"", "é".repeat(32)), &"é".repeat(32));
}

#[test]
fn data_leaves_byte_for_byte() {
    let check = |data: &str| {
        let ahead = format!(r#"{{"data" : {data} ,"type":"t","user_id":[],"userId":1}}"#);
        let ahead = ahead.replace(r#""user_id":[],"#, r#""x":[{"y":[1,"]"]},2],"#);
        let behind = format!(r#"{{"type":"t","z":{{"a":[{{}}]}},"user_id":"ada","data":{data}}}"#);
        assert_eq!(parse(&ahead).unwrap().data, data, "{ahead}");
        assert_eq!(parse(&behind).unwrap().data, data, "{behind}");
    };
    check("{}");
    check("[]");
    check("null");
    check("true");
    check("-0");
    check("1.50e+10");
    check("123456789012345678901234567890");
    check("\"\"");
    check(r#""a\"}\\""#);
    check(r#""\ud83d\ude00 \/ é""#);
    check("{ \"b\" : 1.0 ,\n\"a\":[ ],\t\"b\":{\"c\":\"}\"} }");
    check(r#"[[[1,2,[]],{"data":{"data":3}}],"]"]"#);
    check(&format!("[{}1]", "\"abcdefgh\\n\",".repeat(1_000)));
}

#[test]
fn data_shares_the_memory_of_the_text() {
    let text = Bytes::from_static(br#"{"type":"t","user_id":1,"data":{"a":1}}"#);
    let data = Parser::new().parse(&text, NOW_MS).unwrap().event.data;
    assert!(text.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn times_are_text_or_milliseconds() {
    let check = |value: &str, ms: i64| {
        assert_eq!(
            event_of(&format!("\"timestamp\":{value}")).timestamp_ms,
            ms,
            "{value}"
        );
    };
    check("0", 0);
    check("-1", -1);
    check("253402300799999", 253_402_300_799_999);
    check("\"1970-01-01T00:00:01Z\"", 1_000);
    check("\"1970-01-01T00:00:00.0019-01:00\"", 3_600_001);
}

#[test]
fn refuses_what_is_not_json() {
    let check = |text: &[u8], words| check_refused(text, InvalidJson, words);
    check(b"", "nothing here");
    check(b" \n", "nothing here");
    check(b"{", "EOF");
    check(br#"{"type":"t","user_id":1}}"#, "trailing");
    check(br#"{"type":"t","user_id":1} {}"#, "trailing");
    check(br#"{"type":"t","user_id":1,}"#, "not JSON");
    check(br#"{'type':"t"}"#, "key must be a string");
    check(br#"{"type":"t","user_id":01}"#, "not JSON");
    check(br#"{"type":"t","user_id":NaN}"#, "not JSON");
    check(br#"{"type":"t","data":+1}"#, "not JSON");
    check(br#"{"type":"t","data":1.}"#, "not JSON");
    check(br#"{"type":"t","data":"a	b"}"#, "not JSON");
    check(br#"{"type":"t","data":"\x"}"#, "not JSON");
    check(
        b"{\"type\":\"t\",\"data\":\"\xff\"}",
        "not UTF-8 at byte 20",
    );
    check(b"{\"type\":\"t\",\"data\":\"\xc0\x80\"}", "not UTF-8");
    check(b"{\"type\":\"t\",\"data\":\"\xed\xa0\x80\"}", "not UTF-8");
    check(b"\xef\xbb\xbf{\"type\":\"t\",\"user_id\":1}", "not JSON");
    check(b"{\"type\":\"t\",\"user_id\":1}\x0c", "not JSON");
    check(b"{\"type\":\"t\",\"user_id\":1}\0", "not JSON");
    check(br#"{"type":"t","user_id":1,"data":"\ud800"}"#, "surrogate");
    check(
        br#"{"type":"t","user_id":1,"data":"\udc00\ud800"}"#,
        "surrogate",
    );
    check(br#"{"type":"t","user_id":1,"data":1e400}"#, "64-bit float");
}

#[test]
fn refuses_fields_that_are_missing_mistyped_or_out_of_range() {
    let check = |text: &str, path: &str| check_refused(text, InvalidField, path);
    check("3", "the event is an integer; it must be a JSON object");
    check("null", "the event is null");
    check("\"x\"", "the event is a string of 1 bytes");
    check(r#"[{"type":"t","user_id":1}]"#, "the event is an array");
    check(r#"{"user_id":"ada"}"#, "event_type is missing");
    for value in [
        "1", "null", "\"\"", "\"A\"", "\"1a\"", "\"_a\"", "\"a b\"", "\"é\"", "[]",
    ] {
        check(
            &format!(r#"{{"event_type":{value},"user_id":1}}"#),
            "event_type is ",
        );
        check(&format!(r#"{{"type":{value},"user_id":1}}"#), "type is ");
    }
    let long = |length: usize| format!("\"{}\"", "a".repeat(length));
    check(
        &format!(r#"{{"type":{},"user_id":1}}"#, long(65)),
        "type is a string of 65 bytes",
    );
    for value in [
        "1.0",
        "1e2",
        "null",
        "true",
        "\"\"",
        "{}",
        "[]",
        "18446744073709551616",
    ] {
        check(
            &format!(r#"{{"type":"t","user_id":{value}}}"#),
            "user_id is ",
        );
        check(&format!(r#"{{"type":"t","userId":{value}}}"#), "userId is ");
        check(
            &format!(r#"{{"type":"t","user_id":1,"projectId":{value}}}"#),
            "projectId is ",
        );
        check(
            &format!(r#"{{"type":"t","user_id":1,"project_id":{value}}}"#),
            "project_id is ",
        );
    }
    for value in ["1", "null", "\"\"", "{}"] {
        check(
            &format!(r#"{{"type":"t","user_id":1,"session_id":{value}}}"#),
            "session_id is ",
        );
        check(
            &format!(r#"{{"type":"t","user_id":1,"sessionId":{value}}}"#),
            "sessionId is ",
        );
        check(
            &format!(r#"{{"type":"t","user_id":1,"event_id":{value}}}"#),
            "event_id is ",
        );
    }
    for (field, length) in [
        ("user_id", 129),
        ("session_id", 129),
        ("project_id", 65),
        ("event_id", 65),
    ] {
        let fields = |length| format!(r#"{{"type":"t","userId":1,"{field}":{}}}"#, long(length));
        let fields = |length| fields(length).replace(r#""userId":1,"user_id""#, r#""user_id""#);
        check(&fields(length), field);
        assert!(
            parse(fields(length - 1)).is_ok(),
            "{field} of {} bytes",
            length - 1
        );
    }
    for value in [
        "null",
        "1.5",
        "1763805600000.0",
        "true",
        "\"\"",
        "\"yesterday\"",
        "\"1763805600000\"",
        "\"2026-11-22T10:00:00\"",
        "\"2026-02-30T10:00:00Z\"",
        "253402300800000",
        "-62167219200001",
        "18446744073709551615",
        "[]",
    ] {
        check(
            &format!(r#"{{"type":"t","user_id":1,"timestamp":{value}}}"#),
            "timestamp is ",
        );
    }
}

#[test]
fn refuses_a_field_twice_where_it_is_consulted() {
    let check = |text: &str, words: &str| check_refused(text, DuplicateField, words);
    check(
        r#"{"type":"t","type":"t","user_id":1}"#,
        "type stands there twice",
    );
    check(
        r#"{"type":"t","event_type":"t","user_id":1}"#,
        "type and event_type",
    );
    check(
        r#"{"type":"t","user_id":1,"userId":1}"#,
        "user_id and userId",
    );
    check(
        r#"{"type":"t","projectId":1,"project_id":1}"#,
        "projectId and project_id",
    );
    check(
        r#"{"type":"t","user_id":1,"sessionId":"s","session_id":"s"}"#,
        "sessionId and session_id",
    );
    check(
        r#"{"type":"t","user_id":1,"timestamp":1,"timestamp":1}"#,
        "timestamp",
    );
    check(
        r#"{"type":"t","user_id":1,"event_id":"e","event_id":"e"}"#,
        "event_id",
    );
    check(r#"{"type":"t","user_id":1,"data":1,"data":1}"#, "data");
    check(
        r#"{"type":"t","data":{"projectId":1,"projectId":1}}"#,
        "data.projectId",
    );
    check(
        r#"{"type":"t","data":{"projectInfo":{"id":1},"projectInfo":1}}"#,
        "data.projectInfo",
    );
    check(
        r#"{"type":"t","data":{"projectInfo":{"id":1,"id":2}}}"#,
        "data.projectInfo.id",
    );
    check(
        r#"{"type":"t","data":{"project":{"id":null,"id":2}}}"#,
        "data.project.id",
    );
    check(
        r#"{"type":"t","user_id":1,"data":{"sessionId":"s","sessionId":"s"}}"#,
        "data.sessionId",
    );
}

#[test]
fn a_name_twice_where_nobody_asks_is_the_producers_business() {
    let check = |text: &str| assert!(parse(text).is_ok(), "{text}");
    check(r#"{"type":"t","user_id":1,"other":1,"other":2}"#);
    check(r#"{"type":"t","user_id":1,"data":{"projectId":1,"projectId":2}}"#);
    check(r#"{"type":"t","user_id":1,"data":{"user_id":1,"user_id":2,"type":3,"type":4}}"#);
    check(r#"{"type":"t","user_id":1,"session_id":"s","data":{"sessionId":1,"sessionId":2}}"#);
    check(r#"{"type":"t","data":{"projectId":1,"project":{"id":1,"id":2}}}"#);
}

#[test]
fn looks_for_the_audience_in_data_only_where_the_top_level_names_none() {
    let check = |text: &str, project: Option<&str>, session: Option<&str>| {
        let event = parse(text).expect(text);
        assert_eq!(event.project.as_deref(), project, "{text}");
        assert_eq!(event.session.as_deref(), session, "{text}");
    };
    let all = r#""project":{"id":3},"projectInfo":{"id":2},"projectId":1"#;
    check(
        &format!(r#"{{"type":"t","data":{{{all}}}}}"#),
        Some("1"),
        None,
    );
    check(
        &format!(r#"{{"type":"t","user_id":1,"data":{{{all}}}}}"#),
        None,
        None,
    );
    check(
        &format!(r#"{{"type":"t","project_id":9,"data":{{{all}}}}}"#),
        Some("9"),
        None,
    );
    check(
        r#"{"type":"t","data":{"project":{"id":3},"projectInfo":{"id":2}}}"#,
        Some("2"),
        None,
    );
    check(
        r#"{"type":"t","data":{"project":{"id":"p"},"projectInfo":{}}}"#,
        Some("p"),
        None,
    );
    check(
        r#"{"type":"t","data":{"project":{"id":3},"projectInfo":"x"}}"#,
        Some("3"),
        None,
    );
    check(
        r#"{"type":"t","data":{"projectId":null,"projectInfo":null,"project":{"id":3}}}"#,
        Some("3"),
        None,
    );
    check(
        r#"{"type":"t","user_id":1,"data":{"sessionId":"s"}}"#,
        None,
        Some("s"),
    );
    check(
        r#"{"type":"t","user_id":1,"data":{"sessionId":null}}"#,
        None,
        None,
    );
    check(
        r#"{"type":"t","user_id":1,"data":{"session_id":"s"}}"#,
        None,
        None,
    );
    check(
        r#"{"type":"t","user_id":1,"sessionId":"top","data":{"sessionId":7}}"#,
        None,
        Some("top"),
    );

    check_refused(
        r#"{"type":"t","data":{"projectId":1.5,"project":{"id":3}}}"#,
        InvalidField,
        "data.projectId is ",
    );
    check_refused(
        r#"{"type":"t","data":{"projectInfo":{"id":[]}}}"#,
        InvalidField,
        "data.projectInfo.id is ",
    );
    check_refused(
        r#"{"type":"t","data":{"project":{"id":""}}}"#,
        InvalidField,
        "data.project.id is ",
    );
    check_refused(
        r#"{"type":"t","user_id":1,"data":{"sessionId":7}}"#,
        InvalidField,
        "data.sessionId is ",
    );
}

#[test]
fn refuses_what_only_the_server_sends_and_what_reaches_nobody() {
    for name in RESERVED {
        let text = format!(r#"{{"type":"{name}","user_id":1}}"#);
        check_refused(&text, ReservedType, name);
    }
    for name in ["error", "agent_spawned", "constructor", "__proto__"] {
        let allowed = parse(format!(r#"{{"type":"{name}","user_id":1}}"#));
        assert_eq!(allowed.is_ok(), !name.starts_with('_'), "{name}");
    }
    check_refused(r#"{"type":"t"}"#, NoAudience, "user_id");
    check_refused(
        r#"{"type":"t","data":[{"projectId":1}]}"#,
        NoAudience,
        "user_id",
    );
    check_refused(
        r#"{"type":"t","data":{"userId":1,"user_id":2,"project_id":3}}"#,
        NoAudience,
        "",
    );
}

#[test]
fn knows_what_filters_look_at() {
    let check = |data: &str, message_type: Option<&str>, tool_name: Option<&str>| {
        let event = event_of(&format!("\"data\":{data}"));
        assert_eq!(event.message_type.as_deref(), message_type, "{data}");
        assert_eq!(event.tool_name.as_deref(), tool_name, "{data}");
    };
    check(r#"{"message":{"type":"user"}}"#, Some("user"), None);
    check(
        r#"{"message":{"type":7},"tool_name":7,"toolName":"Read"}"#,
        None,
        Some("Read"),
    );
    check(
        r#"{"message":"user","tool_name":"Bash","toolName":"Read"}"#,
        None,
        Some("Bash"),
    );
    check(r#"{"toolName":"a","toolName":"b"}"#, None, Some("b"));
    check(r#"[{"toolName":"a"}]"#, None, None);
    let name = |length: usize| format!(r#"{{"tool_name":"{}"}}"#, "a".repeat(length));
    check(
        &name(FILTER_VALUE_BYTES_MAX),
        None,
        Some(&"a".repeat(FILTER_VALUE_BYTES_MAX)),
    );
    check(&name(FILTER_VALUE_BYTES_MAX + 1), None, None);
}

/// An event whose data is nested so that the whole is `levels` deep.
fn nested(levels: usize, open: &str, close: &str) -> String {
    let (open, close) = (open.repeat(levels - 1), close.repeat(levels - 1));
    format!(r#"{{"type":"t","user_id":1,"data":{open}1{close}}}"#)
}

/// An event that is `length` bytes long.
fn long(length: usize) -> String {
    let frame = r#"{"type":"t","user_id":1,"data":""}"#;
    frame.replace("\"\"", &format!("\"{}\"", "a".repeat(length - frame.len())))
}

#[test]
fn bounds_depth_and_length() {
    assert!(parse(nested(EVENT_DEPTH_MAX, "[", "]")).is_ok());
    assert!(parse(nested(EVENT_DEPTH_MAX, "{\"a\":", "}")).is_ok());
    check_refused(nested(EVENT_DEPTH_MAX + 1, "[", "]"), TooDeep, "64 levels");
    check_refused(
        nested(EVENT_DEPTH_MAX + 1, "{\"a\":", "}"),
        TooDeep,
        "64 levels",
    );
    check_refused(nested(1_100, "[", "]"), TooDeep, "64 levels");
    assert!(parse(long(EVENT_BYTES_MAX)).is_ok());
    check_refused(long(EVENT_BYTES_MAX + 1), EventTooLarge, "1048577 bytes");
}

#[test]
fn the_first_code_that_holds_is_given() {
    // Each text has the fault of its code and of all the codes below it.
    let deep = nested(100, "[", "]");
    let deep = deep.strip_suffix('}').unwrap().replace("\"t\"", "\"T\"");
    let large = "a".repeat(EVENT_BYTES_MAX);
    let faults = r#""type":"T","type":"nack""#;
    check_refused(format!(r#"{deep},"x":"{large}",{faults}"#), InvalidJson, "");
    check_refused(format!(r#"{deep},"x":"{large}",{faults}}}"#), TooDeep, "");
    check_refused(format!(r#"{deep},{faults}}}"#), TooDeep, "");
    check_refused(format!(r#"{{"x":"{large}",{faults}}}"#), EventTooLarge, "");
    check_refused(format!("{{{faults}}}"), DuplicateField, "");
    check_refused(
        r#"{"type":"nack","data":{"projectId":{},"sessionId":1,"sessionId":2}}"#,
        DuplicateField,
        "",
    );
    check_refused(
        r#"{"type":"nack","data":{"projectId":{}}}"#,
        InvalidField,
        "",
    );
    check_refused(r#"{"type":"nack","timestamp":"now"}"#, InvalidField, "");
    check_refused(r#"{"type":"nack"}"#, ReservedType, "");
    check_refused(r#"{"type":"t"}"#, NoAudience, "");
}

#[test]
fn gives_memory_back_after_a_huge_event() {
    let mut parser = Parser::new();
    let dense = format!(
        r#"{{"type":"t","user_id":1,"data":[{}1]}}"#,
        "1,".repeat(400_000)
    );
    assert!(parser.parse(&dense.into(), NOW_MS).is_ok());
    let kept = parser.text.capacity() + parser.tape.0.capacity() * size_of::<Node<'_>>();
    assert!(kept < 4 * BYTES_KEPT_MAX, "{kept} bytes kept");
    assert!(
        parser
            .parse(&Bytes::from_static(br#"{"type":"t","user_id":1}"#), NOW_MS)
            .is_ok()
    );
}
