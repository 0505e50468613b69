//! RFC 6455 on a live connection: what is allowed, and how one ends that broke it or vanished. What
//! is not allowed is in `raw_table`.

use std::io::Write;

use serde_json::json;

use crate::harness::{RawSocket, Server, Viewer, close_frame, kind, masked};

#[test]
fn a_violator_that_goes_on_sending_still_reads_its_close() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    for (first, code) in [
        (masked(0x81, &vec![b' '; 4 * 1024 * 1024]), 1009),
        (masked(0x82, b"x"), 1003),
    ] {
        let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
        let mut writer = socket.writer();
        // Bytes left unread would reset the connection, and on many systems take the close along.
        writer.write_all(&first).unwrap();
        for _ in 0..64 {
            writer.write_all(&masked(0x82, &[b'x'; 60_000])).unwrap();
        }
        assert_eq!(socket.close_code(), code);
        assert_eq!(socket.next(), None);
    }
}

#[test]
fn what_is_allowed_is_allowed() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
    socket.expect_established();
    // A message of exactly the limit, in as many fragments as there may be, pings between them.
    let mut message = br#"{"type":"ping","id":"whole"}"#.to_vec();
    message.resize(16_384, b' ');
    let mut parts = message.chunks(16_384 / 64);
    let mut bytes = masked(0x01, parts.next().unwrap());
    bytes.extend(masked(0x89, &[b'p'; 125]));
    for part in parts {
        bytes.extend(masked(0x00, part));
    }
    let last = bytes.len() - (16_384 / 64 + 8);
    bytes[last] |= 0x80;
    socket.send(&bytes);
    let pong = socket.next_answer();
    assert_eq!((pong.opcode, pong.payload.len()), (10, 125));
    assert!(socket.next_answer().text().contains("whole"));
    // Split within a character, empty fragments, a pong that nobody asked for.
    let said = "{\"type\":\"ping\",\"id\":\"€\"}".as_bytes();
    let at = said.iter().position(|byte| *byte == 0xe2).unwrap() + 1;
    let (one, two) = said.split_at(at);
    let parts = [
        masked(0x01, one),
        masked(0x00, b""),
        masked(0x8a, b"x"),
        masked(0x80, two),
    ];
    socket.send(&parts.concat());
    assert!(socket.next_answer().text().contains('€'));
    for code in [1000, 1001, 1011, 3000, 4999] {
        let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
        socket.send(&masked(
            0x88,
            &[&u16::to_be_bytes(code)[..], "bye €".as_bytes()].concat(),
        ));
        assert_eq!(socket.close_code(), code);
        assert_eq!(socket.next(), None);
    }
    let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
    socket.send(&masked(0x88, b""));
    while socket.next_answer().opcode != 8 {}
    assert_eq!(socket.next(), None);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["p"]);
    let mut neighbour = Viewer::open(&server, "/keen?subscribe=all", &token);
    for bytes in [
        &b""[..],
        &masked(0x01, b"half")[..],
        &[0x81],
        &close_frame(1000),
    ] {
        let mut socket = RawSocket::open(&server, "/keen?subscribe=all", &token, b"");
        socket.send(bytes);
        drop(socket);
        let mut socket = RawSocket::open(&server, "/keen?subscribe=all", &token, b"");
        socket.send(bytes);
        socket.finish();
        while socket.next().is_some() {}
    }
    server.publish(&json!({"event_type": "x", "project_id": "p"}));
    assert_eq!(kind(&neighbour.next()), "x");
    crate::harness::eventually("only the neighbour is left", || {
        (server.connections().len() == 1).then_some(())
    });
}
