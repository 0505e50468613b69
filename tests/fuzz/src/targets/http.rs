//! The bytes of one HTTP connection: heads and bodies, one after the other.
//!
//! Properties: any cutting gives the same requests and the same refusal; what is held of a body
//! keeps to its bound; a head that is taken is one for a second reader, who reads it line by line
//! and forgives nothing, and he finds the same host and framing; what follows from a head (an
//! upgrade, its answer, the client behind a proxy) can be had of each.

use sightline::event::Dialect;
use sightline::limits::{ADMIN_BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use sightline::wire::handshake::{Endpoints, Upgrade, write_switching_protocols};
use sightline::wire::proxy::Origination;
use sightline::wire::{BodyDecoder, BodyFraming, HeadParser, HttpError, Method, OriginPolicy};
use sightline::wire::{RequestHead, Token};

use crate::Target;
use crate::pieces::pieces;

pub(super) const TARGET: Target = Target {
    name: "http",
    run,
    tokens: TOKENS,
    bytes_max: 10 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "GET ", "POST ", "OPTIONS * ", "HEAD ", "/v1/events", "/ws", "/keen", "/v1/publish",
    "http://h/", "?token=a.b.c", "&refusals=close", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "\r\n",
    "\r\n\r\n", "\n", "\r", "Host: h\r\n", "Content-Length: 5\r\n", "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n",
    "Content-Encoding: gzip\r\n", "Connection: close\r\n", "Connection: Upgrade, keep-alive\r\n",
    "Upgrade: websocket\r\n", "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Sec-WebSocket-Protocol: sightline.keen.v1, bearer.T\r\n", "Authorization: Bearer T\r\n",
    "Origin: http://h\r\n", "Expect: 100-continue\r\n", "X-Forwarded-For: 1.2.3.4, [::1]:5\r\n",
    "X-Forwarded-Host: h\r\n", "X-Forwarded-Proto: https\r\n",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x\r\n",
    "; server_max_window_bits=\"12\"", "; server_no_context_takeover", "/echo", "0\r\n\r\n",
    "5\r\nhello\r\n", ";ext=\"v\"", "Trailer: x\r\n",
];

fn run(input: &[u8]) {
    let mut whole = Connection::default();
    whole.handle_bytes(input);
    let mut cut = Connection::default();
    for piece in pieces(input) {
        cut.handle_bytes(piece);
    }
    assert_eq!(whole.seen, cut.seen, "whole, and cut");
}

/// What a server makes of the bytes of one connection.
#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    parser: HeadParser,
    /// The body that is under way, with what was taken out of it.
    body: Option<(BodyDecoder, Vec<u8>)>,
    seen: Vec<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Body(Vec<u8>),
    Head(String),
    Refused(HttpError),
}

impl Connection {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        if matches!(self.seen.last(), Some(Seen::Refused(_))) {
            return;
        }
        self.received.extend_from_slice(bytes);
        let outcome = loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error,
            }
        };
        self.seen.push(Seen::Refused(outcome));
    }

    /// Goes on by a head or a body. `false`: more bytes are needed.
    fn advance(&mut self) -> Result<bool, HttpError> {
        let Some((decoder, decoded)) = &mut self.body else {
            return self.take_head();
        };
        let (taken, is_done) = decoder.decode(&self.received)?;
        self.received.drain(..taken);
        assert!(decoder.buffered_bytes() <= ADMIN_BODY_BYTES_MAX);
        decoded.extend_from_slice(&decoder.take());
        if is_done {
            let body = std::mem::take(decoded);
            assert!(body.len() <= ADMIN_BODY_BYTES_MAX);
            self.seen.push(Seen::Body(body));
            self.body = None;
        }
        // A next request may wait behind the body, and nothing behind a body that is not done.
        Ok(is_done && !self.received.is_empty())
    }

    fn take_head(&mut self) -> Result<bool, HttpError> {
        let Some((length, head)) = self.parser.handle_bytes(&self.received)? else {
            return Ok(false);
        };
        check_head(&self.received[..length], &head);
        check_uses(&head);
        self.received.drain(..length);
        self.seen.push(Seen::Head(summary(&head)));
        let (framing, coding) = (head.framing(), head.content_coding());
        let decoder = BodyDecoder::new(framing, coding, ADMIN_BODY_BYTES_MAX)?;
        self.body = Some((decoder, Vec::new()));
        Ok(true)
    }
}

fn summary(head: &RequestHead) -> String {
    format!(
        "{:?} {} ? {} @ {} {:?} {:?} {} {} {}",
        head.method(),
        head.path(),
        head.query(),
        head.host(),
        head.framing(),
        head.content_coding(),
        head.is_http_1_0(),
        head.is_keep_alive(),
        head.expects_continue(),
    )
}

/// The second reader.
fn check_head(bytes: &[u8], head: &RequestHead) {
    assert!(bytes.len() <= HEAD_BYTES_MAX);
    let text = std::str::from_utf8(bytes).expect("a head is text");
    let text = text.strip_prefix("\r\n").unwrap_or(text);
    let text = text
        .strip_suffix("\r\n\r\n")
        .expect("a head ends with an empty line");
    let mut lines = text.split("\r\n");
    let request_line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, version] = request_line[..] else {
        panic!("not a request line: {request_line:?}");
    };
    assert!(is_token(method) && !target.is_empty());
    assert_eq!(
        version,
        if head.is_http_1_0() {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        }
    );
    let fields: Vec<(String, &str)> = lines.map(field).collect();
    assert!(fields.len() <= HEADERS_MAX);
    let values = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|field| field.0 == name);
        named.map(|field| field.1).collect()
    };
    match values("host")[..] {
        [host] => assert_eq!(host, head.host()),
        [] => assert!(head.is_http_1_0() && head.host().is_empty()),
        _ => panic!("several hosts"),
    }
    let framing = match (
        &values("content-length")[..],
        &values("transfer-encoding")[..],
    ) {
        ([], []) => BodyFraming::None,
        ([length], []) => BodyFraming::Length(length.parse().expect("a length is a number")),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => BodyFraming::Chunked,
        other => panic!("framed in two ways: {other:?}"),
    };
    assert_eq!(head.framing(), framing);
    for (name, value) in &fields {
        assert!(
            head.header_values(name).any(|found| found == *value),
            "{name}"
        );
    }
}

fn field(line: &str) -> (String, &str) {
    let (name, value) = line.split_once(':').expect("a header has a colon");
    let value = value.trim_matches([' ', '\t']);
    assert!(is_token(name), "{name:?}");
    let is_control = |c: char| (c < ' ' && c != '\t') || c == '\x7f';
    assert!(!value.contains(is_control), "{value:?}");
    (name.to_ascii_lowercase(), value)
}

fn is_token(text: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&b);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// What a server asks of a head.
fn check_uses(head: &RequestHead) {
    assert!(
        head.path().starts_with('/') || (head.path() == "*" && head.method() == Method::Options)
    );
    if let Ok(token) = Token::from_head(head) {
        assert!(!token.as_str().is_empty() && token.as_str().bytes().all(|b| b.is_ascii_graphic()));
    }
    for default_dialect in Dialect::ALL {
        let endpoints = Endpoints {
            default_dialect,
            has_echo: true,
        };
        if let Ok(upgrade) = Upgrade::from_head(head, endpoints) {
            assert!(head.method() == Method::Get && !head.is_http_1_0());
            let mut answer = Vec::new();
            write_switching_protocols(&mut answer, &upgrade);
            let text = String::from_utf8(answer).expect("an answer is text");
            let text = text
                .strip_suffix("\r\n\r\n")
                .expect("an answer ends with an empty line");
            text.split("\r\n")
                .skip(1)
                .for_each(|line| drop(field(line)));
        }
    }
    check_origination(head);
}

fn check_origination(head: &RequestHead) {
    let (near, far) = ([10, 0, 0, 1].into(), [9, 9, 9, 9].into());
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    let stranger = Origination::resolve(head, far, false, &trusted);
    assert_eq!((stranger.client, stranger.is_secure), (far, false));
    assert_eq!(stranger.host, head.host());
    let proxied = Origination::resolve(head, near, false, &trusted);
    let origin = head.header("origin");
    let none = OriginPolicy::default();
    let any = OriginPolicy::new(&["*"], false).expect("a star");
    assert!(any.allows(origin, proxied.host, proxied.is_secure));
    if let Some(origin) =
        origin.filter(|origin| none.allows(Some(origin), proxied.host, proxied.is_secure))
    {
        // Whom nobody allowed by name is of the same host.
        let authority = origin.split_once("://").expect("an origin has a scheme").1;
        let host = |text: &str| {
            text.rsplit_once(':')
                .map_or(text, |parts| parts.0)
                .to_ascii_lowercase()
        };
        assert!(
            host(authority) == host(proxied.host) || authority.eq_ignore_ascii_case(proxied.host)
        );
    }
}
