//! Section 3 over `GET /v1/publish`: messages, acks, nacks.

use serde_json::{Value, json};
use sightline::auth::Permission;

use crate::harness::{
    Publisher, RawSocket, Server, Setup, Token, Viewer, close_frame, kind, masked, text_frame,
};

fn event(n: u64) -> Value {
    json!({"event_type": "x", "user_id": "alice", "data": {"n": n}})
}

#[test]
fn messages_are_acknowledged_in_order_and_nacks_come_before() {
    let server = Server::start("");
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    publisher.say(&event(1));
    publisher.say(&json!([event(2), {"event_type": "x"}, event(3), 5]));
    publisher.say_text("not JSON".into());
    publisher.say(&json!([]));
    publisher.say(&event(4));
    let nacks = publisher.settle(5);
    let found: Vec<_> = nacks
        .iter()
        .map(|n| (&n["message"], &n["index"], &n["code"]))
        .collect();
    let row = |message: u64, index: u64, code: &str| (json!(message), json!(index), json!(code));
    let expected = [
        row(2, 1, "NO_AUDIENCE"),
        row(2, 3, "INVALID_FIELD"),
        row(3, 0, "INVALID_JSON"),
    ];
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(a, b, c)| (a, b, c))
            .collect::<Vec<_>>()
    );
    assert!(
        nacks
            .iter()
            .all(|nack| nack["reason"].is_string() && nack.get("retryAfter").is_none())
    );
    let numbers: Vec<_> = (0..4).map(|_| viewer.next()["data"]["n"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[test]
fn ack_and_nack_have_the_shape_of_the_contract() {
    let server = Server::start("");
    let token = server.publisher_token();
    let mut socket = RawSocket::open(&server, "/v1/publish", &token, b"");
    socket.send(&text_frame(&event(1).to_string()));
    assert_eq!(
        socket.next_answer().text(),
        r#"{"type":"ack","data":{"through":1}}"#
    );
    socket.send(&text_frame(r#"{"event_type":"x"}"#));
    let nack: Value = serde_json::from_str(socket.next_answer().text()).unwrap();
    assert_eq!((kind(&nack), &nack["data"]["message"]), ("nack", &json!(2)));
    assert_eq!(
        socket.next_answer().text(),
        r#"{"type":"ack","data":{"through":2}}"#
    );
    socket.send(&close_frame(1000));
    assert_eq!(socket.next_answer().close_code(), 1000);
    assert_eq!(socket.next(), None);
}

#[test]
fn many_messages_at_once_are_all_settled() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    let target = "/observatory?subscribe=all";
    let mut viewers: Vec<_> = [&here, &there]
        .map(|user| Viewer::open(&server, target, &server.viewer_token(user, &[])))
        .into();
    for n in 0..500 {
        let user = [&here, &there][n % 2];
        publisher.say(&json!({"event_type": "x", "user_id": user, "data": n / 2}));
    }
    assert!(publisher.settle(500).is_empty());
    for viewer in &mut viewers {
        for n in 0..250 {
            let message = viewer.next();
            assert_eq!(
                (&message["data"], &message["seq"]),
                (&json!(n), &json!(n + 1))
            );
        }
    }
}

#[test]
fn a_message_of_8_mib_is_taken_and_a_larger_one_is_not() {
    let server = Server::start("");
    let token = server.publisher_token();
    let mut publisher = Publisher::open(&server, &token);
    let padded = |bytes: usize| {
        let mut text = format!("[{},{}", event(1), event(2));
        text.extend(std::iter::repeat_n(' ', bytes - 1 - text.len()));
        text + "]"
    };
    publisher.say_text(padded(8 * 1024 * 1024));
    assert!(publisher.settle(1).is_empty());
    let large = serde_json::to_string(&"y".repeat(1024 * 1024)).unwrap();
    publisher.say_text(format!(
        r#"{{"event_type":"x","user_id":"a","data":{large}}}"#
    ));
    let nacks = publisher.settle(2);
    assert_eq!(nacks[0]["code"], "EVENT_TOO_LARGE");

    let mut socket = RawSocket::open(&server, "/v1/publish", &token, b"");
    socket.send(&text_frame(&padded(8 * 1024 * 1024 + 1)));
    assert_eq!(socket.close_code(), 1009);
}

#[test]
fn a_token_without_scope_is_nacked_event_by_event() {
    let server = Server::start("");
    let own = server.mint(&Token::of("alice", &["7"]).with(&[Permission::Publish]));
    let mut publisher = Publisher::open(&server, &own);
    publisher.say(&json!([event(1), {"event_type": "x", "user_id": "bob"}]));
    let nacks = publisher.settle(1);
    assert_eq!(nacks.len(), 1);
    assert_eq!(
        (&nacks[0]["index"], &nacks[0]["code"]),
        (&json!(1), &json!("FORBIDDEN_AUDIENCE"))
    );
}

#[test]
fn continue_is_no_event_and_counts_as_no_message() {
    let server = Server::start("");
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    publisher.say(&json!({"type": "continue"}));
    publisher.say(&event(1));
    assert!(publisher.settle(1).is_empty());
    // An event may have that type: it has an audience.
    publisher.say(&json!({"type": "continue", "user_id": "alice"}));
    assert!(publisher.settle(2).is_empty());
}

#[test]
fn publishers_are_no_connections_of_a_tier() {
    let server = Server::start("tiers.one = 1");
    let mut token = Token::of("alice", &[]).with(&Permission::ALL);
    token.0.tier = Some("one".into());
    let token = server.mint(&token);
    let mut publishers: Vec<_> = (0..3).map(|_| Publisher::open(&server, &token)).collect();
    let viewer = Viewer::open(&server, "/keen", &token);
    for publisher in &mut publishers {
        publisher.say(&event(1));
        assert!(publisher.settle(1).is_empty());
    }
    let rows = server.connections();
    let role = |name: &str| rows.iter().filter(|row| row["role"] == name).count();
    assert_eq!((role("publisher"), role("keen"), rows.len()), (3, 1, 4));
    viewer.close();
}

#[test]
fn a_publisher_may_send_what_a_viewer_may_not() {
    let server = Server::start("limits.messages_per_second = 1");
    let token = server.publisher_token();
    let mut socket = RawSocket::open(&server, "/v1/publish", &token, b"");
    // More than 16 KiB in fragments, with a ping between them.
    let text = json!({"event_type": "x", "user_id": "a", "data": "y".repeat(40_000)}).to_string();
    let (first, second) = text.as_bytes().split_at(20_000);
    let ping = masked(0x89, b"between");
    socket.send(&[masked(0x01, first), ping, masked(0x80, second)].concat());
    let pong = socket.next_answer();
    assert_eq!((pong.opcode, &pong.payload[..]), (10, &b"between"[..]));
    assert_eq!(
        socket.next_answer().text(),
        r#"{"type":"ack","data":{"through":1}}"#
    );
    for n in 2..30 {
        socket.send(&text_frame(&event(n).to_string()));
    }
    while socket.next_answer().text() != r#"{"type":"ack","data":{"through":29}}"# {}
    socket.send(&masked(0x82, b"binary"));
    assert_eq!(socket.close_code(), 1003);
}

#[test]
fn a_publisher_that_reads_late_misses_no_nack() {
    const COUNT: u64 = 20_000;
    let server = Server::start("");
    let token = server.publisher_token();
    let mut socket = RawSocket::open(&server, "/v1/publish", &token, b"");
    let mut writer = socket.writer();
    let bytes = text_frame(r#"{"event_type":"x"}"#).repeat(COUNT as usize);
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    // What it does not read piles up within bounds, and then it is not read either.
    crate::harness::eventually("nacks wait", || {
        let waiting = server.connections()[0]["queuedBytes"].as_u64().unwrap();
        (waiting > 500_000 || writing.is_finished()).then_some(())
    });
    let (mut nacked, mut through) = (0, 0);
    while through < COUNT {
        let answer: Value = serde_json::from_str(socket.next_answer().text()).unwrap();
        let data = &answer["data"];
        if kind(&answer) == "nack" {
            nacked += 1;
            assert_eq!(data["message"], nacked);
        } else {
            through = data["through"].as_u64().unwrap();
            assert!(through <= nacked, "its nacks come before");
        }
    }
    assert_eq!(nacked, COUNT);
    writing.join().unwrap().unwrap();
}

#[test]
fn a_message_of_many_events_does_not_wait_for_anything() {
    let server = Server::with(&Setup {
        cores: 1,
        ..Default::default()
    });
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    publisher.say(&Value::Array((0..30_000).map(event).collect()));
    assert!(publisher.settle(1).is_empty());
}
