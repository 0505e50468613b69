//! What no peer may send, byte by byte: each row is answered with its close code or refusal, the
//! connection ends, it is counted, and nobody else notices: not a neighbour that was there before,
//! not whoever comes next. The rows are in `frames` and `requests`.
//!
//! All of it happens on one core, and all peers are of one user: nothing keeps them apart but the
//! server's care.

mod frames;
mod requests;

use std::collections::BTreeMap;

use serde_json::json;
use sightline::auth::Permission;

use crate::harness::{
    RawSocket, Server, Setup, Token, Viewer, close_frame, kind, request, sample, upgrade_request,
};

/// Something that no peer may send.
struct Row {
    what: String,
    /// From the first byte on a new connection, or behind an upgrade.
    bytes: Vec<u8>,
    ending: Ending,
}

/// How the server ends a connection.
#[derive(Clone, Copy)]
enum Ending {
    /// A close with this code, on a WebSocket of this path.
    Close(&'static str, u16),
    /// A refusal: status and code word.
    Refusal(u16, &'static str),
}

/// The server under the table, and who is there while it is gone through.
struct Scene {
    server: Server,
    token: String,
    neighbour: Viewer,
    /// What the counters must say at the end, by sample.
    counted: BTreeMap<String, u32>,
}

/// Rows up to this length are also sent a byte at a time.
const BY_THE_BYTE_MAX: usize = 600;

#[test]
fn frames_that_no_peer_may_send() {
    for tls in [false, true] {
        let scene = Scene::new(tls);
        scene.check_all(&frames::rows());
    }
}

#[test]
fn requests_that_no_peer_may_send() {
    for tls in [false, true] {
        let scene = Scene::new(tls);
        let rows = requests::rows(&scene.server.publisher_token());
        scene.check_all(&rows);
    }
}

impl Scene {
    fn new(tls: bool) -> Self {
        let server = Server::with(&Setup {
            cores: 1,
            tls,
            settings: "limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000",
            ..Setup::default()
        });
        let permissions = [Permission::Subscribe, Permission::Publish];
        let token = server.mint(&Token::of("alice", &[]).with(&permissions));
        let neighbour = Viewer::open(&server, "/keen", &token);
        Self {
            server,
            token,
            neighbour,
            counted: BTreeMap::new(),
        }
    }

    fn check_all(mut self, rows: &[Row]) {
        for row in rows {
            match row.ending {
                Ending::Close(path, code) => self.check_frames(row, path, code),
                Ending::Refusal(status, code) => self.check_request(row, status, code),
            }
            self.check_others(&row.what);
        }
        let event = json!({"event_type": "x", "user_id": "alice"});
        self.server.publish(&event);
        assert_eq!(kind(&self.neighbour.next()), "x");
        let metrics = self.server.page("/metrics");
        for (name, count) in self.counted {
            assert_eq!(sample(&metrics, &name), f64::from(count), "{name}");
        }
    }

    /// Behind an upgrade, in one segment with it, and a byte at a time.
    fn check_frames(&mut self, row: &Row, path: &str, code: u16) {
        let open = |first: &[u8]| RawSocket::open(&self.server, path, &self.token, first);
        let mut behind = open(b"");
        behind.send(&row.bytes);
        let mut sockets = vec![behind, open(&row.bytes)];
        if row.bytes.len() <= BY_THE_BYTE_MAX {
            let mut slow = open(b"");
            row.bytes.chunks(1).for_each(|byte| slow.send(byte));
            sockets.push(slow);
        }
        for mut socket in sockets {
            assert_eq!(socket.close_code(), code, "{}", row.what);
            socket.send(&close_frame(code));
            assert_eq!(socket.next(), None, "{}", row.what);
            self.count(close_sample(code));
        }
    }

    /// With a request pipelined behind it, which must not be served; and a byte at a time.
    fn check_request(&mut self, row: &Row, status: u16, code: &str) {
        let bytes = [&row.bytes[..], &request("GET", "/livez", &[], b"")].concat();
        let mut deliveries: Vec<usize> = vec![bytes.len()];
        if bytes.len() <= BY_THE_BYTE_MAX {
            deliveries.push(1);
        }
        for length in deliveries {
            let mut http = self.server.http();
            bytes.chunks(length).for_each(|part| http.send(part));
            let answer = http.receive();
            assert_eq!(answer.refusal(), (status, code.into()), "{}", row.what);
            let connection = answer.header("connection");
            assert_eq!(connection, Some("close"), "{}", row.what);
            assert!(http.is_over(), "{}: something more was answered", row.what);
            self.count(Some(format!("sightline_refusals_total{{code=\"{code}\"}}")));
        }
    }

    fn count(&mut self, sample: Option<String>) {
        if let Some(sample) = sample {
            *self.counted.entry(sample).or_default() += 1;
        }
    }

    fn check_others(&mut self, what: &str) {
        let seen = self.neighbour.drain();
        assert!(seen.is_empty(), "{what}: the neighbour saw {seen:?}");
        let mut next = self.server.http();
        next.send(&request("GET", "/livez", &[], b""));
        assert_eq!(next.receive().status, 200, "{what}");
        next.send(&upgrade_request("/observatory", &self.token));
        assert_eq!(next.receive().status, 101, "{what}");
    }
}

/// The sample that counts a close; none for 1000, which others have as well.
fn close_sample(code: u16) -> Option<String> {
    let reason = match code {
        1000 => return None,
        1002 => "protocol_error",
        1003 => "unsupported",
        1007 => "invalid_payload",
        1008 => "policy_violation",
        1009 => "too_big",
        _ => panic!("no row has {code}"),
    };
    Some(format!("sightline_closes_total{{reason=\"{reason}\"}}"))
}
