//! Frames in, frames out, without a socket.
//!
//! Deliberately small: UTF-8 is not checked (the sample of whole deliveries is, as JSON). A
//! connection holds nothing but the bytes of a frame that a read has cut; what inflates is shared
//! by all. Source: RFC 6455 §5, RFC 7692 §7.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::inflate::Inflater;

/// What a server may not send; the stream is of no use after it.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("bad frame: {0}")]
pub(crate) struct FrameError(pub(crate) &'static str);

/// One message or control frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A whole text or binary message, inflated where it came deflated.
    Data {
        /// What it says.
        text: &'a [u8],
        /// Whether it came deflated.
        is_deflated: bool,
    },
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
    /// A message that is not final yet.
    fragments: Option<Box<Fragments>>,
    can_inflate: bool,
}

/// The fragments so far of one message.
#[derive(Debug)]
struct Fragments {
    payload: Vec<u8>,
    wire_bytes: usize,
    is_deflated: bool,
}

impl FrameReader {
    /// A reader of a connection on which permessage-deflate was negotiated.
    pub(crate) fn inflating() -> Self {
        Self {
            can_inflate: true,
            ..Self::default()
        }
    }

    /// Whether it was negotiated.
    pub(crate) fn can_inflate(&self) -> bool {
        self.can_inflate
    }

    /// Takes the next `input` of the stream and hands each message that is whole to `handle`,
    /// with its bytes on the wire (headers included).
    pub(crate) fn read(
        &mut self,
        mut input: &[u8],
        inflater: &mut Inflater,
        mut handle: impl FnMut(Message<'_>, usize),
    ) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            if !self.complete_partial(&mut input)? {
                return Ok(());
            }
            let mut partial = std::mem::take(&mut self.partial);
            self.read_frames(&partial, inflater, &mut handle)?;
            partial.clear();
            self.partial = partial;
        }
        let consumed = self.read_frames(input, inflater, &mut handle)?;
        self.partial.extend_from_slice(&input[consumed..]);
        Ok(())
    }

    /// Moves bytes from `input` until `partial` is one whole frame; says whether it is.
    fn complete_partial(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
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
        inflater: &mut Inflater,
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<usize, FrameError> {
        let mut at = 0;
        while let Some(frame) = decode_header(&input[at..])? {
            let Some(bytes) = input.get(at..at + frame.end) else {
                break;
            };
            self.handle_frame(&frame, &bytes[frame.payload..], inflater, handle)?;
            at += frame.end;
        }
        Ok(at)
    }

    fn handle_frame(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        inflater: &mut Inflater,
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<(), FrameError> {
        if frame.is_deflated && !self.can_inflate {
            return Err(FrameError("a reserved bit without an extension"));
        }
        match frame.opcode {
            OpCode::Control(Control::Ping) => handle(Message::Ping(payload), frame.end),
            OpCode::Control(Control::Pong) => handle(Message::Pong, frame.end),
            OpCode::Control(_) => {
                let code = payload
                    .first_chunk()
                    .map_or(1005, |code| u16::from_be_bytes(*code));
                handle(Message::Close(code), frame.end);
            }
            OpCode::Data(Data::Continue) => {
                return self.handle_fragment(frame, payload, inflater, handle);
            }
            OpCode::Data(_) if self.fragments.is_some() => {
                return Err(FrameError("a message inside a message"));
            }
            OpCode::Data(_) if frame.is_final => {
                handle_message(payload, frame.is_deflated, frame.end, inflater, handle)?;
            }
            OpCode::Data(_) => {
                self.fragments = Some(Box::new(Fragments {
                    payload: payload.to_vec(),
                    wire_bytes: frame.end,
                    is_deflated: frame.is_deflated,
                }));
            }
        }
        Ok(())
    }

    fn handle_fragment(
        &mut self,
        frame: &Frame,
        payload: &[u8],
        inflater: &mut Inflater,
        handle: &mut impl FnMut(Message<'_>, usize),
    ) -> Result<(), FrameError> {
        let Some(mut fragments) = self.fragments.take() else {
            return Err(FrameError("a continuation of nothing"));
        };
        fragments.payload.extend_from_slice(payload);
        fragments.wire_bytes += frame.end;
        if fragments.payload.len() > MESSAGE_BYTES_MAX {
            return Err(FrameError("a message of more than 16 MiB"));
        }
        if !frame.is_final {
            self.fragments = Some(fragments);
            return Ok(());
        }
        let Fragments {
            payload,
            wire_bytes,
            is_deflated,
        } = *fragments;
        handle_message(&payload, is_deflated, wire_bytes, inflater, handle)
    }
}

fn handle_message(
    payload: &[u8],
    is_deflated: bool,
    wire_bytes: usize,
    inflater: &mut Inflater,
    handle: &mut impl FnMut(Message<'_>, usize),
) -> Result<(), FrameError> {
    let text = if is_deflated {
        inflater
            .inflate(payload)
            .ok_or(FrameError("a message that does not inflate"))?
    } else {
        payload
    };
    handle(Message::Data { text, is_deflated }, wire_bytes);
    Ok(())
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
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where a frame's parts are, from its first byte.
struct Frame {
    opcode: OpCode,
    is_final: bool,
    is_deflated: bool,
    payload: usize,
    end: usize,
}

/// Decodes the header at the front of `buf`, or `None` until all of it is there.
fn decode_header(buf: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut cursor = Cursor::new(buf);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| FrameError("an unknown opcode"))?;
    let Some((header, payload_bytes)) = parsed else {
        return Ok(None);
    };
    // RFC 7692 §6: the first frame of a message says that it is deflated, and no other does.
    let can_be_deflated = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    if (header.rsv1 && !can_be_deflated) || header.rsv2 || header.rsv3 {
        return Err(FrameError("a reserved bit without an extension"));
    }
    if header.mask.is_some() {
        return Err(FrameError("a mask from a server"));
    }
    let is_control = matches!(header.opcode, OpCode::Control(_));
    if is_control && (payload_bytes > 125 || !header.is_final) {
        return Err(FrameError("a long or fragmented control frame"));
    }
    if payload_bytes > MESSAGE_BYTES_MAX as u64 {
        return Err(FrameError("a message of more than 16 MiB"));
    }
    let payload = cursor.position() as usize;
    Ok(Some(Frame {
        opcode: header.opcode,
        is_final: header.is_final,
        is_deflated: header.rsv1,
        payload,
        end: payload + payload_bytes as usize,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    /// What the reader made of the bytes, in a form that owns.
    #[derive(Debug, PartialEq, Eq, Clone)]
    enum Seen {
        Data(Vec<u8>, usize),
        Inflated(Vec<u8>, usize),
        Ping(Vec<u8>),
        Pong,
        Close(u16),
    }

    fn read_cut(
        bytes: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Seen>, FrameError> {
        read_cut_by(FrameReader::default(), bytes, cuts)
    }

    fn read_cut_by(
        mut reader: FrameReader,
        bytes: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Seen>, FrameError> {
        let mut inflater = Inflater::new();
        let mut seen = Vec::new();
        let mut rest = bytes;
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (taken, left) = rest.split_at(cut.min(rest.len()));
            rest = left;
            reader.read(taken, &mut inflater, |message, wire_bytes| {
                seen.push(match message {
                    Message::Data { text, is_deflated } if is_deflated => {
                        Seen::Inflated(text.to_vec(), wire_bytes)
                    }
                    Message::Data { text, .. } => Seen::Data(text.to_vec(), wire_bytes),
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
        let cases: [(&[u8], &str); 11] = [
            (&[0xC1, 0], "a reserved bit without an extension"),
            (&[0xA1, 0], "a reserved bit without an extension"),
            (&[0xC9, 0], "a reserved bit without an extension"),
            (&[0x01, 0, 0xC0, 0], "a reserved bit without an extension"),
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
            assert_eq!(read_cut(bytes, []), Err(FrameError(reason)), "{bytes:?}");
            assert_eq!(read_cut(bytes, [1, 1, 1]), Err(FrameError(reason)));
        }
    }

    #[test]
    fn deflated_messages_whole_and_in_fragments() {
        let text = b"what is said twice is said twice";
        let deflated = crate::inflate::tests::deflate(text);
        let (first, rest) = deflated.split_at(3);
        let mut bytes = Vec::new();
        let whole = server_frame(&mut bytes, OpCode::Data(Data::Text), true, &deflated);
        let second = bytes.len();
        let parts = server_frame(&mut bytes, OpCode::Data(Data::Text), false, first)
            + server_frame(&mut bytes, OpCode::Data(Data::Continue), true, rest);
        (bytes[0], bytes[second]) = (bytes[0] | 0x40, bytes[second] | 0x40);
        let expected = vec![
            Seen::Inflated(text.to_vec(), whole),
            Seen::Inflated(text.to_vec(), parts),
        ];
        for cuts in [vec![], vec![1; bytes.len()], vec![7, 11]] {
            let seen = read_cut_by(FrameReader::inflating(), &bytes, cuts);
            assert_eq!(seen, Ok(expected.clone()));
        }
        let garbage = [0xC1, 3, 0xFF, 0xFF, 0xFF];
        assert_eq!(
            read_cut_by(FrameReader::inflating(), &garbage, []),
            Err(FrameError("a message that does not inflate"))
        );
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
            let _ = read_cut(&bytes, cuts.clone());
            let _ = read_cut_by(FrameReader::inflating(), &bytes, cuts);
        }
    }
}
