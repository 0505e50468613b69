#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Parses `request` whole, by the byte, and cut at each place; all must agree.
fn parse(request: &[u8]) -> Result<Option<(usize, RequestHead)>, HttpError> {
    let whole = parse_head(request);
    let shape = |outcome: &Result<Option<(usize, RequestHead)>, HttpError>| match outcome {
        Ok(Some((consumed, head))) => Ok(Some((*consumed, format!("{head:?}")))),
        Ok(None) => Ok(None),
        Err(error) => Err(*error),
    };
    let parts = |cuts: &mut dyn Iterator<Item = usize>| {
        let mut parser = HeadParser::default();
        let mut found = Ok(None);
        for end in cuts {
            found = parser.handle_bytes(&request[..end]);
            if !matches!(found, Ok(None)) {
                break;
            }
        }
        shape(&found)
    };
    assert_eq!(
        parts(&mut (0..=request.len())),
        shape(&whole),
        "by the byte"
    );
    for cut in 0..request.len().min(600) {
        assert_eq!(
            parts(&mut [cut, request.len()].into_iter()),
            shape(&whole),
            "cut at {cut}"
        );
    }
    whole
}

fn head(request: &str) -> RequestHead {
    let (consumed, head) = parse(request.as_bytes()).unwrap().unwrap();
    assert_eq!(consumed, request.len());
    head
}

fn check_error(request: &str, error: HttpError, status: u16) {
    let found = parse(request.as_bytes()).err();
    assert_eq!(found, Some(error), "{request:?}");
    assert_eq!(error.refusal().status(), status, "{error:?}");
}

/// A GET with `headers` (each with its CRLF) beside its `Host`.
fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

fn post(headers: &str) -> String {
    get(headers).replace("GET", "POST")
}

#[test]
fn a_head_says_what_it_says() {
    let head = head(
        "POST /v1/events?ack=received&x=%20 HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 12\r\n\
         X-One:  1 \r\nx-one:\t2\r\nEmpty:\r\nUser-Agent: caf\u{e9}\r\n\r\n",
    );
    assert_eq!(head.method(), Method::Post);
    assert_eq!(
        (head.path(), head.query()),
        ("/v1/events", "ack=received&x=%20")
    );
    assert_eq!(head.host(), "a.b:80");
    assert_eq!(head.framing(), BodyFraming::Length(12));
    assert_eq!(head.header("CONTENT-LENGTH"), Some("12"));
    assert_eq!(head.header_values("X-ONE").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(head.header("empty"), Some(""));
    assert_eq!(head.header("user-agent"), Some("caf\u{e9}"));
    assert_eq!(head.header("absent"), None);
    assert!(head.is_keep_alive() && !head.is_http_1_0() && !head.expects_continue());
    let pairs: Vec<_> = head
        .query_pairs()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(pairs, ["ack=received", "x= "]);
}

#[test]
fn what_follows_the_head_is_left() {
    let request = [get("").as_bytes(), b"\x81\x80\0\0\0\0"].concat();
    let (consumed, _) = parse(&request).unwrap().unwrap();
    assert_eq!(consumed, get("").len());
}

#[test]
fn one_empty_line_before_a_request_is_forgiven() {
    assert_eq!(head(&format!("\r\n{}", get(""))).path(), "/");
    check_error("\r\n\r\n", HttpError::Syntax, 400);
}

#[test]
fn an_incomplete_head_waits() {
    for incomplete in [
        "",
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "\r\n",
    ] {
        assert!(
            parse(incomplete.as_bytes()).unwrap().is_none(),
            "{incomplete:?}"
        );
    }
}

#[test]
fn malformed_lines_are_refused() {
    for malformed in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\r\n\r\n",
        "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\0",
        "{\"event_type\":1}",
    ] {
        check_error(malformed, HttpError::Syntax, 400);
    }
    let not_utf8 = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n";
    assert_eq!(parse(not_utf8).err(), Some(HttpError::Syntax));
}

#[test]
fn exactly_one_host() {
    check_error("GET / HTTP/1.1\r\n\r\n", HttpError::Host, 400);
    check_error("GET / HTTP/1.1\r\nHost:\r\n\r\n", HttpError::Host, 400);
    check_error("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HttpError::Host, 400);
    check_error("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", HttpError::Host, 400);
    check_error("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", HttpError::Host, 400);
    check_error("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", HttpError::Host, 400);
    check_error(&get("Host: a\r\n"), HttpError::Duplicate("Host"), 400);
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").host(), "");
}

#[test]
fn targets() {
    let check = |target: &str, expected: Result<(&str, &str), HttpError>| {
        let found = parse(format!("GET {target} HTTP/1.1\r\nHost: a:80\r\n\r\n").as_bytes());
        let found = found.map(|head| {
            let (_, head) = head.unwrap();
            (head.path().to_owned(), head.query().to_owned())
        });
        let expected = expected.map(|(path, query)| (path.to_owned(), query.to_owned()));
        assert_eq!(found, expected, "{target}");
    };
    check("/", Ok(("/", "")));
    check("/a/b?c=d?e", Ok(("/a/b", "c=d?e")));
    check("/a?", Ok(("/a", "")));
    check("http://a/b?c", Ok(("/b", "c")));
    check("HTTP://A:80/b", Ok(("/b", "")));
    check("ws://a/b", Ok(("/b", "")));
    check("http://evil/b", Err(HttpError::Host));
    check("http://a:81/b", Err(HttpError::Host));
    check("https://a/b", Err(HttpError::Host));
    check("http://u@a/b", Err(HttpError::Target));
    check("http://a", Err(HttpError::Target));
    check("ftp://a/", Err(HttpError::Target));
    check("a/b", Err(HttpError::Target));
    check("a:80", Err(HttpError::Target));
    check("*", Err(HttpError::Target));
    check("/a#b", Err(HttpError::Target));
    check("/caf\u{e9}", Err(HttpError::Target));
    assert_eq!(head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path(), "*");
    check_error(
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        HttpError::Target,
        400,
    );
}

#[test]
fn headers_of_one_value_are_given_once() {
    for name in SINGLE_HEADERS.iter().filter(|name| **name != "Host") {
        let twice = get(&format!("{name}: 1\r\n{}: 1\r\n", name.to_lowercase()));
        check_error(&twice, HttpError::Duplicate(name), 400);
    }
}

#[test]
fn bodies_have_one_length() {
    let check = |headers: &str, expected: BodyFraming| {
        assert_eq!(head(&post(headers)).framing(), expected, "{headers}");
    };
    check("", BodyFraming::None);
    check("Content-Length: 0\r\n", BodyFraming::Length(0));
    check(
        "Content-Length: 9223372036854775807\r\n",
        BodyFraming::Length(i64::MAX as u64),
    );
    check("Transfer-Encoding: Chunked\r\n", BodyFraming::Chunked);
    for length in [
        "",
        "+5",
        "-1",
        "5,5",
        "5, 5",
        "5 5",
        "0x5",
        "5.0",
        "9223372036854775808",
        "99999999999999999999999",
    ] {
        check_error(
            &post(&format!("Content-Length: {length}\r\n")),
            HttpError::ContentLength,
            400,
        );
    }
    for coding in [
        "",
        "gzip",
        "identity",
        "chunked, identity",
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "chunked;q=1",
    ] {
        let refused = post(&format!("Transfer-Encoding: {coding}\r\n"));
        check_error(&refused, HttpError::TransferEncoding, 400);
    }
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n";
    check_error(&post(both), HttpError::LengthAndChunked, 400);
    check_error(
        &get("Transfer-Encoding: chunked\r\n"),
        HttpError::BodyOnMethod,
        400,
    );
    check_error(&get("Content-Length: 1\r\n"), HttpError::BodyOnMethod, 400);
    assert_eq!(
        head(&get("Content-Length: 0\r\n")).framing(),
        BodyFraming::Length(0)
    );
    let http_1_0 = post("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0");
    check_error(&http_1_0, HttpError::TransferEncoding, 400);
}

#[test]
fn content_codings() {
    assert_eq!(head(&post("")).content_coding(), ContentCoding::Identity);
    assert_eq!(
        head(&post("Content-Encoding: GZIP\r\n")).content_coding(),
        ContentCoding::Gzip
    );
    check_error(
        &post("Content-Encoding: br\r\n"),
        HttpError::ContentCoding,
        415,
    );
    check_error(
        &post("Content-Encoding: gzip, gzip\r\n"),
        HttpError::ContentCoding,
        415,
    );
}

#[test]
fn keep_alive_and_expectations() {
    let check = |request: &str, expected: bool| {
        assert_eq!(head(request).is_keep_alive(), expected, "{request:?}");
    };
    check(&get(""), true);
    check(&get("Connection: Close\r\n"), false);
    check(&get("Connection: x\r\nConnection: y,close\r\n"), false);
    check(&get("").replace("1.1", "1.0"), false);
    check(
        &get("Connection: keep-alive\r\n").replace("1.1", "1.0"),
        true,
    );
    assert!(head(&post("Expect: 100-Continue\r\n")).expects_continue());
    check_error(&post("Expect: more\r\n"), HttpError::Expectation, 400);
}

#[test]
fn large_heads_are_refused_as_soon_as_they_are() {
    let padded = |total: usize| {
        let bare = get("X: \r\n").len();
        get(&format!("X: {}\r\n", "x".repeat(total - bare)))
    };
    assert_eq!(padded(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
    assert!(parse(padded(HEAD_BYTES_MAX).as_bytes()).unwrap().is_some());
    check_error(&padded(HEAD_BYTES_MAX + 1), HttpError::HeadTooLarge, 431);
    check_error(&"x".repeat(HEAD_BYTES_MAX), HttpError::HeadTooLarge, 431);
    assert!(
        parse(get(&"a: b\r\n".repeat(HEADERS_MAX - 1)).as_bytes())
            .unwrap()
            .is_some()
    );
    check_error(
        &get(&"a: b\r\n".repeat(HEADERS_MAX)),
        HttpError::HeadTooLarge,
        431,
    );
}

#[test]
fn a_search_does_not_look_back() {
    let request = get("");
    for searched in 0..request.len() {
        assert_eq!(
            find_head_end(request.as_bytes(), searched),
            Some(request.len())
        );
    }
    assert_eq!(find_head_end(request.as_bytes(), request.len()), None);
    assert_eq!(find_head_end(request.as_bytes(), request.len() + 1), None);
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer_and_the_same_however_cut(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'a')],
            0..120,
        ),
        is_request: bool,
    ) {
        let front = if is_request { &b"POST / HTTP/1.1\r\nHost: a\r\n"[..] } else { b"" };
        let _ = parse(&[front, &bytes, b"\r\n\r\n"].concat());
    }
}

/// Row A4 of the attack table: a head of one-byte packets is searched once, as a whole one is, and
/// parsed once.
#[test]
fn a4_no_byte_of_a_head_is_searched_twice() {
    let lines: String = (0..60)
        .map(|n| format!("X{n}: {}\r\n", "y".repeat(120)))
        .collect();
    let request = get(&lines);
    assert!(request.len() > HEAD_BYTES_MAX * 9 / 10);
    let mut parser = HeadParser::default();
    let mut searched = 0;
    for end in 1..request.len() {
        let before = parser.searched;
        let waiting = parser.handle_bytes(&request.as_bytes()[..end]).unwrap();
        assert!(waiting.is_none(), "nothing is parsed before the end");
        searched += end - before;
        assert_eq!(parser.searched, end);
    }
    assert_eq!(searched, request.len() - 1);
}
