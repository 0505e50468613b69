//! Section 3 and the refusals of section 4 by curl: what a shell script would send and see.

use std::io::Write;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::harness::{Server, Setup, Viewer, is_here, kinds};

/// What curl printed on its standard output; how it ended.
struct Curled {
    text: String,
    code: i32,
}

/// Runs curl with `body` on its standard input. `None` where the environment says that it is not
/// here.
fn curl(arguments: &[&str], body: &[u8]) -> Option<Curled> {
    if !is_here("curl", "SIGHTLINE_IT_NO_CURL") {
        return None;
    }
    let mut child = Command::new("curl")
        // No configuration of whoever runs the tests, no proxy of the machine.
        .args([
            "--disable",
            "--silent",
            "--max-time",
            "10",
            "--noproxy",
            "*",
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&body));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    Some(Curled {
        text: String::from_utf8(output.stdout).unwrap(),
        code: output.status.code().unwrap(),
    })
}

/// The command line of a POST of standard input, with `more` before its URL.
fn post(server: &Server, more: &[&str]) -> Vec<String> {
    let token = server.publisher_token();
    let mut arguments = vec![
        "--header".to_owned(),
        format!("Authorization: Bearer {token}"),
    ];
    arguments.extend(["--data-binary", "@-"].map(str::to_owned));
    arguments.extend(more.iter().map(|more| (*more).to_owned()));
    arguments.extend(trust(server));
    arguments.push(url(server, "/v1/events"));
    arguments
}

fn url(server: &Server, target: &str) -> String {
    server.url(target).replacen("ws", "http", 1)
}

/// The flags by which curl trusts the server, and nobody else.
fn trust(server: &Server) -> Vec<String> {
    let ca_file = server.ca_file().to_str().unwrap().to_owned();
    let flags = ["--cacert".to_owned(), ca_file];
    flags
        .into_iter()
        .filter(|_| server.authority.is_some())
        .collect()
}

fn with_tls() -> Server {
    Server::with(&Setup {
        tls: true,
        ..Setup::default()
    })
}

fn line(name: &str) -> String {
    format!("{{\"event_type\":\"{name}\",\"user_id\":\"alice\"}}\n")
}

#[test]
fn curl_publishes_in_every_way_that_it_has() {
    publish_in_every_way(&Server::start(""));
}

#[test]
fn curl_publishes_in_every_way_that_it_has_over_tls() {
    publish_in_every_way(&with_tls());
}

fn publish_in_every_way(server: &Server) {
    let mut viewer = Viewer::open(server, "/keen", &server.viewer_token("alice", &[]));
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let lines = "Content-Type: application/x-ndjson";
    let large = json!({"event_type": "large", "user_id": "alice", "data": "y".repeat(900_000)});
    let many = large.to_string() + "\n" + &large.to_string() + "\n";
    let cases: [(&str, &[&str], Vec<u8>, u64); 5] = [
        ("one", &["--json", "@-"], line("one").into(), 1),
        ("lines", &["-H", lines], (line("a") + &line("b")).into(), 2),
        (
            "chunked",
            &["-H", lines, "-H", "Transfer-Encoding: chunked"],
            line("chunked").into(),
            1,
        ),
        (
            "gzip",
            &["-H", lines, "-H", "Content-Encoding: gzip"],
            gzip(&line("gzip")),
            1,
        ),
        // Past a mebibyte curl asks first, with `Expect`.
        ("expect", &["-H", lines], many.into(), 2),
    ];
    for (what, more, body, accepted) in cases {
        let arguments = post(server, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Some(curled) = curl(&arguments, &body) else {
            return;
        };
        assert_eq!(curled.code, 0, "{what}");
        let answer: Value = serde_json::from_str(&curled.text).unwrap();
        assert_eq!(answer["accepted"], accepted, "{what}: {answer}");
    }
    let seen: Vec<_> = (0..7).map(|_| viewer.next()).collect();
    let expected = ["one", "a", "b", "chunked", "gzip", "large", "large"];
    assert_eq!(kinds(&seen), expected);
}

#[test]
fn curl_sends_many_requests_over_one_connection() {
    let server = with_tls();
    let arguments = post(
        &server,
        &["--write-out", " %{num_connects} %{http_version}\n"],
    );
    let again = arguments.iter().map(String::as_str);
    let mut arguments: Vec<&str> = again.clone().collect();
    // Its standard input is spent by the first.
    let event = line("again");
    for _ in 0..2 {
        arguments.push("--next");
        arguments.extend(
            again
                .clone()
                .map(|word| if word == "@-" { &event } else { word }),
        );
    }
    let Some(curled) = curl(&arguments, line("first").as_bytes()) else {
        return;
    };
    let counts: Vec<_> = curled
        .text
        .lines()
        .map(|line| line.split_once("} ").unwrap().1)
        .collect();
    assert_eq!(counts, ["1 1.1", "0 1.1", "0 1.1"], "{}", curled.text);
}

#[test]
fn curl_shows_why_an_upgrade_was_refused() {
    let server = with_tls();
    let (url, trust) = (url(&server, "/keen"), trust(&server));
    let check = |headers: &[&str], status: &str, code: &str| {
        let mut arguments = vec!["--include", "--http1.1", url.as_str()];
        arguments.extend(trust.iter().map(String::as_str));
        arguments.extend(headers.iter().flat_map(|header| ["--header", header]));
        let Some(curled) = curl(&arguments, b"") else {
            return;
        };
        let (head, body) = curled.text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], code, "{head}");
    };
    let upgrade = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    check(&upgrade, "401", "TOKEN_MISSING");
    let bearer = ["Authorization: Bearer x.y.z"];
    check(&[&upgrade[..], &bearer].concat(), "401", "TOKEN_INVALID");
    let token = server.viewer_token("alice", &[]);
    let bearer = format!("Authorization: Bearer {token}");
    let old = upgrade.map(|header| {
        header
            .strip_suffix("13")
            .map_or(header, |_| "Sec-WebSocket-Version: 8")
    });
    check(
        &[&old[..], &[bearer.as_str()]].concat(),
        "426",
        "UPGRADE_REQUIRED",
    );
}

#[test]
fn curl_is_served_over_tls_1_2_and_1_3_and_only_where_it_trusts() {
    let server = with_tls();
    let (url, trust) = (url(&server, "/livez"), trust(&server));
    let trust: Vec<&str> = trust.iter().map(String::as_str).collect();
    let check = |flags: &[&str], trust: &[&str], expected: i32| {
        if let Some(curled) = curl(&[flags, trust, &[&url]].concat(), b"") {
            assert_eq!(
                curled.code, expected,
                "{flags:?} {trust:?}: {}",
                curled.text
            );
        }
    };
    check(&["--fail"], &trust, 0);
    check(&["--fail", "--tlsv1.3"], &trust, 0);
    check(&["--fail", "--tls-max", "1.2"], &trust, 0);
    check(&["--fail"], &[], 60);
}
