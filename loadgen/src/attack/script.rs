//! What a hostile peer says: bytes made once, said by all peers, some of them again and again.
//!
//! Pure; the cases are rows A4, A5, A12 and A17 of the list of attacks.

use clap::ValueEnum;
use flate2::{Compress, Compression, FlushCompress};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::upgrade::Extension;

/// A way of doing harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A viewer whose message of empty fragments never ends.
    Fragments,
    /// Connections that say nothing.
    Silent,
    /// A viewer whose deflated message is small on the wire and huge inflated.
    Bomb,
    /// A request with a header of 64 KiB, a byte at a time.
    Header,
    /// Connections that begin a TLS handshake and say nothing more.
    TlsSilent,
}

impl Kind {
    /// Whether silence is the attack.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Self::Silent | Self::TlsSilent)
    }

    /// Whether a peer is a viewer with a token.
    pub(crate) fn authenticates(self) -> bool {
        matches!(self, Self::Fragments | Self::Bomb)
    }

    /// Whether it happens on the bare socket, whatever is spoken above it.
    pub(crate) fn is_below_tls(self) -> bool {
        self.is_silent()
    }

    /// What a viewer offers.
    pub(super) fn extension(self) -> Extension {
        match self {
            Self::Bomb => Extension::Deflate,
            _ => Extension::None,
        }
    }

    /// Its name, as on the command line.
    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The bytes that a peer says.
#[derive(Debug)]
pub(crate) struct Script {
    once: Vec<u8>,
    /// What follows, for ever; empty: nothing does.
    again: Vec<u8>,
    bytes_per_write: usize,
}

impl Script {
    /// The script of `kind` for the server named `host`. A bomb inflates to `bomb_bytes`.
    pub(crate) fn new(kind: Kind, host: &str, bomb_bytes: u64) -> Self {
        let (once, again) = match kind {
            Kind::Fragments => fragments(),
            Kind::Silent => (Vec::new(), Vec::new()),
            Kind::Bomb => (Vec::new(), bomb(bomb_bytes)),
            Kind::Header => (header(host), Vec::new()),
            Kind::TlsSilent => (CLIENT_HELLO_BEGUN.to_vec(), Vec::new()),
        };
        let bytes_per_write = match kind {
            Kind::Header => 1,
            _ => FLOOD_WRITE_BYTES,
        };
        Self {
            once,
            again,
            bytes_per_write,
        }
    }

    /// What is to be written after `said` bytes; empty where all has been said.
    pub(super) fn piece(&self, said: u64) -> &[u8] {
        let rest = match said.checked_sub(self.once.len() as u64) {
            None => &self.once[said as usize..],
            Some(_) if self.again.is_empty() => &[],
            Some(beyond) => &self.again[(beyond % self.again.len() as u64) as usize..],
        };
        &rest[..rest.len().min(self.bytes_per_write)]
    }
}

/// The beginning of a text, and 64 KiB of continuations that carry nothing and end nothing.
fn fragments() -> (Vec<u8>, Vec<u8>) {
    let fragment = |data, out: &mut Vec<u8>| {
        let header = FrameHeader {
            is_final: false,
            opcode: OpCode::Data(data),
            ..FrameHeader::default()
        };
        push_masked(header, &[], out);
    };
    let (mut once, mut again) = (Vec::new(), Vec::new());
    fragment(Data::Text, &mut once);
    while again.len() < FRAGMENTS_BYTES {
        fragment(Data::Continue, &mut again);
    }
    (once, again)
}

/// One text frame that inflates to `bytes` zeros. Blocks that end in a full flush do not know of
/// one another, so that one of them, repeated, makes up any size at once.
fn bomb(bytes: u64) -> Vec<u8> {
    let block = deflated_zeros(BOMB_BLOCK_BYTES);
    let mut payload = block.repeat((bytes / BOMB_BLOCK_BYTES as u64) as usize);
    payload.extend(deflated_zeros((bytes % BOMB_BLOCK_BYTES as u64) as usize));
    payload.truncate(payload.len() - FLUSH_TAIL_BYTES);
    let header = FrameHeader {
        rsv1: true,
        opcode: OpCode::Data(Data::Text),
        ..FrameHeader::default()
    };
    let mut out = Vec::with_capacity(payload.len() + 14);
    push_masked(header, &payload, &mut out);
    out
}

fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let mut state = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(bytes / 500 + 1024);
    state
        .compress_vec(&vec![0; bytes], &mut out, FlushCompress::Full)
        .expect("deflate takes every input");
    out
}

/// A request whose one long header makes it 64 KiB, and which never ends.
fn header(host: &str) -> Vec<u8> {
    let mut out = format!("GET / HTTP/1.1\r\nHost: {host}\r\nX-Long: ").into_bytes();
    out.resize(HEADER_BYTES, b'a');
    out
}

fn push_masked(mut header: FrameHeader, payload: &[u8], out: &mut Vec<u8>) {
    header.mask = Some(MASK);
    header
        .format(payload.len() as u64, out)
        .expect("a Vec takes every write");
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
const FRAGMENTS_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 64 * 1024;
/// A longer write to a loopback address keeps its CPU in the kernel while all of it is received,
/// and on that CPU the neighbour is measured; 4 KiB still make some 0.5 GB/s.
const FLOOD_WRITE_BYTES: usize = 4096;
const BOMB_BLOCK_BYTES: usize = 1024 * 1024;
/// A flush ends in `00 00 FF FF`, which a sender leaves out of a message's end.
const FLUSH_TAIL_BYTES: usize = 4;
/// A record of 512 bytes, a ClientHello in it, and the first of its random bytes.
const CLIENT_HELLO_BEGUN: [u8; 12] = [
    0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xFC, 0x03, 0x03, 0x5A,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Cursor;

    fn script(kind: Kind) -> Script {
        Script::new(kind, "h:1", 3 * 1024 * 1024 + 5)
    }

    /// The first `bytes` of a script, and how many writes they took.
    fn said(kind: Kind, bytes: usize) -> (Vec<u8>, usize) {
        let (script, mut said, mut writes) = (script(kind), Vec::new(), 0);
        while said.len() < bytes {
            let piece = script.piece(said.len() as u64);
            if piece.is_empty() {
                break;
            }
            said.extend_from_slice(piece);
            writes += 1;
        }
        (said, writes)
    }

    fn parse(bytes: &[u8]) -> (FrameHeader, usize, usize) {
        let mut cursor = Cursor::new(bytes);
        let (header, payload) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        (header, cursor.position() as usize, payload as usize)
    }

    #[test]
    fn fragments_never_end_and_carry_nothing() {
        let (bytes, _) = said(Kind::Fragments, 200_000);
        let (first, at, payload) = parse(&bytes);
        assert_eq!((first.opcode, payload), (OpCode::Data(Data::Text), 0));
        assert!(!first.is_final);
        let mut rest = &bytes[at..];
        let mut count = 0;
        while rest.len() >= 6 {
            let (header, at, payload) = parse(rest);
            assert_eq!((header.opcode, payload), (OpCode::Data(Data::Continue), 0));
            assert!(!header.is_final && header.mask.is_some());
            rest = &rest[at..];
            count += 1;
        }
        assert!(count > 30_000, "{count}");
    }

    #[test]
    fn bomb_is_one_small_message_that_inflates_to_its_size() {
        let bomb = script(Kind::Bomb).again;
        let (header, at, payload) = parse(&bomb);
        assert!(header.is_final && header.rsv1);
        assert_eq!(at + payload, bomb.len());
        assert!(bomb.len() < 5 * 1024, "{}", bomb.len());
        let unmasked = bomb[at..].iter().zip(MASK.iter().cycle());
        let deflated: Vec<_> = unmasked.map(|(byte, mask)| byte ^ mask).collect();
        let mut inflater = crate::inflate::Inflater::new();
        let text = inflater.inflate(&deflated).unwrap();
        assert_eq!(text.len(), 3 * 1024 * 1024 + 5);
        assert!(text.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn header_comes_a_byte_at_a_time_and_stops() {
        let (bytes, writes) = said(Kind::Header, usize::MAX);
        assert_eq!((bytes.len(), writes), (HEADER_BYTES, HEADER_BYTES));
        assert!(bytes.starts_with(b"GET / HTTP/1.1\r\nHost: h:1\r\nX-Long: aaa"));
    }

    #[test]
    fn silence() {
        assert_eq!(said(Kind::Silent, 1), (Vec::new(), 0));
        assert_eq!(said(Kind::TlsSilent, 100).0, CLIENT_HELLO_BEGUN);
    }
}
