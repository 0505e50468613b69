//! What a subscription asks for, and whether an event is that.
//!
//! A [`Filter`] is canonical from birth: values sorted and once each, numbers as text, empty fields
//! absent; so equal filters are equal values and have the same [`SubscriptionKey`]. What a viewer is
//! shown is this canonical form too. Whether the viewer may ask for a project is not known here.
//! Source: contract section 6.

use std::fmt;

use aws_lc_rs::digest;
use compact_str::{CompactString, ToCompactString};
use serde::Serialize;
use serde_json::Value;

use super::Event;
use super::event::names_heap_bytes;
use crate::limits::{FILTER_VALUE_BYTES_MAX, FILTER_VALUES_MAX};

/// Fields narrow each other, values of a field are alternatives; a field without values is not
/// looked at. `Filter::default()` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    // Alphabetical, which makes the serialised form the canonical one. Each is sorted and has
    // every value once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    event_types: Vec<CompactString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    message_types: Vec<CompactString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    project_ids: Vec<CompactString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    session_ids: Vec<CompactString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_names: Vec<CompactString>,
}

impl Filter {
    /// Reads one object of `filters`. Project ids may be integers or strings, all else strings;
    /// `agent_error` among the types means the agent's `error`.
    /// Errors: the viewer's, answered with [`FilterError::CODE`].
    pub fn from_json(value: &Value) -> Result<Self, FilterError> {
        let object = value.as_object().ok_or(FilterError::NotAnObject)?;
        let mut filter = Self::default();
        for (key, value) in object {
            match key.as_str() {
                "eventTypes" => filter.event_types = event_types(value)?,
                "messageTypes" => filter.message_types = strings("messageTypes", value)?,
                "projectIds" => filter.project_ids = values("projectIds", value, text_or_integer)?,
                "sessionIds" => filter.session_ids = strings("sessionIds", value)?,
                "toolNames" => filter.tool_names = strings("toolNames", value)?,
                unknown => return Err(FilterError::UnknownKey(clipped(unknown).into())),
            }
        }
        Ok(filter)
    }

    /// Whether an event with these keys is asked for.
    pub fn matches(&self, keys: &EventKeys) -> bool {
        has(&self.event_types, Some(&keys.event_type))
            && has(&self.project_ids, keys.project.as_ref())
            && has(&self.session_ids, keys.session.as_ref())
            && has(&self.message_types, keys.message_type.as_ref())
            && has(&self.tool_names, keys.tool_name.as_ref())
    }

    /// Whether it lets everything through.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The projects asked for, as text; empty: whichever the token allows.
    pub fn project_ids(&self) -> &[CompactString] {
        &self.project_ids
    }

    /// This filter without the projects for which `keep` is false. `None` where it named projects
    /// and none is left: such a subscription is to be removed, not to become one for everything.
    #[must_use]
    pub fn retain_projects(mut self, keep: impl FnMut(&CompactString) -> bool) -> Option<Self> {
        let named = !self.project_ids.is_empty();
        self.project_ids.retain(keep);
        (!named || !self.project_ids.is_empty()).then_some(self)
    }

    /// Whether it lets through everything of the projects that it names, or of all.
    pub fn is_everything_of_its_projects(&self) -> bool {
        let Self {
            event_types,
            message_types,
            project_ids: _,
            session_ids,
            tool_names,
        } = self;
        [event_types, message_types, session_ids, tool_names]
            .into_iter()
            .all(Vec::is_empty)
    }

    /// This filter for these sessions only; for all where there are none.
    #[must_use]
    pub fn with_sessions(self, sessions: impl IntoIterator<Item = CompactString>) -> Self {
        let mut session_ids: Vec<CompactString> = sessions.into_iter().collect();
        session_ids.sort_unstable();
        session_ids.dedup();
        Self {
            session_ids,
            ..self
        }
    }

    /// Keys and values sorted, each once, no white space: the text that is hashed and shown.
    pub fn canonical_json(&self) -> String {
        serde_json::to_string(self).expect("vectors of strings always serialise")
    }

    /// The name of a subscription to this filter.
    pub fn key(&self) -> SubscriptionKey {
        SubscriptionKey::of(&self.canonical_json())
    }
}

/// The first 8 bytes of the SHA-256 of a filter's canonical text; written as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionKey(u64);

impl SubscriptionKey {
    /// The key of whatever `text` describes.
    pub fn of(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let first = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        Self(u64::from_be_bytes(*first))
    }

    /// Reads exactly 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        digits
            .then(|| u64::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for SubscriptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What filters and routing look at: an event without its data, to travel beside its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventKeys {
    /// As in [`Event`].
    pub event_type: CompactString,
    /// As in [`Event`].
    pub user: Option<CompactString>,
    /// As in [`Event`].
    pub project: Option<CompactString>,
    /// As in [`Event`].
    pub session: Option<CompactString>,
    /// As in [`Event`].
    pub message_type: Option<CompactString>,
    /// As in [`Event`].
    pub tool_name: Option<CompactString>,
}

impl EventKeys {
    /// Bytes of memory that they take beside their own place.
    pub fn heap_bytes(&self) -> usize {
        let optional = [
            &self.user,
            &self.project,
            &self.session,
            &self.message_type,
            &self.tool_name,
        ];
        names_heap_bytes(optional.into_iter().flatten().chain([&self.event_type]))
    }
}

impl From<&Event> for EventKeys {
    fn from(event: &Event) -> Self {
        Self {
            event_type: event.event_type.clone(),
            user: event.user.clone(),
            project: event.project.clone(),
            session: event.session.clone(),
            message_type: event.message_type.clone(),
            tool_name: event.tool_name.clone(),
        }
    }
}

/// What is wrong with filters. The viewer's fault: `subscription_error`, connection kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Something else stands where a filter should.
    #[error("a filter must be a JSON object, such as {{\"eventTypes\":[\"progress_update\"]}}")]
    NotAnObject,
    /// A value is longer than any field of an event that it could match.
    #[error("a value in `{0}` is over {FILTER_VALUE_BYTES_MAX} bytes and can match no event")]
    TooLong(&'static str),
    /// A field has too many values.
    #[error("`{0}` has more than {FILTER_VALUES_MAX} values; subscribe with several filters")]
    TooManyValues(&'static str),
    /// There is no such field; the name is clipped to 64 bytes.
    #[error(
        "`{0}` is no filter; there are projectIds, eventTypes, sessionIds, messageTypes, toolNames"
    )]
    UnknownKey(CompactString),
    /// A field is not an array of strings (project ids: or integers).
    #[error("`{key}` must be an array of {expected}")]
    WrongType {
        /// The field.
        key: &'static str,
        /// What its elements may be.
        expected: &'static str,
    },
}

impl FilterError {
    /// The word on the wire, whatever is wrong.
    pub const CODE: &'static str = "INVALID_FILTERS";
}

fn event_types(value: &Value) -> Result<Vec<CompactString>, FilterError> {
    // One event has two names, one for each dialect. It is filed under the name it was published
    // with, so that both names make the same filter and the same key.
    values("eventTypes", value, |element| {
        text(element).map(|name| match name.as_str() {
            "agent_error" => "error".into(),
            _ => name,
        })
    })
}

fn strings(key: &'static str, value: &Value) -> Result<Vec<CompactString>, FilterError> {
    values(key, value, text)
}

/// Reads the elements of one field with `read`, and sorts them.
fn values(
    key: &'static str,
    value: &Value,
    read: impl Fn(&Value) -> Option<CompactString>,
) -> Result<Vec<CompactString>, FilterError> {
    let wrong_type = || FilterError::WrongType {
        key,
        expected: match key {
            "projectIds" => "strings or integers",
            _ => "strings",
        },
    };
    let elements = value.as_array().ok_or_else(wrong_type)?;
    if elements.len() > FILTER_VALUES_MAX {
        return Err(FilterError::TooManyValues(key));
    }
    let read = elements.iter().map(read).collect::<Option<Vec<_>>>();
    let mut values = read.ok_or_else(wrong_type)?;
    if values.iter().any(|v| v.len() > FILTER_VALUE_BYTES_MAX) {
        return Err(FilterError::TooLong(key));
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

fn text(value: &Value) -> Option<CompactString> {
    value.as_str().map(CompactString::from)
}

fn text_or_integer(value: &Value) -> Option<CompactString> {
    let integer = || value.as_i64().map(|i| i.to_compact_string());
    let unsigned = || value.as_u64().map(|u| u.to_compact_string());
    text(value).or_else(integer).or_else(unsigned)
}

/// Whether a field with `wanted` values lets `found` through.
fn has(wanted: &[CompactString], found: Option<&CompactString>) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.binary_search(found).is_ok())
}

/// The first 64 bytes of a peer's text, for use in a message.
fn clipped(text: &str) -> &str {
    let end = (0..=64).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0).min(text.len())]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filter(value: &Value) -> Filter {
        Filter::from_json(value).unwrap()
    }

    fn keys() -> EventKeys {
        EventKeys {
            event_type: "tool_execution".into(),
            user: Some("ada".into()),
            project: Some("7".into()),
            session: Some("s-1".into()),
            message_type: Some("assistant".into()),
            tool_name: Some("Bash".into()),
        }
    }

    fn bare() -> EventKeys {
        EventKeys {
            event_type: "error".into(),
            user: Some("ada".into()),
            project: None,
            session: None,
            message_type: None,
            tool_name: None,
        }
    }

    #[test]
    fn matches_as_the_contract_says() {
        let check = |value: Value, full: bool, lacking: bool| {
            let filter = filter(&value);
            assert_eq!(filter.matches(&keys()), full, "{value}, all fields");
            assert_eq!(filter.matches(&bare()), lacking, "{value}, only a type");
        };
        check(json!({}), true, true);
        check(json!({"eventTypes": [], "toolNames": []}), true, true);
        check(json!({"projectIds": [7]}), true, false);
        check(json!({"projectIds": ["7"]}), true, false);
        check(json!({"projectIds": [8, 9]}), false, false);
        check(json!({"projectIds": [8, 7]}), true, false);
        check(json!({"sessionIds": ["s-1"]}), true, false);
        check(json!({"sessionIds": ["S-1"]}), false, false);
        check(json!({"messageTypes": ["assistant"]}), true, false);
        check(json!({"toolNames": ["Bash", "Read"]}), true, false);
        check(json!({"eventTypes": ["error"]}), false, true);
        check(json!({"eventTypes": ["agent_error"]}), false, true);
        check(
            json!({"eventTypes": ["tool_execution"], "toolNames": ["Read"]}),
            false,
            false,
        );
        check(
            json!({"eventTypes": ["tool_execution"], "toolNames": ["Bash"]}),
            true,
            false,
        );
    }

    #[test]
    fn has_one_canonical_text_for_equal_filters() {
        let check = |value: Value, expected: &str| {
            assert_eq!(filter(&value).canonical_json(), expected, "{value}");
        };
        check(json!({}), "{}");
        check(json!({"projectIds": [], "sessionIds": []}), "{}");
        check(
            json!({"projectIds": [10, "9", 9, "10"]}),
            r#"{"projectIds":["10","9"]}"#,
        );
        check(
            json!({"eventTypes": ["error", "agent_error"]}),
            r#"{"eventTypes":["error"]}"#,
        );
        check(
            json!({"toolNames": ["b\"", "a"], "eventTypes": ["x"], "sessionIds": ["s"]}),
            r#"{"eventTypes":["x"],"sessionIds":["s"],"toolNames":["a","b\""]}"#,
        );
        check(
            json!({"projectIds": [u64::MAX, -1]}),
            r#"{"projectIds":["-1","18446744073709551615"]}"#,
        );
    }

    #[test]
    fn the_key_is_a_hash_of_the_canonical_text() {
        // printf '{}' | sha256sum
        assert_eq!(Filter::default().key().to_string(), "44136fa355b3678a");
        let key = filter(&json!({"toolNames": ["Bash"]})).key();
        assert_eq!(SubscriptionKey::parse(&key.to_string()), Some(key));
        for text in [
            "",
            "44136fa355b3678",
            "44136FA355B3678A",
            "+4136fa355b3678a",
            "44136fa355b3678ab",
        ] {
            assert_eq!(SubscriptionKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        let check = |value: Value, named: &str| {
            let error = Filter::from_json(&value).unwrap_err().to_string();
            assert!(error.contains(named), "{value}: {error}");
        };
        check(json!([]), "object");
        check(json!(null), "object");
        check(json!({"project_ids": [7]}), "`project_ids`");
        check(json!({"": []}), "``");
        check(json!({"projectIds": 7}), "`projectIds`");
        check(json!({"projectIds": null}), "`projectIds`");
        check(
            json!({"projectIds": [7.5]}),
            "`projectIds` must be an array of strings or integers",
        );
        check(json!({"projectIds": [true]}), "`projectIds`");
        check(json!({"eventTypes": "error"}), "`eventTypes`");
        check(
            json!({"eventTypes": [1]}),
            "`eventTypes` must be an array of strings",
        );
        check(json!({"sessionIds": [{}]}), "`sessionIds`");
        check(json!({"messageTypes": {}}), "`messageTypes`");
        check(json!({"toolNames": [null]}), "`toolNames`");
        check(
            json!({"toolNames": vec!["x"; FILTER_VALUES_MAX + 1]}),
            "`toolNames` has more than",
        );
        check(
            json!({"toolNames": ["x".repeat(FILTER_VALUE_BYTES_MAX + 1)]}),
            "`toolNames`",
        );
        check(
            json!({ "é".repeat(100): [] }),
            &format!("`{}`", "é".repeat(32)),
        );
    }

    #[test]
    fn a_lost_project_is_struck_out_and_never_widens_the_filter() {
        let some = filter(&json!({"projectIds": [7, 8], "eventTypes": ["x"]}));
        let rest = some.retain_projects(|id| id == "8").unwrap();
        assert_eq!(
            rest,
            filter(&json!({"projectIds": [8], "eventTypes": ["x"]}))
        );
        assert_eq!(rest.project_ids(), ["8"]);
        assert_eq!(rest.retain_projects(|_| false), None);
        let all = Filter::default().retain_projects(|_| false);
        assert!(all.is_some_and(|filter| filter.is_everything()));
    }

    proptest! {
        #[test]
        fn the_order_of_values_changes_nothing(
            mut values in prop::collection::vec("[a-e]{1,2}", 0..12),
            turn in 0..12_usize,
        ) {
            let one = filter(&json!({"sessionIds": values, "toolNames": ["x"]}));
            let places = values.len().max(1);
            values.rotate_left(turn % places);
            values.extend_from_within(..turn.min(values.len()));
            let other = filter(&json!({"toolNames": ["x", "x"], "sessionIds": values}));
            prop_assert_eq!(one.key(), other.key());
            prop_assert_eq!(one, other);
        }

        #[test]
        fn reading_the_canonical_text_gives_the_filter_again(
            projects in prop::collection::vec(any::<i64>(), 0..6),
            types in prop::collection::vec("\\PC{0,8}", 0..6),
        ) {
            let first = filter(&json!({"projectIds": projects, "eventTypes": types}));
            let again: Value = serde_json::from_str(&first.canonical_json()).unwrap();
            prop_assert_eq!(filter(&again), first);
        }
    }
}
