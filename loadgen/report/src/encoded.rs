//! A histogram as one line of text: HdrHistogram's V2 encoding, deflated, in base64.
//!
//! That is what interval logs hold and what HdrHistogram's ports in other languages read
//! (`HISTFAAA…`). Source: HdrHistogram 2.2, `Histogram.encodeIntoCompressedByteBuffer`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{
    DeserializeError, Deserializer, Serializer as _, V2DeflateSerializeError, V2DeflateSerializer,
};
use serde::{Deserialize, Serialize};

/// A histogram as text, a few kilobytes whatever it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Encoded(String);

/// Why a text is no histogram, or a histogram no text.
#[derive(Debug, thiserror::Error)]
pub enum EncodedError {
    /// It is not base64: the file was changed.
    #[error("no base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The bytes are no histogram: the file was changed, or is of another version.
    #[error("no histogram: {0}")]
    Decode(#[from] DeserializeError),
    /// A count is beyond what the format holds.
    #[error("no encoding: {0}")]
    Encode(#[from] V2DeflateSerializeError),
}

impl Encoded {
    /// Encodes `histogram`.
    /// Errors: `Encode`, where a count is beyond 2^63.
    pub fn new(histogram: &Histogram<u64>) -> Result<Self, EncodedError> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes)?;
        Ok(Self(BASE64_STANDARD.encode(bytes)))
    }

    /// The histogram.
    /// Errors: `Base64`, `Decode`.
    pub fn decode(&self) -> Result<Histogram<u64>, EncodedError> {
        let bytes = BASE64_STANDARD.decode(&self.0)?;
        Ok(Deserializer::new().deserialize(&mut bytes.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::latency_histogram;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_histogram_is_an_error() {
        let decode = |text: &str| Encoded(text.to_owned()).decode();
        assert!(matches!(decode("?"), Err(EncodedError::Base64(_))));
        for text in ["", "AAAA", "HISTFAAA"] {
            assert!(
                matches!(decode(text), Err(EncodedError::Decode(_))),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_back_what_was_encoded(
            values in prop::collection::vec((0_u64..1 << 40, 1_u64..1_000_000), 0..50),
        ) {
            let mut histogram = latency_histogram();
            for (value, count) in values {
                histogram.saturating_record_n(value, count);
            }
            let encoded = Encoded::new(&histogram).unwrap();
            prop_assert!(encoded.0.starts_with("HISTFAAA"), "{}", encoded.0);
            prop_assert_eq!(encoded.decode().unwrap(), histogram);
        }

        #[test]
        fn any_text_is_a_histogram_or_an_error(text in "HISTFAAA[A-Za-z0-9+/]{0,80}") {
            let _ = Encoded(text).decode();
        }
    }
}
