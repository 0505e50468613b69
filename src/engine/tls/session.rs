//! One TLS session between its own bytes, without a socket: rustls' unbuffered connection. What a
//! whole core can share stands in `Scratch`, so that a session keeps no buffer: only what a record
//! has begun with, and what was opened or sealed and found no room.
//!
//! rustls' own buffers would stay with each connection, 4 KiB of them for reading alone.
//! Source: rustls' manual, `rustls::unbuffered`.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{Error, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig};

use super::Terms;
use crate::limits::{TLS_RECORD_BYTES_MAX, TLS_SEAL_BYTES_MAX};

/// Room that the sessions of one core share. Nothing in it outlives a call, also where that panics:
/// what it holds is one peer's alone.
#[derive(Debug, Default)]
pub struct Scratch {
    incoming: Vec<u8>,
    joined: Vec<u8>,
    /// Sealed bytes for the peer.
    pub(super) outgoing: Outgoing,
}

/// Bytes that rustls writes, in room that grows to what it asks for.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    room: Vec<u8>,
    filled: usize,
}

/// What is kept of one session.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    // What the socket gave and no record has used up: less than a record, but for a handshake.
    partial: Vec<u8>,
    // Plain bytes that a read had no room for.
    unread: Vec<u8>,
    // The peer's goodbye came: whatever follows it means nothing.
    has_ended: bool,
    // Reading came to no good end. rustls may still know places in what it was shown then, and would
    // look for them in whatever it is shown next.
    is_broken: bool,
}

impl Outgoing {
    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes what was written.
    pub fn take_bytes(&mut self) -> &[u8] {
        let filled = std::mem::take(&mut self.filled);
        &self.room[..filled]
    }

    fn take(&mut self, mut data: EncodeTlsData<'_, ServerConnectionData>) {
        self.put(|room| data.encode(room).map_err(|error| needed_to_encode(&error)));
    }

    // `write` says how many bytes it wrote, or how many it has need of; `None`: it never will. Returns
    // whether it wrote.
    fn put(&mut self, mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>) -> bool {
        loop {
            match write(&mut self.room[self.filled..]) {
                Ok(written) => {
                    self.filled += written;
                    return true;
                }
                Err(Some(needed)) if self.room.len() < self.filled + needed => {
                    self.room.resize(self.filled + needed, 0);
                }
                Err(_) => return false,
            }
        }
    }
}

impl Scratch {
    /// The first byte of the last call.
    pub(super) fn first_byte(&self) -> u8 {
        self.incoming.first().copied().unwrap_or_default()
    }

    /// Room for so many bytes of the peer, and for what is said while they are read.
    pub(super) fn split(&mut self, length: usize) -> (&mut [u8], &mut Outgoing) {
        if self.incoming.len() < length {
            self.incoming.resize(length, 0);
        }
        self.outgoing.filled = 0;
        (&mut self.incoming[..length], &mut self.outgoing)
    }
}

impl Session {
    /// One that has heard nothing yet. Errors: the system has no randomness.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            partial: Vec::new(),
            unread: Vec::new(),
            has_ended: false,
            is_broken: false,
        })
    }

    /// Whether there is no agreement yet.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What was agreed on.
    pub fn terms(&self) -> Terms {
        Terms {
            is_tls13: self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            is_resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Whether the peer has said goodbye.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether plain bytes wait to be taken.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Plain bytes that an earlier call had no room for. Returns how many.
    pub fn take_unread(&mut self, buf: &mut [u8]) -> usize {
        let bytes = self.unread.len().min(buf.len());
        buf[..bytes].copy_from_slice(&self.unread[..bytes]);
        self.unread.drain(..bytes);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        bytes
    }

    /// Bytes of a record that is not whole, which come before those of the socket.
    pub fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Opens what `incoming` holds, whose front is left free for the partial record, into `buf`; what
    /// finds no room there waits to be taken. Returns how many bytes are in `buf`. What is to be said
    /// is in `outgoing`, also after an error, which ends the session.
    pub fn open(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Outgoing,
        buf: &mut [u8],
    ) -> Result<usize, Error> {
        // Also where this panics.
        self.is_broken = true;
        incoming[..self.partial.len()].copy_from_slice(&self.partial);
        let mut plain = Plain {
            buf,
            filled: 0,
            unread: &mut self.unread,
        };
        let mut used = 0;
        let outcome = loop {
            let status = self.connection.process_tls_records(&mut incoming[used..]);
            let UnbufferedStatus { discard, state, .. } = status;
            used += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => outgoing.take(data),
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(ConnectionState::ReadTraffic(traffic)) => {
                    if let Err(error) = plain.take(traffic) {
                        break Err(error);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                // Nothing more is whole, or the peer has said goodbye.
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let filled = plain.filled;
        if let Err(error) = outcome {
            self.drain(outgoing);
            return Err(error);
        }
        self.keep(&incoming[used..])?;
        self.is_broken = false;
        Ok(filled)
    }

    // After the handshake a client has no message of several records to send: what is longer than one
    // would only be piled up.
    fn keep(&mut self, rest: &[u8]) -> Result<(), Error> {
        self.partial.clear();
        if self.has_ended || rest.is_empty() {
            self.partial = Vec::new();
            return Ok(());
        }
        if !self.is_handshaking() && rest.len() > TLS_RECORD_BYTES_MAX {
            return Err(InvalidMessage::HandshakePayloadTooLarge.into());
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Seals some of the pieces, many small ones in one record, behind what is to be said before.
    /// Returns how many bytes it took; none where the keys are worn out, and 1.2 has no others, or the
    /// session is broken.
    pub fn seal(&mut self, slices: &[IoSlice<'_>], scratch: &mut Scratch) -> usize {
        let Scratch {
            joined, outgoing, ..
        } = scratch;
        outgoing.filled = 0;
        let plain = join(slices, joined);
        let is_sealed = self.write(outgoing, |traffic, outgoing| {
            outgoing.put(|room| {
                let sealed = traffic.encrypt(plain, room);
                sealed.map_err(|error| needed_to_encrypt(&error))
            })
        });
        if !self.is_broken {
            self.drain(outgoing);
        }
        if is_sealed { plain.len() } else { 0 }
    }

    /// Says goodbye, once; nothing where the session is broken, of which the peer has been told.
    pub fn say_goodbye(&mut self, outgoing: &mut Outgoing) {
        self.write(outgoing, |traffic, outgoing| {
            outgoing.put(|room| {
                let said = traffic.queue_close_notify(room);
                said.map_err(|error| needed_to_encrypt(&error))
            })
        });
    }

    // Has `write` write, behind what is to be said before. Returns whether it did.
    fn write(
        &mut self,
        outgoing: &mut Outgoing,
        write: impl Fn(&mut WriteTraffic<'_, ServerConnectionData>, &mut Outgoing) -> bool,
    ) -> bool {
        while !self.is_broken {
            // The partial record is shown again: rustls knows places in it.
            let status = self.connection.process_tls_records(&mut self.partial);
            let UnbufferedStatus { discard, state, .. } = status;
            let outcome = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    outgoing.take(data);
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.has_ended = true;
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    Some(write(&mut traffic, outgoing))
                }
                Ok(_) | Err(_) => Some(false),
            };
            self.partial.drain(..discard);
            if let Some(has_written) = outcome {
                return has_written;
            }
        }
        false
    }

    // What rustls wants to say although it reads and seals no more.
    fn drain(&mut self, outgoing: &mut Outgoing) {
        while self.connection.wants_write() {
            match self.connection.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => outgoing.take(data),
                _ => return,
            }
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("partial_bytes", &self.partial.len())
            .field("unread_bytes", &self.unread.len())
            .field("has_ended", &self.has_ended)
            .field("is_broken", &self.is_broken)
            .finish_non_exhaustive()
    }
}

/// Where opened bytes go.
struct Plain<'a> {
    buf: &'a mut [u8],
    filled: usize,
    unread: &'a mut Vec<u8>,
}

impl Plain<'_> {
    fn take(
        &mut self,
        mut traffic: ReadTraffic<'_, '_, ServerConnectionData>,
    ) -> Result<(), Error> {
        while let Some(record) = traffic.next_record() {
            let bytes = record?.payload;
            let (fitting, rest) = bytes.split_at(bytes.len().min(self.buf.len() - self.filled));
            self.buf[self.filled..][..fitting.len()].copy_from_slice(fitting);
            self.filled += fitting.len();
            self.unread.extend_from_slice(rest);
        }
        Ok(())
    }
}

// The pieces as one, as far as they are sealed at a time. Most writes are of one piece.
fn join<'a>(slices: &'a [IoSlice<'_>], joined: &'a mut Vec<u8>) -> &'a [u8] {
    if let [only] = slices {
        return &only[..only.len().min(TLS_SEAL_BYTES_MAX)];
    }
    joined.clear();
    for slice in slices {
        let room = TLS_SEAL_BYTES_MAX - joined.len();
        joined.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    joined
}

fn needed_to_encode(error: &EncodeError) -> Option<usize> {
    match error {
        EncodeError::AlreadyEncoded => None,
        EncodeError::InsufficientSize(size) => Some(size.required_size),
    }
}

fn needed_to_encrypt(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::EncryptExhausted => None,
        EncryptError::InsufficientSize(size) => Some(size.required_size),
    }
}
