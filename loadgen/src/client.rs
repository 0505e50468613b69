//! The client's side of WebSocket without a socket: the upgrade, frames in, frames out.
//!
//! Deliberately small: no extension is offered, so every RSV bit is an error, and UTF-8 is not
//! checked (the sample of whole deliveries is, as JSON). A connection holds nothing but the bytes
//! of a frame that a read has cut. Driven by `driver`. Source: RFC 6455 §4.1, §5.

use std::io::Cursor;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Why a connection cannot go on. All of these are the server's doing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// The answer to the upgrade is no HTTP, or longer than [`HEAD_BYTES_MAX`].
    #[error("the answer to the upgrade is not HTTP")]
    BadResponse,
    /// The upgrade was answered with another status than 101.
    #[error("refused with {status}: {body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, as far as it came along.
        body: String,
    },
    /// 101, but `Sec-WebSocket-Accept` does not fit the key.
    #[error("Sec-WebSocket-Accept does not fit the key")]
    WrongAccept,
    /// A frame that RFC 6455 forbids a server to send.
    #[error("bad frame: {0}")]
    BadFrame(&'static str),
}

/// The request that upgrades `path` at `host` with `key` (base64 of 16 bytes).
pub(crate) fn upgrade_request(host: &str, path: &str, key: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    .into_bytes()
}

/// Decodes the answer to the upgrade at the front of `buf`. Returns its length, after which
/// frames begin, or `None` until all of it is there.
/// Errors: `BadResponse`, `Refused`, `WrongAccept`.
pub(crate) fn decode_response(buf: &[u8], key: &str) -> Result<Option<usize>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(buf) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if buf.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(_) => return Err(ClientError::BadResponse),
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        let body = &buf[head_bytes..buf.len().min(head_bytes + BODY_BYTES_SHOWN)];
        return Err(ClientError::Refused {
            status,
            body: String::from_utf8_lossy(body).into_owned(),
        });
    }
    let expected = derive_accept_key(key.as_bytes());
    let is_accept = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("sec-websocket-accept")
            && header.value == expected.as_bytes()
    };
    if response.headers.iter().any(is_accept) {
        Ok(Some(head_bytes))
    } else {
        Err(ClientError::WrongAccept)
    }
}

/// One message or control frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A whole text or binary message.
    Data(&'a [u8]),
    /// A ping, to be answered with the same payload.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// The close frame; its code, or 1005 where it has none.
    Close(u16),
}

/// Cuts a connection's bytes into messages.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// The beginning of a frame whose end has not arrived.
    partial: Vec<u8>,
    /// The fragments so far of a message that is not final yet, and their bytes on the wire.
    fragments: Option<Box<(Vec<u8>, usize)>>,
}

impl FrameReader {
    /// Takes the next `input` of the stream and hands each message that is whole to `handle`,
    /// with its bytes on the wire (headers included).
    /// Errors: `BadFrame`; the stream is of no use after it.
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        mut handle: impl FnMut(Message<'_>, usize),
    ) -> Result<(), ClientError> {
        if !self.partial.is_empty() {
            if !self.complete_partial(&mut input)? {
                return Ok(());
            }
            let mut partial = std::mem::take(&mut self.partial);
            self.read_frames(&partial, &mut handle)?;
            partial.clear();
            self.partial = partial;
        }
        let consumed = self.read_frames(input, &mut handle)?;
        self.partial.extend_from_slice(&input[consumed..]);
        Ok(())
    }

    /// Moves bytes from `input` until `partial` is one whole frame; says whether it is.
    fn complete_partial(&mut self, input: &mut &[u8]) -> Result<bool, ClientError> {
        loop {
            let missing = match decode_header(&self.partial)? {
                Some(frame) => frame.end - self.partial.len(),
                None => 1,
            };
            if missing == 0 || input.is_empty() {
                return Ok(missing == 0);
            }
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// Handles the whole frames at the front of `input`; returns how many bytes they take.
    fn read_frames(
        &mut self,
        input: &[u8],
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<usize, ClientError> {
        let mut at = 0;
        while let Some(frame) = decode_header(&input[at..])? {
            let Some(bytes) = input.get(at..at + frame.end) else {
                break;
            };
            self.handle_frame(&frame, &bytes[frame.payload..], handle)?;
            at += frame.end;
        }
        Ok(at)
    }

    fn handle_frame(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<(), ClientError> {
        match frame.opcode {
            OpCode::Control(Control::Ping) => handle(Message::Ping(payload), frame.end),
            OpCode::Control(Control::Pong) => handle(Message::Pong, frame.end),
            OpCode::Control(_) => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                handle(Message::Close(code), frame.end);
            }
            OpCode::Data(Data::Continue) => return self.handle_fragment(frame, payload, handle),
            OpCode::Data(_) if self.fragments.is_some() => {
                return Err(ClientError::BadFrame("a message inside a message"));
            }
            OpCode::Data(_) if frame.is_final => handle(Message::Data(payload), frame.end),
            OpCode::Data(_) => self.fragments = Some(Box::new((payload.to_vec(), frame.end))),
        }
        Ok(())
    }

    fn handle_fragment(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<(), ClientError> {
        let Some(mut fragments) = self.fragments.take() else {
            return Err(ClientError::BadFrame("a continuation of nothing"));
        };
        fragments.0.extend_from_slice(payload);
        fragments.1 += frame.end;
        if frame.is_final {
            handle(Message::Data(&fragments.0), fragments.1);
        } else if fragments.0.len() > MESSAGE_BYTES_MAX {
            return Err(ClientError::BadFrame("a message of more than 16 MiB"));
        } else {
            self.fragments = Some(fragments);
        }
        Ok(())
    }
}

/// Appends `payload` to `out` as one masked, final frame.
pub(crate) fn encode_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
    let header = FrameHeader {
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, out)
        .expect("a Vec takes every write");
    let start = out.len();
    out.extend_from_slice(payload);
    for (byte, mask) in out[start..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Masking keys (xorshift): they must not be the same for every frame, and need not be secret
/// from a server that is being measured.
#[derive(Debug)]
pub(crate) struct MaskSequence(u32);

impl MaskSequence {
    /// The same sequence each time.
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9)
    }

    /// The next key.
    pub(crate) fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0.to_ne_bytes()
    }
}

/// Bytes of the header of an unmasked frame of `frame_bytes` in all.
pub(crate) fn header_bytes(frame_bytes: usize) -> usize {
    match frame_bytes {
        0..=127 => 2,
        128..=65_539 => 4,
        _ => 10,
    }
}

/// Bytes of a message; the largest that the contract lets a server send is some 2 MiB.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_SHOWN: usize = 200;

/// Where a frame's parts are, from its first byte.
struct Frame {
    opcode: OpCode,
    is_final: bool,
    payload: usize,
    end: usize,
}

/// Decodes the header at the front of `buf`, or `None` until all of it is there.
fn decode_header(buf: &[u8]) -> Result<Option<Frame>, ClientError> {
    let mut cursor = Cursor::new(buf);
    let parsed =
        FrameHeader::parse(&mut cursor).map_err(|_| ClientError::BadFrame("an unknown opcode"))?;
    let Some((header, payload_bytes)) = parsed else {
        return Ok(None);
    };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(ClientError::BadFrame("a reserved bit without an extension"));
    }
    if header.mask.is_some() {
        return Err(ClientError::BadFrame("a mask from a server"));
    }
    let is_control = matches!(header.opcode, OpCode::Control(_));
    if is_control && (payload_bytes > 125 || !header.is_final) {
        return Err(ClientError::BadFrame("a long or fragmented control frame"));
    }
    if payload_bytes > MESSAGE_BYTES_MAX as u64 {
        return Err(ClientError::BadFrame("a message of more than 16 MiB"));
    }
    let payload = cursor.position() as usize;
    Ok(Some(Frame {
        opcode: header.opcode,
        is_final: header.is_final,
        payload,
        end: payload + payload_bytes as usize,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn accepted(accept: &str) -> String {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    }

    fn check_response(response: &str, expected: &Result<Option<usize>, ClientError>) {
        assert_eq!(
            &decode_response(response.as_bytes(), KEY),
            expected,
            "{response}"
        );
    }

    #[test]
    fn upgrade_answers() {
        let whole = accepted(ACCEPT);
        check_response(&whole, &Ok(Some(whole.len())));
        check_response(&format!("{whole}\u{1}x"), &Ok(Some(whole.len())));
        check_response(&whole[..whole.len() - 1], &Ok(None));
        check_response("", &Ok(None));
        check_response(&accepted("x"), &Err(ClientError::WrongAccept));
        check_response("nonsense\r\n\r\n", &Err(ClientError::BadResponse));
        let refused = ClientError::Refused {
            status: 429,
            body: "{}".to_owned(),
        };
        check_response(
            "HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}",
            &Err(refused),
        );
        let endless = format!("HTTP/1.1 101 S\r\nA: {}", "x".repeat(HEAD_BYTES_MAX));
        check_response(&endless, &Err(ClientError::BadResponse));
    }

    #[test]
    fn request_is_one_that_a_server_reads() {
        let request = upgrade_request("127.0.0.1:1", "/ws?topic=u000001", KEY);
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&request).unwrap().is_complete());
        assert_eq!(
            (parsed.method, parsed.path),
            (Some("GET"), Some("/ws?topic=u000001"))
        );
        assert!(
            parsed
                .headers
                .iter()
                .any(|header| header.name == "Sec-WebSocket-Key")
        );
    }

    /// What the reader made of the bytes, in a form that owns.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Seen {
        Data(Vec<u8>, usize),
        Ping(Vec<u8>),
        Pong,
        Close(u16),
    }

    fn read_cut(
        bytes: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Seen>, ClientError> {
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        let mut rest = bytes;
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (taken, left) = rest.split_at(cut.min(rest.len()));
            rest = left;
            reader.read(taken, |message, wire_bytes| {
                seen.push(match message {
                    Message::Data(payload) => Seen::Data(payload.to_vec(), wire_bytes),
                    Message::Ping(payload) => Seen::Ping(payload.to_vec()),
                    Message::Pong => Seen::Pong,
                    Message::Close(code) => Seen::Close(code),
                });
            })?;
        }
        Ok(seen)
    }

    fn server_frame(out: &mut Vec<u8>, opcode: OpCode, is_final: bool, payload: &[u8]) -> usize {
        let start = out.len();
        let header = FrameHeader {
            opcode,
            is_final,
            ..FrameHeader::default()
        };
        header.format(payload.len() as u64, out).unwrap();
        out.extend_from_slice(payload);
        out.len() - start
    }

    #[test]
    fn frames_that_a_server_may_not_send() {
        let cases: [(&[u8], &str); 8] = [
            (&[0xC1, 0], "a reserved bit without an extension"),
            (&[0x81, 0x80, 1, 2, 3, 4], "a mask from a server"),
            (&[0x83, 0], "an unknown opcode"),
            (&[0x80, 0], "a continuation of nothing"),
            (&[0x01, 0, 0x81, 0], "a message inside a message"),
            (&[0x09, 0], "a long or fragmented control frame"),
            (&[0x89, 126, 0, 126], "a long or fragmented control frame"),
            (
                &[0x81, 127, 0, 0, 0, 0, 2, 0, 0, 0],
                "a message of more than 16 MiB",
            ),
        ];
        for (bytes, reason) in cases {
            assert_eq!(
                read_cut(bytes, []),
                Err(ClientError::BadFrame(reason)),
                "{bytes:?}"
            );
            assert_eq!(
                read_cut(bytes, [1, 1, 1]),
                Err(ClientError::BadFrame(reason))
            );
        }
    }

    #[test]
    fn close_with_and_without_code() {
        assert_eq!(
            read_cut(&[0x88, 2, 0x0F, 0xA8, 0x88, 0], []),
            Ok(vec![Seen::Close(4008), Seen::Close(1005)])
        );
    }

    #[test]
    fn header_bytes_agrees_with_the_encoder() {
        for payload in [0, 1, 125, 126, 411, 65_535, 65_536] {
            let mut out = Vec::new();
            let frame = server_frame(&mut out, OpCode::Data(Data::Text), true, &vec![0; payload]);
            assert_eq!(header_bytes(frame), frame - payload, "payload of {payload}");
        }
    }

    #[test]
    fn encoded_frame_is_masked_and_comes_back() {
        let mask = [1, 2, 3, 4];
        let mut out = Vec::new();
        encode_frame(&mut out, OpCode::Data(Data::Text), b"hello", mask);
        assert_eq!(
            out,
            [
                0x81,
                0x85,
                1,
                2,
                3,
                4,
                b'h' ^ 1,
                b'e' ^ 2,
                b'l' ^ 3,
                b'l' ^ 4,
                b'o' ^ 1
            ]
        );
    }

    #[derive(Debug, Clone)]
    enum Sent {
        Message(Vec<Vec<u8>>),
        Ping(Vec<u8>),
        Pong,
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let part = prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            prop::collection::vec(part, 1..4).prop_map(Sent::Message),
            prop::collection::vec(any::<u8>(), 0..126).prop_map(Sent::Ping),
            Just(Sent::Pong),
        ]
    }

    fn encode_sent(sent: &Sent, out: &mut Vec<u8>) -> Seen {
        match sent {
            Sent::Message(parts) => {
                let mut wire_bytes = 0;
                for (index, part) in parts.iter().enumerate() {
                    let kind = if index == 0 {
                        Data::Text
                    } else {
                        Data::Continue
                    };
                    let is_final = index + 1 == parts.len();
                    wire_bytes += server_frame(out, OpCode::Data(kind), is_final, part);
                }
                Seen::Data(parts.concat(), wire_bytes)
            }
            Sent::Ping(payload) => {
                server_frame(out, OpCode::Control(Control::Ping), true, payload);
                Seen::Ping(payload.clone())
            }
            Sent::Pong => {
                server_frame(out, OpCode::Control(Control::Pong), true, &[]);
                Seen::Pong
            }
        }
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_messages(
            sent in prop::collection::vec(sent(), 0..20),
            cuts in prop::collection::vec(0_usize..400, 0..60),
        ) {
            let mut bytes = Vec::new();
            let expected: Vec<_> = sent.iter().map(|one| encode_sent(one, &mut bytes)).collect();
            prop_assert_eq!(read_cut(&bytes, cuts), Ok(expected.clone()));
            prop_assert_eq!(read_cut(&bytes, vec![1; bytes.len()]), Ok(expected));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500),
                                       cuts in prop::collection::vec(0_usize..50, 0..20)) {
            let _ = read_cut(&bytes, cuts);
            let _ = decode_response(&bytes, KEY);
        }
    }
}
