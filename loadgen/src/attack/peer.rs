//! One hostile connection: how far it is, what it says next, and how the server ended it.

use std::fmt;
use std::io;

use mio::{Registry, Token};

use super::Attack;
use crate::frames::{FrameReader, Message};
use crate::inflate::Inflater;
use crate::transport::Transport;
use crate::upgrade::{Accepted, Extension, Upgrade, UpgradeError};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a TLS alert.
    Alert,
    /// With a close frame.
    Close(u16),
    /// Without a word.
    Ended,
    /// With something that is neither HTTP nor a frame.
    Nonsense,
    /// By a reset.
    Reset,
    /// With an HTTP status.
    Status(u16),
    /// By the peer's own patience: the server neither took nor said anything.
    Timeout,
    /// Before it began: refused, or no port was left.
    Unconnected,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert => out.write_str("TLS alert"),
            Self::Close(code) => write!(out, "close {code}"),
            Self::Ended => out.write_str("ended"),
            Self::Nonsense => out.write_str("nonsense"),
            Self::Reset => out.write_str("reset"),
            Self::Status(status) => write!(out, "status {status}"),
            Self::Timeout => out.write_str("timeout"),
            Self::Unconnected => out.write_str("not connected"),
        }
    }
}

/// What all peers share for reading.
pub(super) struct Buffers {
    /// What a socket gave.
    received: Box<[u8]>,
    /// The same, decrypted.
    opened: Vec<u8>,
    inflater: Inflater,
}

impl Buffers {
    /// Empty ones.
    pub(super) fn new() -> Self {
        Self {
            received: vec![0; READ_BYTES].into_boxed_slice(),
            opened: Vec::new(),
            inflater: Inflater::new(),
        }
    }
}

/// One hostile connection.
pub(super) struct Peer {
    transport: Transport,
    stage: Stage,
    /// Bytes written, the upgrade left out.
    said: u64,
    /// When anything last went out or changed, nanoseconds of the crowd's clock.
    moved_ns: u64,
    can_write: bool,
    is_connected: bool,
}

enum Stage {
    /// The request, and how much of it has gone.
    Upgrading(Upgrade, Vec<u8>, usize),
    /// A viewer, who gets frames.
    Viewing(FrameReader),
    /// No viewer; the beginning of what the server says.
    Raw(Vec<u8>),
}

impl Peer {
    /// Begins to connect.
    /// Errors: the kernel refuses a socket or has no port left.
    pub(super) fn dial(attack: &Attack, now_ns: u64) -> io::Result<Self> {
        let stage = match &attack.upgrade_path {
            None => Stage::Raw(Vec::new()),
            Some(path) => {
                let upgrade = Upgrade::new(attack.kind.extension());
                let request = upgrade.request(&attack.server.host, path);
                Stage::Upgrading(upgrade, request, 0)
            }
        };
        Ok(Self {
            transport: Transport::connect(attack.server.address, attack.server.tls.as_ref())?,
            stage,
            said: 0,
            moved_ns: now_ns,
            can_write: false,
            is_connected: false,
        })
    }

    /// Has `registry` report it under `token`.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.transport.register(registry, token)
    }

    /// Whether the connection was ever there.
    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether permessage-deflate was agreed to.
    pub(super) fn is_deflating(&self) -> bool {
        matches!(&self.stage, Stage::Viewing(reader) if reader.can_inflate())
    }

    /// Bytes of the script that were written.
    pub(super) fn said(&self) -> u64 {
        self.said
    }

    /// Whether it could say something now.
    pub(super) fn is_eager(&self, attack: &Attack) -> bool {
        self.can_write
            && match &self.stage {
                Stage::Upgrading(_, request, sent) => *sent < request.len(),
                Stage::Viewing(_) | Stage::Raw(_) => !attack.script.piece(self.said).is_empty(),
            }
    }

    /// Whether the script itself is being said.
    pub(super) fn is_attacking(&self) -> bool {
        !matches!(self.stage, Stage::Upgrading(..))
    }

    /// Whether it has waited in vain; never where silence is the attack.
    pub(super) fn is_forgotten(&self, attack: &Attack, now_ns: u64) -> bool {
        let is_content = self.is_connected && attack.kind.is_silent();
        !is_content && now_ns.saturating_sub(self.moved_ns) > PATIENCE_NS
    }

    /// The socket takes bytes, or the connecting is over.
    pub(super) fn handle_writable(&mut self, now_ns: u64) -> Result<(), End> {
        if !self.is_connected {
            if !matches!(self.transport.take_error(), Ok(None)) {
                return Err(End::Unconnected);
            }
            (self.is_connected, self.moved_ns) = (true, now_ns);
        }
        self.can_write = true;
        Ok(())
    }

    /// Writes up to `writes` pieces of the script, or of what comes before it.
    pub(super) fn speak(
        &mut self,
        attack: &Attack,
        writes: usize,
        buffers: &mut Buffers,
        now_ns: u64,
    ) -> Result<(), End> {
        for _ in 0..writes {
            match self.write_piece(attack) {
                Ok(0) => break,
                Ok(_) => self.moved_ns = now_ns,
                // What the server said before it hung up may lie in the socket still.
                Err(_) => {
                    self.handle_readable(buffers, now_ns)?;
                    return Err(End::Reset);
                }
            }
        }
        Ok(())
    }

    /// Returns how many bytes went out: none where the socket is full or all has been said.
    fn write_piece(&mut self, attack: &Attack) -> io::Result<usize> {
        let piece = match &self.stage {
            Stage::Upgrading(_, request, sent) => &request[*sent..],
            Stage::Viewing(_) | Stage::Raw(_) => attack.script.piece(self.said),
        };
        if piece.is_empty() {
            return Ok(0);
        }
        let bytes = self.transport.send(piece)?;
        self.can_write = bytes == piece.len();
        match &mut self.stage {
            Stage::Upgrading(_, _, sent) => *sent += bytes,
            Stage::Viewing(_) | Stage::Raw(_) => self.said += bytes as u64,
        }
        Ok(bytes)
    }

    /// Reads what the server says, to its end.
    pub(super) fn handle_readable(
        &mut self,
        buffers: &mut Buffers,
        now_ns: u64,
    ) -> Result<(), End> {
        let Buffers {
            received,
            opened,
            inflater,
        } = buffers;
        loop {
            let bytes = match self.transport.receive(received) {
                Ok(0) => return Err(End::Ended),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(End::Reset),
            };
            let text = self.transport.open(&received[..bytes], opened);
            let text = text.map_err(|_| End::Alert)?;
            if self.transport.wants_write() {
                self.transport.send(&[]).map_err(|_| End::Reset)?;
            }
            // TLS that has just become ready has room for what waits.
            self.can_write |= self.is_connected && !self.is_attacking();
            if let Some(rest) = self.hear(text, inflater)? {
                self.moved_ns = now_ns;
                self.hear(&rest, inflater)?;
            }
        }
    }

    /// Takes the next of what the server says; returns what followed its answer to an upgrade.
    fn hear(&mut self, text: &[u8], inflater: &mut Inflater) -> Result<Option<Vec<u8>>, End> {
        match &mut self.stage {
            Stage::Upgrading(upgrade, ..) => {
                let answer = upgrade.handle_response(text).map_err(|error| match error {
                    UpgradeError::Refused { status, .. } => End::Status(status),
                    _ => End::Nonsense,
                })?;
                let Some(Accepted { extension, rest }) = answer else {
                    return Ok(None);
                };
                self.stage = Stage::Viewing(match extension {
                    Extension::Deflate => FrameReader::inflating(),
                    Extension::None => FrameReader::default(),
                });
                Ok(Some(rest))
            }
            Stage::Viewing(reader) => {
                let mut code = None;
                let note_close = |message: Message<'_>, _| {
                    if let Message::Close(close) = message {
                        code.get_or_insert(close);
                    }
                };
                reader
                    .read(text, inflater, note_close)
                    .map_err(|_| End::Nonsense)?;
                code.map_or(Ok(None), |code| Err(End::Close(code)))
            }
            Stage::Raw(heard) => {
                heard.extend_from_slice(&text[..text.len().min(STATUS_LINE_BYTES)]);
                status(heard).map_or(Ok(None), Err)
            }
        }
    }
}

/// What the beginning of an answer to no WebSocket says; `None` until that is known.
fn status(heard: &[u8]) -> Option<End> {
    if heard.first() == Some(&TLS_ALERT) {
        return Some(End::Alert);
    }
    let line = heard.get(..STATUS_LINE_BYTES)?;
    let status = line.strip_prefix(b"HTTP/1.1 ").and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        digits.parse().ok()
    });
    Some(status.map_or(End::Nonsense, End::Status))
}

const READ_BYTES: usize = 64 * 1024;
/// How long a peer waits for the server to take or to say anything.
const PATIENCE_NS: u64 = 10_000_000_000;
/// `HTTP/1.1 431`.
const STATUS_LINE_BYTES: usize = 12;
/// The type of a TLS record (RFC 8446 §5.1).
const TLS_ALERT: u8 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_those_who_are_no_viewers() {
        let check = |heard: &[u8], expected| assert_eq!(status(heard), expected, "{heard:?}");
        check(b"", None);
        check(b"HTTP/1.1 43", None);
        check(b"HTTP/1.1 431 ", Some(End::Status(431)));
        check(b"HTTP/1.1 x31", Some(End::Nonsense));
        check(b"SSH-2.0-xxxxx", Some(End::Nonsense));
        check(&[21, 3, 3], Some(End::Alert));
    }
}
