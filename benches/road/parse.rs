//! What one event costs between the socket and its owner core: reading it, cutting it out of a
//! body, writing its time. The yardstick is serde_json picking the same fields and a raw `data`.
//!
//! What a shape costs: the same event of a type that nobody knows (`unknown`), and of one whose
//! shape is checked on the way; and its data shown once more to whoever keeps state from events.

use std::hint::black_box;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sightline::event::{Body, BodyKind, KnownType, Parser, Step, time};
use sightline::limits::READ_BYTES_PER_TURN;

use crate::case::{Case, Run};
use crate::events::published;

#[derive(Deserialize)]
struct Fields<'t> {
    event_type: &'t str,
    user_id: &'t str,
    project_id: u64,
    session_id: &'t str,
    timestamp: &'t str,
    #[serde(borrow)]
    data: &'t RawValue,
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [415, 4_096] {
        let name = |what| format!("{what}/{length}");
        let ours = move || parse(published(length));
        let yardstick = move || pick_fields(published(length));
        cases.push(Case::of_bytes("parse", name("event"), length, ours));
        cases.push(Case::of_bytes(
            "parse",
            name("serde_json"),
            length,
            yardstick,
        ));
    }
    for (known, data) in KNOWN {
        let name = known.as_str();
        let unknown = format!("x{}", &name[1..]);
        let of_type = move |event_type: &str| event_of(event_type, data);
        cases.push(shape("unknown", known, move || parse(of_type(&unknown))));
        cases.push(shape("checked", known, move || parse(of_type(name))));
        cases.push(shape("shown", known, move || show(known, data)));
    }
    cases.extend(bodies());
    cases.extend(times());
    cases
}

/// What it costs that an event is of this type.
fn shape(what: &str, known: KnownType, make: impl Fn() -> Run + 'static) -> Case {
    let name = format!("{what} {}", known.as_str());
    Case::of_things("parse", name, 1, make)
}

fn event_of(event_type: &str, data: &str) -> String {
    format!(
        r#"{{"event_type":"{event_type}","user_id":"user-4711","session_id":"0f8e3c1a","data":{data}}}"#
    )
}

fn parse(text: String) -> Run {
    let (text, mut parser) = (Bytes::from(text), Parser::new());
    Box::new(move || {
        let parsed = parser.parse(black_box(&text), 0);
        assert!(parsed.is_ok(), "it is a good one");
    })
}

fn pick_fields(text: String) -> Run {
    Box::new(move || {
        let fields: Fields<'_> =
            serde_json::from_slice(black_box(text.as_bytes())).expect("it is JSON");
        black_box((fields.event_type, fields.user_id, fields.session_id));
        black_box((fields.project_id, fields.timestamp, fields.data.get()));
    })
}

fn show(known: KnownType, data: &'static str) -> Run {
    let mut parser = Parser::new();
    Box::new(move || {
        parser.with_known(known, black_box(data.as_bytes()), |known| {
            black_box(known);
        });
    })
}

/// A type of few fields, and the one of most.
const KNOWN: [(KnownType, &str); 2] = [
    (
        KnownType::PhaseTransition,
        r#"{"from_phase":"EXPLORE","to_phase":"PLAN","confidence":0.8,"key_findings":["a","b"]}"#,
    ),
    (
        KnownType::GitOperation,
        r#"{"operation_type":"commit","branch":"feat/types","commit_hash":"8de4aaf99015e260","commit_message":"event: what a known type holds","files_changed":["src/event/known.rs","src/event/parse.rs"],"lines_added":410,"lines_deleted":38,"merge_conflicts":false,"success":true,"duration_ms":12,"author":"ada","repository":"sightline"}"#,
    ),
];

/// Events of one body.
const IN_A_BODY: usize = 100;

fn bodies() -> [Case; 2] {
    let array = || {
        let events = vec![published(415); IN_A_BODY].join(",");
        cut(BodyKind::Json, format!("[{events}]"))
    };
    let lines = || cut(BodyKind::Ndjson, vec![published(415); IN_A_BODY].join("\n"));
    [
        Case::of_things("parse", "body of 100, array", IN_A_BODY, array),
        Case::of_things("parse", "body of 100, lines", IN_A_BODY, lines),
    ]
}

fn cut(kind: BodyKind, text: String) -> Run {
    let (text, mut parser) = (Bytes::from(text), Parser::new());
    Box::new(move || {
        let events = count(Body::new(text.clone(), kind), &mut parser);
        assert_eq!(events, IN_A_BODY, "all are good");
    })
}

fn count(mut body: Body, parser: &mut Parser) -> usize {
    let (mut events, mut budget) = (0, READ_BYTES_PER_TURN);
    loop {
        match body.next(parser, 0, &mut budget) {
            Step::Event(_, event) => events += usize::from(event.is_ok()),
            Step::Working => budget = READ_BYTES_PER_TURN,
            Step::Done => return events,
        }
    }
}

fn times() -> [Case; 2] {
    [
        Case::of_things("parse", "read a time", 1, || {
            Box::new(|| {
                let time = time::parse_rfc3339_ms(black_box("2026-11-22T10:00:00.250Z"));
                black_box(time);
            })
        }),
        Case::of_things("parse", "write a time", 1, || {
            let mut out = Vec::with_capacity(24);
            Box::new(move || {
                out.clear();
                time::write_rfc3339_ms(&mut out, black_box(1_795_341_600_250));
            })
        }),
    ]
}
