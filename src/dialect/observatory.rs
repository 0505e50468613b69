//! What is particular to the observatory dialect: the order and names of the envelope's fields,
//! and time as integer milliseconds. Source: the contract, section 5.

use super::StreamName;
use super::json::{self, Object};
use crate::event::{Event, Seq};

/// The name of the server's own error message; an agent's event of this name leaves as
/// [`AGENT_ERROR`].
pub(super) const SERVER_ERROR: &str = "error";

/// The name under which an agent's `error` event leaves. No producer may use it.
const AGENT_ERROR: &str = "agent_error";

/// The members of an event's envelope that differ between the dialects.
pub(super) fn push_event_head(
    envelope: &mut Object<'_>,
    stream: StreamName<'_>,
    seq: Seq,
    event: &Event,
) {
    envelope.string("type", event_type(&event.event_type));
    push_time(event.timestamp_ms, envelope.member("timestamp"));
    stream.push_json(envelope.member("stream"));
    envelope.integer("seq", seq.0);
    if let Some(session) = &event.session {
        envelope.string("session_id", session);
    }
}

/// The members of a server message's envelope before `data`.
pub(super) fn push_message_head(envelope: &mut Object<'_>, name: &str, now_ms: i64) {
    envelope.string("type", name);
    push_time(now_ms, envelope.member("timestamp"));
}

/// Appends a time, in milliseconds since the Unix epoch.
pub(super) fn push_time(time_ms: i64, out: &mut Vec<u8>) {
    json::push_integer(time_ms, out);
}

fn event_type(published: &str) -> &str {
    if published == SERVER_ERROR {
        AGENT_ERROR
    } else {
        published
    }
}
