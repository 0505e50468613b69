//! TLS above one socket: rustls' buffered connection, driven so that the engine sees plain bytes.
//!
//! What is sealed is this connection's alone, so it is kept short: plaintext is sealed only while
//! nothing sealed waits, at most `TLS_SEAL_BYTES_MAX` at a time. The backlog of a slow peer thus
//! stays in the frames that it shares with others. What rustls has to say while it reads (alerts,
//! tickets, key updates) is passed on in the same call.
//!
//! Keeps no buffer of its own. Source: RFC 8446, RFC 5246; rustls' manual.

pub mod certificates;

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};
use thiserror::Error;

use super::transport::{Received, Rest, Socket, Written};
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_SEAL_BYTES_MAX};

/// A TLS session and its socket.
#[derive(Debug)]
pub struct TlsStream {
    socket: Socket,
    session: Session,
    /// Bytes that may still be read for the handshake.
    handshake_bytes_left: usize,
    /// Our half ends as soon as all that is sealed is with the kernel.
    is_ending: bool,
}

/// What rustls holds of a connection: some 8 KiB, so nothing before the peer says something.
#[derive(Debug)]
enum Session {
    Awaited(Arc<ServerConfig>),
    Begun(Box<ServerConnection>),
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

impl Terms {
    fn of(session: &ServerConnection) -> Self {
        Self {
            is_tls13: session.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
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
            session: Session::Awaited(config),
            handshake_bytes_left: TLS_HANDSHAKE_BYTES_MAX,
            is_ending: false,
        }
    }

    /// Whether `handshake` is to be called.
    pub fn is_handshaking(&self) -> bool {
        match &self.session {
            Session::Awaited(_) => true,
            Session::Begun(session) => session.is_handshaking(),
        }
    }

    /// Whether the peer has said nothing so far.
    pub fn is_silent(&self) -> bool {
        self.handshake_bytes_left == TLS_HANDSHAKE_BYTES_MAX
    }

    /// Whether sealed bytes wait for the kernel.
    pub fn wants_write(&self) -> bool {
        match &self.session {
            Session::Awaited(_) => false,
            Session::Begun(session) => session.wants_write(),
        }
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
    pub fn handshake(&mut self) -> Result<Handshake, HandshakeError> {
        self.begin()?;
        let mut intake = Intake::new(self.handshake_bytes_left);
        loop {
            match self.take_sealed(&mut intake) {
                Ok(None) if intake.left == 0 => return Err(HandshakeError::TooLong),
                Ok(None) => return Ok(Handshake::Unfinished(intake.rest)),
                Ok(Some(0)) | Err(_) => return Err(HandshakeError::Gone),
                Ok(Some(_)) => {}
            }
            let is_first = self.is_silent();
            self.handshake_bytes_left = intake.left;
            // No type of record is a letter, and HTTP's methods begin with one.
            if is_first && intake.first.is_some_and(|byte| byte.is_ascii_uppercase()) {
                return Err(HandshakeError::PlainHttp);
            }
            let Session::Begun(session) = &mut self.session else {
                return Err(HandshakeError::Gone);
            };
            let outcome = session.process_new_packets().map(|_| ());
            let terms = (!session.is_handshaking()).then(|| Terms::of(session));
            let has_answered = session.wants_write();
            let flushed = self.flush();
            outcome?;
            flushed.map_err(|_| HandshakeError::Gone)?;
            if let Some(terms) = terms {
                return Ok(Handshake::Finished(terms));
            }
            if has_answered {
                return Ok(Handshake::Unfinished(intake.rest));
            }
        }
    }

    // The peer has something to say. Errors: the system has no randomness.
    fn begin(&mut self) -> Result<(), rustls::Error> {
        if let Session::Awaited(config) = &self.session {
            let mut session = ServerConnection::new(Arc::clone(config))?;
            session.set_buffer_limit(Some(TLS_SEAL_BYTES_MAX));
            self.session = Session::Begun(Box::new(session));
        }
        Ok(())
    }

    // Errors: nobody has said anything yet.
    fn begun(&mut self) -> io::Result<(&mut ServerConnection, &mut Socket)> {
        match &mut self.session {
            Session::Awaited(_) => Err(ErrorKind::NotConnected.into()),
            Session::Begun(session) => Ok((session, &mut self.socket)),
        }
    }

    /// Reads into `buf`: what is there in plain text first, then from the socket, at most as many
    /// bytes as `buf` has room for, whatever they turn out to be. An end without a goodbye
    /// (`close_notify`) is an end like any other: what matters has its own ends inside.
    /// Errors: the stream is broken; the peer was told why.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<Received> {
        let mut intake = Intake::new(buf.len());
        let mut bytes = 0;
        let rest = loop {
            bytes += self.take_plain(&mut buf[bytes..])?;
            if bytes == buf.len() {
                break Rest::More;
            }
            match self.take_sealed(&mut intake)? {
                None => break intake.rest,
                Some(0) => break Rest::End,
                Some(_) => self.process()?,
            }
        };
        let taken = buf.len() - intake.left;
        Ok(Received { bytes, taken, rest })
    }

    // Bytes of the socket that rustls has now. 0: the end, or the peer's goodbye. `None`: the socket has
    // no more, or the budget is used up.
    fn take_sealed(&mut self, intake: &mut Intake) -> io::Result<Option<usize>> {
        let (session, socket) = self.begun()?;
        match session.read_tls(&mut Source(socket, intake)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            outcome => outcome.map(Some),
        }
    }

    fn take_plain(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.begun()?.0.reader().read(buf) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::WouldBlock
                ) =>
            {
                Ok(0)
            }
            outcome => outcome,
        }
    }

    fn process(&mut self) -> io::Result<()> {
        let outcome = self.begun()?.0.process_new_packets().map(|_| ());
        let flushed = self.flush();
        outcome.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        flushed
    }

    /// Seals some of the pieces, many small ones in one record, and passes them on. What is sealed
    /// counts as taken. Errors: the stream is broken.
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Written> {
        self.flush()?;
        let mut bytes = 0;
        if !self.wants_write() {
            bytes = self.begun()?.0.writer().write_vectored(slices)?;
            self.flush()?;
        }
        let is_blocked = self.wants_write();
        let has_offer = slices.iter().any(|slice| !slice.is_empty());
        if bytes == 0 && has_offer && !is_blocked {
            // The session's keys are worn out, and 1.2 has no others.
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(Written { bytes, is_blocked })
    }

    /// Passes on what is sealed, up to what the kernel takes. Errors: the stream is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.wants_write() {
            let (session, socket) = self.begun()?;
            match session.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
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
        if let Session::Begun(session) = &mut self.session {
            session.send_close_notify();
        }
        self.is_ending = true;
        self.flush()
    }
}

/// What one call may still read of a socket, and what the socket said last.
struct Intake {
    left: usize,
    rest: Rest,
    /// The first byte that came.
    first: Option<u8>,
}

impl Intake {
    fn new(left: usize) -> Self {
        Self {
            left,
            rest: Rest::More,
            first: None,
        }
    }
}

/// A socket as rustls reads it: within an intake, and no more once it gave less than was asked for.
struct Source<'a>(&'a mut Socket, &'a mut Intake);

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Self(socket, intake) = self;
        let room = buf.len().min(intake.left);
        if intake.rest != Rest::More || room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (read, rest) = socket.receive(&mut buf[..room])?;
        intake.rest = rest;
        intake.left -= read;
        intake.first = intake.first.or(buf[..read].first().copied());
        match rest {
            Rest::Nothing => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(read),
        }
    }
}

#[cfg(test)]
pub(crate) mod test_pair;

#[cfg(test)]
mod tests;
