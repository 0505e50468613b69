//! A small gateway for the clients' tests: tungstenite's server on a thread, following a script.

#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket, accept_hdr};

/// What a script acts on.
pub(crate) struct TestServer {
    listener: TcpListener,
}

/// One client's connection, seen from the server.
pub(crate) struct Peer {
    /// Path and query of the request.
    pub(crate) path: String,
    /// The header of that name.
    pub(crate) authorization: String,
    websocket: WebSocket<TcpStream>,
}

impl TestServer {
    /// Starts a server on a free port; returns its URL and the thread that follows `script`.
    pub(crate) fn start<T: Send + 'static>(
        script: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        (url, thread::spawn(move || script(&Self { listener })))
    }

    /// The next connection, upgraded.
    pub(crate) fn accept(&self) -> Peer {
        let (mut path, mut authorization) = (String::new(), String::new());
        let websocket = accept_hdr(
            self.accept_stream(),
            |request: &Request, response: Response| {
                path = request.uri().to_string();
                authorization = request.headers()["authorization"]
                    .to_str()
                    .unwrap()
                    .to_owned();
                Ok(response)
            },
        );
        Peer {
            websocket: websocket.unwrap(),
            path,
            authorization,
        }
    }

    /// Answers the next connection with an HTTP `status` and `body`, which comes after the head.
    pub(crate) fn refuse(&self, status: &str, body: &str) {
        let mut stream = self.accept_stream();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
    }

    fn accept_stream(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Peer {
    pub(crate) fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.websocket.send(Message::text(text)).unwrap();
    }

    /// The next text message.
    pub(crate) fn read_text(&mut self) -> String {
        self.websocket
            .read()
            .unwrap()
            .into_text()
            .unwrap()
            .to_string()
    }

    /// The next text message, as JSON.
    pub(crate) fn read(&mut self) -> Value {
        serde_json::from_str(&self.read_text()).unwrap()
    }

    /// The code of the close that comes next.
    pub(crate) fn read_close(&mut self) -> Option<u16> {
        match self.websocket.read().unwrap() {
            Message::Close(frame) => frame.map(|frame| frame.code.into()),
            other => panic!("not a close: {other:?}"),
        }
    }

    /// Closes with `code` and waits for the answer.
    pub(crate) fn close(mut self, code: u16) {
        let reason = "".into();
        let code = code.into();
        self.websocket
            .close(Some(CloseFrame { code, reason }))
            .unwrap();
        while self.websocket.read().is_ok() {}
    }
}

/// The result of `work`, which runs on a thread so that a test that hangs fails.
pub(crate) fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);
