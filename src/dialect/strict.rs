//! Reads JSON from a viewer into a `Value` and notices a member that stands twice in an object:
//! `serde_json` alone would silently keep the last, and another reader of the same text the first.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

/// JSON as it was sent.
#[derive(Debug)]
pub(super) struct Strict {
    /// What was read; of a member that stands twice, the first.
    pub(super) value: Value,
    /// Whether some object holds a member twice.
    pub(super) has_duplicates: bool,
}

impl Strict {
    /// Reads one JSON text. `None` where it is none, is followed by more, or nests deeper than 127.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let has_duplicates = Cell::new(false);
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = Seed(&has_duplicates).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(Self {
            value,
            has_duplicates: has_duplicates.get(),
        })
    }
}

/// Reads one value; the cell is set where a member stands twice.
#[derive(Clone, Copy)]
struct Seed<'c>(&'c Cell<bool>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            match object.entry(name) {
                Entry::Occupied(_) => self.0.set(true),
                Entry::Vacant(place) => {
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<(&str, bool)>) {
        let read = Strict::parse(text.as_bytes());
        let read = read.map(|strict| (strict.value.to_string(), strict.has_duplicates));
        assert_eq!(
            read,
            expected.map(|(text, flag)| (text.into(), flag)),
            "{text}"
        );
    }

    #[test]
    fn members_that_stand_twice_are_noticed_at_any_depth() {
        check(r#"{"a":1,"b":2}"#, Some((r#"{"a":1,"b":2}"#, false)));
        check(r#"{"a":1,"a":2}"#, Some((r#"{"a":1}"#, true)));
        check(r#"{"a":1,"\u0061":2}"#, Some((r#"{"a":1}"#, true)));
        check(
            r#"[{"x":{"a":1,"a":1}}]"#,
            Some((r#"[{"x":{"a":1}}]"#, true)),
        );
        check(r#"{"a":{"a":1}}"#, Some((r#"{"a":{"a":1}}"#, false)));
    }

    #[test]
    fn what_is_not_one_json_text_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in [
            "",
            "{",
            "{} {}",
            "nul",
            "\u{feff}{}",
            "NaN",
            "1e400",
            r#""\ud800""#,
            &deep,
        ] {
            check(text, None);
        }
        assert!(Strict::parse(b"\"\xff\"").is_none());
    }

    proptest! {
        #[test]
        fn plain_json_reads_as_by_serde(text in r#"[\[\]{}:,"ab0-9.e-]{0,24}|.{0,24}"#) {
            let plain: Option<Value> = serde_json::from_str(&text).ok();
            let strict = Strict::parse(text.as_bytes());
            prop_assert_eq!(strict.is_some(), plain.is_some());
            if let Some(strict) = strict.filter(|strict| !strict.has_duplicates) {
                prop_assert_eq!(Some(strict.value), plain);
            }
        }
    }
}
