//! Peers that do not read, descriptors that run out, cores that are held up, panics.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::{Neighbour, Tally, closes, on_one_core, timeouts};
use crate::harness::{
    Answer, DEADLINE, Http, RawSocket, Server, Setup, Viewer, eventually, request, sample,
};

/// A connection whose window is as small as the system allows.
fn narrow(server: &Server) -> TcpStream {
    let address: SocketAddr = server.address().parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// A request whose answer is about 1 MB, after which the server ends the connection.
fn long_answer(server: &Server) -> Vec<u8> {
    let bearer = format!("Bearer {}", server.publisher_token());
    let headers = [("Authorization", bearer.as_str()), ("Connection", "close")];
    let body = format!("[{}7]", "7,".repeat(12_000));
    request("POST", "/v1/events", &headers, body.as_bytes())
}

#[test]
fn a27_an_answer_waits_for_a_slow_reader_and_not_for_one_that_does_not_read() {
    let server = on_one_core("");
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let ask = |stream: &mut TcpStream| {
        std::io::Write::write_all(stream, &long_answer(&server)).unwrap();
    };
    let (mut slow, mut deaf) = (narrow(&server), narrow(&server));
    ask(&mut slow);
    ask(&mut deaf);
    neighbour.assert_undisturbed();
    // Past the time that a closing connection has, at a rate at which a body might come.
    let begun = Instant::now();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 8 * 1024]);
    while begun.elapsed() < Duration::from_millis(6_500) {
        let read = slow.read(&mut buffer).unwrap();
        assert!(read > 0, "cut off after {} bytes", answer.len());
        answer.extend_from_slice(&buffer[..read]);
        std::thread::sleep(Duration::from_millis(50));
    }
    slow.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let head = Answer::of_head(std::str::from_utf8(&answer[..end]).unwrap());
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(length > 700_000, "{length} bytes is no long answer");
    assert_eq!(answer.len(), end + length, "all of it");
    let body: Value = serde_json::from_slice(&answer[end..]).unwrap();
    assert_eq!(body["rejected"].as_array().unwrap().len(), 10_000);
    drop(slow);
    tally.assert_grew(&timeouts("end"), 1);
    neighbour.assert_undisturbed();
    drop(deaf);
}

#[test]
fn a27_a_peer_whose_cable_is_pulled_is_let_go() {
    let beats = "heartbeat.interval_ms = 400\nheartbeat.grace_ms = 400";
    let rates = "limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000";
    let server = on_one_core(&format!("{beats}\n{rates}"));
    let mut neighbour = Neighbour::watch(&server);
    let tally = Tally::of(&server);
    let open = |target: &str, token: &str| RawSocket::open(&server, target, token, b"");
    let (viewer, publisher) = (server.viewer_token("alice", &[]), server.publisher_token());
    let _gone: Vec<_> = (0..10)
        .flat_map(|_| [open("/keen", &viewer), open("/v1/publish", &publisher)])
        .collect();
    eventually("they are let go", || {
        neighbour.assert_served();
        (tally.growth(&closes("no_sign_of_life")) == 20).then_some(())
    });
    // The sockets too, though nobody has ended them from the other side.
    eventually("nothing is left of them", || {
        neighbour.assert_served();
        (server.connections().len() == 2).then_some(())
    });
    neighbour.assert_undisturbed();
}

#[test]
fn a29_accepting_goes_on_when_descriptors_are_free_again() {
    let server = Server::with(&Setup {
        before: Some("ulimit -n 64"),
        cores: 1,
        ..Setup::default()
    });
    let mut neighbour = Neighbour::watch(&server);
    let mut operator = server.http();
    let mut metrics = || {
        operator.send(&request("GET", "/metrics", &[], b""));
        operator.receive().text()
    };
    let turns_before = sample(&metrics(), "sightline_turns_total");
    let held: Vec<_> = (0..200).map(|_| Http::connect(server.address())).collect();
    server.wait_for_log("cannot accept: trying again until descriptors are free", 0);
    // Those who are in are served, operators too.
    for _ in 0..5 {
        neighbour.assert_served();
    }
    let now = metrics();
    assert!(sample(&now, "sightline_accept_paused_total") >= 1.0);
    assert!(sample(&now, "sightline_accept_errors_total") >= 1.0);
    // It tries again by its clock: to try at once would be thousands of turns by now.
    let turns = sample(&now, "sightline_turns_total") - turns_before;
    assert!(turns < 2_000.0, "{turns} turns");
    drop(held);
    neighbour.assert_undisturbed();
}

#[test]
fn a31_where_a_user_lives_cannot_be_known_beforehand() {
    let places = || {
        let server = Server::start("");
        let open = |n: usize| {
            let token = server.viewer_token(&format!("user-{n}"), &[]);
            Viewer::open(&server, "/observatory", &token)
        };
        let _viewers: Vec<_> = (0..64).map(open).collect();
        let mut rows = server.connections();
        rows.sort_by_key(|row| row["userId"].to_string());
        let cores: Vec<_> = rows.iter().map(|row| row["core"].clone()).collect();
        let on_first = cores.iter().filter(|core| **core == json!(0)).count();
        assert!(
            (10..=54).contains(&on_first),
            "{on_first} of 64 on one of two cores"
        );
        cores
    };
    assert_ne!(places(), places());
}

#[cfg(feature = "failpoints")]
mod faults {
    use super::super::refusals;
    use super::*;
    use crate::harness::{close_frame, masked, sample, text_frame, upgrade_request};

    fn failing(cores: usize) -> Server {
        Server::with(&Setup {
            may_panic: true,
            cores,
            ..Setup::default()
        })
    }

    #[test]
    fn a30_a_core_that_is_held_up_holds_up_nobody_elsewhere() {
        let server = failing(2);
        let [here, there] = server.users_on_two_cores();
        let (mut beside, mut elsewhere) = (
            Neighbour::of(&server, &here),
            Neighbour::of(&server, &there),
        );
        let tally = Tally::of(&server);
        let token = server.viewer_token(&here, &[]);
        let mut socket = RawSocket::open(&server, "/observatory", &token, b"");
        socket.expect_established();
        socket.send(
            &[
                text_frame("failpoint:stall"),
                text_frame(r#"{"type":"ping"}"#),
            ]
            .concat(),
        );
        for _ in 0..3 {
            elsewhere.assert_served();
        }
        let stalled = socket.writer();
        stalled.set_nonblocking(true).unwrap();
        let found = stalled.peek(&mut [0]).map_err(|error| error.kind());
        assert_eq!(
            found,
            Err(std::io::ErrorKind::WouldBlock),
            "the other core is held up by now"
        );
        stalled.set_nonblocking(false).unwrap();
        // When it goes on nothing is lost, and nobody is blamed.
        beside.assert_undisturbed();
        assert!(socket.next_answer().text().contains("INVALID_MESSAGE"));
        assert!(socket.next_answer().text().contains("pong"));
        server.wait_for_log("a turn took long: this core was held up", 0);
        tally.assert_grew("stalls_total", 1);
        elsewhere.assert_undisturbed();
    }

    /// A request that panics at `place`, which its bytes name, and the answer to it.
    fn check_request(server: &Server, bytes: &[u8]) {
        let mut http = server.http();
        http.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(
            http.receive().refusal(),
            (500, "INTERNAL".into()),
            "{shown}"
        );
    }

    #[test]
    fn a39_a_panic_over_what_one_peer_sent_is_that_peers_alone() {
        let server = failing(1);
        let mut neighbour = Neighbour::watch(&server);
        let tally = Tally::of(&server);
        let bearer = format!("Bearer {}", server.admin_token());
        let auth = [("Authorization", bearer.as_str())];
        let admin = &bearer[7..];
        let requests = [
            request("GET", "/livez", &[("X", "failpoint:head")], b""),
            request(
                "GET",
                "/livez",
                &[("Origin", "http://failpoint:origin")],
                b"",
            ),
            request(
                "POST",
                "/v1/events",
                &[("Authorization", "Bearer failpoint:token")],
                b"{}",
            ),
            request(
                "GET",
                "/v1/admin/connections?token=failpoint:token",
                &[],
                b"",
            ),
            request("POST", "/v1/events", &auth, b"failpoint:body"),
            request(
                "POST",
                "/v1/events",
                &auth,
                br#"{"event_type":"failpoint:event"}"#,
            ),
            request(
                "POST",
                "/v1/admin/revoke",
                &auth,
                br#"{"jti":"failpoint:admin"}"#,
            ),
            upgrade_request("/keen", "failpoint:token"),
            upgrade_request("/keen?x=failpoint:query", admin),
        ];
        for bytes in &requests {
            check_request(&server, bytes);
            neighbour.assert_served();
        }
        let refresh = json!({"type": "refresh_token", "data": {"token": "failpoint:token"}});
        let messages = [
            ("/keen", "failpoint:frame".to_string()),
            ("/observatory", "failpoint:command".into()),
            ("/keen", refresh.to_string()),
            ("/v1/publish", "failpoint:frame".into()),
            ("/v1/publish", r#"{"event_type":"failpoint:event"}"#.into()),
        ];
        for (target, text) in &messages {
            let mut socket = RawSocket::open(&server, target, admin, &text_frame(text));
            assert_eq!(socket.close_code(), 1011, "{text} to {target}");
            // It goes in order, whatever it still has to say.
            socket.send(&[masked(0x89, b""), close_frame(1011)].concat());
            assert_eq!(socket.next(), None);
            neighbour.assert_served();
        }
        tally.assert_grew("panics_total", (requests.len() + messages.len()) as u64);
        tally.assert_grew(&closes("internal"), messages.len() as u64);
        tally.assert_grew(&refusals("INTERNAL"), requests.len() as u64);
        server.wait_for_log("panicked", requests.len() + messages.len() - 1);
        neighbour.assert_undisturbed();
    }

    #[test]
    fn a39_what_was_accepted_before_a_panic_is_not_called_the_whole() {
        let server = failing(1);
        let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
        let event = |name: &str| format!(r#"{{"event_type":"{name}","user_id":"alice"}}"#);
        let body = [event("a"), event("b"), event("failpoint:event"), event("c")].join("\n");
        let bearer = format!("Bearer {}", server.publisher_token());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-ndjson"),
        ];
        let mut http = server.http();
        http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
        let answer = http.receive();
        assert_eq!(answer.refusal(), (500, "INTERNAL".into()));
        assert!(
            answer.text().contains("after accepting 2"),
            "{}",
            answer.text()
        );
        let names: Vec<_> = [viewer.next(), viewer.next()]
            .map(|event| event["event_type"].clone())
            .into();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(viewer.drain(), [] as [Value; 0]);
        // The connection is kept: it is not to blame.
        http.send(&request(
            "POST",
            "/v1/events",
            &headers,
            event("d").as_bytes(),
        ));
        assert_eq!(http.receive().json()["accepted"], 1);
        assert_eq!(
            sample(&server.page("/metrics"), "sightline_panics_total"),
            1.0
        );
    }

    #[test]
    fn a39_a_panic_in_what_all_share_ends_the_process() {
        let mut server = failing(2);
        let token = server.viewer_token("alice", &[]);
        let mut socket = RawSocket::open(&server, "/keen", &token, b"");
        socket.expect_established();
        socket.send(&text_frame("failpoint:shared"));
        let status = server.wait();
        assert!(!status.success(), "{status}");
        server.wait_for_log("panicked", 0);
        server.wait_for_log("the core's shared state is broken: the process ends", 0);
    }
}
