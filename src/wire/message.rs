//! Frames become messages: masking, fragments, control frames in between, inflating, UTF-8, every
//! limit.
//!
//! The engine feeds it what it read, from the core's one read buffer; it keeps only what is
//! partial, so that an idle connection holds no buffer. Each violation names the close code that
//! the engine then sends. It knows no clock: deadlines for partial messages are the engine's, by
//! `is_idle`. Source: RFC 6455 §5 to §8, RFC 7692 §6; headers are read by tungstenite's `FrameHeader`.

use std::io::Cursor;

use bytes::Bytes;
use compact_str::CompactString;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::CloseCode;

use super::buffer::append_bounded;
use super::close::CloseReason;
use super::control::ControlPayload;
use super::deflate::{InflateError, Inflater, deflated_bytes_max};
use super::frame::{Control, Data, HEADER_BYTES_MAX, OpCode};
use super::mask::unmask;
use super::utf8::{InvalidUtf8, Utf8Validator};
use crate::limits::{CONTROL_BYTES_MAX, ECHO_BYTES_MAX, ECHO_FRAGMENTS_MAX, FRAGMENTS_MAX};

/// What a peer sent, whole and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A binary message, where such are taken.
    Binary(Bytes),
    /// A close frame. Nothing that follows it is to be fed.
    Close {
        /// The peer's code, one that RFC 6455 §7.4 allows on the wire.
        code: Option<u16>,
        /// The peer's text, at most 123 bytes.
        reason: CompactString,
    },
    /// A ping; the payload goes back in the pong.
    Ping(ControlPayload),
    /// A pong, asked for or not.
    Pong,
    /// A text message, valid UTF-8, all fragments joined, inflated.
    Text(Bytes),
}

/// What a peer did against RFC 6455 or our limits. All are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A binary message where only text is spoken.
    #[error("binary messages are not taken")]
    Binary,
    /// A close code that must not be sent, such as 1005 or 999.
    #[error("invalid close code")]
    CloseCode,
    /// A close payload of one byte: too short for a code.
    #[error("close payload of one byte")]
    CloseLength,
    /// A continuation frame where no message is open.
    #[error("continuation without a message")]
    Continuation,
    /// More control frames in a second than anyone needs.
    #[error("too many control frames")]
    ControlFlood,
    /// A control frame in fragments.
    #[error("fragmented control frame")]
    ControlFragmented,
    /// A control frame over 125 bytes.
    #[error("control frame over 125 bytes")]
    ControlTooLong,
    /// A deflated message that cannot be inflated.
    #[error("not a deflate stream")]
    Deflated,
    /// A length in a longer form than it needs, or with its highest bit set.
    #[error("invalid length form")]
    Length,
    /// A new message while fragments of another are open.
    #[error("new message inside a fragmented one")]
    MessageInterrupted,
    /// A message over its limit, deflated or not, known before anything of the excess is kept.
    #[error("message too big")]
    MessageTooBig,
    /// Text, or the text of a close, that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A reserved bit where no extension that was agreed on has it.
    #[error("reserved bit set")]
    ReservedBits,
    /// A message in more than `Intake::fragments_max` fragments.
    #[error("too many fragments")]
    TooManyFragments,
    /// An opcode that RFC 6455 does not define.
    #[error("unknown opcode")]
    UnknownOpcode,
    /// A frame without masking key; clients must mask.
    #[error("unmasked frame")]
    Unmasked,
}

impl WireError {
    /// The close with which the connection ends.
    pub fn close_reason(self) -> CloseReason {
        match self {
            Self::Binary => CloseReason::Unsupported,
            Self::ControlFlood | Self::TooManyFragments => CloseReason::PolicyViolation,
            Self::MessageTooBig => CloseReason::TooBig,
            Self::Deflated | Self::NotUtf8 => CloseReason::InvalidPayload,
            Self::CloseCode
            | Self::CloseLength
            | Self::Continuation
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::Length
            | Self::MessageInterrupted
            | Self::ReservedBits
            | Self::UnknownOpcode
            | Self::Unmasked => CloseReason::ProtocolError,
        }
    }
}

impl From<InvalidUtf8> for WireError {
    fn from(_: InvalidUtf8) -> Self {
        Self::NotUtf8
    }
}

impl From<InflateError> for WireError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Corrupt => Self::Deflated,
            InflateError::TooBig => Self::MessageTooBig,
        }
    }
}

/// Which messages a connection takes.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    /// Bytes of one message, once inflated.
    pub message_bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: u32,
    /// Whether a binary message is taken, or a violation.
    pub takes_binary: bool,
    /// Whether permessage-deflate was agreed on.
    pub takes_deflated: bool,
}

impl Intake {
    /// What `serve --echo` takes: all that the conformance suite sends.
    pub const ECHO: Self = Self {
        message_bytes_max: ECHO_BYTES_MAX,
        fragments_max: ECHO_FRAGMENTS_MAX,
        takes_binary: true,
        takes_deflated: false,
    };

    /// Text of at most `message_bytes_max` bytes, as viewers and publishers speak it.
    pub const fn text(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            fragments_max: FRAGMENTS_MAX,
            takes_binary: false,
            takes_deflated: false,
        }
    }
}

/// The reading half of one WebSocket connection. A few dozen bytes while nothing is partial.
#[derive(Debug)]
pub struct Assembler {
    intake: Intake,
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    partial: Option<Box<Partial>>,
}

impl Assembler {
    /// Begins a connection.
    pub fn new(intake: Intake) -> Self {
        Self {
            intake,
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            partial: None,
        }
    }

    /// Takes bytes from the front of `input`, which it unmasks in place, up to the end of the next
    /// message. Returns how many it took and what they completed; `None`: all were taken, and more
    /// are needed. To be called again with the rest until it returns `None`. After an error or a
    /// `Close` nothing more is to be fed. `inflater` is the core's.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        inflater: &mut Inflater,
    ) -> (usize, Result<Option<Incoming>, WireError>) {
        let mut consumed = 0;
        let outcome = self.advance(input, &mut consumed, inflater);
        (consumed, outcome)
    }

    /// Whether nothing is partial: no header, no frame, no open message.
    pub fn is_idle(&self) -> bool {
        self.header_len == 0 && self.partial.is_none()
    }

    /// Bytes reserved for the partial message.
    pub fn buffered_bytes(&self) -> usize {
        self.open_message()
            .map_or(0, |message| message.payload.capacity())
    }

    fn advance(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        inflater: &mut Inflater,
    ) -> Result<Option<Incoming>, WireError> {
        loop {
            if self.has_open_frame() {
                match self.take_payload(input, at, inflater)? {
                    Progress::Complete(incoming) => return Ok(Some(incoming)),
                    Progress::Fragment => {}
                    Progress::Waiting => return Ok(None),
                }
            }
            let Some(frame) = self.take_header(input, at)? else {
                return Ok(None);
            };
            if frame.len <= input.len() - *at && !self.is_fragment(&frame) {
                let payload = &mut input[*at..*at + frame.len];
                *at += frame.len;
                let bytes_max = self.intake.message_bytes_max;
                return whole_frame(&frame, payload, inflater, bytes_max).map(Some);
            }
            self.open_frame(frame);
        }
    }

    fn has_open_frame(&self) -> bool {
        self.partial
            .as_ref()
            .is_some_and(|partial| partial.frame.is_some())
    }

    fn open_message(&self) -> Option<&Message> {
        self.partial
            .as_ref()
            .and_then(|partial| partial.message.as_ref())
    }

    fn is_fragment(&self, frame: &Frame) -> bool {
        matches!(frame.kind, Kind::Data { is_final, .. } if !is_final || self.open_message().is_some())
    }

    /// Collects header bytes until they are whole, then reads and checks them. Byte by byte: a
    /// header has 6 to 14, and this way a cut anywhere is no special case.
    fn take_header(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Frame>, WireError> {
        while usize::from(self.header_len) < self.header_len_needed() {
            let Some(byte) = input.get(*at) else {
                return Ok(None);
            };
            self.header[usize::from(self.header_len)] = *byte;
            self.header_len += 1;
            *at += 1;
        }
        let bytes = &self.header[..usize::from(self.header_len)];
        let parsed = FrameHeader::parse(&mut Cursor::new(bytes));
        let (header, len) = parsed
            .map_err(|_| WireError::UnknownOpcode)?
            .expect("as many bytes were collected as the header's second one announces");
        let frame = self.check_header(&header, len)?;
        self.header_len = 0;
        Ok(Some(frame))
    }

    fn header_len_needed(&self) -> usize {
        if self.header_len < 2 {
            return 2;
        }
        let length_bytes = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask_bytes = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length_bytes + mask_bytes
    }

    fn check_header(&self, header: &FrameHeader, len: u64) -> Result<Frame, WireError> {
        // The bit of a deflated message stands on its first frame alone.
        let is_first = matches!(header.opcode, OpCode::Data(Data::Binary | Data::Text));
        let may_be_deflated = self.intake.takes_deflated && is_first;
        if (header.rsv1 && !may_be_deflated) || header.rsv2 || header.rsv3 {
            return Err(WireError::ReservedBits);
        }
        let mask = header.mask.ok_or(WireError::Unmasked)?;
        // `FrameHeader::len` tells the shortest form, to which the received one must be equal.
        if header.len(len) != usize::from(self.header_len) || len > i64::MAX as u64 {
            return Err(WireError::Length);
        }
        let kind = match header.opcode {
            OpCode::Control(control) => check_control(control, header.is_final, len)?,
            OpCode::Data(data) => self.check_data(data, header, len)?,
        };
        let len = usize::try_from(len).map_err(|_| WireError::MessageTooBig)?;
        Ok(Frame {
            kind,
            mask,
            len,
            received: 0,
        })
    }

    fn check_data(&self, data: Data, header: &FrameHeader, len: u64) -> Result<Kind, WireError> {
        let open = self.open_message();
        let content = match (data, open) {
            (Data::Binary, None) if self.intake.takes_binary => Content::Binary,
            (Data::Binary, None) => return Err(WireError::Binary),
            (Data::Binary | Data::Text, Some(_)) => return Err(WireError::MessageInterrupted),
            (Data::Continue, None) => return Err(WireError::Continuation),
            (Data::Continue, Some(message)) if message.fragments >= self.intake.fragments_max => {
                return Err(WireError::TooManyFragments);
            }
            (Data::Continue, Some(message)) => message.form.content,
            (Data::Text, None) => Content::Text,
            (Data::Reserved(_), _) => return Err(WireError::UnknownOpcode),
        };
        let is_deflated = open.map_or(header.rsv1, |message| message.form.is_deflated);
        let bytes_max = match is_deflated {
            true => deflated_bytes_max(self.intake.message_bytes_max),
            false => self.intake.message_bytes_max,
        };
        let held = open.map_or(0, |message| message.payload.len());
        if len > (bytes_max - held) as u64 {
            return Err(WireError::MessageTooBig);
        }
        Ok(Kind::Data {
            form: Form {
                content,
                is_deflated,
            },
            is_final: header.is_final,
        })
    }

    fn open_frame(&mut self, frame: Frame) {
        let partial = self.partial.get_or_insert_default();
        if let Kind::Data { form, .. } = frame.kind {
            let message = partial.message.get_or_insert_with(|| Message::new(form));
            message.fragments += 1;
        }
        partial.frame = Some(frame);
    }

    /// Moves what `input` holds of the open frame's payload into the partial message.
    fn take_payload(
        &mut self,
        input: &mut [u8],
        at: &mut usize,
        inflater: &mut Inflater,
    ) -> Result<Progress, WireError> {
        let Some(partial) = &mut self.partial else {
            return Ok(Progress::Waiting);
        };
        let Some(frame) = &mut partial.frame else {
            return Ok(Progress::Waiting);
        };
        let taken = (frame.len - frame.received).min(input.len() - *at);
        let payload = &mut input[*at..*at + taken];
        *at += taken;
        unmask(payload, frame.mask, frame.received);
        frame.received += taken;
        let frame = *frame;
        match frame.kind {
            Kind::Control(_) => partial.control.push(payload),
            Kind::Data { form, .. } => {
                let message = partial.message.get_or_insert_with(|| Message::new(form));
                message.handle_part(payload, frame.len - frame.received)?;
            }
        }
        if frame.received < frame.len {
            return Ok(Progress::Waiting);
        }
        partial.frame = None;
        self.close_frame(frame.kind, inflater)
    }

    /// The open frame's payload is whole: what does it complete?
    fn close_frame(&mut self, kind: Kind, inflater: &mut Inflater) -> Result<Progress, WireError> {
        let bytes_max = self.intake.message_bytes_max;
        let Some(partial) = &mut self.partial else {
            return Ok(Progress::Waiting);
        };
        let incoming = match kind {
            Kind::Control(control) => {
                let payload = std::mem::take(&mut partial.control);
                control_message(control, &payload)?
            }
            Kind::Data {
                is_final: false, ..
            } => return Ok(Progress::Fragment),
            Kind::Data { form, .. } => {
                let message = partial.message.take();
                let message = message.unwrap_or_else(|| Message::new(form));
                message.finish(inflater, bytes_max)?
            }
        };
        if partial.message.is_none() {
            self.partial = None;
        }
        Ok(Progress::Complete(incoming))
    }
}

/// What is held of a frame or message that has not wholly arrived.
#[derive(Debug, Default)]
struct Partial {
    /// The frame whose payload is owed.
    frame: Option<Frame>,
    /// The message of which fragments, or a part of its only frame, are there.
    message: Option<Message>,
    /// The payload of a control frame, which may stand between two fragments.
    control: ControlPayload,
}

/// A frame whose header was checked; `received <= len`.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    mask: [u8; 4],
    len: usize,
    received: usize,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Control(Control),
    Data { form: Form, is_final: bool },
}

/// How a message is to be read; its first frame says it for all its fragments.
#[derive(Clone, Copy, Debug)]
struct Form {
    content: Content,
    is_deflated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    Binary,
    Text,
}

impl Form {
    /// Whether the payload is text as it stands.
    fn is_plain_text(self) -> bool {
        matches!(self.content, Content::Text) && !self.is_deflated
    }

    /// The message, of which nothing was checked yet.
    fn message(
        self,
        payload: &[u8],
        inflater: &mut Inflater,
        bytes_max: usize,
    ) -> Result<Incoming, WireError> {
        let bytes = match self.is_deflated {
            true => Bytes::from(inflater.inflate(payload, bytes_max)?),
            false => Bytes::copy_from_slice(payload),
        };
        if let Content::Text = self.content {
            std::str::from_utf8(&bytes).map_err(|_| WireError::NotUtf8)?;
        }
        Ok(self.content.incoming(bytes))
    }
}

impl Content {
    fn incoming(self, bytes: Bytes) -> Incoming {
        match self {
            Self::Binary => Incoming::Binary(bytes),
            Self::Text => Incoming::Text(bytes),
        }
    }
}

/// A message in the making.
#[derive(Debug)]
struct Message {
    form: Form,
    payload: Vec<u8>,
    utf8: Utf8Validator,
    fragments: u32,
}

impl Message {
    fn new(form: Form) -> Self {
        Self {
            form,
            payload: Vec::new(),
            utf8: Utf8Validator::default(),
            fragments: 0,
        }
    }

    /// Adds an unmasked part, after which the frame still owes `owed` bytes.
    fn handle_part(&mut self, part: &[u8], owed: usize) -> Result<(), WireError> {
        if self.form.is_plain_text() {
            self.utf8.handle_part(part)?;
        }
        let bytes_max = self.payload.len() + part.len() + owed;
        append_bounded(&mut self.payload, part, bytes_max);
        Ok(())
    }

    fn finish(self, inflater: &mut Inflater, bytes_max: usize) -> Result<Incoming, WireError> {
        if self.form.is_deflated {
            return self.form.message(&self.payload, inflater, bytes_max);
        }
        self.utf8.finish()?;
        Ok(self.form.content.incoming(Bytes::from(self.payload)))
    }
}

enum Progress {
    Complete(Incoming),
    Fragment,
    Waiting,
}

fn check_control(control: Control, is_final: bool, len: u64) -> Result<Kind, WireError> {
    if matches!(control, Control::Reserved(_)) {
        return Err(WireError::UnknownOpcode);
    }
    if len > CONTROL_BYTES_MAX as u64 {
        return Err(WireError::ControlTooLong);
    }
    if !is_final {
        return Err(WireError::ControlFragmented);
    }
    Ok(Kind::Control(control))
}

/// The common case: an unfragmented frame that is there from first to last byte.
fn whole_frame(
    frame: &Frame,
    payload: &mut [u8],
    inflater: &mut Inflater,
    bytes_max: usize,
) -> Result<Incoming, WireError> {
    unmask(payload, frame.mask, 0);
    match frame.kind {
        Kind::Control(control) => control_message(control, payload),
        Kind::Data { form, .. } => form.message(payload, inflater, bytes_max),
    }
}

fn control_message(control: Control, payload: &[u8]) -> Result<Incoming, WireError> {
    match control {
        Control::Close => close_message(payload),
        Control::Ping => {
            let mut echoed = ControlPayload::default();
            echoed.push(payload);
            Ok(Incoming::Ping(echoed))
        }
        Control::Pong => Ok(Incoming::Pong),
        Control::Reserved(_) => Err(WireError::UnknownOpcode),
    }
}

fn close_message(payload: &[u8]) -> Result<Incoming, WireError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(Incoming::Close {
                code: None,
                reason: CompactString::default(),
            }),
            _ => Err(WireError::CloseLength),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(WireError::CloseCode);
    }
    let reason = CompactString::from_utf8(reason).map_err(|_| WireError::NotUtf8)?;
    Ok(Incoming::Close {
        code: Some(code),
        reason,
    })
}

#[cfg(test)]
mod tests;
