//! A WebSocket by hand, so that frames can be as wrong as a test wants them, and reading can stop.

use std::net::TcpStream;
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::{Answer, Server, Stream, Wire, check_secrecy, request};

/// An upgraded connection that does only what it is told: it answers no ping.
pub struct RawSocket {
    wire: Wire,
    // permessage-deflate was agreed on.
    takes_deflated: bool,
}

/// A frame as the server sends it: never masked.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub opcode: u8,
    /// What it says: inflated, where it was deflated.
    pub payload: Vec<u8>,
    /// The payload on the wire, where it was deflated.
    pub deflated: Option<Vec<u8>>,
}

impl Frame {
    /// The code of a close.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE, "{self:?}");
        u16::from_be_bytes([self.payload[0], self.payload[1]])
    }

    /// The text of a message.
    pub fn text(&self) -> &str {
        assert_eq!(self.opcode, TEXT, "{self:?}");
        let text = std::str::from_utf8(&self.payload).unwrap();
        check_secrecy("a message", text);
        text
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;

impl RawSocket {
    /// Upgrades, with `first` in the same segment as the request, and reads the 101.
    pub fn open(server: &Server, target: &str, token: &str, first: &[u8]) -> Self {
        let mut socket = Self::connect(server);
        socket.send(&[upgrade_request(target, token), first.to_vec()].concat());
        let answer = socket.read_head();
        assert_eq!(answer.status, 101, "{answer:?}");
        socket
    }

    /// Upgrades with this offer of extensions. Returns what was agreed on as well.
    pub fn open_offering(
        server: &Server,
        target: &str,
        token: &str,
        offer: &str,
    ) -> (Self, Option<String>) {
        let mut socket = Self::connect(server);
        let extensions = [("Sec-WebSocket-Extensions", offer)];
        socket.send(&upgrade_request_with(target, token, &extensions));
        let answer = socket.read_head();
        assert_eq!(answer.status, 101, "{answer:?}");
        let agreed = answer
            .header("sec-websocket-extensions")
            .map(str::to_string);
        socket.takes_deflated = agreed.is_some();
        (socket, agreed)
    }

    /// Upgrades and agrees on permessage-deflate.
    pub fn open_deflated(server: &Server, target: &str, token: &str) -> Self {
        let (socket, agreed) = Self::open_offering(server, target, token, "permessage-deflate");
        assert!(agreed.is_some());
        socket
    }

    /// A connection on which nothing was said yet.
    pub fn connect(server: &Server) -> Self {
        Self::over(server.stream())
    }

    /// Takes over a connection.
    pub fn over(stream: Stream) -> Self {
        Self {
            wire: Wire::over(stream),
            takes_deflated: false,
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    /// The head of an answer.
    pub fn read_head(&mut self) -> Answer {
        self.wire.read_head()
    }

    /// So many bytes of what follows.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.wire.take(count)
    }

    /// Reads `connection_established`, which must be what comes next.
    pub fn expect_established(&mut self) {
        let first = self.next_answer();
        let text = first.text();
        assert!(text.contains("connection_established"), "{text}");
    }

    /// The next frame; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((length, frame)) = parse(&self.wire.rest) {
                self.wire.rest.drain(..length);
                assert!(
                    self.takes_deflated || frame.deflated.is_none(),
                    "not agreed on"
                );
                return Some(frame);
            }
            if !self.wire.read() {
                assert!(self.wire.rest.is_empty(), "a frame cut short");
                return None;
            }
        }
    }

    /// The next frame that is no ping.
    pub fn next_answer(&mut self) -> Frame {
        loop {
            let frame = self.next().expect("an answer before the end");
            if frame.opcode != PING {
                return frame;
            }
        }
    }

    /// The code of the close, which must come; what comes before is dropped.
    pub fn close_code(&mut self) -> u16 {
        loop {
            let frame = self.next().expect("a close before the end");
            if frame.opcode == CLOSE {
                return frame.close_code();
            }
        }
    }

    /// The same, for which it may take so long.
    pub fn close_code_within(&mut self, patience: Duration) -> u16 {
        self.wire.set_patience(patience);
        self.close_code()
    }

    /// All that comes up to the end of the stream.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        self.wire.read_to_end()
    }

    /// A second handle, for sending while answers are read. Over plain TCP only.
    pub fn writer(&self) -> TcpStream {
        self.wire.writer()
    }

    /// Ends this half of the connection.
    pub fn finish(&mut self) {
        self.wire.finish();
    }
}

/// An upgrade with the token in a header.
pub fn upgrade_request(target: &str, token: &str) -> Vec<u8> {
    upgrade_request_with(target, token, &[])
}

fn upgrade_request_with(target: &str, token: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let authorization = format!("Bearer {token}");
    let headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Authorization", authorization.as_str()),
    ];
    request("GET", target, &[&headers, more].concat(), b"")
}

/// A client's frame with this first byte (FIN, RSV, opcode), masked, its length in shortest form.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key = [0x1f, 0x2e, 0x3d, 0x4c];
    frame.extend_from_slice(&key);
    let bytes = payload.iter().zip(key.iter().cycle());
    frame.extend(bytes.map(|(byte, key)| byte ^ key));
    frame
}

/// A client's text message in one frame.
pub fn text_frame(text: &str) -> Vec<u8> {
    masked(0x80 | TEXT, text.as_bytes())
}

/// The payload of a deflated message.
pub fn deflate(message: &[u8]) -> Vec<u8> {
    let mut stream = Compress::new(Compression::best(), false);
    let mut payload = Vec::with_capacity(message.len() + 1_000);
    let flush = FlushCompress::Sync;
    stream.compress_vec(message, &mut payload, flush).unwrap();
    payload.truncate(payload.strip_suffix(TAIL).unwrap().len());
    payload
}

fn inflate(payload: &[u8]) -> Vec<u8> {
    let mut stream = Decompress::new(false);
    let mut message = Vec::with_capacity(2 * 1024 * 1024);
    for part in [payload, TAIL] {
        let flush = FlushDecompress::Sync;
        stream.decompress_vec(part, &mut message, flush).unwrap();
    }
    message
}

/// What a sender of permessage-deflate strips off the end of a message.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];

/// A client's text message in one frame, deflated.
pub fn deflated_frame(text: &str) -> Vec<u8> {
    masked(0xc0 | TEXT, &deflate(text.as_bytes()))
}

/// A client's close.
pub fn close_frame(code: u16) -> Vec<u8> {
    masked(0x80 | CLOSE, &code.to_be_bytes())
}

fn parse(bytes: &[u8]) -> Option<(usize, Frame)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let is_deflated = first == 0xc0 | TEXT;
    assert!(
        is_deflated || first & 0xf0 == 0x80,
        "the server sends whole messages, and reserved bits only of deflated text"
    );
    assert_eq!(second & 0x80, 0, "the server does not mask");
    let (start, length) = match second {
        126 => (
            4,
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()),
        ),
        length => (2, u64::from(length)),
    };
    let end = start + length as usize;
    let payload = bytes.get(start..end)?.to_vec();
    let opcode = first & 0x0f;
    let frame = match is_deflated {
        true => Frame {
            opcode,
            payload: inflate(&payload),
            deflated: Some(payload),
        },
        false => Frame {
            opcode,
            payload,
            deflated: None,
        },
    };
    Some((end, frame))
}
