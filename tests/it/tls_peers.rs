//! Peers that mean harm before a request is read: rows A5, A28 and A38 of the attack table, as far
//! as TLS goes. Each asserts what happens, the counter, and that a neighbour is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::ALL_VERSIONS;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::{Http, Server, Setup, Stream, TlsStream, Viewer, eventually, request, sample};

/// What a handshake is given, and about what the slowest machine adds.
const HANDSHAKE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(4);

/// One core, so that everybody is everybody's neighbour.
fn server() -> Server {
    Server::with(&Setup {
        cores: 1,
        tls: true,
        ..Setup::default()
    })
}

fn failed(server: &Server, reason: &str) -> f64 {
    let name = format!("sightline_tls_handshakes_failed_total{{reason=\"{reason}\"}}");
    sample(&server.page("/metrics"), &name)
}

/// A viewer that was there before, and is served as long as it all lasts.
struct Neighbour<'a> {
    server: &'a Server,
    viewer: Viewer,
}

impl<'a> Neighbour<'a> {
    fn of(server: &'a Server) -> Self {
        let token = server.viewer_token("alice", &[]);
        let viewer = Viewer::open(server, "/observatory?subscribe=all", &token);
        Self { server, viewer }
    }

    fn is_served(&mut self) {
        self.server
            .publish(&json!({"event_type": "note", "user_id": "alice", "session_id": "s"}));
        self.viewer.skip_to("note");
    }
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    let patience = HANDSHAKE + SLACK;
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// All that the server says before it closes.
fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    said
}

/// The first message of a client, as one record.
fn hello(stream: &mut TlsStream) -> Vec<u8> {
    let mut hello = Vec::new();
    stream.conn.write_tls(&mut hello).unwrap();
    assert_eq!(
        hello.len(),
        5 + usize::from(u16::from_be_bytes([hello[3], hello[4]]))
    );
    hello
}

#[test]
fn a5_a_handshake_that_dawdles_is_ended_after_five_seconds() {
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let begun = Instant::now();
    let silent = connect(&server);
    let mut partial = connect(&server);
    let mut client = server.connect_tls(&server.tls_client(ALL_VERSIONS));
    let hello = hello(&mut client);
    partial.write_all(&hello[..40]).unwrap();
    // Its whole first message is there, and its second never comes.
    let mut half = connect(&server);
    half.write_all(&hello).unwrap();
    let mut trickling = connect(&server);
    let mut writer = trickling.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for byte in &hello {
                if writer.write_all(&[*byte]).is_err() || begun.elapsed() > HANDSHAKE + SLACK {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for stream in [&silent, &partial, &half] {
            read_to_end(stream);
        }
        let _ = trickling.read(&mut [0]);
    });
    let took = begun.elapsed();
    assert!(took >= HANDSHAKE && took < HANDSHAKE + SLACK, "{took:?}");
    // The socket that `client` was made with said nothing either.
    eventually("all five are counted", || {
        (failed(&server, "timeout") == 5.0).then_some(())
    });
    neighbour.is_served();
}

#[test]
fn a5_ten_thousand_silent_sockets_keep_nobody_out() {
    rlimit::increase_nofile_limit(12_000).unwrap();
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let mut silent = Vec::new();
    for at in 0..10_000 {
        silent.push(connect(&server));
        if at % 2_000 == 1_999 {
            // On connections of their own.
            neighbour.is_served();
        }
    }
    // The oldest gave way to the others.
    assert_eq!(read_to_end(&silent[0]), b"");
    let metrics = server.page("/metrics");
    assert!(sample(&metrics, "sightline_tls_handshakes_unfinished") <= 4_096.0);
    let gave_way = "sightline_tls_handshakes_failed_total{reason=\"gave_way\"}";
    assert!(sample(&metrics, gave_way) > 0.0);
    neighbour.is_served();
    drop(silent);
    eventually("all are gone", || {
        let metrics = server.page("/metrics");
        (sample(&metrics, "sightline_tls_handshakes_unfinished") == 0.0).then_some(())
    });
}

#[test]
fn a_handshake_that_fails_behind_its_last_message_is_forgotten() {
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let TlsStream { mut conn, mut sock } = server.connect_tls(&server.tls_client(&[&TLS13]));
    conn.write_tls(&mut sock).unwrap();
    while conn.is_handshaking() {
        conn.read_tls(&mut sock).unwrap();
        conn.process_new_packets().unwrap();
    }
    let mut last = Vec::new();
    while conn.wants_write() {
        conn.write_tls(&mut last).unwrap();
    }
    // A record that no key opens.
    last.extend([23, 3, 3, 0, 40]);
    last.extend([0; 40]);
    sock.write_all(&last).unwrap();
    eventually("it has failed", || {
        (failed(&server, "protocol") == 1.0).then_some(())
    });
    let unfinished = "sightline_tls_handshakes_unfinished";
    assert_eq!(sample(&server.page("/metrics"), unfinished), 0.0);
    neighbour.is_served();
}

#[test]
fn a28_a_storm_of_handshakes_is_taken_a_step_a_turn() {
    const CLIENTS: usize = 200;
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let turns = || sample(&server.page("/metrics"), "sightline_turns_total");
    let before = turns();
    let client = server.tls_client(&[&TLS13]);
    // All first messages are sent before any answer is read.
    let mut storm: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = client.clone();
            client.resumption = rustls::client::Resumption::disabled();
            let mut stream = server.connect_tls(&client);
            let hello = hello(&mut stream);
            stream.sock.write_all(&hello).unwrap();
            stream
        })
        .collect();
    neighbour.is_served();
    for stream in &mut storm {
        stream.flush().unwrap();
        stream
            .write_all(&request("GET", "/livez", &[], b""))
            .unwrap();
    }
    neighbour.is_served();
    for stream in storm {
        let mut http = Http::over(Stream::Tls(Box::new(stream)));
        assert_eq!(http.receive().status, 200);
    }
    // Each took two steps of its own turn.
    assert!(turns() - before >= 2.0 * CLIENTS as f64);
    let metrics = server.page("/metrics");
    let finished = sample(&metrics, "sightline_tls_handshakes_total{version=\"1.3\"}");
    assert!(finished >= CLIENTS as f64);
}

#[test]
fn a38_a_first_message_in_pieces_is_the_same_message() {
    let server = server();
    for version in [&TLS12, &TLS13] {
        for length in [1, 2, 7, 100, 1_000] {
            let mut stream = server.connect_tls(&server.tls_client(&[version]));
            let hello = hello(&mut stream);
            for piece in hello[5..].chunks(length) {
                let head = [22, 3, 1, 0, 0];
                let mut record = head.to_vec();
                record[3..].copy_from_slice(&(piece.len() as u16).to_be_bytes());
                record.extend_from_slice(piece);
                stream.sock.write_all(&record).unwrap();
            }
            let mut http = Http::over(Stream::Tls(Box::new(stream)));
            http.send(&request("GET", "/livez", &[], b""));
            assert_eq!(http.receive().status, 200, "in records of {length}");
        }
    }
}

#[test]
fn a38_what_is_no_handshake_is_refused_and_the_next_is_served() {
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let old_hello = |version: u8| {
        let mut body = vec![3, version];
        body.extend([7; 32]);
        body.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
        let mut record = vec![22, 3, version, 0, body.len() as u8 + 4];
        record.extend([1, 0, 0, body.len() as u8]);
        record.extend(body);
        record
    };
    // What is sent, and the alert that it earns, by its number (RFC 8446 §6). What an old version
    // lacks first is the list of signatures, which is a failed handshake.
    let handshake_failure = Some(40);
    let table: [(&str, Vec<u8>, Option<u8>); 12] = [
        ("SSL 3.0", old_hello(0), handshake_failure),
        ("TLS 1.0", old_hello(1), handshake_failure),
        ("TLS 1.1", old_hello(2), handshake_failure),
        (
            "SSL 2.0",
            [&[0x80, 0x2e, 1, 3, 1][..], &[0; 43]].concat(),
            Some(50),
        ),
        ("zeros", vec![0; 100], Some(50)),
        ("ones", vec![0xff; 100], Some(50)),
        ("lower case", b"get / http/1.1\r\n\r\n".to_vec(), Some(50)),
        ("an empty record", vec![22, 3, 1, 0, 0], Some(50)),
        ("empty records", [23, 3, 3, 0, 0].repeat(100), Some(10)),
        (
            "data before all",
            [&[23, 3, 3, 0, 5][..], b"bytes"].concat(),
            Some(10),
        ),
        ("a record too long", vec![22, 3, 1, 0xff, 0xff, 1], Some(50)),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40], None),
    ];
    let count = table.len();
    for (name, bytes, alert) in table {
        let mut stream = connect(&server);
        stream.write_all(&bytes).unwrap();
        let said = read_to_end(&stream);
        let expected = alert.map_or(vec![], |alert| vec![21, 3, 3, 0, 2, 2, alert]);
        assert_eq!(said, expected, "{name}");
        neighbour.is_served();
    }
    assert_eq!(failed(&server, "protocol"), count as f64);
    assert_eq!(
        sample(&server.page("/metrics"), "sightline_panics_total"),
        0.0
    );
}

#[test]
fn a38_noise_in_a_handshake_ends_it_and_nothing_else() {
    let server = server();
    let mut neighbour = Neighbour::of(&server);
    let mut random = fastrand::Rng::with_seed(38);
    for _ in 0..100 {
        let mut client = server.connect_tls(&server.tls_client(ALL_VERSIONS));
        let mut hello = hello(&mut client);
        for _ in 0..3 {
            let at = random.usize(..hello.len());
            hello[at] = random.u8(..);
        }
        client.sock.write_all(&hello).unwrap();
        client.sock.shutdown(std::net::Shutdown::Write).unwrap();
        read_to_end(&client.sock);
    }
    neighbour.is_served();
    assert_eq!(
        sample(&server.page("/metrics"), "sightline_panics_total"),
        0.0
    );
}

#[test]
fn a38_a_goodbye_and_no_end_costs_nothing() {
    let server = server();
    let turns = || sample(&server.page("/metrics"), "sightline_turns_total");
    let goodbye = [21, 3, 3, 0, 2, 1, 0];
    let mut held = Vec::new();
    for _ in 0..10 {
        // Before the first message, after it, and after the handshake.
        let mut first = connect(&server);
        first.write_all(&goodbye).unwrap();
        let mut second = server.connect_tls(&server.tls_client(ALL_VERSIONS));
        let hello = hello(&mut second);
        second
            .sock
            .write_all(&[&hello[..], &goodbye].concat())
            .unwrap();
        let mut third = server.connect_tls(&server.tls_client(ALL_VERSIONS));
        third.flush().unwrap();
        third.conn.send_close_notify();
        third.flush().unwrap();
        held.push((first, second, third));
    }
    // A hundred requests are a hundred connections: each takes some turns, and nobody else any.
    let before = turns();
    for _ in 0..100 {
        assert_eq!(server.ask("GET", "/livez", "none", "").status, 200);
    }
    let used = turns() - before;
    assert!(used < 100.0 * 20.0, "{used} turns");
    drop(held);
}

#[test]
fn plain_http_is_told_in_plain_http() {
    let server = server();
    let check = |pieces: &[&[u8]]| {
        let mut http = Http::connect(server.address());
        for piece in pieces {
            http.send(piece);
        }
        let answer = http.receive();
        let (status, code) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "BAD_REQUEST"));
        assert!(answer.text().contains("speaks TLS"), "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(http.is_over());
    };
    let get = request("GET", "/livez", &[], b"");
    check(&[&get]);
    check(&[b"G", &get[1..]]);
    check(&[&request("POST", "/v1/events", &[], &[b'x'; 200_000])]);
    check(&[b"OPTIONS * HTTP/1.1\r\n"]);
    assert_eq!(failed(&server, "plain_http"), 4.0);
    assert_eq!(server.ask("GET", "/livez", "none", "").status, 200);
}
