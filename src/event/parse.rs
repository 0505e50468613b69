//! One event's bytes become an [`Event`], or a [`Rejection`] that says why not.
//!
//! simd-json validates all of the text, `data` included, on a tape that the parser keeps from event
//! to event; the fields are read from the tape, once, by the one reader that also decides who sees
//! the event; `data` leaves as the untouched bytes. Of a known type's event the shape of `data` is
//! looked at on the same tape (`known`). What the contract leaves open is settled so:
//!
//! - `null` in a top-level field is mistyped. In `data`, which is the producer's own, a `null` where
//!   an audience or a session is looked for is as if absent.
//! - A text that is JSON but no object is `INVALID_FIELD`: it is the event itself that is mistyped.
//! - Half of a surrogate pair in any string, and a number beyond a 64-bit float (`1e400`), are
//!   `INVALID_JSON`, wherever they stand: readers disagree about what they are. Integers of any
//!   length pass in `data`; in a field they must be within 64 bits.
//! - Of a repeated name in `data` that only filters look at, the last counts, as in JavaScript.
//!
//! Source: contract section 2.

use std::mem;

use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};

use super::known::{Known, KnownType, ShapeError};
use super::tape::{Document, ROOT};
use super::{Event, Rejection, RejectionCode, syntax, time};
use crate::failpoint;
use crate::limits::{EVENT_BYTES_MAX, EVENT_DEPTH_MAX, FILTER_VALUE_BYTES_MAX};

/// The memory in which events are read: one for each core, for all of its publishers.
pub struct Parser {
    // A copy of the text, which unescaping overwrites, and the padding that simd-json asks for.
    text: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Parser {
    /// A parser that has read nothing yet.
    pub fn new() -> Self {
        Self {
            text: Vec::new(),
            buffers: Buffers::with_max_depth(0, EVENT_DEPTH_MAX),
            tape: Tape(Vec::new()),
        }
    }

    /// Reads the event in `text`, which arrived at `now_ms`. White space around it is allowed, and
    /// counts as bytes of it. The event's `data` is a slice of `text` and keeps it in memory.
    /// Errors: the first code that holds, in the order of [`RejectionCode`]; the publisher's fault.
    pub fn parse(&mut self, text: &Bytes, now_ms: i64) -> Result<Parsed, Rejection> {
        let parsed = self.read(text, now_ms)?;
        check_type_and_audience(&parsed.event)?;
        Ok(parsed)
    }

    /// The same of a publisher that asked to be told of its slips: an event of a known type whose
    /// `data` has another shape is `INVALID_FIELD` as well.
    pub fn parse_strict(&mut self, text: &Bytes, now_ms: i64) -> Result<Parsed, Rejection> {
        let parsed = self.read(text, now_ms)?;
        if let Some(error) = &parsed.shape_error {
            let message = error.to_string();
            return Err(Rejection::new(RejectionCode::InvalidField, message));
        }
        check_type_and_audience(&parsed.event)?;
        Ok(parsed)
    }

    /// Shows `read` what an event of a known type holds in its `data`, once more. `None` where `data`
    /// is no object: then there is nothing to be shown. Borrows from `data` as unescaped here.
    pub fn with_known<R>(
        &mut self,
        event_type: KnownType,
        data: &[u8],
        read: impl FnOnce(&Known<'_>) -> R,
    ) -> Option<R> {
        let read = |document: Document<'_>| event_type.read(document, ROOT).as_ref().map(read);
        self.with_document(data, read).flatten()
    }

    fn read(&mut self, text: &Bytes, now_ms: i64) -> Result<Parsed, Rejection> {
        failpoint::panic_at("event", text);
        // A tape takes up to 24 times the text: what is too large anyhow does not get one.
        if text.len() > EVENT_BYTES_MAX {
            return Err(syntax::diagnose(text));
        }
        let parsed = self.with_document(text, |document| parsed(document, text, now_ms));
        parsed.unwrap_or_else(|| Err(syntax::diagnose(text)))
    }

    /// Shows `read` a JSON text; `None` where it is none, or too deep.
    fn with_document<R>(&mut self, text: &[u8], read: impl FnOnce(Document<'_>) -> R) -> Option<R> {
        let length = text.len();
        if self.text.len() < length + INPUT_PADDING {
            self.text.resize(length + INPUT_PADDING, 0);
        }
        self.text[..length].copy_from_slice(text);
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled =
            simd_json::fill_tape_padded(&mut self.text, length, &mut self.buffers, &mut tape);
        let marks = self.buffers.structural_indexes();
        let answer = filled.map(|()| read(Document::new(&tape.0, marks, text)));
        self.tape = tape.reset();
        if length > BYTES_KEPT_MAX {
            *self = Self::new();
        }
        answer.ok()
    }
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

/// What came of an event's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The event, as it goes on its way.
    pub event: Event,
    /// The first field in which its `data` has not the shape of its type, where that is known.
    pub shape_error: Option<Box<ShapeError>>,
}

/// Events longer than this have their memory given back: a core then keeps at most about 4 MiB,
/// rather than 24 times the largest event that it ever met.
const BYTES_KEPT_MAX: usize = 128 * 1024;

/// Where the fields of one event are.
#[derive(Default)]
struct Places {
    event_type: Option<Place>,
    user: Option<Place>,
    project: Option<Place>,
    session: Option<Place>,
    timestamp: Option<Place>,
    data: Option<Place>,
    event_id: Option<Place>,
}

/// A value on the tape, and its path under the name that the producer chose.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    path: &'static str,
}

impl Places {
    /// Finds the fields at the top level and, for what it does not name, in `data`.
    /// Errors: `InvalidField` where the event is no object; `DuplicateField`.
    fn find(document: Document<'_>) -> Result<Self, Rejection> {
        if !document.is_object(ROOT) {
            return Err(mistyped(document, ROOT, "the event", "a JSON object"));
        }
        let mut places = Self::default();
        for (name, at) in document.members(ROOT) {
            let Some((field, path)) = places.field(name) else {
                continue;
            };
            if let Some(first) = field.replace(Place { at, path }) {
                return Err(duplicate(first.path, path));
            }
        }
        places.look_in_data(document)?;
        Ok(places)
    }

    /// The field that goes by `name`. Names compare unescaped, to the letter.
    fn field(&mut self, name: &str) -> Option<(&mut Option<Place>, &'static str)> {
        Some(match name {
            "event_type" => (&mut self.event_type, "event_type"),
            "type" => (&mut self.event_type, "type"),
            "user_id" => (&mut self.user, "user_id"),
            "userId" => (&mut self.user, "userId"),
            "project_id" => (&mut self.project, "project_id"),
            "projectId" => (&mut self.project, "projectId"),
            "session_id" => (&mut self.session, "session_id"),
            "sessionId" => (&mut self.session, "sessionId"),
            "timestamp" => (&mut self.timestamp, "timestamp"),
            "data" => (&mut self.data, "data"),
            "event_id" => (&mut self.event_id, "event_id"),
            _ => return None,
        })
    }

    fn look_in_data(&mut self, document: Document<'_>) -> Result<(), Rejection> {
        let Some(Place { at, .. }) = self.data else {
            return Ok(());
        };
        if self.user.is_none() && self.project.is_none() {
            self.project = audience_in_data(document, at)?;
        }
        if self.session.is_none() {
            self.session = only(document, at, "sessionId", "data.sessionId")?;
        }
        Ok(())
    }
}

fn audience_in_data(document: Document<'_>, data: usize) -> Result<Option<Place>, Rejection> {
    if let Some(place) = only(document, data, "projectId", "data.projectId")? {
        return Ok(Some(place));
    }
    let objects = [
        ("projectInfo", "data.projectInfo", "data.projectInfo.id"),
        ("project", "data.project", "data.project.id"),
    ];
    for (name, path, id_path) in objects {
        if let Some(object) = only(document, data, name, path)?
            && let Some(place) = only(document, object.at, "id", id_path)?
        {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// The value of `name` in the object at `object`, unless `null`.
/// Errors: `DuplicateField` where the name is repeated.
fn only(
    document: Document<'_>,
    object: usize,
    name: &str,
    path: &'static str,
) -> Result<Option<Place>, Rejection> {
    let mut named = document.members(object).filter(|m| m.0 == name);
    let first = named.next();
    if named.next().is_some() {
        return Err(duplicate(path, path));
    }
    let place = first.filter(|(_, at)| !document.is_null(*at));
    Ok(place.map(|(_, at)| Place { at, path }))
}

/// Reads the fields of a valid text, whose nodes are in `document` and whose bytes in `text`.
fn parsed(document: Document<'_>, text: &Bytes, now_ms: i64) -> Result<Parsed, Rejection> {
    let places = Places::find(document)?;
    let data_at = places.data.map(|place| place.at);
    let event = Event {
        event_type: event_type(document, places.event_type)?,
        user: optional(places.user, |p| text_or_integer(document, p, 128))?,
        project: optional(places.project, |p| text_or_integer(document, p, 64))?,
        session: optional(places.session, |p| bounded_text(document, p, 128))?,
        timestamp_ms: optional(places.timestamp, |p| timestamp(document, p))?.unwrap_or(now_ms),
        event_id: optional(places.event_id, |p| bounded_text(document, p, 64))?,
        data: match data_at {
            Some(at) => text.slice(document.member_span(at)),
            None => Bytes::from_static(b"{}"),
        },
        message_type: data_at.and_then(|at| message_type(document, at)),
        tool_name: data_at.and_then(|at| tool_name(document, at)),
    };
    let known = KnownType::find(&event.event_type);
    let shape_error = known.and_then(|known| known.check(document, data_at).err().map(Box::new));
    Ok(Parsed { event, shape_error })
}

/// The last two codes that are found here: `ReservedType`, `NoAudience`.
fn check_type_and_audience(event: &Event) -> Result<(), Rejection> {
    if is_reserved(&event.event_type) {
        let name = &event.event_type;
        let message = format!("only the server sends `{name}`; give the event another type");
        return Err(Rejection::new(RejectionCode::ReservedType, message));
    }
    if event.user.is_none() && event.project.is_none() {
        let message = "nobody would see it; name a user_id, a project_id, or both";
        return Err(Rejection::new(RejectionCode::NoAudience, message));
    }
    Ok(())
}

fn optional<T>(
    place: Option<Place>,
    read: impl FnOnce(Place) -> Result<T, Rejection>,
) -> Result<Option<T>, Rejection> {
    place.map(read).transpose()
}

fn event_type(document: Document<'_>, place: Option<Place>) -> Result<CompactString, Rejection> {
    let Some(place) = place else {
        let message = "event_type is missing; name it, for example \"progress_update\"";
        return Err(Rejection::new(RejectionCode::InvalidField, message));
    };
    let name = document.string(place.at).unwrap_or_default();
    let is_inner = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let (first, rest) = name.as_bytes().split_first().unwrap_or((&b'0', b""));
    if first.is_ascii_lowercase() && rest.len() < 64 && rest.iter().all(is_inner) {
        return Ok(name.into());
    }
    let wanted = "1 to 64 characters a-z, 0-9, `_`, `.` and `-`, of which the first is a letter";
    Err(mistyped(document, place.at, place.path, wanted))
}

fn bounded_text(
    document: Document<'_>,
    place: Place,
    bytes_max: usize,
) -> Result<CompactString, Rejection> {
    match document.string(place.at) {
        Some(text) if (1..=bytes_max).contains(&text.len()) => Ok(text.into()),
        _ => {
            let wanted = format!("a string of 1 to {bytes_max} bytes");
            Err(mistyped(document, place.at, place.path, &wanted))
        }
    }
}

fn text_or_integer(
    document: Document<'_>,
    place: Place,
    bytes_max: usize,
) -> Result<CompactString, Rejection> {
    match document.node(place.at) {
        Node::Static(StaticNode::I64(id)) => Ok(id.to_compact_string()),
        Node::Static(StaticNode::U64(id)) => Ok(id.to_compact_string()),
        Node::String(text) if (1..=bytes_max).contains(&text.len()) => Ok(text.into()),
        _ => {
            let wanted = format!("an integer of 64 bits or a string of 1 to {bytes_max} bytes");
            Err(mistyped(document, place.at, place.path, &wanted))
        }
    }
}

fn timestamp(document: Document<'_>, place: Place) -> Result<i64, Rejection> {
    let ms = match document.node(place.at) {
        Node::Static(StaticNode::I64(ms)) => time::checked_ms(ms),
        Node::Static(StaticNode::U64(ms)) => i64::try_from(ms).ok().and_then(time::checked_ms),
        Node::String(text) => time::parse_rfc3339_ms(text),
        _ => None,
    };
    ms.ok_or_else(|| {
        let wanted = "integer milliseconds since 1970 or RFC 3339 text with an offset, such as \
                      \"2026-11-22T10:00:00.000Z\", within the years 0000 to 9999";
        mistyped(document, place.at, place.path, wanted)
    })
}

fn message_type(document: Document<'_>, data: usize) -> Option<CompactString> {
    let message = document.last(data, "message")?;
    filterable(document, document.last(message, "type")?)
}

fn tool_name(document: Document<'_>, data: usize) -> Option<CompactString> {
    let named = |name| filterable(document, document.last(data, name)?);
    named("tool_name").or_else(|| named("toolName"))
}

/// A string in `data` that a filter can ask for; no filter has longer ones.
fn filterable(document: Document<'_>, at: usize) -> Option<CompactString> {
    let text = document.string(at)?;
    (text.len() <= FILTER_VALUE_BYTES_MAX).then(|| text.into())
}

/// Whether only the server sends messages of this type. `error` is both's: the dialects tell an
/// agent's from the server's.
fn is_reserved(event_type: &str) -> bool {
    matches!(
        event_type,
        "ack"
            | "active_conversations"
            | "agent_error"
            | "agent_tree"
            | "agent_tree_update"
            | "connection_established"
            | "cursor"
            | "lag"
            | "nack"
            | "pong"
            | "project_activity"
            | "replay_complete"
            | "server_error"
            | "server_shutdown"
            | "subscription_confirmed"
            | "subscription_error"
            | "token_expiring"
            | "token_refreshed"
            | "unsubscribed"
    )
}

fn duplicate(first: &str, second: &str) -> Rejection {
    let message = if first == second {
        format!("{first} stands there twice; readers would disagree which counts, so send it once")
    } else {
        format!("{first} and {second} are one field under two names; send one of them")
    };
    Rejection::new(RejectionCode::DuplicateField, message)
}

fn mistyped(document: Document<'_>, at: usize, path: &str, wanted: &str) -> Rejection {
    let found = document.describe(at);
    let message = format!("{path} is {found}; it must be {wanted}");
    Rejection::new(RejectionCode::InvalidField, message)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod second_reader;
#[cfg(test)]
mod tests;
