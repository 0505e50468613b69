//! TLS on `listen`: what is spoken and where, and that everything above it is as without.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{
    ALL_VERSIONS, AlertDescription, Error, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
};
use serde_json::{Value, json};

use crate::harness::{
    Http, RawSocket, Server, Setup, Stream, TlsStream, Viewer, close_frame, eventually, kind,
    request, sample, samples, text_frame, upgrade_request,
};

fn server() -> Server {
    Server::with(&Setup {
        tls: true,
        ..Setup::default()
    })
}

fn over(stream: TlsStream) -> Stream {
    Stream::Tls(Box::new(stream))
}

fn event(user: &str, text: &str) -> Value {
    json!({"event_type": "note", "user_id": user, "session_id": "s", "data": {"text": text}})
}

fn livez() -> Vec<u8> {
    request("GET", "/livez", &[], b"")
}

#[test]
fn a_viewer_is_served_in_both_versions() {
    let server = server();
    let versions: [(&'static SupportedProtocolVersion, _); 2] = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, expected) in versions {
        let mut stream = server.connect_tls(&server.tls_client(&[version]));
        stream.flush().unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(expected));
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let token = server.viewer_token("alice", &[]);
        let mut viewer = Viewer::over(over(stream), "/observatory?subscribe=all", &token);
        server.publish(&event("alice", "over TLS"));
        let message = viewer.skip_to("note");
        assert_eq!(message["data"]["text"], "over TLS");
        viewer.close();
    }
    let metrics = server.page("/metrics");
    let old = sample(&metrics, "sightline_tls_handshakes_total{version=\"1.2\"}");
    assert_eq!(old, 1.0);
    assert!(samples(&metrics, "sightline_tls_handshakes_total") > 3.0);
    assert_eq!(sample(&metrics, "sightline_tls_resumptions_total"), 0.0);
}

#[test]
fn a_session_goes_on_at_whichever_core_the_next_connection_meets() {
    let server = server();
    for version in [&TLS12, &TLS13] {
        let mut client = server.tls_client(&[version]);
        client.enable_early_data = true;
        let kinds: Vec<_> = (0..24)
            .map(|_| {
                let mut stream = server.connect_tls(&client);
                stream.flush().unwrap();
                assert!(stream.conn.early_data().is_none());
                stream.write_all(&livez()).unwrap();
                // The ticket for the next one comes with the answer.
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.conn.handshake_kind().unwrap()
            })
            .collect();
        // That the kernel gave all of them to one core does not happen.
        assert_eq!(kinds[0], HandshakeKind::Full);
        assert_eq!(kinds[1..], [HandshakeKind::Resumed; 23]);
    }
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_tls_resumptions_total"), 46.0);
}

#[test]
fn a_connection_moves_to_another_core_with_what_is_behind_its_request() {
    let server = server();
    let [here, there] = server.users_on_two_cores();
    let ping = text_frame(r#"{"type":"ping"}"#);
    let pongs = |socket: &mut RawSocket, count: usize| {
        assert_eq!(socket.read_head().status, 101);
        socket.expect_established();
        for _ in 0..count {
            assert!(socket.next_answer().text().contains("pong"));
        }
        socket.send(&close_frame(1000));
        assert_eq!(socket.next_answer().close_code(), 1000);
    };
    for user in [&here, &there].repeat(4) {
        let upgrade = upgrade_request("/observatory", &server.viewer_token(user, &[]));
        // In the request's own record, and in one of their own in the same segment.
        let mut socket = RawSocket::connect(&server);
        socket.send(&[upgrade.clone(), ping.repeat(3)].concat());
        pongs(&mut socket, 3);
        let mut stream = server.connect_tls(&server.tls_client(ALL_VERSIONS));
        stream.flush().unwrap();
        for record in [&upgrade, &ping.repeat(2), &ping] {
            stream.conn.writer().write_all(record).unwrap();
        }
        stream.flush().unwrap();
        pongs(&mut RawSocket::over(over(stream)), 3);
    }
    let metrics = server.page("/metrics");
    assert!(sample(&metrics, "sightline_connections_adopted_total") > 0.0);
}

#[test]
fn a_large_event_is_posted_again_and_again_on_one_connection() {
    let server = server();
    let token = server.viewer_token("alice", &[]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [("Authorization", bearer.as_str())];
    let body = event("alice", &"z".repeat(1024 * 1024 - 200)).to_string();
    let mut http = server.http();
    for _ in 0..3 {
        http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
        let answer = http.receive();
        assert_eq!(answer.json()["accepted"], 1, "{}", answer.text());
        let message = viewer.skip_to("note");
        let text = message["data"]["text"].as_str().unwrap();
        assert_eq!(text.len(), 1024 * 1024 - 200);
    }
}

#[test]
fn a_drain_ends_with_1001_and_a_goodbye() {
    let mut server = server();
    let open = |user: &str| {
        let token = server.viewer_token(user, &[]);
        RawSocket::open(&server, "/observatory", &token, b"")
    };
    let mut sockets = [open("alice"), open("bob")];
    server.signal("TERM");
    for socket in &mut sockets {
        assert_eq!(socket.close_code(), 1001);
        socket.send(&close_frame(1001));
        // Without `close_notify` this would be an error, not an end.
        assert_eq!(socket.next(), None);
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn who_ends_its_half_gets_the_answers_and_a_goodbye() {
    let server = server();
    for _ in 0..20 {
        let mut socket = RawSocket::connect(&server);
        socket.send(&livez().repeat(3));
        socket.finish();
        for _ in 0..3 {
            assert_eq!(socket.read_head().status, 200);
            socket.take(3);
        }
        assert_eq!(socket.next(), None);
    }
}

#[test]
fn a_slow_viewer_is_closed_with_4008_and_told_how_far_it_got() {
    let server = Server::with(&Setup {
        settings: "limits.outbox_bytes_max = 3145728",
        tls: true,
        ..Setup::default()
    });
    let token = server.viewer_token("alice", &[]);
    let mut slow = RawSocket::open(&server, "/keen", &token, b"");
    slow.expect_established();
    let mut neighbour = Viewer::open(&server, "/keen", &server.viewer_token("bob", &[]));
    let pad = "y".repeat(200_000);
    eventually("it is closed", || {
        server.publish(&json!({"event_type": "x", "user_id": "alice", "data": pad}));
        server.publish(&json!({"event_type": "beside", "user_id": "bob"}));
        assert_eq!(kind(&neighbour.next()), "beside");
        let metrics = server.page("/metrics");
        (sample(&metrics, "sightline_slow_closes_total") == 1.0).then_some(())
    });
    let mut last = 0;
    loop {
        let message: Value = serde_json::from_str(slow.next_answer().text()).unwrap();
        if kind(&message) == "cursor" {
            assert_eq!(message["data"]["streams"], json!({"user": last}));
            break;
        }
        last += 1;
        assert_eq!(message["seq"], last);
    }
    assert!(last > 0);
    assert_eq!(slow.next_answer().close_code(), 4008);
    slow.finish();
    assert_eq!(slow.next(), None);
}

#[test]
fn only_http_1_1_is_negotiated() {
    let server = server();
    let check = |offered: &[&str], expected: Result<Option<&[u8]>, AlertDescription>| {
        let mut client = server.tls_client(ALL_VERSIONS);
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let mut stream = server.connect_tls(&client);
        let outcome = stream.write_all(&livez());
        let outcome = outcome.and_then(|()| stream.read(&mut [0; 4096]));
        let found = match outcome {
            Ok(_) => Ok(stream.conn.alpn_protocol()),
            Err(error) => Err(alert(&error)),
        };
        assert_eq!(found, expected, "{offered:?}");
    };
    check(&[], Ok(None));
    check(&["http/1.1"], Ok(Some(b"http/1.1")));
    check(&["h2", "http/1.1"], Ok(Some(b"http/1.1")));
    check(&["h2"], Err(AlertDescription::NoApplicationProtocol));
    check(&["http/1.0"], Err(AlertDescription::NoApplicationProtocol));
}

/// The alert that ended a connection.
fn alert(error: &std::io::Error) -> AlertDescription {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

#[test]
fn it_is_spoken_on_tcp_and_a_page_over_it_is_of_https() {
    let folder = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", folder.path().join("s.sock").display());
    let server = Server::with(&Setup {
        listen: &["127.0.0.1:0", &unix],
        settings: "ops.listen = '127.0.0.1:0'",
        tls: true,
        ..Setup::default()
    });
    // The others are plain: the unix socket, and that of operators.
    for address in &server.addresses[1..] {
        let mut http = Http::connect(address);
        http.send(&livez());
        assert_eq!(http.receive().status, 200, "{address}");
    }
    for place in 0..3 {
        let line = server.wait_for_log("listening", place);
        assert_eq!(line["tls"], json!(place == 0), "{line}");
    }
    let check = |origin: &str, host: &str, expected: u16| {
        let mut http = server.http();
        let headers = [("Origin", origin), ("Host", host)];
        http.send(&request("GET", "/livez", &headers, b""));
        assert_eq!(http.receive().status, expected, "{origin} on {host}");
    };
    check("https://gw.test", "gw.test", 200);
    check("https://gw.test", "gw.test:443", 200);
    check("https://gw.test:4040", "gw.test:4040", 200);
    check("http://gw.test", "gw.test", 403);
    check("https://gw.test:4041", "gw.test:4040", 403);
}

/// Runs a program of somebody else's. `None`, and a word on it, where there is none.
fn outside(program: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped());
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: {program} is not there");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    Some((output.status.success(), told))
}

#[test]
fn programs_on_openssl_are_served_and_old_versions_refused() {
    let server = server();
    let ca = server.ca_file().display().to_string();
    let port = server.address().rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}/livez");
    for version in ["1.2", "1.3"] {
        let arguments = [
            "-sS",
            "--cacert",
            &ca,
            "--tls-max",
            version,
            "-w",
            "%{http_code}",
        ];
        let Some((is_done, told)) = outside("curl", &[&arguments[..], &[&url]].concat(), "") else {
            break;
        };
        assert!(is_done && told.ends_with("200"), "{version}: {told}");
    }
    let address = server.address();
    let connect = |more: &[&str], input: &str| {
        let arguments = ["s_client", "-connect", address, "-CAfile", &ca];
        outside("openssl", &[&arguments[..], more].concat(), input)
    };
    let strict = ["-verify_return_error", "-servername", "localhost", "-quiet"];
    let asked = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let Some((is_done, told)) = connect(&[&strict[..], &[version]].concat(), asked) else {
            return;
        };
        assert!(
            is_done && told.contains("HTTP/1.1 200"),
            "{version}: {told}"
        );
    }
    // Its lowest level, at which it still speaks them itself.
    for version in ["-tls1", "-tls1_1"] {
        let arguments = [version, "-cipher", "ALL:@SECLEVEL=0"];
        let (is_done, told) = connect(&arguments, "").unwrap();
        assert!(!is_done && told.contains("alert"), "{version}: {told}");
    }
    // A renegotiation (a line with R asks for it) is refused, and the connection ends or goes on.
    let (_, told) = connect(&["-tls1_2"], "R\n").unwrap();
    assert!(told.contains("RENEGOTIATING") && !told.contains("verify return:1\nread R"));
    assert_eq!(server.ask("GET", "/livez", "none", "").status, 200);
}

#[test]
fn clients_share_what_they_were_given() {
    // What the harness promises: a clone of a client resumes the sessions of the first.
    let server = server();
    let client = Arc::new(server.tls_client(ALL_VERSIONS));
    let ask = || {
        let mut http = Http::over(over(server.connect_tls(&client)));
        http.send(&livez());
        assert_eq!(http.receive().status, 200);
    };
    ask();
    ask();
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_tls_resumptions_total"), 1.0);
}
