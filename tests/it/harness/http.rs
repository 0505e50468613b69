//! HTTP/1.1 by hand, so that a request can be as wrong as a test wants it.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::{DEADLINE, Stream, Wire, check_secrecy};

/// A connection over which requests go.
pub struct Http(Wire);

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
        Self(Wire::over(stream))
    }

    /// A second handle, for sending while answers are read. Over plain TCP only.
    pub fn writer(&self) -> impl Write + Send + use<> {
        self.0.writer()
    }

    /// Sends bytes. A peer that has closed already is no failure: its answer is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.send(bytes);
    }

    /// The next answer, interim ones included.
    pub fn receive(&mut self) -> Answer {
        self.receive_to("GET")
    }

    /// The next answer, to a request of `method`: one to HEAD has no body.
    pub fn receive_to(&mut self, method: &str) -> Answer {
        let mut answer = self.0.read_head();
        let is_bodyless = matches!(answer.status, 100..200 | 204) || method == "HEAD";
        assert!(
            answer.header("content-length").is_none() || !matches!(answer.status, 100..200 | 204),
            "RFC 9110 §8.6: no length in {answer:?}"
        );
        if !is_bodyless {
            let length = answer.header("content-length").expect("a length");
            answer.body = self.0.take(length.parse().unwrap());
            check_secrecy("an answer", &String::from_utf8_lossy(&answer.body));
        }
        answer
    }

    /// So many bytes of what follows.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.0.take(count)
    }

    /// Whether the peer ends the connection here, with nothing more to say.
    pub fn is_over(&mut self) -> bool {
        self.0.is_over()
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
