//! A server that behaves, or misbehaves in one way: `/pub?topic=T` goes to `/ws?topic=T`, and
//! `/v1/publish` to the gateway's viewers.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::{Compress, Compression, FlushCompress};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

/// What the servers verify tokens by.
pub const SECRET: &str = "an-end-to-end-secret-of-32-bytes";

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Every tenth event reaches one subscriber less.
    Loses,
    /// Every tenth event goes out twice.
    Duplicates,
    /// Every ninth of ten goes out after its successor.
    Reorders,
    /// Every tenth event goes to the subscribers of all topics.
    Leaks,
    /// The filling of every event is altered.
    Alters,
    /// One subscriber is closed at the tenth event.
    Closes,
    /// No acknowledgement after the tenth event.
    NeverSettles,
    /// `OVERLOADED` from the tenth event on.
    Overloaded,
    /// `NO_AUDIENCE` for every tenth event.
    Refuses,
    /// A cursor is answered with `reset`.
    Resets,
    /// Replay is said to be complete before its last event.
    CompletesEarly,
}

/// How a server talks.
pub enum Wire {
    Plain,
    /// permessage-deflate with those who offer it, for every text that is worth it.
    Deflate,
    Tls(Arc<ServerConfig>),
}

/// A server on a port of its own, which ends with the test's process.
pub struct Server {
    pub fault: Fault,
    wire: Wire,
    /// What the gateway's users were sent: the envelope with seq N has index N - 1.
    pub streams: Mutex<HashMap<String, Vec<String>>>,
    subscribers: Mutex<HashMap<String, Vec<Subscriber>>>,
}

struct Subscriber {
    socket: WebSocket<Box<dyn Stream>>,
    inflates: bool,
}

pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl Server {
    /// Starts a plain one and returns its URL.
    pub fn start(fault: Fault) -> String {
        Self::start_on(Wire::Plain, fault)
    }

    /// Starts one and returns its URL.
    pub fn start_on(wire: Wire, fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if matches!(wire, Wire::Tls(_)) {
            "wss"
        } else {
            "ws"
        };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let server = Arc::new(Self {
            fault,
            wire,
            streams: Mutex::new(HashMap::new()),
            subscribers: Mutex::new(HashMap::new()),
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        url
    }

    fn stream(&self, stream: TcpStream) -> Box<dyn Stream> {
        stream.set_nodelay(true).unwrap();
        let Wire::Tls(config) = &self.wire else {
            return Box::new(stream);
        };
        let session = ServerConnection::new(Arc::clone(config)).unwrap();
        Box::new(StreamOwned::new(session, stream))
    }

    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is tungstenite's"
    )]
    fn serve(&self, stream: TcpStream) {
        let mut target = String::new();
        let mut inflates = false;
        let callback = |request: &Request, mut response: Response| {
            target = request.uri().to_string();
            if target.contains("token=") && user_of(&target).is_none() {
                let mut refusal = ErrorResponse::new(Some("TOKEN_INVALID".to_owned()));
                *refusal.status_mut() = StatusCode::UNAUTHORIZED;
                return Err(refusal);
            }
            let extensions = "sec-websocket-extensions";
            inflates =
                matches!(self.wire, Wire::Deflate) && request.headers().contains_key(extensions);
            if inflates {
                let answer = "permessage-deflate; server_no_context_takeover";
                let headers = response.headers_mut();
                headers.insert(extensions, answer.parse().unwrap());
            }
            Ok(response)
        };
        let Ok(mut socket) = tungstenite::accept_hdr(self.stream(stream), callback) else {
            return;
        };
        let (path, query) = target.split_once('?').unwrap();
        let topic = query.strip_prefix("topic=").map(str::to_owned);
        match path {
            "/ws" => self.add(topic.unwrap(), Subscriber { socket, inflates }),
            "/pub" => self.pass_on(&topic.unwrap(), &mut socket),
            "/v1/publish" => self.publish(&mut socket),
            _ => {
                let user = user_of(&target).unwrap();
                if self.greet(&mut socket, &user, query).is_ok() {
                    self.add(user, Subscriber { socket, inflates });
                }
            }
        }
    }

    fn add(&self, topic: String, subscriber: Subscriber) {
        self.subscribers
            .lock()
            .unwrap()
            .entry(topic)
            .or_default()
            .push(subscriber);
    }

    /// A topic's publisher: texts go out as they are.
    fn pass_on(&self, topic: &str, socket: &mut WebSocket<Box<dyn Stream>>) {
        let mut held = None;
        let mut count = 0;
        while let Ok(Message::Text(text)) = socket.read() {
            count += 1;
            let is_tenth = count % 10 == 0;
            if count % 10 == 9 && self.fault == Fault::Reorders {
                held = Some(text.to_string());
                continue;
            }
            self.send(topic, &text, is_tenth);
            if let Some(held) = held.take() {
                self.send(topic, &held, false);
            }
        }
    }

    /// A gateway's publisher: events get an envelope with a number, and are acknowledged.
    fn publish(&self, socket: &mut WebSocket<Box<dyn Stream>>) {
        let mut count = 0;
        while let Ok(Message::Text(text)) = socket.read() {
            count += 1;
            let event: Value = serde_json::from_str(&text).unwrap();
            let user = event["user_id"].as_str().unwrap().to_owned();
            let envelope = self.keep(&user, &event);
            let reply = match self.fault {
                Fault::NeverSettles if count >= 10 => None,
                Fault::Overloaded if count >= 10 => {
                    let data = json!({"message": count, "index": 0, "code": "OVERLOADED"});
                    Some(json!({"type": "nack", "data": data}))
                }
                Fault::Refuses if count % 10 == 0 => {
                    let data = json!({"message": count, "index": 0, "code": "NO_AUDIENCE"});
                    let nack = json!({"type": "nack", "data": data});
                    socket.send(Message::text(nack.to_string())).unwrap();
                    Some(json!({"type": "ack", "data": {"through": count}}))
                }
                _ => Some(json!({"type": "ack", "data": {"through": count}})),
            };
            self.send(&user, &envelope, count % 10 == 0);
            if let Some(reply) = reply {
                socket.send(Message::text(reply.to_string())).unwrap();
            }
        }
    }

    fn send(&self, topic: &str, text: &str, is_tenth: bool) {
        let text = if self.fault == Fault::Alters {
            text.replace("xx", "xy")
        } else {
            text.into()
        };
        let mut subscribers = self.subscribers.lock().unwrap();
        let leaks = is_tenth && self.fault == Fault::Leaks;
        for (name, members) in subscribers.iter_mut() {
            if name != topic && !leaks {
                continue;
            }
            let skipped = usize::from(is_tenth && self.fault == Fault::Loses);
            for member in members.iter_mut().skip(skipped) {
                let copies = if is_tenth && self.fault == Fault::Duplicates {
                    2
                } else {
                    1
                };
                for _ in 0..copies {
                    // A generator that has finished is no fault of this server.
                    let _ = member.socket.send(Message::Ping("between".into()));
                    let _ = member.socket.send(member.message(&text));
                }
            }
            if is_tenth && self.fault == Fault::Closes {
                members.pop();
            }
        }
    }
}

impl Subscriber {
    fn message(&self, text: &str) -> Message {
        let deflated = deflate(text.as_bytes());
        if !self.inflates || deflated.len() >= text.len() {
            return Message::text(text);
        }
        let mut frame = Frame::message(deflated, OpCode::Data(Data::Text), true);
        frame.header_mut().rsv1 = true;
        Message::Frame(frame)
    }
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut state = Compress::new(Compression::fast(), false);
    let mut out = Vec::with_capacity(text.len() + 1024);
    state
        .compress_vec(text, &mut out, FlushCompress::Sync)
        .unwrap();
    out.truncate(out.len() - 4);
    out
}

/// The `sub` of the token in a request's query, where it is one of ours.
fn user_of(target: &str) -> Option<String> {
    let token = target
        .split(['?', '&'])
        .find_map(|pair| pair.strip_prefix("token="))?;
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .ok()?
        .claims;
    Some(claims["sub"].as_str()?.to_owned())
}
