//! One TCP connection between a client and a core: two streams of bytes that arrive cut and merged,
//! a send buffer of few bytes, refusals, and two ends that may go away.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use flate2::{Decompress, FlushDecompress};

use crate::dice::Dice;

/// Names a connection for the whole run.
pub type LinkId = u64;

/// All connections of a run.
#[derive(Default)]
pub struct Links {
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
}

/// See the module.
pub struct Link {
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    // Bytes that `down` takes before a write would block.
    capacity: usize,
    // Whether reads and writes are cut at random.
    is_rough: bool,
    // A write that was cut short is followed by one that would block, until then.
    writable_at_ms: u64,
    pub is_client_gone: bool,
    pub is_server_gone: bool,
}

impl Links {
    pub fn open(&mut self, capacity: usize, is_rough: bool) -> LinkId {
        self.next += 1;
        let link = Link {
            up: VecDeque::new(),
            down: VecDeque::new(),
            capacity,
            is_rough,
            writable_at_ms: 0,
            is_client_gone: false,
            is_server_gone: false,
        };
        self.links.insert(self.next, link);
        self.next
    }

    pub fn get(&mut self, id: LinkId) -> &mut Link {
        self.links
            .get_mut(&id)
            .expect("links stay for the whole run")
    }

    /// Whether neither end is gone.
    pub fn is_open(&self, id: LinkId) -> bool {
        self.links
            .get(&id)
            .is_some_and(|link| !link.is_client_gone && !link.is_server_gone)
    }

    /// From now on bytes arrive as they were sent, at once.
    pub fn calm(&mut self) {
        for link in self.links.values_mut() {
            link.is_rough = false;
            link.writable_at_ms = 0;
        }
    }
}

impl Link {
    /// The client sends.
    pub fn send(&mut self, bytes: &[u8]) {
        if !self.is_client_gone && !self.is_server_gone {
            self.up.extend(bytes);
        }
    }

    /// The client reads at most `bytes_max`.
    pub fn receive(&mut self, bytes_max: usize) -> Vec<u8> {
        let taken = bytes_max.min(self.down.len());
        self.down.drain(..taken).collect()
    }

    /// Whether the client could read.
    pub fn has_received(&self) -> bool {
        !self.down.is_empty()
    }

    /// Whether the core could read.
    pub fn is_readable(&self) -> bool {
        !self.up.is_empty() || self.is_client_gone
    }

    /// What a read of the core gives: some of what has arrived.
    pub fn read(&mut self, dice: &mut Dice) -> Vec<u8> {
        let all = self.up.len();
        let taken = if self.is_rough && all > 0 {
            dice.between(1, all as u64) as usize
        } else {
            all
        };
        self.up.drain(..taken).collect()
    }

    /// Whether a write of the core that was refused would be taken now.
    pub fn is_writable(&self, now_ms: u64) -> bool {
        now_ms >= self.writable_at_ms && self.down.len() < self.capacity
    }

    /// A vectored write of the core: how many bytes were taken.
    pub fn write(&mut self, now_ms: u64, slices: &[IoSlice<'_>], dice: &mut Dice) -> usize {
        if !self.is_writable(now_ms) {
            return 0;
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut taken = offered.min(self.capacity - self.down.len());
        if self.is_rough && dice.chance(15) {
            taken = dice.below(taken + 1);
            self.writable_at_ms = now_ms + dice.between(0, 60);
        }
        let bytes = slices.iter().flat_map(|slice| slice.iter());
        if !self.is_client_gone {
            self.down.extend(bytes.take(taken));
        }
        taken
    }
}

/// A client's reading half of a WebSocket, with the 101 in front: the smallest parser that will do,
/// and none of the gateway's own code.
pub struct FrameReader {
    bytes: Vec<u8>,
    // What must come before the first frame.
    response: &'static [u8],
    takes_deflated: bool,
}

/// What a server may send.
#[derive(Debug)]
pub enum Frame {
    Close(u16),
    Ping(Vec<u8>),
    Pong,
    Text(Vec<u8>),
}

impl FrameReader {
    pub fn new(response: &'static [u8], takes_deflated: bool) -> Self {
        Self {
            bytes: Vec::new(),
            response,
            takes_deflated,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        let common = self.response.len().min(self.bytes.len());
        if self.bytes[..common] != self.response[..common] {
            return Err("something came before the 101".into());
        }
        self.response = &self.response[common..];
        self.bytes.drain(..common);
        Ok(())
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Frame>, String> {
        let [first, second, ..] = self.bytes[..] else {
            return Ok(None);
        };
        let (skip, length) = match second {
            126 => (4, self.number(2)),
            127 => (10, self.number(8)),
            short if short < 126 => (2, Some(u64::from(short))),
            _ => return Err("a server does not mask".into()),
        };
        let Some(end) = length.map(|length| skip + length as usize) else {
            return Ok(None);
        };
        if self.bytes.len() < end {
            return Ok(None);
        }
        let payload = self.bytes[skip..end].to_vec();
        self.bytes.drain(..end);
        Ok(Some(match (first, payload.as_slice()) {
            (0x81, _) => Frame::Text(payload),
            (0xc1, _) if self.takes_deflated => Frame::Text(inflate(&payload)?),
            (0x88, [high, low, ..]) => Frame::Close(u16::from_be_bytes([*high, *low])),
            (0x89, _) => Frame::Ping(payload),
            (0x8a, _) => Frame::Pong,
            _ => return Err(format!("frame {first:#x} of {} bytes", payload.len())),
        }))
    }

    fn number(&self, width: usize) -> Option<u64> {
        let bytes = self.bytes.get(2..2 + width)?;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte)),
        )
    }
}

fn inflate(payload: &[u8]) -> Result<Vec<u8>, String> {
    let (mut text, mut stream) = (Vec::with_capacity(1 << 21), Decompress::new(false));
    for part in [payload, &[0, 0, 0xff, 0xff]] {
        let inflated = stream.decompress_vec(part, &mut text, FlushDecompress::Sync);
        inflated.map_err(|error| format!("a frame that cannot be inflated: {error}"))?;
    }
    Ok(text)
}
