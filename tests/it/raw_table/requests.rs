//! Rows of RFC 9110 and 9112, and of the upgrade: what two servers could read differently, and what
//! is more than a request may hold.

use super::{Ending, Row};

const BAD: Ending = Ending::Refusal(400, "BAD_REQUEST");
const TOO_LARGE: Ending = Ending::Refusal(431, "HEAD_TOO_LARGE");

/// A head, without its empty line. `HOST` stands for a good `Host` and the token of a publisher, so
/// that nothing is refused but what the row is about.
fn row(what: impl Into<String>, head: &str, ending: Ending) -> Row {
    Row {
        what: what.into(),
        bytes: format!("{head}\r\n\r\n").into_bytes(),
        ending,
    }
}

pub(super) fn rows(token: &str) -> Vec<Row> {
    let parts = [lengths(), chunks(), lines(), hosts(), upgrades(), bounds()];
    let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
    for row in &mut rows {
        let text = std::str::from_utf8(&row.bytes).unwrap();
        let host = format!("Host: g\r\nAuthorization: Bearer {token}");
        row.bytes = text.replace("HOST", &host).into_bytes();
    }
    rows
}

/// RFC 9112 §6: how long is the body?
fn lengths() -> Vec<Row> {
    let post = |headers: &str| {
        let head = format!("POST /v1/events HTTP/1.1\r\nHOST\r\n{headers}");
        row(headers.replace("\r\n", " and "), &head, BAD)
    };
    let lengths = [
        "+5",
        "5,5",
        "-1",
        "0x5",
        "",
        "5 5",
        "5;",
        "1e1",
        "99999999999999999999",
    ];
    let codings = [
        "chunked, identity",
        "gzip, chunked",
        "xchunked",
        "identity",
        "",
        "chunked,",
    ];
    let mut rows: Vec<Row> = lengths
        .map(|length| post(&format!("Content-Length: {length}")))
        .into();
    rows.extend(codings.map(|coding| post(&format!("Transfer-Encoding: {coding}"))));
    rows.extend([
        post("Content-Length: 5\r\nTransfer-Encoding: chunked"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        post("Content-Length: 5\r\nContent-Length: 6"),
        post("Content-Length: 5\r\nContent-Length: 5"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        post("Transfer-Encoding: chunked\r\nTE: a, b\x0b"),
        post("Expect: a miracle"),
        row(
            "chunked in HTTP/1.0",
            "POST /v1/events HTTP/1.0\r\nHOST\r\nTransfer-Encoding: chunked",
            BAD,
        ),
        row(
            "a chunked GET",
            "GET /livez HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked",
            BAD,
        ),
        row(
            "a GET with a body",
            "GET /livez HTTP/1.1\r\nHOST\r\nContent-Length: 3",
            BAD,
        ),
    ]);
    rows
}

/// RFC 9112 §7.1: where does a chunk end?
fn chunks() -> Vec<Row> {
    let chunked = |chunks: &str| Row {
        bytes: format!(
            "POST /v1/events HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        )
        .into_bytes(),
        ..row(format!("chunks {chunks:?}"), "", BAD)
    };
    [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\nx\r\n",
        "1 \r\nx\r\n",
        "5;\nabcde\r\n",
        "1\nx\n",
        "fffffffffffffffff\r\n",
        "3\r\nabcX",
        "3\r\nabc\n0\n\n",
        "0\r\nno trailer\r\n\r\n",
    ]
    .map(chunked)
    .into()
}

/// RFC 9112 §2 to §5: where does a line end, and what may it hold?
fn lines() -> Vec<Row> {
    [
        "GET /livez HTTP/1.1\nHOST",
        "GET /livez HTTP/1.1\rHOST",
        "GET /livez HTTP/1.1\r\nHOST\nX: y",
        "GET /livez HTTP/1.1\r\nHOST\r\n folded: x",
        "GET /livez HTTP/1.1\r\n X: y\r\nHOST",
        "GET /livez HTTP/1.1\r\nHOST\r\nX : y",
        "GET /livez HTTP/1.1\r\nHOST\r\n: y",
        "GET /livez HTTP/1.1\r\nHOST\r\nX",
        "GET /livez HTTP/1.1\r\nHOST\r\nX\u{e9}: y",
        "GET /livez HTTP/1.1\r\nHOST\r\nX: a\0b",
        "GET /livez HTTP/1.1\r\nHOST\r\nX: a\rb",
        "GET /livez HTTP/1.1\r\nHOST\r\nX: a\x7fb",
        "GET /li\u{e9}vez HTTP/1.1\r\nHOST",
        "GET /livez HTTP/2.0\r\nHOST",
        "GET /livez HTTP/1.12\r\nHOST",
        "GET /livez http/1.1\r\nHOST",
        "GET /livez\r\nHOST",
        "GET  /livez HTTP/1.1\r\nHOST",
        "GET /livez  HTTP/1.1\r\nHOST",
        "GET\t/livez\tHTTP/1.1\r\nHOST",
        "G\x01T /livez HTTP/1.1\r\nHOST",
        " GET /livez HTTP/1.1\r\nHOST",
        "\0GET /livez HTTP/1.1\r\nHOST",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "\x16\x03\x01\x02\0\x01",
    ]
    .map(|head| row(format!("{head:?}"), head, BAD))
    .into()
}

/// RFC 9112 §3.2: whose request is it? And by whose token?
fn hosts() -> Vec<Row> {
    [
        "GET /livez HTTP/1.1\r\nX: no host",
        "GET /livez HTTP/1.1\r\nHOST\r\nHost: g",
        "GET /livez HTTP/1.1\r\nHOST\r\nHost: other",
        "GET /livez HTTP/1.1\r\nHost:",
        "GET /livez HTTP/1.1\r\nHost: a b",
        "GET /livez HTTP/1.1\r\nHost: a, b",
        "GET /livez HTTP/1.1\r\nHost: a/b",
        "GET /livez HTTP/1.1\r\nHost: user@a",
        "GET http://other/livez HTTP/1.1\r\nHOST",
        "GET ftp://g/livez HTTP/1.1\r\nHOST",
        "GET livez HTTP/1.1\r\nHOST",
        "GET * HTTP/1.1\r\nHOST",
        "GET /livez#part HTTP/1.1\r\nHOST",
        "GET /livez HTTP/1.1\r\nHOST\r\nAuthorization: Bearer b",
        "GET /livez HTTP/1.1\r\nHOST\r\nOrigin: http://g\r\nOrigin: http://g",
    ]
    .map(|head| row(format!("{head:?}"), head, BAD))
    .into()
}

/// RFC 6455 §4.2.1: a proxy in front may believe that it was upgraded, so that nothing behind it may
/// be a request.
fn upgrades() -> Vec<Row> {
    let good = "GET /v1/publish HTTP/1.1\r\nHOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let but = |from: &str, to: &str, ending| {
        assert!(good.contains(from), "{from}");
        let what = format!("an upgrade with {to:?} for {from:?}");
        row(what, &good.replacen(from, to, 1), ending)
    };
    let version = Ending::Refusal(426, "UPGRADE_REQUIRED");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    vec![
        but("GET", "POST", BAD),
        but("GET", "HEAD", BAD),
        but("HTTP/1.1", "HTTP/1.0", BAD),
        but("HOST", "HOST\r\nContent-Length: 5", BAD),
        but("Version: 13", "Version: 8", version),
        but("Version: 13", "Version: 013", version),
        but(
            "Version: 13",
            "Version: 13\r\nSec-WebSocket-Version: 13",
            BAD,
        ),
        but("Connection: Upgrade", "Connection: keep-alive", BAD),
        but("Connection: Upgrade", "Connection: Upgraded", BAD),
        but("Upgrade: websocket", "Upgrade: h2c", BAD),
        but("Upgrade: websocket", "Upgrade: websocket2", BAD),
        but(key, "", BAD),
        but(key, "dGhlIHNhbXBsZQ==", BAD),
        but(key, "dGhlIHNhbXBsZSBub25jZTE=", BAD),
        but(key, "dGhlIHNhbXBsZSBub25jZQ", BAD),
        but(key, "dGhlIHNhbXBsZSBub25j-Q==", BAD),
        but(
            key,
            "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            BAD,
        ),
        but(key, &format!("{key}\r\nSec-WebSocket-Protocol: a b"), BAD),
        but(
            key,
            &format!("{key}\r\nSec-WebSocket-Protocol: bearer.a, bearer.b, sightline.keen.v1"),
            BAD,
        ),
        but(
            key,
            &format!("{key}\r\nOrigin: https://elsewhere.test"),
            Ending::Refusal(403, "ORIGIN_REFUSED"),
        ),
        but("/v1/publish", "/nowhere", Ending::Refusal(404, "NOT_FOUND")),
        but("/v1/publish", "/echo", Ending::Refusal(404, "NOT_FOUND")),
        but(
            "HOST",
            "Host: g\r\nAuthorization: Bearer x",
            Ending::Refusal(401, "TOKEN_INVALID"),
        ),
        but("HOST", "Host: g", Ending::Refusal(401, "TOKEN_MISSING")),
    ]
}

/// How much a head may hold, known before it has ended.
fn bounds() -> Vec<Row> {
    let get = |headers: &str| format!("GET /livez HTTP/1.1\r\nHost: g\r\n{headers}");
    let headers = |count: usize| {
        let lines: Vec<String> = (0..count).map(|n| format!("X{n}: y")).collect();
        lines.join("\r\n")
    };
    vec![
        row(
            "a header of 8 KiB",
            &get(&format!("X: {}", "a".repeat(8_192))),
            TOO_LARGE,
        ),
        row(
            "a header of 64 KiB",
            &get(&format!("X: {}", "a".repeat(65_536))),
            TOO_LARGE,
        ),
        row("65 headers", &get(&headers(64)), TOO_LARGE),
        row("2,000 headers", &get(&headers(2_000)), TOO_LARGE),
        row(
            "a target of 9 KiB",
            &format!("GET /{} ", "a".repeat(9_000)),
            TOO_LARGE,
        ),
        row("a name without end", &"a".repeat(9_000), TOO_LARGE),
    ]
}
