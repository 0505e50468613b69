//! The whole command against a small gateway.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::client::test_server::{Peer, TestServer, within};
use super::*;

/// Where the command under test writes.
#[derive(Clone, Default)]
pub(super) struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_closed: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }
}

/// The flags of a command that is given a gateway and no more.
pub(super) fn args(url: String) -> TailArgs {
    TailArgs {
        connect: ConnectArgs::for_test(url),
        dialect: Shape::Keen,
        sessions: Vec::new(),
        projects: Vec::new(),
        types: Vec::new(),
        all: false,
        resume: None,
        epoch: None,
        messages: false,
        tree: false,
    }
}

/// Runs the command, changed by `change`, against a gateway that follows `script`; returns the
/// outcome and what was printed.
fn tail(
    change: impl FnOnce(&mut TailArgs),
    sink: &Sink,
    script: impl FnOnce(&TestServer) + Send + 'static,
) -> (Result<(), ClientError>, String) {
    let (url, server) = TestServer::start(script);
    let mut args = args(url);
    change(&mut args);
    let out = sink.clone();
    let outcome = within(move || view(&args, Stop::default(), Format::Lines, out));
    within(move || server.join().unwrap());
    (outcome, sink.text())
}

fn establish(peer: &mut Peer, epoch: &str, resume: &Value) {
    peer.send(&json!({"event_type": "connection_established", "data": {
        "connectionId": "c", "epoch": epoch, "resume": resume,
    }}));
}

fn event(seq: u64, stream: Option<&str>) -> Value {
    let mut event = json!({"event_type": "custom", "seq": seq, "data": {}});
    if let Some(stream) = stream {
        event["stream"] = stream.into();
    }
    event
}

fn seqs(printed: &str) -> Vec<u64> {
    printed
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect()
}

#[test]
fn prints_envelopes_as_they_came_one_a_line() {
    let (outcome, printed) = tail(
        |_| (),
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            assert_eq!(peer.path, "/keen?tree=off");
            establish(
                &mut peer,
                "00000001",
                &json!([{"stream": "user", "outcome": "fresh", "to": 0}]),
            );
            peer.send_text(
                "{\"event_type\":\"a\", \"seq\":1,\"data\":{\"n\":1.50,\n \"m\":\"\\n\"}}",
            );
            peer.send(&json!({"event_type": "pong", "data": {}}));
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(
        printed,
        "{\"event_type\":\"a\", \"seq\":1,\"data\":{\"n\":1.50,  \"m\":\"\\n\"}}\n"
    );
}

#[test]
fn goes_on_where_it_was_after_a_lost_connection() {
    let (outcome, printed) = tail(
        |args| args.all = true,
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            assert_eq!(peer.path, "/keen?tree=off&subscribe=all");
            establish(
                &mut peer,
                "0000000a",
                &json!([
                    {"stream": "user", "outcome": "fresh", "from": 4, "to": 4},
                    {"stream": "project/7", "outcome": "fresh", "from": 0, "to": 0},
                ]),
            );
            peer.send(&event(5, None));
            peer.send(&event(2, Some("project/7")));
            peer.send(&json!({"event_type": "cursor", "data": {
                "epoch": "0000000a", "streams": {"user": 6, "project/7": 1},
            }}));
            peer.close(4008);
            let mut peer = server.accept();
            let resume = "&epoch=0000000a&resume=user%3D6%2Cproject%2F7%3D2";
            assert_eq!(peer.path, format!("/keen?tree=off&subscribe=all{resume}"));
            establish(
                &mut peer,
                "0000000a",
                &json!([
                    {"stream": "user", "outcome": "resumed", "from": 6, "to": 8},
                ]),
            );
            for seq in [6, 7, 8] {
                peer.send(&event(seq, None));
            }
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(seqs(&printed), [5, 2, 7, 8]);
}

#[test]
fn a_replay_that_breaks_off_is_resumed_where_it_broke_off() {
    let (outcome, printed) = tail(
        |args| (args.resume, args.epoch) = (Some("3".into()), Some("0000000a".into())),
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            assert_eq!(peer.path, "/keen?tree=off&epoch=0000000a&resume=user%3D3");
            let resumed = json!([{"stream": "user", "outcome": "resumed", "from": 3, "to": 9}]);
            establish(&mut peer, "0000000a", &resumed);
            peer.send(&event(4, None));
            peer.close(1011);
            let peer = server.accept();
            assert!(peer.path.ends_with("resume=user%3D4"), "{}", peer.path);
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(seqs(&printed), [4]);
}

#[test]
fn a_new_epoch_begins_anew() {
    let (outcome, printed) = tail(
        |_| (),
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            establish(&mut peer, "0000000a", &json!([]));
            peer.send(&event(50, None));
            peer.close(1001);
            let mut peer = server.accept();
            let reset = json!([{"stream": "user", "outcome": "reset", "to": 0}]);
            establish(&mut peer, "0000000b", &reset);
            peer.send(&event(1, None));
            peer.close(1011);
            let peer = server.accept();
            assert!(
                peer.path.ends_with("epoch=0000000b&resume=user%3D1"),
                "{}",
                peer.path
            );
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(seqs(&printed), [50, 1]);
}

#[test]
fn a_filter_is_subscribed_to_and_what_came_before_is_not_shown() {
    let (outcome, printed) = tail(
        |args| args.projects = vec!["7".into()],
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            assert_eq!(peer.path, "/keen?tree=off");
            establish(
                &mut peer,
                "0000000a",
                &json!([
                    {"stream": "user", "outcome": "fresh", "to": 1},
                ]),
            );
            peer.send(&event(2, None));
            assert_eq!(peer.read()["type"], "unsubscribe");
            assert_eq!(peer.read()["data"]["filters"]["projectIds"], json!(["7"]));
            peer.send(&json!({"event_type": "subscription_confirmed", "data": {
                "subscriptionKey": "k", "at": {"user": 2, "project/7": 5},
            }}));
            peer.send(&event(6, Some("project/7")));
            peer.close(4010);
            let mut peer = server.accept();
            establish(&mut peer, "0000000a", &json!([]));
            peer.read();
            assert_eq!(peer.read()["data"]["resume"], "user=2,project/7=6");
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(seqs(&printed), [6]);
}

#[test]
fn a_refused_subscription_ends_it() {
    let (outcome, _) = tail(
        |args| args.types = vec!["x".into()],
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            establish(&mut peer, "0000000a", &json!([]));
            peer.read();
            peer.read();
            peer.send(
                &json!({"event_type": "subscription_error", "data": {"code": "INVALID_FILTERS"}}),
            );
            assert_eq!(peer.read_close(), Some(1000));
        },
    );
    assert!(outcome.unwrap_err().to_string().contains("INVALID_FILTERS"));
}

#[test]
fn the_servers_messages_are_printed_when_asked_for() {
    let (outcome, printed) = tail(
        |args| (args.messages, args.dialect) = (true, Shape::Observatory),
        &Sink::default(),
        |server| {
            let mut peer = server.accept();
            assert_eq!(peer.path, "/observatory?subscribe=all");
            peer.send(&json!({"type": "connection_established", "data": {"epoch": "0000000a"}}));
            peer.send(&json!({"type": "custom", "stream": "user", "seq": 1, "data": {}}));
            peer.close(1000);
        },
    );
    outcome.unwrap();
    assert_eq!(printed.lines().count(), 2, "{printed}");
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    let closed = Sink {
        is_closed: true,
        ..Sink::default()
    };
    let (outcome, _) = tail(
        |_| (),
        &closed,
        |server| {
            let mut peer = server.accept();
            establish(&mut peer, "0000000a", &json!([]));
            peer.send(&event(1, None));
        },
    );
    outcome.unwrap();
}
