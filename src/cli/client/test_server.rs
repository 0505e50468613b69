//! A small gateway for the clients' tests: tungstenite's server on a thread, following a script.

#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket, accept_hdr};

/// What a script acts on.
pub(crate) struct TestServer {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

/// A client's connection, plain or not.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// One client's connection, seen from the server.
pub(crate) struct Peer {
    /// Path and query of the request.
    pub(crate) path: String,
    /// The header of that name.
    pub(crate) authorization: String,
    websocket: WebSocket<Stream>,
}

impl TestServer {
    /// Starts a server on a free port; returns its URL and the thread that follows `script`.
    pub(crate) fn start<T: Send + 'static>(
        script: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        Self::listen("ws", None, script)
    }

    /// The same with TLS.
    pub(crate) fn start_tls<T: Send + 'static>(
        config: Arc<ServerConfig>,
        script: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        Self::listen("wss", Some(config), script)
    }

    fn listen<T: Send + 'static>(
        scheme: &str,
        tls: Option<Arc<ServerConfig>>,
        script: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> (String, JoinHandle<T>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        (url, thread::spawn(move || script(&Self { listener, tls })))
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

    /// Answers the next connection's first bytes, whatever they are, with an HTTP `status`.
    pub(crate) fn answer_anything(&self, status: &str) {
        let mut stream = self.accept_stream();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
    }

    /// The next connection is one that the client gives up before it has sent anything.
    pub(crate) fn fail_handshake(&self) {
        assert!(self.accept_stream().read(&mut [0]).is_err());
    }

    fn accept_stream(&self) -> Stream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match &self.tls {
            None => Stream::Plain(stream),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
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

    /// After a close: whether the client ends TLS too before the connection is gone.
    pub(crate) fn ends_in_peace(mut self) -> bool {
        while self.websocket.read().is_ok() {}
        matches!(self.websocket.get_mut().read(&mut [0]), Ok(0))
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
