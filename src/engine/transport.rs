//! The byte stream under one connection: a TCP or unix socket, plain or with TLS above it.
//!
//! Whoever reads and writes here sees plain bytes. Sockets are non-blocking and registered for
//! edges, so each call says what is to be expected of the socket next: [`Rest`] after a read,
//! `is_blocked` after a write. A full or empty socket is a value; an error means that the stream is
//! broken.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::tls::{Scratch, TlsStream};

/// What a connection reads and writes.
#[derive(Debug)]
pub enum Transport {
    /// The socket as it is.
    Plain(Socket),
    /// TLS above it. Boxed: a plain connection does not pay for it.
    Tls(Box<TlsStream>),
}

/// A connected, non-blocking socket.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP, IPv4 or IPv6.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes put into the buffer.
    pub bytes: usize,
    /// Bytes taken off the socket, at most the buffer's length. TLS may make fewer of them, none at
    /// all, or, with what came before, more.
    pub taken: usize,
    /// Whether another read would bring more.
    pub rest: Rest,
}

impl Received {
    /// Nothing was read.
    pub const NONE: Self = Self {
        bytes: 0,
        taken: 0,
        rest: Rest::More,
    };

    /// Bytes of a turn's budget that it used.
    pub fn cost(&self) -> usize {
        self.bytes.max(self.taken)
    }
}

/// What a socket holds after a read, as far as the read tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The peer sends nothing more, ever.
    End,
    /// There may be more.
    More,
    /// Nothing until the next edge.
    Nothing,
    /// It gave less than was asked for: nothing until the next edge, unless that has come already.
    Short,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes taken of what was offered. The others are to be offered again.
    pub bytes: usize,
    /// The kernel is full: an edge will tell when it takes more. Where it is not, and not all was
    /// taken, the rest may be offered at once.
    pub is_blocked: bool,
}

impl Transport {
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether a TLS handshake comes first: until it is finished nothing is read or written here.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.is_handshaking(),
        }
    }

    /// Whether bytes that were taken are not with the kernel yet.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.wants_write(),
        }
    }

    /// The TLS layer, if there is one.
    pub fn tls_mut(&mut self) -> Option<&mut TlsStream> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream),
        }
    }

    /// Lets go of TLS, for a peer that does not speak it.
    pub fn into_plain(self) -> Self {
        match self {
            Self::Plain(_) => self,
            Self::Tls(stream) => Self::Plain(stream.into_socket()),
        }
    }

    /// Reads into `buf`, which is not empty. Errors: the stream is broken.
    pub fn read(&mut self, buf: &mut [u8], scratch: &mut Scratch) -> io::Result<Received> {
        match self {
            Self::Plain(socket) => {
                let (bytes, rest) = socket.receive(buf)?;
                Ok(Received {
                    bytes,
                    taken: bytes,
                    rest,
                })
            }
            Self::Tls(stream) => stream.read(buf, scratch),
        }
    }

    /// Writes one piece. Errors: the stream is broken.
    pub fn write(&mut self, buf: &[u8], scratch: &mut Scratch) -> io::Result<Written> {
        match self {
            Self::Plain(socket) => offer(buf.len(), || socket.write(buf)),
            Self::Tls(stream) => stream.write_vectored(&[IoSlice::new(buf)], scratch),
        }
    }

    /// Writes pieces in order. Errors: the stream is broken.
    pub fn write_vectored(
        &mut self,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> io::Result<Written> {
        match self {
            Self::Plain(socket) => {
                let offered = slices.iter().map(|slice| slice.len()).sum();
                offer(offered, || socket.write_vectored(slices))
            }
            Self::Tls(stream) => stream.write_vectored(slices, scratch),
        }
    }

    /// Gives the kernel what was taken and not passed on: `wants_write` tells whether any is left.
    /// Errors: the stream is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Ends our half behind what was written; where the kernel is full, a later `flush` does it.
    /// Errors: the system's; a peer that is gone is no error.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.shutdown_write(),
            Self::Tls(stream) => stream.shutdown_write(),
        }
    }

    /// Ends both halves, under TLS with a goodbye as far as the kernel takes it: without one the peer
    /// could not tell an end from an attack.
    pub fn close(self) {
        if let Self::Tls(stream) = self {
            stream.close();
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.socket_mut(),
        }
    }
}

impl Socket {
    /// Reads once. Errors: the socket is broken.
    pub(super) fn receive(&mut self, buf: &mut [u8]) -> io::Result<(usize, Rest)> {
        loop {
            return match self.read(buf) {
                Ok(0) => Ok((0, Rest::End)),
                Ok(read) if read < buf.len() => Ok((read, Rest::Short)),
                Ok(read) => Ok((read, Rest::More)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok((0, Rest::Nothing)),
                Err(error) => Err(error),
            };
        }
    }

    /// Ends our half. Errors: the system's; a peer that is gone is no error.
    pub(super) fn shutdown_write(&self) -> io::Result<()> {
        let result = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        result.or_else(|error| match error.kind() {
            ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        })
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    // By sendmsg: writev would take the file's lock and the long way through the kernel.
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (socket, [only]) => socket.write(only),
            (Self::Tcp(stream), _) => SockRef::from(&*stream).send_vectored(slices),
            (Self::Unix(stream), _) => SockRef::from(&*stream).send_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is kept back here.
    }
}

impl Source for Transport {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let source = self.socket_mut().source();
        source.register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let source = self.socket_mut().source();
        source.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket_mut().source().deregister(registry)
    }
}

// The kernel remembers that it owes an edge as soon as it takes less than it was offered.
fn offer(offered: usize, mut send: impl FnMut() -> io::Result<usize>) -> io::Result<Written> {
    loop {
        let bytes = match send() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        let is_blocked = bytes < offered;
        return Ok(Written { bytes, is_blocked });
    }
}
