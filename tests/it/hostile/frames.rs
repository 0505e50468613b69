//! Frames that announce what they do not bring, that never end, and that never stop.

use std::io::Write;

use super::{Neighbour, Tally, closes, events_refused, on_one_core};
use crate::harness::{Frame, RawSocket, Server, close_frame, masked, request, text_frame};

/// A viewer's socket, its greeting read.
fn open(server: &Server) -> RawSocket {
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(server, "/observatory", &token, b"");
    socket.expect_established();
    socket
}

/// A text frame's header with its length in this form, and a masking key.
fn header(length: &[u8]) -> Vec<u8> {
    [&[0x81], length, &[0; 4]].concat()
}

#[test]
fn a10_a_length_that_no_frame_has_is_refused_before_it_is_believed() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let resident_bytes = server.resident_bytes();
    let long = |length: u64| [&[0xff][..], &length.to_be_bytes()].concat();
    let violations = [
        (long(1 << 63), 1002),
        (long(u64::MAX), 1002),
        (long(125), 1002),
        (long(65_535), 1002),
        (vec![0xfe, 0, 125], 1002),
        (long(i64::MAX as u64), 1009),
        (long(1 << 32), 1009),
        (long(65_536), 1009),
        (vec![0xfe, 0x40, 0x01], 1009),
    ];
    for (length, code) in &violations {
        for target in ["/observatory", "/v1/publish"] {
            // What is too much for a viewer may be for a publisher what is to come.
            let is_small = matches!(length[..], [0xfe, ..]) || *length == long(65_536);
            if target == "/v1/publish" && *code == 1009 && is_small {
                continue;
            }
            let token = server.admin_token();
            let mut socket = RawSocket::open(&server, target, &token, &header(length));
            assert_eq!(socket.close_code(), *code, "{length:x?} {target}");
        }
    }
    tally.assert_grew(&closes("protocol_error"), 10);
    tally.assert_grew(&closes("too_big"), 6);
    let grown = server.resident_bytes().saturating_sub(resident_bytes);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes");
    neighbour.assert_undisturbed();
}

#[test]
fn a12_fragments_without_end_are_ended() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let floods = [
        masked(0x00, b"").repeat(500_000),
        masked(0x00, b"y").repeat(500_000),
        [masked(0x00, b""), masked(0x8a, b"")]
            .concat()
            .repeat(200_000),
    ];
    for flood in &floods {
        let mut socket = open(&server);
        let mut writer = socket.writer();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // It may be gone before all of it is sent.
                let _ = writer
                    .write_all(&masked(0x01, b"\""))
                    .and_then(|()| writer.write_all(flood));
            });
            neighbour.assert_served();
            assert_eq!(socket.close_code(), 1008);
            neighbour.assert_served();
            drop(socket);
        });
    }
    tally.assert_grew(&closes("policy_violation"), floods.len() as u64);
    // The viewer's messages are counted when they are whole: none was, but the neighbour's.
    tally.assert_grew("viewer_messages_total", 2 * floods.len() as u64);
    neighbour.assert_undisturbed();
}

#[test]
fn a13_a_flood_of_control_frames_is_ended() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let floods = [
        ("pings", masked(0x89, b"").repeat(1_000_000)),
        ("long pings", masked(0x89, &[b'x'; 125]).repeat(20_000)),
        (
            "pongs that nobody asked for",
            masked(0x8a, b"").repeat(1_000_000),
        ),
    ];
    for (what, flood) in &floods {
        let mut socket = open(&server);
        let mut writer = socket.writer();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(flood));
            neighbour.assert_served();
            let mut pongs = 0;
            let code = loop {
                match socket.next().expect("a close before the end") {
                    Frame { opcode: 10, .. } => pongs += 1,
                    frame => break frame.close_code(),
                }
            };
            assert_eq!(code, 1008, "{what}");
            assert!(pongs <= 40, "{pongs} answers to {what}");
            neighbour.assert_served();
            drop(socket);
        });
    }
    tally.assert_grew(&closes("policy_violation"), floods.len() as u64);
    // Only the first goodbye is heard.
    let mut socket = open(&server);
    let _ = socket
        .writer()
        .write_all(&close_frame(1000).repeat(100_000));
    assert_eq!(socket.next_answer().close_code(), 1000);
    assert_eq!(socket.next(), None);
    tally.assert_grew(&closes("normal"), 1);
    neighbour.assert_undisturbed();
}

#[test]
fn a16_what_is_not_utf8_is_refused_on_every_way_in() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let token = server.admin_token();
    let texts: [&[u8]; 8] = [
        b"\xff",
        b"\xc0\xaf",
        b"\xc3\x28",
        b"\xe2\x28\xa1",
        b"\xed\xa0\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ];
    for text in texts {
        let event = [
            &br#"{"event_type":"x","user_id":"neighbour","data":""#[..],
            text,
            b"\"}",
        ]
        .concat();
        for target in ["/observatory", "/v1/publish"] {
            let mut socket = RawSocket::open(&server, target, &token, &masked(0x81, &event));
            assert_eq!(socket.close_code(), 1007, "{text:x?} {target}");
        }
        let mut socket = open(&server);
        socket.send(&masked(0x88, &[&1000_u16.to_be_bytes()[..], text].concat()));
        assert_eq!(socket.close_code(), 1007, "{text:x?} in a goodbye");
        // A body has no frame that would have been checked.
        let bearer = format!("Bearer {token}");
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("Content-Type", "application/x-ndjson"),
        ] {
            let headers = [("Authorization", bearer.as_str()), (name, value)];
            let mut http = server.http();
            http.send(&request("POST", "/v1/events", &headers, &event));
            let answer = http.receive();
            assert_eq!(answer.status, 400, "{text:x?}");
            assert_eq!(
                answer.json()["rejected"][0]["code"],
                "INVALID_JSON",
                "{text:x?}"
            );
        }
    }
    for target in ["/observatory", "/v1/publish"] {
        let mut socket = RawSocket::open(&server, target, &token, &masked(0x82, b"{}"));
        assert_eq!(socket.close_code(), 1003, "binary to {target}");
    }
    let rows = texts.len() as u64;
    tally.assert_grew(&closes("invalid_payload"), 3 * rows);
    tally.assert_grew(&closes("unsupported"), 2);
    tally.assert_grew(&events_refused("INVALID_JSON"), 2 * rows);
    neighbour.assert_undisturbed();
    let mut socket = open(&server);
    socket.send(&text_frame("\"\u{10ffff}\u{0}\""));
    assert!(
        socket.next_answer().text().contains("INVALID_MESSAGE"),
        "UTF-8, and no command"
    );
}
