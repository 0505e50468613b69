//! gzip bodies, bounded while they inflate: a bomb stops at the byte that is too many.
//! Source: RFC 1952; inflating, headers and checksums are flate2's.

use flate2::{Decompress, FlushDecompress, Status};

use super::HttpError;
use crate::limits::GZIP_MEMBERS_MAX;
use crate::wire::buffer::append_bounded;

/// Inflates one body, of one or several members. The same bytes give the same outcome however they
/// are cut: what a damaged member inflates to before the damage counts, too.
#[derive(Debug)]
pub(super) struct Gunzip {
    member: Decompress,
    /// The member was read to its end, checksum included.
    is_member_over: bool,
    /// Members begun.
    members: u32,
    decoded: Vec<u8>,
    /// What was inflated, whether or not it was taken out of `decoded` since.
    inflated_bytes: usize,
    bytes_max: usize,
}

impl Gunzip {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            member: Decompress::new_gzip(WINDOW_BITS),
            is_member_over: false,
            members: 1,
            decoded: Vec::new(),
            inflated_bytes: 0,
            bytes_max,
        }
    }

    /// Inflates the next part of the body.
    pub(super) fn handle_data(&mut self, mut data: &[u8]) -> Result<(), HttpError> {
        while !data.is_empty() {
            if self.is_member_over {
                self.begin_member()?;
            }
            let taken = self.inflate(data)?;
            data = &data[taken..];
        }
        Ok(())
    }

    /// The body is over: its last member must be, too.
    pub(super) fn finish(&self) -> Result<(), HttpError> {
        if self.is_member_over {
            Ok(())
        } else {
            Err(HttpError::Gzip)
        }
    }

    pub(super) fn decoded(&self) -> &Vec<u8> {
        &self.decoded
    }

    pub(super) fn decoded_mut(&mut self) -> &mut Vec<u8> {
        &mut self.decoded
    }

    /// A member is over and more follows. Each needs fresh inflate state, hence a bound.
    fn begin_member(&mut self) -> Result<(), HttpError> {
        self.members += 1;
        if self.members > GZIP_MEMBERS_MAX {
            return Err(HttpError::Gzip);
        }
        self.member = Decompress::new_gzip(WINDOW_BITS);
        self.is_member_over = false;
        Ok(())
    }

    /// Inflates `data` up to the end of the member. Returns how much of it was taken: all, unless
    /// the member ended.
    fn inflate(&mut self, data: &[u8]) -> Result<usize, HttpError> {
        let (mut chunk, mut taken) = ([0; CHUNK_BYTES], 0);
        loop {
            let (in_before, out_before) = (self.member.total_in(), self.member.total_out());
            let outcome = self
                .member
                .decompress(&data[taken..], &mut chunk, FlushDecompress::None);
            taken += (self.member.total_in() - in_before) as usize;
            let inflated = (self.member.total_out() - out_before) as usize;
            self.append(&chunk[..inflated])?;
            match outcome {
                Ok(Status::StreamEnd) => {
                    self.is_member_over = true;
                    return Ok(taken);
                }
                // What was taken may hold more than the chunk did; `BufError` says that it does not.
                Ok(Status::Ok) => {}
                Ok(Status::BufError) if taken == data.len() => return Ok(taken),
                Ok(Status::BufError) | Err(_) => return Err(HttpError::Gzip),
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        self.inflated_bytes += bytes.len();
        if self.inflated_bytes > self.bytes_max {
            return Err(HttpError::BodyTooLarge);
        }
        append_bounded(&mut self.decoded, bytes, self.bytes_max);
        Ok(())
    }
}

/// The largest window that a member may have been compressed with: 32 KiB.
const WINDOW_BITS: u8 = 15;

/// Bytes inflated at a time, which is how far a body may get past its bound.
const CHUNK_BYTES: usize = 8 * 1024;
