//! A request's body as it arrives: framing off, inflated, bounded all the way.

use bytes::Bytes;

use super::HttpError;
use super::chunked::ChunkDecoder;
use super::gzip::Gunzip;
use crate::wire::buffer::append_bounded;

/// How a body is delimited. Source: RFC 9112 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// No body.
    None,
}

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCoding {
    /// gzip, in one or several members.
    Gzip,
    /// As it is.
    Identity,
}

/// Decodes one body. Holds what arrived, once decoded, until it is taken; never more than
/// `bytes_max`, neither of what is sent nor of what it inflates to.
#[derive(Debug)]
pub struct BodyDecoder {
    framing: Framing,
    content: Content,
    received_bytes: usize,
    bytes_max: usize,
    is_done: bool,
}

impl BodyDecoder {
    /// Begins a body. Errors: `BodyTooLarge` where its announced length already is.
    pub fn new(
        framing: BodyFraming,
        coding: ContentCoding,
        bytes_max: usize,
    ) -> Result<Self, HttpError> {
        let framing = match framing {
            BodyFraming::Chunked => Framing::Chunked(ChunkDecoder::default()),
            BodyFraming::Length(length) if length > bytes_max as u64 => {
                return Err(HttpError::BodyTooLarge);
            }
            BodyFraming::Length(length) => Framing::Length(length as usize),
            BodyFraming::None => Framing::Length(0),
        };
        let content = match coding {
            ContentCoding::Gzip => Content::Gzip(Box::new(Gunzip::new(bytes_max))),
            ContentCoding::Identity => Content::Identity(Vec::new()),
        };
        Ok(Self {
            framing,
            content,
            received_bytes: 0,
            bytes_max,
            is_done: false,
        })
    }

    /// Takes bytes from the front of `input`, at most to the end of the body. Returns how many it
    /// took and whether the body is whole. To be called once even where nothing has arrived: a
    /// body may be empty.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, bool), HttpError> {
        let mut consumed = 0;
        while !self.framing.is_done() && consumed < input.len() {
            let (taken, data) = self.framing.take_data(&input[consumed..])?;
            consumed += taken;
            self.append(data)?;
        }
        if self.framing.is_done() && !self.is_done {
            self.content.finish()?;
            self.is_done = true;
        }
        Ok((consumed, self.is_done))
    }

    /// Takes what was decoded since it was last taken.
    pub fn take(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.content.decoded_mut()))
    }

    /// Bytes reserved for what was decoded and not yet taken.
    pub fn buffered_bytes(&self) -> usize {
        self.content.decoded().capacity()
    }

    fn append(&mut self, data: &[u8]) -> Result<(), HttpError> {
        self.received_bytes += data.len();
        if self.received_bytes > self.bytes_max {
            return Err(HttpError::BodyTooLarge);
        }
        match &mut self.content {
            Content::Gzip(gunzip) => gunzip.handle_data(data),
            Content::Identity(decoded) => {
                append_bounded(decoded, data, self.bytes_max);
                Ok(())
            }
        }
    }
}

#[derive(Debug)]
enum Framing {
    Chunked(ChunkDecoder),
    /// Bytes still owed.
    Length(usize),
}

impl Framing {
    fn is_done(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Length(owed) => *owed == 0,
        }
    }

    /// Takes from the front of `input`, which is not empty: how much, and what of it is the body's.
    fn take_data<'a>(&mut self, input: &'a [u8]) -> Result<(usize, &'a [u8]), HttpError> {
        match self {
            Self::Chunked(chunks) => chunks.take_data(input),
            Self::Length(owed) => {
                let taken = input.len().min(*owed);
                *owed -= taken;
                Ok((taken, &input[..taken]))
            }
        }
    }
}

#[derive(Debug)]
enum Content {
    Gzip(Box<Gunzip>),
    Identity(Vec<u8>),
}

impl Content {
    fn finish(&mut self) -> Result<(), HttpError> {
        match self {
            Self::Gzip(gunzip) => gunzip.finish(),
            Self::Identity(_) => Ok(()),
        }
    }

    fn decoded(&self) -> &Vec<u8> {
        match self {
            Self::Gzip(gunzip) => gunzip.decoded(),
            Self::Identity(decoded) => decoded,
        }
    }

    fn decoded_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(gunzip) => gunzip.decoded_mut(),
            Self::Identity(decoded) => decoded,
        }
    }
}

#[cfg(test)]
mod tests;
