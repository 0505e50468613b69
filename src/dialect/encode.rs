//! Event and envelope become one frame's bytes, once per dialect; live and replay send the same.
//! Allocates nothing besides the caller's buffer. `data` is the last member, verbatim.
//! Source: the contract, section 5.

use super::StreamName;
use super::json::Object;
use super::{keen, observatory};
use crate::event::{Dialect, Event, Seq};

/// Appends the envelope of an event that its stream numbered `seq`. The user's id is never in it.
pub fn encode_event(
    dialect: Dialect,
    stream: StreamName<'_>,
    seq: Seq,
    event: &Event,
    out: &mut Vec<u8>,
) {
    let envelope = open_envelope(dialect, stream, seq, event, out);
    close_envelope(envelope, event);
}

/// As [`encode_event`], marked `"replay":true`: the answer to a viewer who asked for it again.
pub fn encode_replayed_event(
    dialect: Dialect,
    stream: StreamName<'_>,
    seq: Seq,
    event: &Event,
    out: &mut Vec<u8>,
) {
    let mut envelope = open_envelope(dialect, stream, seq, event, out);
    envelope.member("replay").extend_from_slice(b"true");
    close_envelope(envelope, event);
}

fn open_envelope<'o>(
    dialect: Dialect,
    stream: StreamName<'_>,
    seq: Seq,
    event: &Event,
    out: &'o mut Vec<u8>,
) -> Object<'o> {
    out.reserve(event.data.len() + ENVELOPE_BYTES_USUAL);
    let mut envelope = Object::open(out);
    match dialect {
        Dialect::Keen => keen::push_event_head(&mut envelope, stream, seq, event),
        Dialect::Observatory => observatory::push_event_head(&mut envelope, stream, seq, event),
    }
    if let Some(event_id) = &event.event_id {
        envelope.string("event_id", event_id);
    }
    envelope
}

fn close_envelope(mut envelope: Object<'_>, event: &Event) {
    envelope.member("data").extend_from_slice(&event.data);
    envelope.close();
}

/// Bytes around `data` with ids of ordinary length: one growth of the buffer serves most events.
const ENVELOPE_BYTES_USUAL: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::limits::ENVELOPE_BYTES_MAX;

    const TIME_MS: i64 = 1_795_341_600_000;

    fn event() -> Event {
        Event {
            event_type: "tool_execution".into(),
            user: Some("alice".into()),
            project: Some("7".into()),
            session: Some("sess-1".into()),
            event_id: None,
            timestamp_ms: TIME_MS,
            data: Bytes::from_static(br#"{"b":1.0, "a":[]}"#),
            message_type: None,
            tool_name: None,
        }
    }

    fn encoded(dialect: Dialect, stream: StreamName<'_>, seq: u64, event: &Event) -> String {
        let mut out = Vec::new();
        encode_event(dialect, stream, Seq(seq), event, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(stream: StreamName<'_>, event: &Event, keen: &str, observatory: &str) {
        assert_eq!(encoded(Dialect::Keen, stream, 42, event), keen);
        assert_eq!(
            encoded(Dialect::Observatory, stream, 42, event),
            observatory
        );
    }

    #[test]
    fn the_own_stream_has_no_name_in_keen() {
        check(
            StreamName::Own,
            &event(),
            r#"{"event_type":"tool_execution","session_id":"sess-1","timestamp":"2026-11-22T10:00:00.000Z","seq":42,"data":{"b":1.0, "a":[]}}"#,
            r#"{"type":"tool_execution","timestamp":1795341600000,"stream":"user","seq":42,"session_id":"sess-1","data":{"b":1.0, "a":[]}}"#,
        );
    }

    #[test]
    fn a_projects_stream_is_named_in_both() {
        let event = Event {
            event_id: Some("ev \"9\"".into()),
            ..event()
        };
        check(
            StreamName::Project("7"),
            &event,
            r#"{"event_type":"tool_execution","session_id":"sess-1","timestamp":"2026-11-22T10:00:00.000Z","seq":42,"stream":"project/7","event_id":"ev \"9\"","data":{"b":1.0, "a":[]}}"#,
            r#"{"type":"tool_execution","timestamp":1795341600000,"stream":"project/7","seq":42,"session_id":"sess-1","event_id":"ev \"9\"","data":{"b":1.0, "a":[]}}"#,
        );
    }

    #[test]
    fn an_agents_error_is_told_apart_from_the_servers() {
        let event = Event {
            event_type: "error".into(),
            session: None,
            data: Bytes::from_static(b"null"),
            timestamp_ms: -1,
            ..event()
        };
        check(
            StreamName::Own,
            &event,
            r#"{"event_type":"error","timestamp":"1969-12-31T23:59:59.999Z","seq":42,"data":null}"#,
            r#"{"type":"agent_error","timestamp":-1,"stream":"user","seq":42,"data":null}"#,
        );
    }

    #[test]
    fn an_event_sent_again_on_request_says_so_before_its_data() {
        let mut out = Vec::new();
        encode_replayed_event(
            Dialect::Observatory,
            StreamName::Own,
            Seq(1),
            &event(),
            &mut out,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"type":"tool_execution","timestamp":1795341600000,"stream":"user","seq":1,"session_id":"sess-1","replay":true,"data":{"b":1.0, "a":[]}}"#,
        );
    }

    #[test]
    fn the_largest_ids_fit_the_envelopes_allowance() {
        let event = Event {
            event_type: "e".repeat(64).into(),
            session: Some("\u{1}".repeat(128).into()),
            event_id: Some("\u{1}".repeat(64).into()),
            ..event()
        };
        let stream = "\u{1}".repeat(64);
        for dialect in Dialect::ALL {
            let frame = encoded(dialect, StreamName::Project(&stream), Seq::MAX.0, &event);
            assert!(frame.len() - event.data.len() <= ENVELOPE_BYTES_MAX);
        }
    }

    proptest! {
        #[test]
        fn any_ids_and_any_time_give_json_that_says_them(
            session in proptest::option::of(any::<String>()),
            event_id in proptest::option::of(any::<String>()),
            project in any::<String>(),
            timestamp_ms in any::<i64>(),
            seq in 1..=Seq::MAX.0,
            keen in any::<bool>(),
        ) {
            let event = Event {
                user: Some("MALLORY-ID".into()),
                session: session.as_deref().map(Into::into),
                event_id: event_id.as_deref().map(Into::into),
                timestamp_ms,
                ..event()
            };
            let dialect = Dialect::ALL[usize::from(!keen)];
            let text = encoded(dialect, StreamName::Project(&project), seq, &event);
            let read: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read["session_id"], &Value::from(session));
            prop_assert_eq!(&read["event_id"], &Value::from(event_id));
            prop_assert_eq!(&read["stream"], &Value::from(format!("project/{project}")));
            prop_assert_eq!(&read["seq"], &Value::from(seq));
            prop_assert!(text.ends_with(r#""data":{"b":1.0, "a":[]}}"#), "{}", text);
            prop_assert!(!text.contains("MALLORY-ID"));
        }
    }
}
