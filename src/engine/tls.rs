//! TLS above one socket: a session without buffers, driven so that the engine sees plain bytes.
//!
//! What is sealed is this connection's alone, so it is kept short: plaintext is sealed only while
//! nothing sealed waits, at most `TLS_SEAL_BYTES_MAX` at a time. The backlog of a slow peer thus
//! stays in the frames that it shares with others. What rustls has to say while it reads (alerts,
//! tickets) is passed on in the same call; its answer to a key update goes with what is sealed next.
//!
//! Reads and seals in the core's `Scratch`; keeps only what the kernel did not take, and what a
//! session keeps. Source: RFC 8446, RFC 5246; rustls' manual.

pub mod certificates;
mod session;

use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;

use rustls::ServerConfig;
use thiserror::Error;

pub use session::Scratch;
use session::{Outgoing, Session};

use super::transport::{Received, Rest, Socket, Written};
use crate::limits::TLS_HANDSHAKE_BYTES_MAX;

/// A TLS session and its socket.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    state: State,
    /// What is sealed and not with the kernel.
    sealed: Vec<u8>,
    /// Bytes that may still be read for the handshake.
    handshake_bytes_left: usize,
    /// Our half ends as soon as all that is sealed is with the kernel.
    is_ending: bool,
}

/// A session is some 4 KiB: nothing of it is there before the peer says something.
#[derive(Debug)]
enum State {
    Awaited(Arc<ServerConfig>),
    Begun(Box<Session>),
}

/// Where a handshake is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Bytes may be read and written; some may have come with its end.
    Finished(Terms),
    /// The peer has its part to do, or to go on with.
    Unfinished(Rest),
}

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// TLS 1.3, not 1.2.
    pub is_tls13: bool,
    /// The peer showed a ticket of an earlier session.
    pub is_resumed: bool,
}

/// Why a handshake came to nothing; always the peer's doing. The socket is to be closed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// It has closed, or its socket is broken.
    #[error("the peer has gone")]
    Gone,
    /// It speaks HTTP without TLS; what it said is lost.
    #[error("plain HTTP where TLS is spoken")]
    PlainHttp,
    /// It has sent an alert, broken the protocol, or asked for what is not spoken here. Our alert is
    /// with the kernel, if it took it.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// Its messages go on and on.
    #[error("more than {TLS_HANDSHAKE_BYTES_MAX} bytes")]
    TooLong,
}

impl TlsStream {
    /// One on which nothing was said yet.
    pub fn new(socket: Socket, config: Arc<ServerConfig>) -> Self {
        Self {
            socket,
            state: State::Awaited(config),
            sealed: Vec::new(),
            handshake_bytes_left: TLS_HANDSHAKE_BYTES_MAX,
            is_ending: false,
        }
    }

    /// Whether `handshake` is to be called.
    pub fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Awaited(_) => true,
            State::Begun(session) => session.is_handshaking(),
        }
    }

    /// Whether the peer has said nothing so far.
    pub fn is_silent(&self) -> bool {
        self.handshake_bytes_left == TLS_HANDSHAKE_BYTES_MAX
    }

    /// Whether sealed bytes wait for the kernel.
    pub fn wants_write(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// The socket alone.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Goes on with the handshake, up to our next answer: one step costs at most one key exchange
    /// with its signature. An error ends it.
    pub fn handshake(&mut self, scratch: &mut Scratch) -> Result<Handshake, HandshakeError> {
        self.begin()?;
        loop {
            let room = self.handshake_bytes_left;
            if room == 0 {
                return Err(HandshakeError::TooLong);
            }
            let (taken, rest) = self
                .receive(room, scratch)
                .map_err(|_| HandshakeError::Gone)?;
            if taken == 0 && rest == Rest::End {
                return Err(HandshakeError::Gone);
            }
            let is_first = self.is_silent();
            self.handshake_bytes_left -= taken;
            // No type of record is a letter, and HTTP's methods begin with one.
            if is_first && taken > 0 && scratch.first_byte().is_ascii_uppercase() {
                return Err(HandshakeError::PlainHttp);
            }
            let opened = self.open(taken, scratch, &mut []);
            let has_answered = !scratch.outgoing.is_empty();
            let passed_on = self.pass_on(&mut scratch.outgoing);
            opened?;
            passed_on.map_err(|_| HandshakeError::Gone)?;
            if let State::Begun(session) = &self.state
                && !session.is_handshaking()
            {
                return Ok(Handshake::Finished(session.terms()));
            }
            if has_answered || rest != Rest::More {
                return Ok(Handshake::Unfinished(rest));
            }
        }
    }

    // The peer has something to say. Errors: the system has no randomness.
    fn begin(&mut self) -> Result<(), rustls::Error> {
        if let State::Awaited(config) = &self.state {
            let session = Session::new(Arc::clone(config))?;
            self.state = State::Begun(Box::new(session));
        }
        Ok(())
    }

    // Errors: nobody has said anything yet.
    fn session(&mut self) -> io::Result<&mut Session> {
        match &mut self.state {
            State::Awaited(_) => Err(ErrorKind::NotConnected.into()),
            State::Begun(session) => Ok(session),
        }
    }

    /// Reads into `buf`: what is there in plain text first, then from the socket, at most as many
    /// bytes as `buf` has room for, whatever they turn out to be. An end without a goodbye
    /// (`close_notify`) is an end like any other: what matters has its own ends inside.
    /// Errors: the stream is broken; the peer was told why.
    pub fn read(&mut self, buf: &mut [u8], scratch: &mut Scratch) -> io::Result<Received> {
        let session = self.session()?;
        let unread = session.take_unread(buf);
        let buf = &mut buf[unread..];
        let mut received = Received {
            bytes: unread,
            ..Received::NONE
        };
        if session.has_unread() || buf.is_empty() {
            return Ok(received);
        }
        if session.has_ended() {
            received.rest = Rest::End;
            return Ok(received);
        }
        (received.taken, received.rest) = self.receive(buf.len(), scratch)?;
        let opened = self.open(received.taken, scratch, buf);
        let passed_on = self.pass_on(&mut scratch.outgoing);
        received.bytes += opened.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        passed_on?;
        let session = self.session()?;
        if session.has_unread() {
            received.rest = Rest::More;
        } else if session.has_ended() {
            received.rest = Rest::End;
        }
        Ok(received)
    }

    // Bytes of the socket, behind the room for those that came before.
    fn receive(&mut self, room: usize, scratch: &mut Scratch) -> io::Result<(usize, Rest)> {
        let begun = self.session()?.partial_bytes();
        let (incoming, _) = scratch.split(begun + room);
        self.socket.receive(&mut incoming[begun..])
    }

    // Opens what came. Errors: the peer's; it is to be told why.
    fn open(
        &mut self,
        taken: usize,
        scratch: &mut Scratch,
        buf: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        let State::Begun(session) = &mut self.state else {
            return Ok(0);
        };
        let (incoming, outgoing) = scratch.split(session.partial_bytes() + taken);
        session.open(incoming, outgoing, buf)
    }

    /// Seals some of the pieces, many small ones in one record, and passes them on. What is sealed
    /// counts as taken. Errors: the stream is broken.
    pub fn write_vectored(
        &mut self,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> io::Result<Written> {
        self.flush()?;
        let mut bytes = 0;
        if !self.wants_write() {
            bytes = self.session()?.seal(slices, scratch);
            self.pass_on(&mut scratch.outgoing)?;
        }
        let is_blocked = self.wants_write();
        let has_offer = slices.iter().any(|slice| !slice.is_empty());
        if bytes == 0 && has_offer && !is_blocked {
            // The session's keys are worn out, and 1.2 has no others.
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(Written { bytes, is_blocked })
    }

    // Gives the kernel what was sealed just now, and keeps what it does not take.
    fn pass_on(&mut self, outgoing: &mut Outgoing) -> io::Result<()> {
        let mut rest = outgoing.take_bytes();
        if !self.wants_write() {
            let sent = send(&mut self.socket, rest)?;
            rest = &rest[sent..];
        }
        self.sealed.extend_from_slice(rest);
        Ok(())
    }

    /// Passes on what is sealed, up to what the kernel takes. Errors: the stream is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.wants_write() {
            let sent = send(&mut self.socket, &self.sealed)?;
            self.sealed.drain(..sent);
            if self.wants_write() {
                return Ok(());
            }
            self.sealed = Vec::new();
        }
        if std::mem::take(&mut self.is_ending) {
            self.socket.shutdown_write()?;
        }
        Ok(())
    }

    /// Says goodbye, if it ever came to talking, and closes the socket whether that is heard or not.
    pub fn close(mut self) {
        if !self.is_handshaking() {
            let _ = self.shutdown_write();
        }
    }

    /// Says goodbye and ends our half behind it, once the kernel has taken all of it.
    /// Errors: the system's; a peer that is gone is no error.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if let State::Begun(session) = &mut self.state {
            let mut outgoing = Outgoing::default();
            session.say_goodbye(&mut outgoing);
            self.sealed.extend_from_slice(outgoing.take_bytes());
        }
        self.is_ending = true;
        self.flush()
    }
}

// Writes until the kernel is full or all is there. Returns how many bytes it took.
fn send(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
pub(crate) mod test_pair;

#[cfg(test)]
mod tests;
