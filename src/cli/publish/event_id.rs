//! Gives an event an `event_id` where it has none, so that the gateway recognises a retry
//! (contract, section 2). Every other byte of the line stays as it was.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::limits::EVENT_BYTES_MAX;

/// `event` with `id` (plain ASCII) as its `event_id`. Unchanged where it has one, where it is not
/// a JSON object (the gateway refuses it), and where the addition would make it too large.
pub(crate) fn with_event_id(event: String, id: &str) -> String {
    let addition = format!(r#""event_id":"{id}""#);
    if event.len() + addition.len() + 1 > EVENT_BYTES_MAX || !event.starts_with('{') {
        return event;
    }
    match serde_json::from_str(&event) {
        Ok(Probe { event_id: false }) => {
            let rest = &event[1..];
            let is_empty = rest.trim_start().starts_with('}');
            let comma = if is_empty { "" } else { "," };
            format!("{{{addition}{comma}{rest}")
        }
        _ => event,
    }
}

/// Whether the object has the field, under whatever escapes, with whatever value.
#[derive(Deserialize)]
struct Probe {
    #[serde(default, deserialize_with = "present")]
    event_id: bool,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn adds_only_where_there_is_none() {
        let cases = [
            (
                r#"{"event_type":"a"}"#,
                r#"{"event_id":"i","event_type":"a"}"#,
            ),
            (
                r#"{ "n": 1.50 , "k":{"event_id":1}}"#,
                r#"{"event_id":"i", "n": 1.50 , "k":{"event_id":1}}"#,
            ),
            ("{}", r#"{"event_id":"i"}"#),
            ("{ }", r#"{"event_id":"i" }"#),
            (r#"{"event_id":"x"}"#, r#"{"event_id":"x"}"#),
            (r#"{"event_id":null}"#, r#"{"event_id":null}"#),
            (r#"{"event\u005fid":"x"}"#, r#"{"event\u005fid":"x"}"#),
            (
                r#"{"event_id":1,"event_id":2}"#,
                r#"{"event_id":1,"event_id":2}"#,
            ),
            ("[1]", "[1]"),
            (r#"{"a":1"#, r#"{"a":1"#),
            (r#"{"a":1} x"#, r#"{"a":1} x"#),
            ("", ""),
        ];
        for (event, expected) in cases {
            assert_eq!(with_event_id(event.to_owned(), "i"), expected, "{event}");
        }
    }

    #[test]
    fn never_makes_an_event_too_large() {
        let frame = r#"{"data":""}"#.len();
        for (spare, grows) in [(0, false), (14, false), (15, true)] {
            let text = "x".repeat(EVENT_BYTES_MAX - frame - spare);
            let event = format!(r#"{{"data":"{text}"}}"#);
            let sent = with_event_id(event.clone(), "i");
            assert_eq!(sent.len() > event.len(), grows, "{spare}");
            assert!(sent.len() <= EVENT_BYTES_MAX);
        }
    }

    proptest! {
        #[test]
        fn the_rest_stays_and_it_is_still_the_same_object(
            fields in prop::collection::btree_map("[a-z_]{1,9}", any::<i32>(), 0..5),
        ) {
            let event = serde_json::to_string(&fields).unwrap();
            let sent = with_event_id(event.clone(), "i");
            prop_assert!(sent.ends_with(&event[1..]));
            let mut value: Value = serde_json::from_str(&sent).unwrap();
            if !fields.contains_key("event_id") {
                prop_assert_eq!(value.as_object_mut().unwrap().remove("event_id"), Some("i".into()));
            }
            prop_assert_eq!(value, serde_json::to_value(&fields).unwrap());
        }
    }
}
