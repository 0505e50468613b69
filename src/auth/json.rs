//! Small JSON shapes that tokens and admin requests have in common.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use compact_str::{CompactString, ToCompactString};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Decodes one base64url part, unpadded and canonical. Source: RFC 7515 §2.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Encodes bytes as unpadded base64url.
#[cfg(test)]
pub(super) fn encode_base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads one JSON object into `T`. A derived struct would also read itself from an array, field
/// by position, so the opening brace is asked for first.
pub(super) fn read_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(serde_json::Error::custom("expected a JSON object"));
    }
    serde_json::from_slice(bytes)
}

/// A string of 1 to `BYTES_MAX` bytes, or an integer, which is taken as its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<const BYTES_MAX: usize>(pub(super) CompactString);

impl<'de, const BYTES_MAX: usize> Deserialize<'de> for Text<BYTES_MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor::<BYTES_MAX>)
    }
}

struct TextVisitor<const BYTES_MAX: usize>;

impl<const BYTES_MAX: usize> Visitor<'_> for TextVisitor<BYTES_MAX> {
    type Value = Text<BYTES_MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of 1 to {BYTES_MAX} bytes or an integer")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.is_empty() || text.len() > BYTES_MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(Text(text.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(number.to_compact_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(number.to_compact_string()))
    }
}

/// The last second of the year 9999: later times have no RFC 3339 form, and what looks like one
/// is milliseconds in the place of seconds.
pub(super) const TIME_S_MAX: u64 = 253_402_300_799;

/// Seconds since the Unix epoch; a fraction is cut off. Refuses text, negative numbers and what
/// lies past the year 9999. Source: RFC 7519 §2, NumericDate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let whole = number.as_u64().or_else(|| {
            let seconds = number.as_f64()?;
            (0.0..=TIME_S_MAX as f64)
                .contains(&seconds)
                .then_some(seconds as u64)
        });
        whole
            .filter(|seconds| *seconds <= TIME_S_MAX)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a time in seconds, before the year 10000"))
    }
}
