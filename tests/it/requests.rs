//! HTTP on a connection that is kept: answers come in order, bodies are bounded. What is refused and
//! ends it is in `raw_table`, cuts are in `cuts`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Http, RawSocket, Server, request};

const EVENT: &str = r#"{"event_type":"x","user_id":"alice"}"#;

#[test]
fn a_head_may_be_as_large_as_its_bounds() {
    let server = Server::start("");
    let check = |headers: &str| {
        let head = format!("GET /livez HTTP/1.1\r\nHost: g\r\n{headers}\r\n");
        let mut http = server.http();
        http.send(head.as_bytes());
        assert_eq!(http.receive().status, 200, "{} bytes", head.len());
    };
    check(&format!("X: {}\r\n", "a".repeat(8_000)));
    check(&(0..63).map(|n| format!("X{n}: y\r\n")).collect::<String>());
}

#[test]
fn a_head_without_end_is_refused_as_soon_as_it_is_too_long() {
    let server = Server::start("");
    let mut http = server.http();
    http.send(format!("GET /{} ", "a".repeat(9_000)).as_bytes());
    assert_eq!(http.receive().refusal(), (431, "HEAD_TOO_LARGE".into()));
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let good = [("Authorization", bearer.as_str())];
    let mut bytes = Vec::new();
    for round in 0..30 {
        let events = format!("[{}]", vec![EVENT; round + 1].join(","));
        bytes.extend(request("POST", "/v1/events", &good, events.as_bytes()));
        bytes.extend(request("GET", "/livez", &[], b""));
        bytes.extend(request("POST", "/v1/events", &[], EVENT.as_bytes()));
        bytes.extend(request("HEAD", "/livez", &[], b""));
        bytes.extend(request("POST", "/v1/nowhere", &good, b"ignored"));
    }
    let mut http = server.http();
    http.send(&bytes);
    for round in 0..30 {
        assert_eq!(http.receive().json()["accepted"], round + 1);
        assert_eq!(http.receive().text(), "ok\n");
        let refused = http.receive();
        assert_eq!(refused.refusal(), (401, "TOKEN_MISSING".into()));
        assert_eq!(refused.header("connection"), Some("keep-alive"));
        assert_eq!(http.receive_to("HEAD").header("content-length"), Some("3"));
        assert_eq!(http.receive().refusal(), (404, "NOT_FOUND".into()));
    }
}

#[test]
fn one_connection_may_publish_for_users_of_every_core() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let post = |user: &str| {
        let token = crate::harness::Token::of(user, &[]);
        let token = server.mint(&token.with(&[sightline::auth::Permission::Publish]));
        let body = format!(r#"{{"event_type":"x","user_id":"{user}"}}"#);
        let bearer = format!("Bearer {token}");
        request(
            "POST",
            "/v1/events",
            &[("Authorization", &bearer)],
            body.as_bytes(),
        )
    };
    let (one, two) = (post(&here), post(&there));
    let livez = request("GET", "/livez", &[], b"");
    let mut http = server.http();
    http.send(
        &[&one[..], &two, &livez, &two, &one, &livez]
            .concat()
            .repeat(20),
    );
    for _ in 0..20 {
        for is_post in [true, true, false, true, true, false] {
            let answer = http.receive();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.text() == "ok\n", !is_post);
        }
    }
}

#[test]
fn who_ends_its_half_still_gets_the_answers() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [("Authorization", bearer.as_str())];
    let post = request("POST", "/v1/events", &headers, EVENT.as_bytes());
    let livez = request("GET", "/livez", &[], b"");
    for _ in 0..20 {
        let mut socket = RawSocket::connect(&server);
        socket.send(&[&livez[..], &post, &livez].concat());
        socket.finish();
        for length in [3, 43, 3] {
            assert_eq!(socket.read_head().status, 200);
            socket.take(length);
        }
        assert_eq!(socket.next(), None);
    }
}

#[test]
fn many_answers_wait_for_a_client_that_reads_late() {
    let server = Server::start("");
    let admin = format!("Bearer {}", server.admin_token());
    let headers = [("Authorization", admin.as_str())];
    let bytes = request("GET", "/metrics", &headers, b"").repeat(200);
    let mut http = server.http();
    let mut writer = http.writer();
    let sender = std::thread::spawn(move || writer.write_all(&bytes).unwrap());
    for _ in 0..200 {
        assert_eq!(http.receive().status, 200);
    }
    sender.join().unwrap();
}

#[test]
fn a_connection_ends_where_the_client_asks_for_it() {
    let server = Server::start("");
    let check = |head: &str, is_kept: bool| {
        let mut http = server.http();
        http.send(format!("{head}\r\n\r\n").as_bytes());
        let answer = http.receive();
        assert_eq!(answer.status, 200, "{head}");
        let connection = if is_kept { "keep-alive" } else { "close" };
        assert_eq!(answer.header("connection"), Some(connection), "{head}");
        if is_kept {
            http.send(&request("GET", "/livez", &[], b""));
            assert_eq!(http.receive().status, 200, "{head}");
        } else {
            assert!(http.is_over(), "{head}");
        }
    };
    check("GET /livez HTTP/1.1\r\nHost: g", true);
    check("GET /livez HTTP/1.1\r\nHost: g\r\nConnection: close", false);
    check("GET /livez HTTP/1.0", false);
    check("GET /livez HTTP/1.0\r\nConnection: keep-alive", true);
    check("GET http://g/livez HTTP/1.1\r\nHost: g", true);
    check("\r\nGET /livez HTTP/1.1\r\nHost: g", true);
}

#[test]
fn a_body_that_waits_is_asked_for() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let length = EVENT.len().to_string();
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Expect", "100-continue"),
        ("Content-Length", length.as_str()),
    ];
    let mut http = server.http();
    for _ in 0..2 {
        http.send(&request("POST", "/v1/events", &headers, b""));
        assert_eq!(http.receive().status, 100);
        http.send(EVENT.as_bytes());
        assert_eq!(http.receive().json()["accepted"], 1);
    }
    // What is refused whatever its body is need not be sent.
    http.send(&request("POST", "/v1/events", &headers[1..], b""));
    let answer = http.receive();
    assert_eq!(answer.refusal(), (401, "TOKEN_MISSING".into()));
    assert!(http.is_over());
}

#[test]
fn bodies_are_bounded_and_decoded() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let all = [&[("Authorization", bearer.as_str())], headers].concat();
        let mut http = server.http();
        http.send(&request("POST", "/v1/events", &all, body));
        http.receive()
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let gzipped = ("Content-Encoding", "gzip");
    let accepted = |answer: crate::harness::Answer| answer.json()["accepted"].clone();
    assert_eq!(accepted(post(&[gzipped], &gzip(EVENT.as_bytes()))), 1);
    let two = [gzip(EVENT.as_bytes()), gzip(b"\n"), gzip(EVENT.as_bytes())].concat();
    let lines = ("Content-Type", "application/x-ndjson; charset=utf-8");
    assert_eq!(accepted(post(&[gzipped, lines], &two)), 2);

    let too_large = (413, "BODY_TOO_LARGE".to_string());
    let spaces = vec![b' '; 8 * 1024 * 1024 + 1];
    // Members of one gzip, each of which inflates to 1 MiB.
    let bomb = gzip(&spaces[..1024 * 1024]).repeat(9);
    assert_eq!(post(&[], &spaces).refusal(), too_large);
    assert_eq!(post(&[gzipped], &bomb).refusal(), too_large);
    let chunk = [format!("{:x}\r\n", spaces.len()).as_bytes(), &spaces].concat();
    assert_eq!(
        post(&[("Transfer-Encoding", "chunked")], &chunk).refusal(),
        too_large
    );
    // Right at the limit it is a body like others.
    let mut full = EVENT.as_bytes().to_vec();
    full.resize(8 * 1024 * 1024, b'\n');
    assert_eq!(accepted(post(&[lines], &full)), 1);

    let cut = &gzip(EVENT.as_bytes())[..20];
    assert_eq!(
        post(&[gzipped], cut).status,
        400,
        "gzip that ends too early"
    );
    assert_eq!(post(&[gzipped], EVENT.as_bytes()).status, 400, "not gzip");
    let unsupported = (415, "UNSUPPORTED_MEDIA_TYPE".to_string());
    assert_eq!(
        post(&[("Content-Encoding", "br")], b"x").refusal(),
        unsupported
    );
    for media_type in ["text/plain", "application/json+x", ""] {
        let answer = post(&[("Content-Type", media_type)], EVENT.as_bytes());
        assert_eq!(answer.refusal(), unsupported, "{media_type}");
        assert_eq!(answer.header("connection"), Some("keep-alive"));
    }
}

#[test]
fn a_large_body_does_not_wait_for_anything() {
    // On one core nothing else happens that could wake it.
    let server = Server::with(&crate::harness::Setup {
        cores: 1,
        ..Default::default()
    });
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let body = format!("{EVENT}\n").repeat(60_000);
    let mut http = Http::connect(server.address());
    http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
    assert_eq!(http.receive().json()["accepted"], 60_000);
}
