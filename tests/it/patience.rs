//! How much clients may hold while their requests are under way.

use crate::harness::{Server, eventually, request, sample};

const EVENT: &str = r#"{"event_type":"x","user_id":"alice"}"#;

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
