//! HTTP/1.1 by hand, so that a request can be as wrong as a test wants it.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use serde_json::Value;

use super::{DEADLINE, Stream, check_secrecy};

/// A connection over which requests go.
pub struct Http {
    stream: Stream,
    // Bytes read and not yet taken.
    rest: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    /// Connects to `HOST:PORT` or `unix:/PATH`.
    pub fn connect(address: &str) -> Self {
        Self::connect_for(address, DEADLINE)
    }

    /// The same, and waits for an answer so long.
    pub fn connect_for(address: &str, patience: Duration) -> Self {
        let stream = Stream::connect(address);
        stream.set_patience(patience);
        Self::over(stream)
    }

    /// Takes over a connection.
    pub fn over(stream: Stream) -> Self {
        let rest = Vec::new();
        Self { stream, rest }
    }

    /// A second handle, for sending while answers are read. Over plain TCP only.
    pub fn writer(&self) -> impl Write + Send + use<> {
        self.stream.writer()
    }

    /// Sends bytes. A peer that has closed already is no failure: its answer is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if is_gone(error.kind()) => {}
            outcome => outcome.unwrap(),
        }
    }

    /// The next answer, interim ones included.
    pub fn receive(&mut self) -> Answer {
        self.receive_to("GET")
    }

    /// The next answer, to a request of `method`: one to HEAD has no body.
    pub fn receive_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.read(),
                "no answer; only {:?}",
                String::from_utf8_lossy(&self.rest)
            );
        };
        let head: Vec<u8> = self.rest.drain(..end).collect();
        let head = std::str::from_utf8(&head).unwrap();
        check_secrecy("the head of an answer", head);
        let mut answer = Answer::of_head(head);
        let is_bodyless = matches!(answer.status, 100..200 | 204) || method == "HEAD";
        assert!(
            answer.header("content-length").is_none() || !matches!(answer.status, 100..200 | 204),
            "RFC 9110 §8.6: no length in {answer:?}"
        );
        if !is_bodyless {
            let length = answer
                .header("content-length")
                .expect("a length")
                .parse()
                .unwrap();
            answer.body = self.take(length);
            check_secrecy("an answer", &String::from_utf8_lossy(&answer.body));
        }
        answer
    }

    /// So many bytes of what follows.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count {
            assert!(
                self.read(),
                "only {:?}",
                String::from_utf8_lossy(&self.rest)
            );
        }
        self.rest.drain(..count).collect()
    }

    /// Whether the peer ends the connection here, with nothing more to say.
    pub fn is_over(&mut self) -> bool {
        self.rest.is_empty() && !self.read()
    }

    // Whether something came; `false` at the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                read > 0
            }
            Err(error) if is_gone(error.kind()) => false,
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
    }
}

impl Answer {
    /// Reads a head, up to its empty line.
    pub fn of_head(head: &str) -> Self {
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
            .collect();
        let body = Vec::new();
        Self {
            status,
            headers,
            body,
        }
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Status and code word of a refusal, whose body has exactly its two members.
    pub fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let error = body["error"]
            .as_object()
            .unwrap_or_else(|| panic!("no refusal: {body}"));
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        assert!(error.len() == 2 && error["message"].is_string(), "{body}");
        (self.status, error["code"].as_str().unwrap().to_string())
    }
}

/// The bytes of a request. A body has its length, unless the headers say how it is delimited.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    let has = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    if !has("host") {
        text += "Host: gateway.test\r\n";
    }
    if !(body.is_empty() || has("content-length") || has("transfer-encoding")) {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (text + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
