//! `Transfer-Encoding: chunked`, read strictly: hexadecimal sizes, CRLF and nothing else, bounded
//! extensions and trailers, which are read over. Source: RFC 9112 §7.1.

use super::{HttpError, is_token_byte};
use crate::limits::CHUNK_EXTRAS_BYTES_MAX;

/// Where in the chunks a body is.
#[derive(Debug, Default)]
pub(super) struct ChunkDecoder {
    state: State,
    /// Bytes of extensions and trailers so far.
    extras_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the size, after so many digits.
    Size { size: u64, digits: u32 },
    /// In an extension of a chunk of this size.
    Extension { size: u64 },
    /// The line feed after the size and extension.
    SizeEnd { size: u64 },
    /// In the data, of which so much is owed.
    Data { owed: u64 },
    /// The carriage return after the data.
    DataEnd,
    /// The line feed after the data.
    DataLineFeed,
    /// At the start of a trailer, or of the last, empty line.
    Trailer,
    /// In a trailer's name.
    TrailerName,
    /// In a trailer's value.
    TrailerValue,
    /// The line feed after a trailer.
    TrailerEnd,
    /// The line feed after the empty line.
    LastLineFeed,
    /// Past the end.
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl ChunkDecoder {
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes from the front of `input`: how much, and what of it is data, which may be nothing.
    pub(super) fn take_data<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(usize, &'a [u8]), HttpError> {
        for (position, byte) in input.iter().enumerate() {
            if let State::Data { owed } = self.state {
                let rest = &input[position..];
                let taken = rest.len().min(usize::try_from(owed).unwrap_or(usize::MAX));
                self.state = match owed - taken as u64 {
                    0 => State::DataEnd,
                    owed => State::Data { owed },
                };
                return Ok((position + taken, &rest[..taken]));
            }
            self.state = self.after(*byte)?;
            if self.is_done() {
                return Ok((position + 1, &[]));
            }
        }
        Ok((input.len(), &[]))
    }

    /// The state after a byte outside the data.
    fn after(&mut self, byte: u8) -> Result<State, HttpError> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) => size_after(size, digits, byte),
            (State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Extension { .. } | State::TrailerValue, _) if is_value_byte(byte) => {
                self.extra(self.state)
            }
            (State::SizeEnd { size: 0 } | State::TrailerEnd, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { owed: size }),
            (State::DataEnd, b'\r') => Ok(State::DataLineFeed),
            (State::DataLineFeed, b'\n') => Ok(State::default()),
            (State::Trailer, b'\r') => Ok(State::LastLineFeed),
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => {
                self.extra(State::TrailerName)
            }
            (State::TrailerName, b':') => self.extra(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::LastLineFeed, b'\n') => Ok(State::Done),
            _ => Err(HttpError::Chunk),
        }
    }

    /// Counts a byte that is neither size nor data, and goes to `next`.
    fn extra(&mut self, next: State) -> Result<State, HttpError> {
        self.extras_bytes += 1;
        if self.extras_bytes > CHUNK_EXTRAS_BYTES_MAX {
            Err(HttpError::Chunk)
        } else {
            Ok(next)
        }
    }
}

fn size_after(size: u64, digits: u32, byte: u8) -> Result<State, HttpError> {
    if let Some(digit) = char::from(byte).to_digit(16) {
        if digits == CHUNK_SIZE_DIGITS_MAX {
            return Err(HttpError::Chunk);
        }
        return Ok(State::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        });
    }
    match byte {
        b'\r' if digits > 0 => Ok(State::SizeEnd { size }),
        b';' if digits > 0 => Ok(State::Extension { size }),
        _ => Err(HttpError::Chunk),
    }
}

fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Digits of a chunk's size: none overflows 64 bits, and leading zeros have an end.
const CHUNK_SIZE_DIGITS_MAX: u32 = 15;
