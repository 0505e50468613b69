//! JSON that one reader takes and another does not, or that is meant to exhaust one.

use serde_json::{Value, json};

use super::{Neighbour, Tally, events_refused, on_one_core, viewer_errors};
use crate::harness::{Publisher, Viewer, kind, text};

/// Values of `data` that are JSON, however odd: their bytes reach a viewer as they are.
fn odd_values() -> Vec<String> {
    let many: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\":0")).collect();
    [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890123456789012345678901234567890",
        "9007199254740993",
        "0.1000000000000000055511151231257827021181583404541015625",
        "-0",
        "-0.0",
        "1E+2",
        "1e-400",
        r#""\u0000""#,
        r#""\ud83d\ude00 \/ \u2028""#,
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{"polluted":true},"constructor":{"prototype":{}}}"#,
        "{ \"spaces\" :\t[ ]\r\n}",
        r#""</script><script>alert(1)</script>""#,
    ]
    .map(String::from)
    .into_iter()
    .chain([
        format!("\"{}\"", "y".repeat(1_000_000)),
        format!("{{{}}}", many[..60_000].join(",")),
        format!("{}{}", "[".repeat(63), "]".repeat(63)),
    ])
    .collect()
}

/// Events that are refused, and the code.
fn bad_events() -> Vec<(String, &'static str)> {
    let with_data = |data: &str| format!(r#"{{"event_type":"x","user_id":"alice","data":{data}}}"#);
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let not_json = [
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "-Infinity",
        "+1",
        "01",
        "1.",
        ".5",
        "0x10",
        "1_000",
        "True",
        "undefined",
        "'x'",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\u12g4""#,
        r#""\x41""#,
        "\"a\tb\"",
        "\"a\nb\"",
        "[1,]",
        r#"{"a":1,}"#,
        r#"{"a" 1}"#,
        "{a:1}",
        "/* note */1",
        "[1}",
        "\"",
    ];
    let good = with_data("1");
    let mut events: Vec<_> = not_json
        .map(|data| (with_data(data), "INVALID_JSON"))
        .into();
    events.extend([
        (format!("\u{feff}{good}"), "INVALID_JSON"),
        (format!("{good}{good}"), "INVALID_JSON"),
        (format!("{good} garbage"), "INVALID_JSON"),
        (format!("{good}\u{0}"), "INVALID_JSON"),
        (with_data(&"[".repeat(100_000)), "INVALID_JSON"),
        (with_data(&deep(100_000)), "TOO_DEEP"),
        (with_data(&objects(100_000)), "TOO_DEEP"),
        (with_data(&deep(64)), "TOO_DEEP"),
        (
            with_data(&format!("\"{}\"", "y".repeat(1024 * 1024))),
            "EVENT_TOO_LARGE",
        ),
        (
            good.replace("\"user_id\"", "\"user_id\":\"bob\",\"user_id\""),
            "DUPLICATE_FIELD",
        ),
        (
            good.replace("\"user_id\"", "\"user\\u005fid\":\"bob\",\"user_id\""),
            "DUPLICATE_FIELD",
        ),
        (
            good.replace("\"alice\"", "18446744073709551616"),
            "INVALID_FIELD",
        ),
        (good.replace("\"alice\"", "1e2"), "INVALID_FIELD"),
        (
            good.replace("\"data\":1", "\"timestamp\":18446744073709551616"),
            "INVALID_FIELD",
        ),
        (
            good.replace("\"data\":1", "\"timestamp\":-1e300"),
            "INVALID_FIELD",
        ),
    ]);
    events
}

#[test]
fn a15_odd_json_arrives_as_it_is_and_bad_json_does_not_arrive() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let token = server.publisher_token();
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    let mut publisher = Publisher::open(&server, &token);
    let mut messages = 0;
    for data in odd_values() {
        let event = format!(r#"{{"event_type":"x","user_id":"alice","data":{data}}}"#);
        let shown = &data[..data.len().min(60)];
        let answer = server.ask("POST", "/v1/events", &token, &event);
        assert_eq!(answer.json()["accepted"], 1, "{shown}: {}", answer.text());
        publisher.say_text(event);
        messages += 1;
        assert_eq!(publisher.settle(messages), [] as [Value; 0], "{shown}");
        for _ in 0..2 {
            let text = viewer.next_text();
            assert!(text.ends_with(&format!(r#","data":{data}}}"#)), "{shown}");
        }
    }
    neighbour.assert_undisturbed();
    let bad = bad_events();
    for (event, code) in &bad {
        let shown = format!(
            "{}… of {} bytes",
            &event[..event.len().min(90)],
            event.len()
        );
        let answer = server.ask("POST", "/v1/events", &token, event);
        assert_eq!(answer.status, 400, "{shown}");
        assert_eq!(answer.json()["rejected"][0]["code"], *code, "{shown}");
        publisher.say_text(event.clone());
        messages += 1;
        let nacks = publisher.settle(messages);
        assert_eq!(
            (nacks.len(), &nacks[0]["code"]),
            (1, &json!(code)),
            "{shown}"
        );
    }
    for code in [
        "INVALID_JSON",
        "TOO_DEEP",
        "EVENT_TOO_LARGE",
        "DUPLICATE_FIELD",
        "INVALID_FIELD",
    ] {
        let rows = bad.iter().filter(|(_, expected)| *expected == code).count();
        tally.assert_grew(&events_refused(code), 2 * rows as u64);
    }
    assert_eq!(viewer.drain(), [] as [Value; 0]);
    neighbour.assert_undisturbed();
}

#[test]
fn a15_a_viewer_that_sends_bad_json_is_told_and_goes_on() {
    let server =
        on_one_core("limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let mut viewer = Viewer::open(&server, "/observatory", &server.viewer_token("alice", &[]));
    let ping = |timestamp: &str| format!(r#"{{"type":"ping","data":{{"timestamp":{timestamp}}}}}"#);
    let subscribe =
        |filters: &str| format!(r#"{{"type":"subscribe","data":{{"filters":{filters}}}}}"#);
    let invalid = [
        "[".repeat(16_384),
        "{\"a\":".repeat(3_000),
        format!("{}{}", "[".repeat(8_000), "]".repeat(8_000)),
        ping("1e400"),
        ping("NaN"),
        ping("-Infinity"),
        ping("01"),
        ping(r#""\ud800""#),
        ping("18446744073709551616"),
        ping("-9223372036854775809"),
        ping("1e30"),
        "\u{feff}{\"type\":\"ping\"}".into(),
        r#"{"type":"ping"}{"type":"ping"}"#.into(),
        r#"{"type":"ping","type":"ping"}"#.into(),
        r#"{"type":"ping","t\u0079pe":"ping"}"#.into(),
        r#"{"type":"ping","data":{"timestamp":1,"timestamp":2}}"#.into(),
        r#"{"type":"ping","id":18446744073709551616}"#.into(),
        r#"{"type":"ping","id":1.5}"#.into(),
        format!(r#"{{"type":"ping","id":"{}"}}"#, "i".repeat(65)),
        "null".into(),
        "\"ping\"".into(),
    ];
    for said in &invalid {
        viewer.say_text(said);
        let answer = viewer.next();
        let shown = &said[..said.len().min(80)];
        assert_eq!(text(&answer["data"]["code"]), "INVALID_MESSAGE", "{shown}");
    }
    tally.assert_grew(&viewer_errors("INVALID_MESSAGE"), invalid.len() as u64);
    let filters = [
        subscribe(r#"{"projectIds":[18446744073709551616]}"#),
        subscribe(r#"{"projectIds":[1.5]}"#),
        subscribe(r#"{"eventTypes":[null]}"#),
        subscribe(&format!(
            "{{\"eventTypes\":[{}\"x\"]}}",
            "\"x\",".repeat(1_000)
        )),
        subscribe(&format!("[{}{{}}]", "{},".repeat(50))),
        subscribe(r#"{"__proto__":{}}"#),
    ];
    for said in &filters {
        viewer.say_text(said);
        let answer = viewer.next();
        let shown = &said[..said.len().min(80)];
        assert_eq!(text(&answer["data"]["code"]), "INVALID_FILTERS", "{shown}");
    }
    tally.assert_grew(&viewer_errors("INVALID_FILTERS"), filters.len() as u64);
    // What is echoed is echoed to the digit.
    for timestamp in [
        "18446744073709551615",
        "-9223372036854775808",
        "9007199254740993",
        r#""\u0000""#,
    ] {
        viewer.say_text(&ping(timestamp));
        let pong = viewer.next_text();
        assert!(pong.contains(&format!(r#""echo":{timestamp}"#)), "{pong}");
    }
    assert_eq!(kind(&viewer.ask(&json!({"type": "ping"}))), "pong");
    neighbour.assert_undisturbed();
}
