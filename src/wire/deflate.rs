//! permessage-deflate without context takeover: every message is a deflate stream of its own, so
//! that one deflated frame serves every connection and a connection keeps no state for it.
//!
//! One [`Deflater`] and one [`Inflater`] serve a whole core. Which offers are taken is in `offer`,
//! how a message travels in `message` and `frame`. Source: RFC 7692 §7, RFC 1951; the streams are
//! flate2's.

mod offer;
#[cfg(test)]
mod tests;

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::buffer::append_bounded;

pub use offer::{Agreement, negotiate};

/// Base-2 logarithm of the bytes that our deflate streams look back. Messages of some KiB gain
/// nothing from more, and offers that ask for at least this are served by the same frames.
pub const WINDOW_BITS: u8 = 12;

/// What ends every message before it is stripped: the empty stored block of a sync flush.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The tail, and a final empty block behind it: a stream that is cut short does not end here.
const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// Bytes inflated in one step.
const CHUNK_BYTES: usize = 16 * 1024;

/// The most bytes that a deflate stream of at most `bytes_max` bytes needs, where its maker finds
/// no repetition and chooses no better code: nine bits for a byte.
pub fn deflated_bytes_max(bytes_max: usize) -> usize {
    bytes_max + bytes_max / 8 + 16
}

/// Deflates messages, one after the other.
pub struct Deflater {
    stream: Compress,
    out: Vec<u8>,
}

impl Deflater {
    /// `level`: 1 (fast) to 9 (small).
    pub fn new(level: u32) -> Self {
        Self {
            stream: Compress::new_with_window_bits(Compression::new(level), false, WINDOW_BITS),
            out: Vec::new(),
        }
    }

    /// The payload of a deflated message, its tail stripped; `None` where it would not be smaller.
    pub fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        // Room for the longest stream that there can be. zlib-rs goes wrong after a reset in the
        // middle of one: what waited to be written then takes its place from the next.
        let room = deflated_bytes_max(message.len());
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        self.stream.reset();
        let status = self
            .stream
            .compress(message, &mut self.out, FlushCompress::Sync);
        let is_whole = status.is_ok() && self.stream.total_in() == message.len() as u64;
        debug_assert!(is_whole, "there was room for all of it");
        let stream = &self.out[..self.stream.total_out() as usize];
        let payload = stream.strip_suffix(&TAIL)?;
        (is_whole && payload.len() < message.len()).then_some(payload)
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was deflated last is nobody's to see.
        f.write_str("Deflater(…)")
    }
}

/// Why a message cannot be inflated. The peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// No deflate stream, or only the beginning of one.
    #[error("not a deflate stream")]
    Corrupt,
    /// More bytes than allowed.
    #[error("inflates to more than allowed")]
    TooBig,
}

/// How many messages were inflated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InflateCounts {
    /// Messages inflated.
    pub inflated: u64,
    /// Messages that could not be.
    pub failed: u64,
}

/// Inflates messages, one after the other.
pub struct Inflater {
    stream: Decompress,
    chunk: Box<[u8]>,
    counts: InflateCounts,
}

impl Default for Inflater {
    fn default() -> Self {
        Self {
            stream: Decompress::new(false),
            chunk: vec![0; CHUNK_BYTES].into(),
            counts: InflateCounts::default(),
        }
    }
}

impl Inflater {
    /// The message whose payload this is, of at most `bytes_max` bytes; more are never held.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, InflateError> {
        self.stream.reset(false);
        let mut message = Vec::new();
        let outcome = self.inflate_stream(payload, &mut message, bytes_max);
        match outcome {
            Ok(()) => self.counts.inflated += 1,
            Err(_) => self.counts.failed += 1,
        }
        outcome.map(|()| message)
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> InflateCounts {
        std::mem::take(&mut self.counts)
    }

    fn inflate_stream(
        &mut self,
        payload: &[u8],
        message: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        let rest = match self.inflate_part(payload, message, bytes_max)? {
            None => self.inflate_part(&END, message, bytes_max)?,
            // A sender that ends its stream with a final block puts one zero behind it, or nothing.
            Some([0]) => Some(&[][..]),
            ended => ended,
        };
        match rest {
            Some([]) => Ok(()),
            _ => Err(InflateError::Corrupt),
        }
    }

    /// Inflates all of `part`, or up to the stream's final block: what follows that.
    fn inflate_part<'a>(
        &mut self,
        mut part: &'a [u8],
        message: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<Option<&'a [u8]>, InflateError> {
        loop {
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(part, &mut self.chunk, FlushDecompress::Sync)
                .map_err(|_| InflateError::Corrupt)?;
            let taken = (self.stream.total_in() - taken) as usize;
            let made = (self.stream.total_out() - made) as usize;
            if made > bytes_max - message.len() {
                return Err(InflateError::TooBig);
            }
            append_bounded(message, &self.chunk[..made], bytes_max);
            part = &part[taken..];
            if status == Status::StreamEnd {
                return Ok(Some(part));
            }
            if part.is_empty() && made < self.chunk.len() {
                return Ok(None);
            }
            if taken == 0 && made == 0 {
                return Err(InflateError::Corrupt);
            }
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflater(…)")
    }
}
