//! What is particular to the keen dialect: the order and names of the envelope's fields, and time
//! as ISO 8601 text. Appends up to and including `"data":`; the rest is common.
//! Source: the contract, section 5.

use super::StreamName;
use super::json::Object;
use crate::event::{Event, Seq, time};

/// The name of the server's own error message; `error` is an agent's event.
pub(super) const SERVER_ERROR: &str = "server_error";

/// The members of an event's envelope that differ between the dialects.
pub(super) fn push_event_head(
    envelope: &mut Object<'_>,
    stream: StreamName<'_>,
    seq: Seq,
    event: &Event,
) {
    envelope.string("event_type", &event.event_type);
    if let Some(session) = &event.session {
        envelope.string("session_id", session);
    }
    push_time(event.timestamp_ms, envelope.member("timestamp"));
    envelope.integer("seq", seq.0);
    if stream != StreamName::Own {
        stream.push_json(envelope.member("stream"));
    }
}

/// The members of a server message's envelope before `data`.
pub(super) fn push_message_head(envelope: &mut Object<'_>, name: &str, now_ms: i64) {
    envelope.string("event_type", name);
    push_time(now_ms, envelope.member("timestamp"));
}

/// Appends a time, for example `"2026-11-22T10:00:00.000Z"`.
pub(super) fn push_time(time_ms: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    time::write_rfc3339_ms(out, time_ms);
    out.push(b'"');
}
