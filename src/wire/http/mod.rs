//! HTTP/1.1 as this server speaks it: request heads, bodies, answers. Stricter than the RFCs
//! allow a server to be, since leniency is what request smuggling is made of.
//! Source: RFC 9110, RFC 9112; the cases are rows A1 to A5 of the attack table.

mod authority;
mod body;
mod chunked;
mod gzip;
mod head;
mod query;
mod response;

pub(super) use authority::Authority;
pub use body::{BodyDecoder, BodyFraming, ContentCoding};
pub use head::{HeadParser, Method, RequestHead, find_head_end, parse_head};
pub use query::query_pairs;
pub(super) use response::push_header;
pub use response::{RefusalResponse, Response, write_continue, write_refusal, write_response};

use super::close::Refusal;

/// What a peer sent that is not a request we take. The connection ends after the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// A body on GET, HEAD or OPTIONS.
    #[error("this method carries no body")]
    BodyOnMethod,
    /// A body over its limit, as sent or once inflated.
    #[error("the body is too large")]
    BodyTooLarge,
    /// A chunk size, extension or trailer that is malformed or too long.
    #[error("malformed chunk")]
    Chunk,
    /// A `Content-Encoding` other than gzip.
    #[error("unknown content coding")]
    ContentCoding,
    /// A `Content-Length` that is not a plain number below 2^63.
    #[error("invalid Content-Length")]
    ContentLength,
    /// A header twice that has one value; its name.
    #[error("{0} given twice")]
    Duplicate(&'static str),
    /// An `Expect` other than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
    /// A gzip body that is damaged, cut short, or followed by something else.
    #[error("damaged gzip body")]
    Gzip,
    /// More than `HEAD_BYTES_MAX` bytes or `HEADERS_MAX` headers.
    #[error("request head too large")]
    HeadTooLarge,
    /// No `Host`, a malformed one, or one that contradicts the target.
    #[error("missing or invalid Host")]
    Host,
    /// Both lengths at once, by which two servers may read two different requests.
    #[error("Content-Length and Transfer-Encoding together")]
    LengthAndChunked,
    /// Anything else that is no request line or header by RFC 9112.
    #[error("malformed request")]
    Syntax,
    /// A target that is neither a path nor an absolute URL of this host.
    #[error("invalid request target")]
    Target,
    /// A `Transfer-Encoding` other than `chunked`, or one in HTTP/1.0.
    #[error("unknown transfer coding")]
    TransferEncoding,
}

impl HttpError {
    /// The answer.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::ContentCoding => Refusal::UnsupportedMediaType,
            Self::HeadTooLarge => Refusal::HeadTooLarge,
            Self::BodyOnMethod
            | Self::Chunk
            | Self::ContentLength
            | Self::Duplicate(_)
            | Self::Expectation
            | Self::Gzip
            | Self::Host
            | Self::LengthAndChunked
            | Self::Syntax
            | Self::Target
            | Self::TransferEncoding => Refusal::BadRequest,
        }
    }
}

/// The elements of comma-separated header values, trimmed, without empty ones.
/// Source: RFC 9110 §5.6.1.
pub(super) fn list_elements<'a>(
    values: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = &'a str> {
    values
        .flat_map(|value| value.split(','))
        .map(trim)
        .filter(|element| !element.is_empty())
}

/// Without the spaces and tabs around it. Source: RFC 9110 §5.6.3.
pub(super) fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether `byte` may stand in a token. Source: RFC 9110 §5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
