//! A histogram as one line of text: HdrHistogram's V2 encoding, deflated, in base64.
//!
//! That is what interval logs hold and what HdrHistogram's ports in other languages read
//! (`HISTFAAA…`). Source: HdrHistogram 2.2, `Histogram.encodeIntoCompressedByteBuffer`.

use std::io::Read as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
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
    /// What is deflated is cut off, is too much, or says of itself that it is longer.
    #[error("no histogram: it cannot be unpacked")]
    Packing,
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

    /// The histogram. Whoever wrote the text, this takes some megabytes at most.
    /// Errors: `Base64`, `Decode`, `Packing`.
    pub fn decode(&self) -> Result<Histogram<u64>, EncodedError> {
        let bytes = BASE64_STANDARD.decode(&self.0)?;
        let plain = unpack(&bytes).ok_or(EncodedError::Packing)?;
        Ok(Deserializer::new().deserialize(&mut plain.as_slice())?)
    }
}

// The library believes the lengths that stand in there and takes as much memory (4 GiB at most), so
// it is given only what was unpacked within bounds and says its own length.
fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let (head, deflated) = bytes.split_at_checked(DEFLATED_HEAD_BYTES)?;
    if number(head, 0)? != DEFLATED_COOKIE {
        return None;
    }
    let mut plain = Vec::new();
    let limit = PLAIN_BYTES_MAX as u64 + 1;
    let inflated = ZlibDecoder::new(deflated)
        .take(limit)
        .read_to_end(&mut plain);
    let is_whole = inflated.is_ok() && plain.len() <= PLAIN_BYTES_MAX;
    let says_its_length = number(&plain, 4)? as usize == plain.len().checked_sub(HEAD_BYTES)?;
    (is_whole && says_its_length).then_some(plain)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

/// What a deflated histogram begins with; then comes the length of the rest.
const DEFLATED_COOKIE: u32 = 0x1c84_9314;
const DEFLATED_HEAD_BYTES: usize = 8;
/// What stands before the counts: cookie, their bytes, offset, digits, bounds and ratio.
const HEAD_BYTES: usize = 40;
/// Bytes of an encoded histogram, inflated: nine for each count, of which there are about 18,000.
const PLAIN_BYTES_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;
    use crate::latency_histogram;
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_histogram_is_an_error() {
        let decode = |text: &str| Encoded(text.to_owned()).decode();
        assert!(matches!(decode("?"), Err(EncodedError::Base64(_))));
        for text in ["", "AAAA", "HISTFAAA"] {
            assert!(matches!(decode(text), Err(EncodedError::Packing)), "{text}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_or_lies_about_its_length_is_refused() {
        let check = |plain: &[u8]| {
            let mut deflated = ZlibEncoder::new(Vec::new(), Compression::fast());
            deflated.write_all(plain).unwrap();
            let deflated = deflated.finish().unwrap();
            let mut bytes = DEFLATED_COOKIE.to_be_bytes().to_vec();
            bytes.extend((deflated.len() as u32).to_be_bytes());
            bytes.extend(deflated);
            let decoded = Encoded(BASE64_STANDARD.encode(bytes)).decode();
            assert!(matches!(decoded, Err(EncodedError::Packing)));
        };
        let text = Encoded::new(&latency_histogram()).unwrap().0;
        let mut lying = unpack(&BASE64_STANDARD.decode(text).unwrap()).unwrap();
        lying[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        check(&lying);
        check(&vec![0; 16 * PLAIN_BYTES_MAX]);
        check(&[]);
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
