//! More than one's share: of messages, of filters, of the core.

use serde_json::{Value, json};

use super::{Neighbour, Tally, closes, on_one_core, viewer_errors};
use crate::harness::{Http, RawSocket, Viewer, kind, request, sample, text, text_frame};

#[test]
fn a14_a_flood_of_messages_is_dropped_told_and_ended() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let mut viewer = Viewer::open(&server, "/observatory", &server.viewer_token("alice", &[]));
    for _ in 0..1_001 {
        viewer.say(&json!({"type": "ping"}));
    }
    neighbour.assert_served();
    let (messages, code) = viewer.until_close();
    assert_eq!(code, 4429);
    assert_eq!(messages.len(), 1_000);
    let pongs = messages
        .iter()
        .filter(|message| kind(message) == "pong")
        .count();
    assert!(pongs <= 100, "{pongs} are let through");
    let dropped = 1_000 - pongs as u64;
    tally.assert_grew("viewer_messages_dropped_total", dropped);
    tally.assert_grew(&viewer_errors("RATE_LIMIT_EXCEEDED"), dropped);
    tally.assert_grew(&closes("rate_exceeded"), 1);
    neighbour.assert_undisturbed();
}

#[test]
fn a14_filters_without_end_are_no_more_than_fifty() {
    let server =
        on_one_core("limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let token = server.viewer_token("alice", &["p"]);
    let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
    socket.expect_established();
    // As many as a message holds, all different, and as many messages as a minute allows.
    let mut writer = socket.writer();
    let flood = std::thread::spawn(move || {
        for round in 0..900 {
            let filters: Vec<_> = (0..50).map(|n| json!({"eventTypes": [format!("t{round}.{n}")], "toolNames": ["x", "y", n.to_string()]})).collect();
            let message = json!({"type": "subscribe", "data": {"filters": filters}}).to_string();
            let sent = std::io::Write::write_all(&mut writer, &text_frame(&message));
            if sent.is_err() {
                return;
            }
        }
    });
    let mut answers = Vec::new();
    for round in 0..900 {
        let answer: Value = serde_json::from_str(socket.next_answer().text()).unwrap();
        answers.push(kind(&answer).to_string());
        if round > 0 {
            assert_eq!(text(&answer["data"]["code"]), "TOO_MANY_SUBSCRIPTIONS");
        }
        if round % 300 == 0 {
            neighbour.assert_served();
        }
    }
    flood.join().unwrap();
    assert_eq!(answers[0], "subscription_confirmed");
    tally.assert_grew(&viewer_errors("TOO_MANY_SUBSCRIPTIONS"), 899);
    assert_eq!(tally.growth("subscriptions"), 50);
    // An event is matched with those fifty and not with what was refused.
    server.publish(&json!({"event_type": "t7.7", "project_id": "p", "data": {"tool_name": "x"}}));
    server.publish(&json!({"event_type": "t0.7", "project_id": "p", "data": {"tool_name": "x"}}));
    assert!(socket.next_answer().text().contains(r#""t0.7""#));
    drop(socket);
    neighbour.assert_undisturbed();
    crate::harness::eventually("they are gone with it", || {
        let left = sample(&server.page("/metrics"), "sightline_subscriptions");
        (left == 1.0).then_some(())
    });
}

const EVENTS: u64 = 30_000;
const WATCHERS: usize = 4;

#[test]
fn a32_a_user_that_all_is_about_holds_nobody_up() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let hot = server.viewer_token("hot", &[]);
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let mut viewer = Viewer::open(&server, "/keen", &hot);
            std::thread::spawn(move || {
                let mut seq = 0;
                while seq < EVENTS {
                    let message = viewer.next();
                    if kind(&message) == "x" {
                        seq += 1;
                        assert_eq!(message["seq"], seq);
                    }
                }
            })
        })
        .collect();
    let bearer = format!("Bearer {}", server.publisher_token());
    let address = server.address().to_string();
    let producer = std::thread::spawn(move || {
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-ndjson"),
        ];
        let body = r#"{"event_type":"x","user_id":"hot"}
"#
        .repeat(EVENTS as usize);
        let mut http = Http::connect(&address);
        http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
        assert_eq!(http.receive().json()["accepted"], EVENTS);
    });
    // Ten times in a row at the least, and as long as it lasts, as often as a viewer may ask.
    let mut served = 0;
    while served < 10 || (served < 18 && !producer.is_finished()) {
        neighbour.assert_served();
        served += 1;
    }
    producer.join().unwrap();
    for watcher in watchers {
        watcher.join().unwrap();
    }
    tally.assert_grew("events_accepted_total", EVENTS + served);
    tally.assert_grew("slow_closes_total", 0);
    neighbour.assert_undisturbed();
}
