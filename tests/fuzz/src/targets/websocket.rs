//! The frames of one peer.
//!
//! The first byte of an input chooses what the connection takes, and whether the rest is the wire
//! as it stands or a list of frames to be built and masked, which gets deeper than bytes whose
//! lengths must fit by chance. Properties: any cutting gives the same messages and the same error;
//! both are what a second reader finds, who goes through the frames one by one with all bytes at
//! hand; no more is held of a message than it may have.

use sightline::limits::CONTROL_BYTES_MAX;
use sightline::wire::deflate::deflated_bytes_max;
use sightline::wire::{Assembler, Incoming, Inflater, Intake, WireError};

use crate::Target;
use crate::pieces::{pieces, rng_of};

pub(super) const TARGET: Target = Target {
    name: "websocket",
    run,
    tokens: TOKENS,
    bytes_max: 18 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "\u{1}\u{0}", "\u{0}\u{0}", "\u{0}\u{1}é", "\u{1}\u{5}hello", "é", "€", "😀", "\u{3}",
    "\u{3e8}", "\u{fe}", "\u{ff}",
];

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let intake = Intake {
        takes_deflated: first & 8 != 0,
        takes_binary: first & 16 != 0,
        ..Intake::text(MESSAGE_BYTES_MAX[usize::from(first >> 1) % MESSAGE_BYTES_MAX.len()])
    };
    let wire = if first & 1 == 0 {
        rest.to_vec()
    } else {
        build_frames(rest)
    };
    let expected = read_naively(&wire, intake);
    let whole = feed(&[&wire], intake);
    assert_eq!(whole, expected, "whole, and as read frame by frame");
    let cut = feed(&pieces(&wire), intake);
    assert_eq!(cut, expected, "cut, and as read frame by frame");
}

/// The bound of each connection; an input chooses one.
const MESSAGE_BYTES_MAX: [usize; 4] = [16 * 1024, 0, 5, 200];

/// Builds frames: the first byte of a header, a length, and as much payload as there is of it.
fn build_frames(mut script: &[u8]) -> Vec<u8> {
    let mut rng = rng_of(script);
    let mut wire = Vec::new();
    while let [opcode, length, rest @ ..] = script {
        let length = if *length == u8::MAX {
            1_000
        } else {
            usize::from(*length)
        };
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        let mask: [u8; 4] = rng.u32(..).to_ne_bytes();
        wire.push(*opcode);
        match payload.len() {
            short @ ..126 => wire.push(0x80 | short as u8),
            long => {
                wire.push(0x80 | 126);
                wire.extend_from_slice(&(long as u16).to_be_bytes());
            }
        }
        wire.extend_from_slice(&mask);
        let masked = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key);
        wire.extend(masked);
        script = rest;
    }
    wire
}

/// What a connection brings.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    messages: Vec<Message>,
    error: Option<WireError>,
}

#[derive(Debug, PartialEq, Eq)]
enum Message {
    Binary(Vec<u8>),
    Close(Option<u16>, String),
    Ping(Vec<u8>),
    Pong,
    Text(String),
}

impl From<Incoming> for Message {
    fn from(incoming: Incoming) -> Self {
        match incoming {
            Incoming::Binary(bytes) => Self::Binary(bytes.into()),
            Incoming::Close { code, reason } => Self::Close(code, reason.into()),
            Incoming::Ping(payload) => Self::Ping(payload.to_vec()),
            Incoming::Pong => Self::Pong,
            Incoming::Text(text) => {
                Self::Text(String::from_utf8(text.into()).expect("text is UTF-8"))
            }
        }
    }
}

fn feed(pieces: &[&[u8]], intake: Intake) -> Seen {
    let (mut assembler, mut inflater) = (Assembler::new(intake), Inflater::default());
    let buffered_bytes_max = if intake.takes_deflated {
        deflated_bytes_max(intake.message_bytes_max)
    } else {
        intake.message_bytes_max
    };
    let mut seen = Seen::default();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = piece.as_mut_slice();
        loop {
            let (taken, outcome) = assembler.feed(rest, &mut inflater);
            rest = &mut rest[taken..];
            assert!(assembler.buffered_bytes() <= buffered_bytes_max);
            match outcome {
                Ok(Some(incoming)) => seen.messages.push(incoming.into()),
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
            if let Some(Message::Close(..)) = seen.messages.last() {
                return seen;
            }
        }
        assert!(rest.is_empty(), "all is taken where more is asked for");
    }
    seen
}

/// The second reader.
fn read_naively(wire: &[u8], intake: Intake) -> Seen {
    let mut reader = Reader {
        wire,
        intake,
        open: None,
    };
    let mut seen = Seen::default();
    loop {
        match reader.next_frame() {
            Ok(Next::Fragment) => {}
            Ok(Next::Message(message)) => {
                let is_close = matches!(message, Message::Close(..));
                seen.messages.push(message);
                if is_close {
                    return seen;
                }
            }
            Ok(Next::Nothing) => return seen,
            Err(error) => {
                seen.error = Some(error);
                return seen;
            }
        }
    }
}

struct Reader<'a> {
    wire: &'a [u8],
    intake: Intake,
    open: Option<Open>,
}

/// A message of which fragments are there.
#[derive(Default)]
struct Open {
    is_binary: bool,
    is_deflated: bool,
    payload: Vec<u8>,
    fragments: u32,
}

enum Next {
    Fragment,
    Message(Message),
    /// The next frame is not all there.
    Nothing,
}

impl Reader<'_> {
    fn next_frame(&mut self) -> Result<Next, WireError> {
        let Some((header, rest)) = Header::read(self.wire) else {
            return Ok(Next::Nothing);
        };
        header.check(self.intake)?;
        if header.is_control() {
            header.check_control()?;
        } else {
            self.check_fragment(header.opcode)?;
            self.open_fragment(&header)?;
        }
        // What passed these checks is at most as long as a message.
        let length = header.length as usize;
        let masked = rest.iter().take(length);
        let key = header.mask.iter().flatten().cycle();
        let payload: Vec<u8> = masked.zip(key).map(|(byte, key)| byte ^ key).collect();
        if !header.is_control() {
            self.take_fragment(&payload)?;
        }
        if payload.len() < length {
            return Ok(Next::Nothing);
        }
        self.wire = &rest[length..];
        match header.opcode {
            8 => close(&payload).map(Next::Message),
            9 => Ok(Next::Message(Message::Ping(payload))),
            10 => Ok(Next::Message(Message::Pong)),
            _ if !header.is_final => Ok(Next::Fragment),
            _ => self.finish().map(Next::Message),
        }
    }

    fn check_fragment(&self, opcode: u8) -> Result<(), WireError> {
        match (opcode, &self.open) {
            (1 | 2, Some(_)) => Err(WireError::MessageInterrupted),
            (2, None) if !self.intake.takes_binary => Err(WireError::Binary),
            (0, None) => Err(WireError::Continuation),
            (0, Some(open)) if open.fragments == self.intake.fragments_max => {
                Err(WireError::TooManyFragments)
            }
            _ => Ok(()),
        }
    }

    fn open_fragment(&mut self, header: &Header) -> Result<(), WireError> {
        let open = self.open.get_or_insert_with(|| Open {
            is_binary: header.opcode == 2,
            is_deflated: header.reserved != 0,
            ..Open::default()
        });
        open.fragments += 1;
        let bytes_max = match open.is_deflated {
            true => deflated_bytes_max(self.intake.message_bytes_max),
            false => self.intake.message_bytes_max,
        };
        match open.payload.len() as u64 + header.length > bytes_max as u64 {
            true => Err(WireError::MessageTooBig),
            false => Ok(()),
        }
    }

    fn take_fragment(&mut self, payload: &[u8]) -> Result<(), WireError> {
        let open = self.open.get_or_insert_default();
        open.payload.extend_from_slice(payload);
        match open.is_binary || open.is_deflated {
            true => Ok(()),
            false => check_prefix(&open.payload),
        }
    }

    fn finish(&mut self) -> Result<Message, WireError> {
        let open = self.open.take().unwrap_or_default();
        let bytes = match open.is_deflated {
            true => Inflater::default().inflate(&open.payload, self.intake.message_bytes_max)?,
            false => open.payload,
        };
        match open.is_binary {
            true => Ok(Message::Binary(bytes)),
            false => String::from_utf8(bytes)
                .map(Message::Text)
                .map_err(|_| WireError::NotUtf8),
        }
    }
}

struct Header {
    is_final: bool,
    reserved: u8,
    opcode: u8,
    mask: Option<[u8; 4]>,
    length: u64,
    /// The least that a length written like this may be.
    length_min: u64,
}

impl Header {
    /// The header at the front of `wire`, and what follows it; `None` where it is not all there.
    fn read(wire: &[u8]) -> Option<(Self, &[u8])> {
        let ([first, second], rest) = wire.split_first_chunk()?;
        let (length_bytes, length_min) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 65_536),
            _ => (0, 0),
        };
        let (length, rest) = rest.split_at_checked(length_bytes)?;
        let length = match length {
            [] => u64::from(second & 0x7f),
            bytes => bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => rest
                .split_first_chunk()
                .map(|(mask, rest)| (Some(*mask), rest))?,
        };
        let header = Self {
            is_final: first & 0x80 != 0,
            reserved: first & 0x70,
            opcode: first & 0x0f,
            mask,
            length,
            length_min,
        };
        Some((header, rest))
    }

    fn is_control(&self) -> bool {
        self.opcode >= 8
    }

    fn check(&self, intake: Intake) -> Result<(), WireError> {
        if !matches!(self.opcode, 0..=2 | 8..=10) {
            return Err(WireError::UnknownOpcode);
        }
        let may_be_deflated = intake.takes_deflated && matches!(self.opcode, 1 | 2);
        if self.reserved != 0 && !(self.reserved == 0x40 && may_be_deflated) {
            return Err(WireError::ReservedBits);
        }
        if self.mask.is_none() {
            return Err(WireError::Unmasked);
        }
        if self.length < self.length_min || self.length >> 63 == 1 {
            return Err(WireError::Length);
        }
        Ok(())
    }

    fn check_control(&self) -> Result<(), WireError> {
        if self.length > CONTROL_BYTES_MAX as u64 {
            return Err(WireError::ControlTooLong);
        }
        match self.is_final {
            true => Ok(()),
            false => Err(WireError::ControlFragmented),
        }
    }
}

/// Whether something could follow `text` that makes it UTF-8.
fn check_prefix(text: &[u8]) -> Result<(), WireError> {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_some() => Err(WireError::NotUtf8),
        _ => Ok(()),
    }
}

fn close(payload: &[u8]) -> Result<Message, WireError> {
    let (code, reason) = match payload {
        [] => return Ok(Message::Close(None, String::new())),
        [_] => return Err(WireError::CloseLength),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
        return Err(WireError::CloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| WireError::NotUtf8)?;
    Ok(Message::Close(Some(code), reason.to_owned()))
}
