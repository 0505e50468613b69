//! gzip bodies, bounded while they inflate: a bomb stops at the byte that is too many.
//! Source: RFC 1952; inflating is flate2's.

use std::io::{self, Write};

use flate2::write::GzDecoder;

use super::HttpError;
use crate::limits::GZIP_MEMBERS_MAX;
use crate::wire::buffer::append_bounded;

/// Inflates one body, of one or several members.
#[derive(Debug)]
pub(super) struct Gunzip {
    decoder: GzDecoder<Sink>,
    /// Members begun.
    members: u32,
}

impl Gunzip {
    pub(super) fn new(bytes_max: usize) -> Self {
        let sink = Sink {
            decoded: Vec::new(),
            total_bytes: 0,
            bytes_max,
        };
        Self {
            decoder: GzDecoder::new(sink),
            members: 1,
        }
    }

    /// Inflates the next part of the body.
    pub(super) fn handle_data(&mut self, mut data: &[u8]) -> Result<(), HttpError> {
        while !data.is_empty() {
            match self.decoder.write(data) {
                Ok(0) => self.begin_member()?,
                Ok(taken) => data = &data[taken..],
                Err(_) => return Err(self.failure()),
            }
        }
        Ok(())
    }

    /// The body is over: its last member must be, too.
    pub(super) fn finish(&mut self) -> Result<(), HttpError> {
        self.decoder.try_finish().map_err(|_| self.failure())
    }

    pub(super) fn decoded(&self) -> &Vec<u8> {
        &self.decoder.get_ref().decoded
    }

    pub(super) fn decoded_mut(&mut self) -> &mut Vec<u8> {
        &mut self.decoder.get_mut().decoded
    }

    /// A member is over and more follows. Each needs fresh inflate state, hence a bound.
    fn begin_member(&mut self) -> Result<(), HttpError> {
        self.finish()?;
        self.members += 1;
        if self.members > GZIP_MEMBERS_MAX {
            return Err(HttpError::Gzip);
        }
        let sink = std::mem::take(self.decoder.get_mut());
        self.decoder = GzDecoder::new(sink);
        Ok(())
    }

    fn failure(&self) -> HttpError {
        let sink = self.decoder.get_ref();
        if sink.total_bytes > sink.bytes_max {
            HttpError::BodyTooLarge
        } else {
            HttpError::Gzip
        }
    }
}

/// Takes inflated bytes up to a bound, which counts what was taken out of it as well.
#[derive(Debug, Default)]
struct Sink {
    decoded: Vec<u8>,
    total_bytes: usize,
    bytes_max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total_bytes = self.total_bytes.saturating_add(bytes.len());
        if self.total_bytes > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        append_bounded(&mut self.decoded, bytes, self.bytes_max);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
