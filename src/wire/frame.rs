//! Frames as the server writes them: header, text, deflated text, ping, pong, close. Built on tungstenite's
//! `FrameHeader`, which is sans-IO; reading is in `message`. Source: RFC 6455 §5.

use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::close::CloseReason;
use super::mask::unmask;
use crate::limits::CONTROL_BYTES_MAX;

/// The longest header: 2 bytes, 8 of length, 4 of masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// Appends the header of a whole, unmasked frame; the payload is the caller's to append.
pub fn write_frame_header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize) {
    write_header(out, &server_header(opcode), payload_len);
}

/// Appends a text frame. `payload` is UTF-8: ours, or a producer's that was validated.
pub fn encode_text(out: &mut Vec<u8>, payload: &[u8]) {
    encode_data(out, Data::Text, payload);
}

/// Appends a text or binary frame; text is UTF-8.
pub fn encode_data(out: &mut Vec<u8>, kind: Data, payload: &[u8]) {
    write_frame_header(out, OpCode::Data(kind), payload.len());
    out.extend_from_slice(payload);
}

/// Appends a frame whose payload was deflated. Source: RFC 7692 §6.1.
pub fn encode_deflated(out: &mut Vec<u8>, kind: Data, payload: &[u8]) {
    let header = FrameHeader {
        rsv1: true,
        ..server_header(OpCode::Data(kind))
    };
    write_header(out, &header, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a ping or pong. A payload past 125 bytes is cut, since no peer would take it.
pub fn encode_control(out: &mut Vec<u8>, control: Control, payload: &[u8]) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    write_frame_header(out, OpCode::Control(control), payload.len());
    out.extend_from_slice(payload);
}

/// Appends a close frame. `text` says more than `reason.text()` would, or is that; past 123
/// bytes it is cut between two characters.
pub fn encode_close(out: &mut Vec<u8>, reason: CloseReason, text: &str) {
    encode_close_code(out, reason.code(), text);
}

/// Appends the answer to a peer's close: its own code again, or 1000 where it gave none.
/// Source: RFC 6455 §5.5.1.
pub fn encode_close_answer(out: &mut Vec<u8>, peer_code: Option<u16>) {
    encode_close_code(out, peer_code.unwrap_or(CloseReason::Normal.code()), "");
}

/// Appends a frame as a client sends it, masked with `key`. For tests and for our own clients.
pub fn encode_client_frame(
    out: &mut Vec<u8>,
    opcode: OpCode,
    is_final: bool,
    key: [u8; 4],
    payload: &[u8],
) {
    let header = FrameHeader {
        is_final,
        opcode,
        mask: Some(key),
        ..FrameHeader::default()
    };
    write_header(out, &header, payload.len());
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], key, 0);
}

fn encode_close_code(out: &mut Vec<u8>, code: u16, text: &str) {
    let mut text_len = text.len().min(CONTROL_BYTES_MAX - 2);
    while !text.is_char_boundary(text_len) {
        text_len -= 1;
    }
    let text = &text[..text_len];
    write_frame_header(out, OpCode::Control(Control::Close), 2 + text.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn server_header(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        opcode,
        ..FrameHeader::default()
    }
}

fn write_header(out: &mut Vec<u8>, header: &FrameHeader, payload_len: usize) {
    header
        .format(payload_len as u64, out)
        .expect("writing to a vector does not fail");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: OpCode = OpCode::Data(Data::Text);

    #[test]
    fn headers_have_the_shortest_length_form() {
        let check = |payload_len: usize, expected: &[u8]| {
            let mut out = Vec::new();
            write_frame_header(&mut out, TEXT, payload_len);
            assert_eq!(out, expected, "{payload_len}");
        };
        check(0, &[0x81, 0]);
        check(125, &[0x81, 125]);
        check(126, &[0x81, 126, 0, 126]);
        check(65_535, &[0x81, 126, 0xff, 0xff]);
        check(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_deflated_text_has_the_first_reserved_bit() {
        let mut out = Vec::new();
        encode_deflated(&mut out, Data::Text, &[7; 200]);
        assert_eq!(out[..4], [0xc1, 126, 0, 200]);
        assert_eq!(out.len(), 204);
    }

    #[test]
    fn close_frames_hold_code_and_text() {
        let mut out = Vec::new();
        encode_close(&mut out, CloseReason::SlowConsumer, "slow");
        assert_eq!(out, [&[0x88, 6, 0x0f, 0xa8][..], b"slow"].concat());
        out.clear();
        encode_close_answer(&mut out, None);
        assert_eq!(out, [0x88, 2, 0x03, 0xe8]);
        out.clear();
        encode_close_answer(&mut out, Some(3001));
        assert_eq!(out, [0x88, 2, 0x0b, 0xb9]);
    }

    #[test]
    fn long_close_texts_are_cut_between_characters() {
        let mut out = Vec::new();
        encode_close(&mut out, CloseReason::Internal, &"é".repeat(100));
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    #[test]
    fn control_payloads_stop_at_125_bytes() {
        let mut out = Vec::new();
        encode_control(&mut out, Control::Ping, &[7; 200]);
        assert_eq!(out[..2], [0x89, 125]);
        assert_eq!(out.len(), 127);
    }
}
