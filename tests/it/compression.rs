//! permessage-deflate on live connections: what is agreed on, which frames are deflated, what
//! deflated messages of clients do, and that nobody's data reaches another through it.

use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};

use crate::harness::{
    Frame, RawSocket, Server, Setup, Viewer, close_frame, deflate, deflated_frame, eventually,
    masked, sample, text_frame,
};

const PING: &str = r#"{"type":"ping","id":"deflated"}"#;
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const MEBIBYTE: u64 = 1024 * 1024;

fn viewer(server: &Server, user: &str, projects: &[&str]) -> RawSocket {
    let token = server.viewer_token(user, projects);
    let target = "/observatory?subscribe=all";
    let mut socket = RawSocket::open_deflated(server, target, &token);
    socket.expect_established();
    socket
}

/// An event of these bytes of text, always at the same time.
fn event(user: Option<&str>, project: Option<&str>, data: &str) -> Value {
    let mut event = json!({"event_type": "x", "timestamp": 1_800_000_000_000_u64, "data": data});
    for (name, id) in [("user_id", user), ("project_id", project)] {
        if let Some(id) = id {
            event[name] = json!(id);
        }
    }
    event
}

fn data(frame: &Frame) -> String {
    let message: Value = serde_json::from_str(frame.text()).unwrap();
    message["data"].as_str().unwrap().to_string()
}

/// Text in which nothing repeats, of signs that each take more bits than they have.
fn noise(signs: usize) -> String {
    let mut dice = fastrand::Rng::with_seed(7);
    (0..signs)
        .map(|_| dice.char('\u{9000}'..'\u{9fff}'))
        .collect()
}

#[test]
fn a09_offers_of_extensions_are_agreed_on_or_passed_over() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let windowed = |bits: u8| format!("{AGREED}; server_max_window_bits={bits}");
    let check = |offer: &str, expected: Option<&str>| {
        let (mut socket, agreed) = RawSocket::open_offering(&server, "/keen", &token, offer);
        assert_eq!(agreed.as_deref(), expected, "{offer}");
        socket.expect_established();
    };
    check("permessage-deflate; client_max_window_bits", Some(AGREED));
    check(
        "permessage-deflate; server_max_window_bits=15",
        Some(&windowed(12)),
    );
    check(
        "permessage-deflate; server_max_window_bits=9",
        Some(&windowed(9)),
    );
    check("x, permessage-deflate; y, permessage-deflate", Some(AGREED));
    for window in ["7", "16", "\"abc\"", "99999999999999999999", "", "\""] {
        check(
            &format!("permessage-deflate; server_max_window_bits={window}"),
            None,
        );
        check(
            &format!("permessage-deflate; client_max_window_bits={window}"),
            None,
        );
    }
    check(&"permessage-deflate; x,".repeat(300), None);
    check(
        &format!(
            "permessage-deflate{}",
            "; client_max_window_bits".repeat(250)
        ),
        None,
    );
    check(&format!("x; y=\"{}", "\\\"".repeat(3_000)), None);
    let off = Server::start("compression.enabled = false");
    let token = off.viewer_token("alice", &[]);
    let (_, agreed) = RawSocket::open_offering(&off, "/keen", &token, "permessage-deflate");
    assert_eq!(agreed, None);
}

#[test]
fn deflated_commands_are_understood() {
    let server = Server::start("");
    let mut socket = viewer(&server, "alice", &[]);
    let payload = deflate(PING.as_bytes());
    let (front, back) = payload.split_at(7);
    let in_fragments = [
        masked(0x41, front),
        masked(0x89, b"between"),
        masked(0x00, b""),
        masked(0x80, back),
    ];
    // A message that ends in a final block, as some clients make it.
    let finished = [
        &[0x01, PING.len() as u8, 0, !(PING.len() as u8), 0xff],
        PING.as_bytes(),
    ];
    for bytes in [
        deflated_frame(PING),
        in_fragments.concat(),
        text_frame(PING),
        masked(0xc1, &finished.concat()),
        masked(0xc1, &[&finished.concat()[..], &[0]].concat()),
    ] {
        socket.send(&bytes);
        let mut answer = socket.next_answer();
        if answer.opcode == 10 {
            assert_eq!(answer.payload, b"between");
            answer = socket.next_answer();
        }
        assert!(
            answer.text().contains(r#""id":"deflated""#),
            "{}",
            answer.text()
        );
    }
    socket.send(&masked(0xc1, &[0]));
    assert!(
        socket.next_answer().text().contains("INVALID_MESSAGE"),
        "an empty message"
    );
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_messages_inflated_total"), 5.0);
    assert_eq!(sample(&metrics, "sightline_inflate_failures_total"), 0.0);
}

/// Sends `bytes` and expects the close, and then the end.
fn check_close(mut socket: RawSocket, bytes: &[u8], code: u16) {
    socket.send(bytes);
    assert_eq!(socket.close_code(), code, "{bytes:x?}");
    socket.send(&close_frame(code));
    assert_eq!(socket.next(), None);
}

#[test]
fn a17_deflated_frames_where_they_do_not_belong_close_with_1002() {
    let server = Server::start("");
    let token = server.viewer_token("bob", &[]);
    let mut neighbour = Viewer::open(&server, "/keen", &token);
    let plain = RawSocket::open(&server, "/keen", &token, b"");
    check_close(plain, &deflated_frame(PING), 1002);
    let payload = deflate(PING.as_bytes());
    for bytes in [
        [masked(0x41, &payload), masked(0xc0, b"")].concat(),
        [masked(0x01, b""), masked(0xc0, &payload)].concat(),
        masked(0xc9, b""),
        masked(0xc8, b""),
        masked(0xe1, &payload),
        masked(0xd1, &payload),
    ] {
        check_close(viewer(&server, "alice", &[]), &bytes, 1002);
    }
    check_close(viewer(&server, "alice", &[]), &masked(0xc2, &payload), 1003);
    assert!(neighbour.drain().is_empty());
}

#[test]
fn a17_what_is_no_deflate_stream_closes_with_1007() {
    let server = Server::start("");
    let mut neighbour = viewer(&server, "bob", &[]);
    let payload = deflate(&PING.repeat(9).into_bytes());
    let payloads = [
        &b""[..],
        b"no deflate",
        &payload[..payload.len() - 1],
        &[&payload[..], b"x"].concat(),
        &deflate(b"\"\xff\""),
    ];
    for payload in payloads {
        check_close(viewer(&server, "alice", &[]), &masked(0xc1, payload), 1007);
    }
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_inflate_failures_total"), 4.0);
    assert_eq!(
        sample(
            &metrics,
            "sightline_closes_total{reason=\"invalid_payload\"}"
        ),
        5.0
    );
    neighbour.send(&deflated_frame(PING));
    assert!(neighbour.next_answer().text().contains("pong"));
}

/// A payload of about `mebibytes` KiB that inflates to so many MiB.
fn bomb(mebibytes: usize) -> Vec<u8> {
    let mut stream = Compress::new(Compression::best(), false);
    let mut block = Vec::with_capacity(10_000);
    let zeros = vec![0; MEBIBYTE as usize];
    stream
        .compress_vec(&zeros, &mut block, FlushCompress::Full)
        .unwrap();
    assert!(block.len() < 1_500);
    block.repeat(mebibytes)
}

#[test]
fn a17_bombs_end_at_the_bound_and_cost_no_memory() {
    let server = Server::start("");
    let mut neighbour = viewer(&server, "bob", &[]);
    // Ten KiB are all of this message that the limits let in, and stand for 10 MiB each.
    let (small, large) = (bomb(10), bomb(1024));
    check_close(
        viewer(&server, "alice", &[]),
        &masked(0xc1, &[b' '; 100]),
        1007,
    );
    let before = server.memory_bytes_peak();
    for _ in 0..20 {
        check_close(viewer(&server, "alice", &[]), &masked(0xc1, &small), 1009);
    }
    let after = server.memory_bytes_peak();
    assert!(after - before < 4 * MEBIBYTE, "{before} to {after}");
    // What a publisher may say is larger, and of its 1 GiB no more is inflated.
    let token = server.publisher_token();
    let publisher = || RawSocket::open_deflated(&server, "/v1/publish", &token);
    check_close(publisher(), &masked(0xc1, &large), 1009);
    let after = server.memory_bytes_peak();
    assert!(after - before < 48 * MEBIBYTE, "{before} to {after}");
    // More than any message of its limit deflates to is refused before it comes.
    let claimed = [&[0xc1, 0xff][..], &(10 * MEBIBYTE).to_be_bytes(), &[0; 4]].concat();
    check_close(publisher(), &claimed, 1009);
    neighbour.send(&deflated_frame(PING));
    assert!(neighbour.next_answer().text().contains("pong"));
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_inflate_failures_total"), 22.0);
}

#[test]
fn a_publisher_sends_4_mib_deflated() {
    let server = Server::start("");
    let mut viewer = viewer(&server, "alice", &[]);
    let token = server.publisher_token();
    let mut publisher = RawSocket::open_deflated(&server, "/v1/publish", &token);
    let events: Vec<Value> = (0..5)
        .map(|n| event(Some("alice"), None, &format!("{n}").repeat(850_000)))
        .collect();
    let text = json!(events).to_string();
    assert!(text.len() as u64 > 4 * MEBIBYTE);
    publisher.send(&deflated_frame(&text));
    let ack = publisher.next_answer();
    assert!(ack.text().contains(r#""through":1"#) && ack.deflated.is_none());
    for event in events {
        let frame = viewer.next_answer();
        assert!(
            frame
                .deflated
                .as_ref()
                .is_some_and(|wire| wire.len() < 100_000)
        );
        assert_eq!(data(&frame), event["data"]);
    }
}

#[test]
fn frames_are_deflated_from_the_threshold_and_where_that_makes_them_smaller() {
    let server = Server::start("compression.threshold_bytes = 700");
    let mut socket = viewer(&server, "alice", &[]);
    let mut publish = |text: &str| {
        server.publish(&event(Some("alice"), None, text));
        let frame = socket.next_answer();
        assert_eq!(data(&frame), text);
        frame
    };
    let beside = publish("").payload.len();
    for (length, is_deflated) in [(699, false), (700, true), (701, true)] {
        let frame = publish(&"y".repeat(length - beside));
        assert_eq!(
            (frame.payload.len(), frame.deflated.is_some()),
            (length, is_deflated)
        );
    }
    assert!(publish(&noise(2_000)).deflated.is_none());
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_frames_deflated_total"), 2.0);
    assert_eq!(
        sample(&metrics, "sightline_deflate_bytes_before_total"),
        1_401.0
    );
    assert!(sample(&metrics, "sightline_deflate_bytes_after_total") < 400.0);
}

#[test]
fn a_small_window_is_agreed_on_and_served_with_plain_frames() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let offer = "permessage-deflate; server_max_window_bits=11";
    let (mut socket, _) = RawSocket::open_offering(&server, "/keen", &token, offer);
    socket.send(&deflated_frame(PING));
    server.publish(&event(Some("alice"), None, &"y".repeat(5_000)));
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = socket.next_answer();
        assert!(frame.deflated.is_none());
        seen.push(frame.payload.len());
    }
    assert!(seen.iter().any(|length| *length > 5_000), "{seen:?}");
}

#[test]
fn one_compression_serves_the_viewers_of_all_cores() {
    let server = Server::start("");
    let users = server.users_on_two_cores();
    let mut viewers: Vec<RawSocket> = (0..20)
        .map(|n| viewer(&server, &users[n % 2], &["p"]))
        .collect();
    let before = sample(&server.page("/metrics"), "sightline_frames_deflated_total");
    server.publish(&event(None, Some("p"), &"word ".repeat(500)));
    let frames: Vec<Frame> = viewers.iter_mut().map(RawSocket::next_answer).collect();
    assert!(frames[0].deflated.is_some());
    assert!(
        frames.iter().all(|frame| *frame == frames[0]),
        "the very same bytes"
    );
    let after = sample(&server.page("/metrics"), "sightline_frames_deflated_total");
    assert_eq!(after - before, 1.0);
}

#[test]
fn a18_a_frame_tells_nothing_of_what_was_deflated_before_it() {
    let server = Server::with(&Setup {
        cores: 1,
        ..Setup::default()
    });
    let secret = format!("token={}", noise(300));
    let text = format!("guess: {secret} {}", "and so on ".repeat(100));
    // Bob's text repeats what Alice was told a moment before; Carol's says the same after other
    // things. Their envelopes are equal, and so must be all that goes over the wire.
    let sent = |user: &str, before: &str| {
        let mut alice = viewer(&server, "alice", &[]);
        let mut other = viewer(&server, user, &[]);
        server.publish(&event(Some("alice"), None, before));
        server.publish(&event(Some(user), None, &text));
        assert_eq!(data(&alice.next_answer()), before);
        other.next_answer()
    };
    let right = sent("bob", &format!("{secret} {}", "and so on ".repeat(100)));
    let wrong = sent("carol", &"something else ".repeat(200));
    assert!(right.deflated.is_some());
    assert_eq!(right, wrong);
}

#[test]
fn a19_deflated_frames_hold_one_event_and_never_another_users() {
    let server = Server::start("");
    let users = ["alice", "bob", "carol"];
    let mut viewers = users.map(|user| viewer(&server, user, &["p"]));
    let canary = |user: &str, n: usize| format!("canary-{user}-{n} ").repeat(80 + n % 7 * 40);
    let mut events = Vec::new();
    for n in 0..60 {
        let user = users[n % 3];
        events.push(event(Some(user), None, &canary(user, n)));
        events.push(event(None, Some("p"), &canary("all", n)));
    }
    // In one turn, and in many.
    server.publish(&json!(events));
    for event in &events {
        server.publish(event);
    }
    for (user, viewer) in users.iter().zip(&mut viewers) {
        let mut own = 0;
        for _ in 0..2 * (20 + 60) {
            let frame = viewer.next_answer();
            assert!(frame.deflated.is_some());
            let (text, data) = (frame.text().to_string(), data(&frame));
            let name = data.split('-').nth(1).unwrap();
            let stream = if name == "all" { "project/p" } else { "user" };
            assert!(text.contains(&format!(r#""stream":"{stream}""#)), "{text}");
            assert!([*user, "all"].contains(&name), "{user} was told: {text}");
            own += usize::from(name == *user);
            let word = data.split(' ').next().unwrap();
            assert_eq!(
                data,
                format!("{word} ").repeat(data.len() / (word.len() + 1))
            );
        }
        assert_eq!(own, 2 * 20, "{user}");
    }
    eventually("all is written", || {
        let metrics = server.page("/metrics");
        (sample(&metrics, "sightline_outbox_bytes") == 0.0).then_some(())
    });
}

#[cfg(feature = "failpoints")]
#[test]
fn a_panic_while_deflating_costs_one_frame_its_compression_and_nothing_else() {
    let server = Server::with(&Setup {
        may_panic: true,
        ..Setup::default()
    });
    let mut socket = viewer(&server, "alice", &[]);
    for (text, is_deflated) in [
        ("before", true),
        ("failpoint:deflate", false),
        ("after", true),
    ] {
        let text = format!("{text} ").repeat(200);
        server.publish(&event(Some("alice"), None, &text));
        let frame = socket.next_answer();
        assert_eq!(
            (data(&frame), frame.deflated.is_some()),
            (text, is_deflated)
        );
    }
    let metrics = server.page("/metrics");
    assert_eq!(sample(&metrics, "sightline_panics_total"), 1.0);
}
