//! Where the network cuts a stream is nobody's doing: cut at any byte, or at every byte, it gets the
//! very same answer.

use std::fmt::Debug;

use crate::harness::{
    Frame, Http, RawSocket, Server, Setup, close_frame, masked, request, text_frame,
    upgrade_request,
};

const EVENT: &str = r#"{"event_type":"x","user_id":"alice"}"#;

/// One core, so that an answer on one connection tells what was read of another; `--echo`, so that a
/// WebSocket's answers are the same each time; no sync, for more than a thousand events are posted.
struct Stage {
    server: Server,
    other: Http,
}

impl Stage {
    fn new() -> Self {
        let server = Server::with(&Setup {
            settings: "history.durability = 'none'",
            cores: 1,
            flags: &["--echo"],
            ..Setup::default()
        });
        let other = server.http();
        Self { server, other }
    }

    /// What `read` makes of the answer to these parts, each of which is read by itself.
    fn answer<'a, T>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]>,
        read: fn(&mut RawSocket) -> T,
    ) -> T {
        let mut socket = RawSocket::connect(&self.server);
        for part in parts {
            socket.send(part);
            // A core answers in the order in which it reads: the part was read before this.
            self.other.send(&request("GET", "/livez", &[], b""));
            assert_eq!(self.other.receive().status, 200);
        }
        read(&mut socket)
    }

    /// Checks a stream that ends the connection. Returns its answer.
    fn check<T: Debug + PartialEq>(
        &mut self,
        what: &str,
        bytes: &[u8],
        read: fn(&mut RawSocket) -> T,
    ) -> T {
        let whole = self.answer([bytes].into_iter(), read);
        for at in 1..bytes.len() {
            let (front, back) = bytes.split_at(at);
            let cut = self.answer([front, back].into_iter(), read);
            assert_eq!(cut, whole, "{what} cut at {at}");
        }
        let bytewise = self.answer(bytes.chunks(1), read);
        assert_eq!(bytewise, whole, "{what} by the byte");
        whole
    }
}

fn text(socket: &mut RawSocket) -> String {
    String::from_utf8(socket.read_to_end()).unwrap()
}

/// Status and frames; pongs by themselves, since they overtake what still waits to be written.
fn frames(socket: &mut RawSocket) -> (u16, Vec<Frame>, Vec<Frame>) {
    let status = socket.read_head().status;
    let all = std::iter::from_fn(|| socket.next());
    let (pongs, others) = all.partition(|frame| frame.opcode == 10);
    (status, others, pongs)
}

#[test]
fn a_request_cut_anywhere_gets_the_same_answer() {
    let mut stage = Stage::new();
    let bearer = format!("Bearer {}", stage.server.publisher_token());
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let given = [("Authorization", bearer.as_str()), ("Connection", "close")];
        request("POST", "/v1/events", &[&given[..], headers].concat(), body)
    };
    let mut check = |what: &str, bytes: &[u8], start: &str| {
        let answer = stage.check(what, bytes, text);
        assert!(answer.starts_with(start), "{what}: {answer}");
    };
    let (event, ok) = (EVENT.as_bytes(), "HTTP/1.1 200 OK\r\n");
    check("a body with its length", &post(&[], event), ok);
    let (one, two) = EVENT.split_at(5);
    let chunks = format!("5\r\n{one}\r\n1f;ext=\"a\"\r\n{two}\r\n0\r\nT: u\r\n\r\n");
    let chunked = [("Transfer-Encoding", "chunked")];
    check("a body in chunks", &post(&chunked, chunks.as_bytes()), ok);
    let bad = "HTTP/1.1 400 Bad Request\r\n";
    check("chunks that do not fit", &post(&chunked, b"2\r\n{}x"), bad);
    let given = [("Authorization", "Bearer x"), ("Connection", "close")];
    let refused = request("POST", "/v1/events", &given, event);
    check(
        "a refused request",
        &refused,
        "HTTP/1.1 401 Unauthorized\r\n",
    );
    let livez = request("GET", "/livez", &[], b"");
    check("two requests", &[livez, post(&[], event)].concat(), ok);
    let malformed = b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    check("a malformed head", malformed, bad);
    let nowhere = upgrade_request("/nowhere", "x");
    check("a refused upgrade", &nowhere, "HTTP/1.1 404 Not Found\r\n");
}

#[test]
fn a_web_socket_cut_anywhere_gets_the_same_answer() {
    let mut stage = Stage::new();
    let upgrade = upgrade_request("/echo", &stage.server.viewer_token("alice", &[]));
    let messages = [
        text_frame("a"),
        masked(0x89, b"ping"),
        masked(0x02, b"\xff"),
        masked(0x00, b""),
        masked(0x89, b""),
        masked(0x80, b"\xfe"),
        masked(0x01, b"\xe2"),
        masked(0x80, b"\x82\xac"),
        masked(0x82, &[7; 130]),
    ]
    .concat();
    let mut check = |what: &str, last: &[u8], code: u16| {
        let bytes = [&upgrade[..], &messages, last].concat();
        let (status, frames, pongs) = stage.check(what, &bytes, frames);
        assert_eq!((status, pongs.len()), (101, 2));
        let payloads: Vec<&[u8]> = frames.iter().map(|frame| &frame.payload[..]).collect();
        assert_eq!(
            payloads[..4],
            [b"a", &b"\xff\xfe"[..], "€".as_bytes(), &[7; 130]]
        );
        assert_eq!(frames[4].close_code(), code, "{what}");
    };
    check("a close at the end", &close_frame(3_000), 3_000);
    check("a violation at the end", &masked(0x81, b"\xe2\x28"), 1007);
}
