//! How long a client may take, and how much it may hold meanwhile.

use std::time::{Duration, Instant};

use crate::harness::{Http, RawSocket, Server, eventually, masked, request, sample};

const EVENT: &str = r#"{"event_type":"x","user_id":"alice"}"#;

/// What the contract gives a head, and about what the slowest machine adds.
const HEAD: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(4);

#[test]
fn a_client_that_dawdles_is_let_go() {
    let server = Server::start("");
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Length", "1000"),
    ];
    let patient = || Http::connect_for(server.address(), HEAD + SLACK);
    let (mut silent, mut partial, mut trickling) = (patient(), patient(), patient());
    let begun = Instant::now();
    partial.send(b"GET /livez HTTP/1.1\r\nHost:");
    trickling.send(&request("POST", "/v1/events", &headers, b""));
    trickling.send(b"{");
    let token = server.viewer_token("alice", &[]);
    let mut half = RawSocket::open(&server, "/keen", &token, &masked(0x81, &[b' '; 600])[..300]);
    // One that said something before is given longer between two requests.
    let mut kept = server.http();
    kept.send(&request("GET", "/livez", &[], b""));
    assert_eq!(kept.receive().status, 200);
    assert_eq!(partial.receive().refusal(), (408, "REQUEST_TIMEOUT".into()));
    assert_eq!(
        trickling.receive().refusal(),
        (408, "REQUEST_TIMEOUT".into())
    );
    assert!(silent.is_over() && partial.is_over() && trickling.is_over());
    let took = begun.elapsed();
    assert!(took >= HEAD && took < HEAD + SLACK, "{took:?}");
    assert_eq!(
        half.close_code_within(HEAD),
        1008,
        "a message that does not go on"
    );
    kept.send(&request("GET", "/livez", &[], b""));
    assert_eq!(kept.receive().status, 200);
}

#[test]
fn bodies_in_flight_are_bounded_and_the_first_is_not_the_victim() {
    // A core's share is 4 MiB.
    let server = Server::start("limits.ingest_bytes_in_flight_max = 8388608");
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
        ("Content-Length", "6000000"),
    ];
    let mut body = EVENT.as_bytes().to_vec();
    body.resize(6_000_000, b'\n');
    let (mut first, mut second) = (server.http(), server.http());
    first.send(&request("POST", "/v1/events", &headers, b""));
    first.send(&body[..3_500_000]);
    eventually("the first is read", || {
        let read = sample(&server.page("/metrics"), "sightline_bytes_read_total");
        (read > 3_500_000.0).then_some(())
    });
    second.send(&request("POST", "/v1/events", &headers, b""));
    let mut writer = second.writer();
    let rest = body.clone();
    let writing = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut writer, &rest);
    });
    let refused = second.receive();
    assert_eq!(refused.refusal(), (429, "OVERLOADED".into()));
    assert!(refused.header("retry-after").is_some());
    drop(second);
    writing.join().unwrap();
    first.send(&body[3_500_000..]);
    let answer = first.receive();
    assert_eq!(answer.json()["accepted"], 1, "{}", answer.text());
    first.send(&request("POST", "/v1/events", &headers, &body));
    assert_eq!(first.receive().json()["accepted"], 1, "there is room again");
}
