//! HTTP as strict as a gateway behind proxies must be: what is ambiguous is refused and ends the
//! connection, a cut anywhere changes nothing, answers come in order.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Http, RawSocket, Server, request, text_frame, upgrade_request};

const EVENT: &str = r#"{"event_type":"x","user_id":"alice"}"#;

/// Sends `bytes` and expects this refusal, and then the end: nothing of it is a second request.
fn check_malformed(server: &Server, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]);
    let mut http = server.http();
    http.send(bytes);
    let answer = http.receive();
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    answer.refusal();
    assert_eq!(answer.header("connection"), Some("close"), "{shown}");
    assert!(http.is_over(), "{shown}: something more was answered");
}

#[test]
fn what_two_servers_could_read_differently_is_refused() {
    let server = Server::start("");
    let token = server.publisher_token();
    let check = |head: &str| {
        let head = head.replace("HOST", &format!("Host: g\r\nAuthorization: Bearer {token}"));
        // Behind it stands what must not be taken for a request.
        let bytes = format!("{head}\r\n\r\nGET /livez HTTP/1.1\r\nHost: g\r\n\r\n");
        check_malformed(&server, bytes.as_bytes(), 400);
    };
    let post = "POST /v1/events HTTP/1.1\r\nHOST";
    // A1: how long is the body?
    check(&format!(
        "{post}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"
    ));
    check(&format!("{post}\r\nContent-Length: 5\r\nContent-Length: 6"));
    check(&format!("{post}\r\nContent-Length: 5\r\nContent-Length: 5"));
    for length in ["+5", "5,5", "-1", "0x5", "", "5 5", "99999999999999999999"] {
        check(&format!("{post}\r\nContent-Length: {length}"));
    }
    for coding in [
        "chunked, identity",
        "gzip, chunked",
        "xchunked",
        "chunked\r\nTE: a, b\x0b",
    ] {
        check(&format!("{post}\r\nTransfer-Encoding: {coding}"));
    }
    check(&format!(
        "{post}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked"
    ));
    check("POST /v1/events HTTP/1.0\r\nHOST\r\nTransfer-Encoding: chunked");
    check("GET /livez HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked");
    check("GET /livez HTTP/1.1\r\nHOST\r\nContent-Length: 3");
    for chunks in [
        "x\r\n",
        "5;\nabcde\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "3\r\nabcX",
    ] {
        let coding = "Transfer-Encoding: chunked\r\nContent-Type: application/json";
        check(&format!("{post}\r\n{coding}\r\n\r\n{chunks}"));
    }
    // A2: where does a line end, and whose request is it?
    check("GET /livez HTTP/1.1\nHOST");
    check("GET /livez HTTP/1.1\r\nHOST\r\n folded: x");
    check("GET /livez HTTP/1.1\r\nHOST\r\nX : y");
    check("GET /livez HTTP/1.1\r\nHOST\r\nX: a\x00b");
    check("GET /livez HTTP/1.1\r\nHOST\r\nX: a\rb");
    check("GET /livez HTTP/1.1\r\nHOST\r\nHost: other");
    check("GET /livez HTTP/1.1\r\nHOST\r\nAuthorization: Bearer b");
    check("GET /livez HTTP/1.1\r\nX: no host");
    check("GET /livez HTTP/1.1\r\nHost: a b");
    check("GET http://other/livez HTTP/1.1\r\nHOST");
    check("GET ftp://g/livez HTTP/1.1\r\nHOST");
    check("GET livez HTTP/1.1\r\nHOST");
    check("GET /li\u{e9}vez HTTP/1.1\r\nHOST");
    check("GET /livez HTTP/2.0\r\nHOST");
    check("GET /livez\r\nHOST");
    check("GET  /livez HTTP/1.1\r\nHOST");
    check("G\x01T /livez HTTP/1.1\r\nHOST");
    check(" GET /livez HTTP/1.1\r\nHOST");
    check("\x16\x03\x01\x02\x00\x01");
    check("GET /livez HTTP/1.1\r\nHOST\r\nExpect: a miracle");
}

#[test]
fn a_head_is_bounded() {
    let server = Server::start("");
    let check = |extra: &str, status: u16| {
        let head = format!("GET /livez HTTP/1.1\r\nHost: g\r\n{extra}\r\n");
        if status == 200 {
            let mut http = server.http();
            http.send(head.as_bytes());
            assert_eq!(http.receive().status, 200, "{} bytes", head.len());
        } else {
            check_malformed(&server, head.as_bytes(), status);
        }
    };
    check(&format!("X: {}\r\n", "a".repeat(8_000)), 200);
    check(&format!("X: {}\r\n", "a".repeat(8_192)), 431);
    check(&format!("X: {}\r\n", "a".repeat(64 * 1024)), 431);
    check(
        &(0..63).map(|n| format!("X{n}: y\r\n")).collect::<String>(),
        200,
    );
    check(
        &(0..64).map(|n| format!("X{n}: y\r\n")).collect::<String>(),
        431,
    );
    // Not even finished: it is refused as soon as it is too long.
    let mut http = server.http();
    http.send(format!("GET /{} ", "a".repeat(9_000)).as_bytes());
    assert_eq!(http.receive().refusal(), (431, "HEAD_TOO_LARGE".into()));
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let all = [&[("Authorization", bearer.as_str())], headers].concat();
        request("POST", "/v1/events", &all, body)
    };
    let length = request(
        "POST",
        "/v1/events",
        &[("Authorization", "Bearer x")],
        b"{}",
    );
    let chunks = format!(
        "5\r\n{}\r\n1f;ext=\"a\"\r\n{}\r\n0\r\nT: u\r\n\r\n",
        &EVENT[..5],
        &EVENT[5..]
    );
    let chunked = post(&[("Transfer-Encoding", "chunked")], chunks.as_bytes());
    let (event, livez) = (EVENT.as_bytes(), request("GET", "/livez", &[], b""));
    let malformed = b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec();
    for (name, bytes, statuses) in [
        ("length", post(&[], event), &[200][..]),
        ("chunked", chunked, &[200]),
        ("refused", length, &[401]),
        (
            "two",
            [livez.clone(), post(&[], event)].concat(),
            &[200, 200],
        ),
        ("malformed", malformed, &[400]),
    ] {
        // The token is no place of interest, and there are many bytes of it.
        let token_at = bytes.windows(7).position(|seven| seven == b"Bearer ");
        let skipped = token_at.map_or(0..0, |at| at + 10..at + bearer.len() - 3);
        for cut in (1..bytes.len()).filter(|cut| !skipped.contains(cut)) {
            let mut http = server.http();
            http.send(&bytes[..cut]);
            http.send(&bytes[cut..]);
            for status in statuses {
                let answer = http.receive();
                assert_eq!(
                    answer.status,
                    *status,
                    "{name} cut at {cut}: {}",
                    answer.text()
                );
            }
        }
    }
}

#[test]
fn an_upgrade_and_its_first_frame_may_be_cut_anywhere() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let upgrade = upgrade_request("/observatory", &token);
    let bytes = [&upgrade[..], &text_frame(r#"{"type":"ping","id":7}"#)].concat();
    let cuts = (1..40).chain(upgrade.len() - 8..bytes.len());
    for cut in cuts {
        let mut socket = RawSocket::connect(&server);
        socket.send(&bytes[..cut]);
        socket.send(&bytes[cut..]);
        assert_eq!(socket.read_head().status, 101, "cut at {cut}");
        let greeting = socket.next_answer();
        assert!(
            greeting.text().contains("connection_established"),
            "cut at {cut}"
        );
        let pong = socket.next_answer();
        assert!(
            pong.text().contains(r#""id":7"#),
            "cut at {cut}: {}",
            pong.text()
        );
    }
}

#[test]
fn a_request_of_single_bytes_is_answered() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [("Authorization", bearer.as_str())];
    let mut http = server.http();
    for byte in request("POST", "/v1/events", &headers, EVENT.as_bytes()) {
        http.send(&[byte]);
    }
    assert_eq!(http.receive().json()["accepted"], 1);
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
