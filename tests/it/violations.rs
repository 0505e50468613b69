//! RFC 6455 on a live connection: each violation gets its close code, which is really sent, and the
//! neighbours go on.

use std::io::Write;

use serde_json::json;

use crate::harness::{RawSocket, Server, Viewer, close_frame, kind, masked, text_frame};

/// Sends `bytes` to a viewer's connection and expects the close, and then the end.
fn check(server: &Server, what: &str, bytes: &[u8], code: u16) {
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(server, "/observatory", &token, b"");
    socket.send(bytes);
    assert_eq!(socket.close_code(), code, "{what}");
    socket.send(&close_frame(code));
    assert_eq!(socket.next(), None, "{what}");
}

#[test]
fn every_violation_has_its_close_code() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let mut neighbour = Viewer::open(&server, "/observatory", &token);
    let ping = br#"{"type":"ping"}"#;
    let text = text_frame(r#"{"type":"ping"}"#);
    let check = |what: &str, bytes: &[u8], code: u16| check(&server, what, bytes, code);
    check(
        "unmasked",
        &[&[0x81, ping.len() as u8], &ping[..]].concat(),
        1002,
    );
    for bit in [0x40, 0x20, 0x10] {
        check("reserved bit", &masked(0x81 | bit, ping), 1002);
        check("reserved bit of a ping", &masked(0x89 | bit, b""), 1002);
    }
    for opcode in [3, 4, 7, 0xb, 0xf] {
        check("reserved opcode", &masked(0x80 | opcode, b""), 1002);
    }
    check("fragmented ping", &masked(0x09, b""), 1002);
    check(
        "fragmented close",
        &masked(0x08, &1000_u16.to_be_bytes()),
        1002,
    );
    check("long ping", &masked(0x89, &[b'x'; 126]), 1002);
    check("continuation of nothing", &masked(0x80, b"x"), 1002);
    check(
        "message in a message",
        &[masked(0x01, b"{"), text.clone()].concat(),
        1002,
    );
    let long_form = [&[0x81, 0xfe, 0, 2, 0, 0, 0, 0][..], b"{}"].concat();
    check("length in a longer form", &long_form, 1002);
    let msb = [&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &[0; 4]].concat();
    check("length with its highest bit", &msb, 1002);
    check("close with half a code", &masked(0x88, b"x"), 1002);
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        let close = masked(0x88, &u16::to_be_bytes(code));
        check(&format!("close with {code}"), &close, 1002);
    }
    let reason = [&1000_u16.to_be_bytes()[..], b"\xff"].concat();
    check("close with bad text", &masked(0x88, &reason), 1007);
    check("binary", &masked(0x82, b"{}"), 1003);
    check("not UTF-8", &masked(0x81, b"\"\xc3\x28\""), 1007);
    check("a surrogate", &masked(0x81, b"\xed\xa0\x80"), 1007);
    let cut = [masked(0x01, b"\xe2\x82"), masked(0x80, b"")].concat();
    check("cut short in a character", &cut, 1007);
    check("bad in its first fragment", &masked(0x01, b"\xff"), 1007);
    check("too big", &masked(0x81, &[b' '; 16_385]), 1009);
    let parts = [masked(0x01, &[b' '; 16_000]), masked(0x80, &[b' '; 385])].concat();
    check("too big in parts", &parts, 1009);
    let claimed = [
        &[0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff][..],
        &[0; 4],
    ]
    .concat();
    check("too big, only claimed", &claimed, 1009);
    let many = [masked(0x01, b""), masked(0x00, b"").repeat(64)].concat();
    check("too many fragments", &many, 1008);
    check("too many pings", &masked(0x89, b"").repeat(50), 1008);
    assert!(neighbour.drain().is_empty());
    let next = Viewer::open(&server, "/keen", &token);
    next.close();
}

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
    assert!(
        socket
            .next_answer()
            .text()
            .contains("connection_established")
    );
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
fn a_frame_cut_anywhere_is_the_same_frame() {
    let server =
        Server::start("limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000");
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
    assert!(
        socket
            .next_answer()
            .text()
            .contains("connection_established")
    );
    let padded = format!(r#"{{"type":"ping","id":"{}"}}"#, "y".repeat(60));
    let frame = [
        masked(0x01, &padded.as_bytes()[..9]),
        masked(0x80, &padded.as_bytes()[9..]),
    ]
    .concat();
    for cut in 1..frame.len() {
        socket.send(&frame[..cut]);
        socket.send(&frame[cut..]);
        assert!(socket.next_answer().text().contains("pong"), "cut at {cut}");
    }
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
