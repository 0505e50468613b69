//! A connection together with what was read from it and not yet taken.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{Answer, Stream, check_secrecy};

/// Bytes to and from a server, taken piece by piece.
pub struct Wire {
    stream: Stream,
    /// What was read and not yet taken.
    pub rest: Vec<u8>,
}

impl Wire {
    /// Takes over a connection.
    pub fn over(stream: Stream) -> Self {
        let rest = Vec::new();
        Self { stream, rest }
    }

    /// How long a read may take.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_patience(patience);
    }

    /// A second handle, for sending while answers are read. Over plain TCP only.
    pub fn writer(&self) -> TcpStream {
        self.stream.writer()
    }

    /// Sends bytes. A peer that has closed already is no failure: its answer is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if is_gone(error.kind()) => {}
            outcome => outcome.unwrap(),
        }
    }

    /// Ends this half of the connection.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// The head of an answer.
    pub fn read_head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.expect_more();
        };
        let head = self.take(end);
        let head = std::str::from_utf8(&head).unwrap();
        check_secrecy("the head of an answer", head);
        Answer::of_head(head)
    }

    /// So many bytes of what follows.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count {
            self.expect_more();
        }
        self.rest.drain(..count).collect()
    }

    /// Whether the peer ends the connection here, with nothing more to say.
    pub fn is_over(&mut self) -> bool {
        self.rest.is_empty() && !self.read()
    }

    /// All that comes up to the end of the stream.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.rest)
    }

    /// Whether something came; `false` at the end.
    pub fn read(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                read > 0
            }
            Err(error) if is_gone(error.kind()) => false,
            Err(error) => panic!("neither an answer nor an end: {error}"),
        }
    }

    fn expect_more(&mut self) {
        let came = self.read();
        let rest = String::from_utf8_lossy(&self.rest);
        assert!(came, "the end came after {rest:?}");
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
