//! `serve --echo`, by which the conformance suite judges the server: there only when it is asked for,
//! and behind the same door as everything else.

use crate::harness::{RawSocket, Server, Setup, masked, upgrade_request};

fn echo_server(settings: &str) -> Server {
    Server::with(&Setup {
        settings,
        flags: &["--echo"],
        ..Setup::default()
    })
}

#[test]
fn without_the_flag_there_is_no_such_path() {
    let server = Server::start("");
    let mut http = server.http();
    http.send(&upgrade_request(
        "/echo",
        &server.viewer_token("alice", &[]),
    ));
    assert_eq!(http.receive().refusal(), (404, "NOT_FOUND".into()));
    assert!(http.is_over());
}

#[test]
fn it_needs_a_token() {
    let server = echo_server("");
    let mut http = server.http();
    http.send(&upgrade_request("/echo", "x"));
    assert_eq!(http.receive().refusal(), (401, "TOKEN_INVALID".into()));
    assert!(http.is_over());
}

#[test]
fn every_message_comes_back_from_whichever_core() {
    let server = echo_server("");
    // By default an outbox holds 4 MiB; one message always enters.
    let large = vec![0xff; 16 * 1024 * 1024];
    for user in server.users_on_two_cores() {
        let token = server.viewer_token(&user, &[]);
        let mut socket = RawSocket::open(&server, "/echo", &token, &masked(0x81, b"early"));
        let mut check = |bytes: &[u8], opcode: u8, payload: &[u8]| {
            socket.send(bytes);
            let frame = socket.next_answer();
            assert_eq!(frame.opcode, opcode);
            assert!(frame.payload == payload, "{} bytes", frame.payload.len());
        };
        check(b"", 1, b"early");
        check(&masked(0x82, b"\xff\x00"), 2, b"\xff\x00");
        check(&masked(0x89, b"p"), 10, b"p");
        check(&masked(0x82, &large), 2, &large);
        let parts = [masked(0x02, b""), masked(0x00, b"x").repeat(1_000)];
        check(
            &[parts.concat(), masked(0x80, b"y")].concat(),
            2,
            &[b'x'; 1_000]
                .iter()
                .chain(b"y")
                .copied()
                .collect::<Vec<u8>>(),
        );
        socket.send(&masked(0x82, &[&large[..], b"more"].concat()));
        assert_eq!(socket.close_code(), 1009);
    }
}

#[test]
fn who_does_not_read_its_echo_is_a_slow_consumer() {
    let server = echo_server("");
    let token = server.viewer_token("alice", &[]);
    let mut socket = RawSocket::open(&server, "/echo", &token, b"");
    // More than the outbox and the sockets between hold.
    for _ in 0..64 {
        socket.send(&masked(0x82, &vec![0; 1024 * 1024]));
    }
    assert_eq!(socket.close_code(), 4008);
}

#[test]
fn an_echo_counts_against_no_tier_and_is_listed_as_what_it_is() {
    let server = echo_server("tiers.enterprise = 1");
    let token = server.viewer_token("alice", &[]);
    let sockets = [0, 1, 2].map(|_| RawSocket::open(&server, "/echo", &token, b""));
    let viewer = crate::harness::Viewer::open(&server, "/keen", &token);
    let mut roles: Vec<String> = server
        .connections()
        .iter()
        .map(|row| row["role"].to_string())
        .collect();
    roles.sort();
    assert_eq!(roles, ["\"echo\"", "\"echo\"", "\"echo\"", "\"keen\""]);
    drop((sockets, viewer));
}
