//! A small NATS server, and what the generator makes of it.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::{Message, WebSocket};

use crate::{SHORT, run_at};

/// How a server treats its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It ends a publisher at the tenth event, and says why.
    Complains,
    /// It passes everything on, each message in two frames that hold other things too.
    Cuts,
    /// Every tenth event reaches nobody.
    Loses,
}

/// A server on a port of its own, which ends with the test's process.
struct Server {
    manner: Manner,
    /// By subject, those who have said all that they will.
    subscribers: Mutex<HashMap<String, Vec<WebSocket<TcpStream>>>>,
}

impl Server {
    /// Starts one and returns its URL.
    fn start(manner: Manner) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let subscribers = Mutex::default();
        let server = Arc::new(Self {
            manner,
            subscribers,
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        url
    }

    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let mut socket = tungstenite::accept(stream).unwrap();
        say(&mut socket, "INFO {\"server_id\":\"test\"} \r\n");
        let said = hear(&mut socket).unwrap();
        assert!(said.starts_with("CONNECT {\"verbose\":false"), "{said}");
        assert!(said.ends_with("PING\r\n"), "{said}");
        say(&mut socket, "PO");
        say(&mut socket, "NG\r\nPING\r\n");
        assert_eq!(hear(&mut socket).unwrap(), "PONG\r\n");
        let subscription = said.lines().find_map(|line| line.strip_prefix("SUB "));
        if let Some((subject, "1")) = subscription.and_then(|line| line.split_once(' ')) {
            let mut subscribers = self.subscribers.lock().unwrap();
            subscribers
                .entry(subject.to_owned())
                .or_default()
                .push(socket);
        } else {
            self.pass_on(&mut socket);
        }
    }

    fn pass_on(&self, publisher: &mut WebSocket<TcpStream>) {
        let mut count = 0;
        while let Some(said) = hear(publisher) {
            count += 1;
            let (line, rest) = said.split_once("\r\n").unwrap();
            let (subject, bytes) = line.strip_prefix("PUB ").unwrap().split_once(' ').unwrap();
            let text = rest.strip_suffix("\r\n").unwrap();
            assert_eq!(text.len(), bytes.parse::<usize>().unwrap());
            match self.manner {
                Manner::Complains if count == 10 => {
                    say(publisher, "-ERR 'Maximum Payload Violation'\r\n");
                    return;
                }
                Manner::Loses if count % 10 == 0 => {}
                _ => self.send(subject, text),
            }
        }
    }

    /// Of two frames the first holds other operations and the beginning of the message, the second
    /// what is left of it and the beginning of another operation.
    fn send(&self, subject: &str, text: &str) {
        let message = format!("MSG {subject} 1 {}\r\n{text}\r\n", text.len());
        let (beginning, end) = message.split_at(message.len() / 3);
        let mut subscribers = self.subscribers.lock().unwrap();
        for socket in subscribers.get_mut(subject).into_iter().flatten() {
            say(socket, &format!("+OK\r\nPING\r\n{beginning}"));
            say(socket, &format!("{end}INFO {{}}"));
            say(socket, "\r\n");
        }
    }
}

/// A generator that has finished is no fault of this server.
fn say(socket: &mut WebSocket<TcpStream>, text: &str) {
    let _ = socket.send(Message::binary(text.as_bytes().to_vec()));
}

fn hear(socket: &mut WebSocket<TcpStream>) -> Option<String> {
    let message = socket.read().ok()?;
    Some(message.to_text().unwrap().to_owned())
}

#[test]
fn operations_are_found_however_frames_cut_them() {
    let arguments = format!(
        "users --target nats --users 3 --connections-per-user 2 --rate 120 --publishers 2 \
         --warmup 0.1 {SHORT}"
    );
    let ran = run_at(&Server::start(Manner::Cuts), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    assert_eq!(ran.json["target"], "nats");
    let run = &ran.json["runs"][0];
    assert_eq!(run["groups"][0]["delivered"], 120);
    assert_eq!(run["acknowledgements"]["publishers"], 2);
    // A message alone in its frame has a header of 4 bytes. Here it has two, and what else is in its
    // frames; the third frame is not its own.
    let frame_bytes = (415 - 4) + (4 + 4) + "+OK\r\nPING\r\nINFO {}".len();
    assert_eq!(run["groups"][0]["frame_bytes"], frame_bytes as f64);
}

#[test]
fn what_nats_loses_is_lost() {
    let arguments = format!("fanout --target nats --connections 3 --rate 100 --warmup 0 {SHORT}");
    let ran = run_at(&Server::start(Manner::Loses), &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    assert_eq!(ran.json["runs"][0]["groups"][0]["lost"], 15, "{}", ran.text);
}

#[test]
fn complaint_of_nats_is_told() {
    let arguments = format!("fanout --target nats --connections 3 --rate 100 --warmup 0 {SHORT}");
    let ran = run_at(&Server::start(Manner::Complains), &arguments);
    assert_eq!(ran.code, 1, "{}", ran.text);
    let reason = "connection closed: publisher 0: -ERR 'Maximum Payload Violation'";
    assert!(ran.text.contains(reason), "{}", ran.text);
}

#[test]
fn slow_viewer_has_the_subject_of_its_user() {
    let arguments = format!(
        "slow-consumer --target nats --slow 3 --users 2 --connections-per-user 1 --rate 40 \
         --warmup 0 {SHORT}"
    );
    let ran = run_at(&Server::start(Manner::Cuts), &arguments);
    assert_eq!(ran.code, 0, "{}", ran.text);
    let lagged = &ran.json["rounds"][0]["beside"]["lagged"];
    assert_eq!(lagged["ended"]["open"], 3, "{lagged}");
    // Of 20 events each user gets half.
    assert_eq!(lagged["delivered"], 30, "{lagged}");
}
