//! A request's head: found without re-reading, parsed once, checked whole, then kept compactly.

use std::fmt;
use std::ops::Range;

use memchr::memchr_iter;

use super::body::{BodyFraming, ContentCoding};
use super::{Authority, HttpError, is_token_byte, list_elements, query_pairs, trim};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// The methods that some path here knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `DELETE`
    Delete,
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// Any other token.
    Other,
    /// `POST`
    Post,
}

impl Method {
    /// Whether a request of this method brings no body.
    fn is_bodyless(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        match name {
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "POST" => Self::Post,
            _ => Self::Other,
        }
    }
}

/// Waits for the end of a head. Bytes that were searched are not searched again, and the head is
/// parsed once, so that a head of one-byte packets costs what a whole one does.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadParser {
    searched: usize,
}

impl HeadParser {
    /// Looks at all bytes of the request so far; `buf` only grows between calls. Returns the
    /// length of the head with what it says, or `None` until it is whole.
    /// Errors: all of [`HttpError`] that concern heads; 431 past `HEAD_BYTES_MAX`.
    pub fn handle_bytes(&mut self, buf: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
        if buf
            .first()
            .is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r')
        {
            return Err(HttpError::Syntax);
        }
        match find_head_end(buf, self.searched) {
            Some(end) if end <= HEAD_BYTES_MAX => {
                *self = Self::default();
                RequestHead::parse(&buf[..end]).map(|head| Some((end, head)))
            }
            None if buf.len() < HEAD_BYTES_MAX => {
                self.searched = buf.len();
                Ok(None)
            }
            _ => Err(HttpError::HeadTooLarge),
        }
    }
}

/// [`HeadParser::handle_bytes`] for a buffer that nothing was searched of.
pub fn parse_head(buf: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
    HeadParser::default().handle_bytes(buf)
}

/// The end of the head in `buf`: after its empty line, or after the first line that does not end
/// in CRLF, where the head can only be refused. The first `searched` bytes hold no end.
pub fn find_head_end(buf: &[u8], searched: usize) -> Option<usize> {
    let unsearched = buf.get(searched..)?;
    memchr_iter(b'\n', unsearched)
        .map(|found| searched + found + 1)
        .find(|end| !buf[..*end].ends_with(b"\r\n") || buf[..*end].ends_with(b"\r\n\r\n"))
}

/// A request's head, owning its bytes, at most `HEAD_BYTES_MAX` of them. Whatever is here was
/// checked: one valid `Host`, one framing, no header twice that has one value.
pub struct RequestHead {
    text: Box<str>,
    fields: Box<[Field]>,
    method: Method,
    path: Span,
    query: Span,
    host: Span,
    framing: BodyFraming,
    coding: ContentCoding,
    is_http_1_0: bool,
    is_keep_alive: bool,
    expects_continue: bool,
}

impl RequestHead {
    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The target's path as sent, not decoded: `/…`, or `*` of `OPTIONS *`.
    pub fn path(&self) -> &str {
        self.slice(self.path)
    }

    /// The raw query, without `?`; empty where there is none. May hold a token: never to be logged.
    pub fn query(&self) -> &str {
        self.slice(self.query)
    }

    /// The decoded pairs of the query.
    pub fn query_pairs(
        &self,
    ) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        query_pairs(self.query())
    }

    /// `Host`, valid; empty only in HTTP/1.0.
    pub fn host(&self) -> &str {
        self.slice(self.host)
    }

    /// The first value of the header `name` (any case), trimmed.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_values(name).next()
    }

    /// The values of all headers `name` (any case), trimmed, in order.
    pub fn header_values<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        let is_named = move |field: &&Field| self.slice(field.name).eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(is_named)
            .map(|field| self.slice(field.value))
    }

    /// How the body is delimited.
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// How the body is coded.
    pub fn content_coding(&self) -> ContentCoding {
        self.coding
    }

    /// Whether the request is of HTTP/1.0.
    pub fn is_http_1_0(&self) -> bool {
        self.is_http_1_0
    }

    /// Whether the peer wants to send more requests after this one.
    pub fn is_keep_alive(&self) -> bool {
        self.is_keep_alive
    }

    /// Whether the peer waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Reads a whole head, empty line included. `head` is at most `HEAD_BYTES_MAX` long.
    fn parse(head: &[u8]) -> Result<Self, HttpError> {
        // One empty line before a request is forgiven: RFC 9112 §2.2.
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        if !head.ends_with(b"\r\n\r\n") {
            return Err(HttpError::Syntax);
        }
        let text = std::str::from_utf8(head).map_err(|_| HttpError::Syntax)?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
            Ok(httparse::Status::Partial) | Err(_) => return Err(HttpError::Syntax),
        }
        let (Some(method), Some(target), Some(version)) =
            (request.method, request.path, request.version)
        else {
            return Err(HttpError::Syntax);
        };
        let fields = request
            .headers
            .iter()
            .map(|header| Field::within(text, header))
            .collect();
        Self::from_parts(
            text.into(),
            fields,
            method.into(),
            span_within(text, target),
            version == 0,
        )
    }

    fn from_parts(
        text: Box<str>,
        fields: Box<[Field]>,
        method: Method,
        target: Span,
        is_http_1_0: bool,
    ) -> Result<Self, HttpError> {
        let mut head = Self {
            text,
            fields,
            method,
            path: target,
            query: Span::default(),
            host: Span::default(),
            framing: BodyFraming::None,
            coding: ContentCoding::Identity,
            is_http_1_0,
            is_keep_alive: false,
            expects_continue: false,
        };
        head.check_duplicates()?;
        head.host = head.read_host()?;
        (head.path, head.query) = head.read_target(target)?;
        head.framing = head.read_framing()?;
        head.coding = head.read_coding()?;
        head.is_keep_alive = head.read_keep_alive();
        head.expects_continue = head.read_expectation()?;
        Ok(head)
    }

    fn check_duplicates(&self) -> Result<(), HttpError> {
        match SINGLE_HEADERS
            .iter()
            .find(|name| self.header_values(name).nth(1).is_some())
        {
            Some(name) => Err(HttpError::Duplicate(name)),
            None => Ok(()),
        }
    }

    fn read_host(&self) -> Result<Span, HttpError> {
        match self.header("host") {
            Some(host) if Authority::parse(host).is_some() => Ok(span_within(&self.text, host)),
            None if self.is_http_1_0 => Ok(Span::default()),
            _ => Err(HttpError::Host),
        }
    }

    /// Splits the target into path and query. Source: RFC 9112 §3.2.
    fn read_target(&self, target: Span) -> Result<(Span, Span), HttpError> {
        let target = self.slice(target);
        if !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        {
            return Err(HttpError::Target);
        }
        if target == "*" && self.method == Method::Options {
            return Ok((span_within(&self.text, target), Span::default()));
        }
        let local = if target.starts_with('/') {
            target
        } else {
            self.local_target(target)?
        };
        let (path, query) = local.split_once('?').unwrap_or((local, ""));
        Ok((
            span_within(&self.text, path),
            span_within(&self.text, query),
        ))
    }

    /// Path and query of an absolute target, whose authority must be what `Host` says.
    fn local_target<'a>(&self, target: &'a str) -> Result<&'a str, HttpError> {
        let (scheme, rest) = target.split_once("://").ok_or(HttpError::Target)?;
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return Err(HttpError::Target),
        };
        // Without a path there is no `/` in the text to point at. RFC 9112 §3.2.2 has clients send
        // one; those that do not are refused.
        let path_start = rest.find('/').ok_or(HttpError::Target)?;
        let (authority, local) = rest.split_at(path_start);
        let authority = Authority::parse(authority).ok_or(HttpError::Target)?;
        let host = Authority::parse(self.host()).ok_or(HttpError::Host)?;
        if !authority.is_same(&host, default_port) {
            return Err(HttpError::Host);
        }
        Ok(local)
    }

    /// Source: RFC 9112 §6; rows A1.
    fn read_framing(&self) -> Result<BodyFraming, HttpError> {
        let framing = match (
            self.header("transfer-encoding"),
            self.header("content-length"),
        ) {
            (None, None) => return Ok(BodyFraming::None),
            (Some(_), Some(_)) => return Err(HttpError::LengthAndChunked),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") && !self.is_http_1_0 => {
                BodyFraming::Chunked
            }
            (Some(_), None) => return Err(HttpError::TransferEncoding),
            (None, Some(length)) => BodyFraming::Length(parse_length(length)?),
        };
        if self.method.is_bodyless() && framing != BodyFraming::Length(0) {
            return Err(HttpError::BodyOnMethod);
        }
        Ok(framing)
    }

    fn read_coding(&self) -> Result<ContentCoding, HttpError> {
        match self.header("content-encoding") {
            None => Ok(ContentCoding::Identity),
            Some(coding) if coding.eq_ignore_ascii_case("identity") => Ok(ContentCoding::Identity),
            Some(coding) if coding.eq_ignore_ascii_case("gzip") => Ok(ContentCoding::Gzip),
            Some(coding) if coding.eq_ignore_ascii_case("x-gzip") => Ok(ContentCoding::Gzip),
            Some(_) => Err(HttpError::ContentCoding),
        }
    }

    fn read_keep_alive(&self) -> bool {
        let has_option = |name: &str| {
            list_elements(self.header_values("connection"))
                .any(|option| option.eq_ignore_ascii_case(name))
        };
        !has_option("close") && (!self.is_http_1_0 || has_option("keep-alive"))
    }

    fn read_expectation(&self) -> Result<bool, HttpError> {
        match self.header("expect") {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("100-continue") => Ok(!self.is_http_1_0),
            Some(_) => Err(HttpError::Expectation),
        }
    }

    fn slice(&self, span: Span) -> &str {
        &self.text[Range::from(span)]
    }
}

/// Without query, header values and host: they may hold tokens.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

/// A place in the head's text. Two bytes a bound are enough for a head.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    end: u16,
}

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        usize::from(span.start)..usize::from(span.end)
    }
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    value: Span,
}

impl Field {
    fn within(text: &str, header: &httparse::Header<'_>) -> Self {
        // All of the text is UTF-8 and headers end at ASCII, so the value cannot but be UTF-8.
        let value = trim(std::str::from_utf8(header.value).unwrap_or_default());
        Self {
            name: span_within(text, header.name),
            value: span_within(text, value),
        }
    }
}

/// Where `part`, a slice of `text`, stands in it.
fn span_within(text: &str, part: &str) -> Span {
    if part.is_empty() {
        return Span::default();
    }
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    Span {
        start: start as u16,
        end: (start + part.len()) as u16,
    }
}

/// Digits only: no sign, no list, nothing that another server might read as another number.
fn parse_length(text: &str) -> Result<u64, HttpError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HttpError::ContentLength);
    }
    match text.parse::<u64>() {
        Ok(length) if length <= i64::MAX as u64 => Ok(length),
        _ => Err(HttpError::ContentLength),
    }
}

/// Headers that have one value: given twice, two readers might believe two different ones.
const SINGLE_HEADERS: [&str; 10] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Content-Type",
    "Content-Encoding",
    "Authorization",
    "Origin",
    "Expect",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
];

#[cfg(test)]
mod tests;
