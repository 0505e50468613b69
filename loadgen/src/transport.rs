//! The socket of one connection, plain or under TLS.
//!
//! Reading is in two steps, so that all connections share their buffers: [`Transport::receive`]
//! fills one with what the socket has, [`Transport::open`] makes text of it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};

use crate::tls::{TlsClient, TlsSession};

/// A socket, non-blocking, with `TCP_NODELAY`.
#[derive(Debug)]
pub(crate) struct Transport {
    /// `None` once it was reset.
    socket: Option<TcpStream>,
    tls: Option<TlsSession>,
}

impl Transport {
    /// Begins to connect to `address`, under TLS where `tls` is given.
    /// Errors: the kernel refuses a socket or has no port left.
    pub(crate) fn connect(address: SocketAddr, tls: Option<&TlsClient>) -> io::Result<Self> {
        let tls = tls.map(TlsClient::begin).transpose();
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket: Some(socket),
            tls: tls.map_err(io::Error::other)?,
        })
    }

    /// Has `registry` report both directions under `token`.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(self.socket()?, token, interest)
    }

    /// Has `registry` report it no more.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self.socket()?)
    }

    /// Sends a FIN: the server will hear nothing more. The socket stays.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.socket()?.shutdown(Shutdown::Write)
    }

    /// Closes the socket with an RST.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        set_socket_linger(self.socket()?, Some(Duration::ZERO))?;
        self.socket = None;
        Ok(())
    }

    /// Lets the kernel keep no more than about so many bytes that nobody has read.
    pub(crate) fn limit_received(&mut self, bytes: usize) -> io::Result<()> {
        Ok(set_socket_recv_buffer_size(self.socket()?, bytes)?)
    }

    /// Whether the socket is still there.
    pub(crate) fn has_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// Why the connecting failed, where it did.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.as_ref().map_or(Ok(None), TcpStream::take_error)
    }

    /// Reads once what the socket holds, as it came over the wire.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket()?.read(buffer)
    }

    /// The text in `received`: itself, or what it says once decrypted into `buffer`.
    /// Errors: the server broke TLS, or is not trusted.
    pub(crate) fn open<'a>(
        &mut self,
        received: &'a [u8],
        buffer: &'a mut Vec<u8>,
    ) -> io::Result<&'a [u8]> {
        let Some(tls) = &mut self.tls else {
            return Ok(received);
        };
        buffer.clear();
        tls.decrypt(received, buffer)?;
        Ok(buffer)
    }

    /// Sends of `text` what it can; 0 where the socket is full, or TLS is not ready.
    /// Errors: the connection is broken.
    pub(crate) fn send(&mut self, text: &[u8]) -> io::Result<usize> {
        let socket = self.socket.as_mut().ok_or_else(closed)?;
        let Some(tls) = &mut self.tls else {
            return until_full(|| socket.write(text));
        };
        flush_records(tls, socket)?;
        if tls.wants_write() {
            return Ok(0);
        }
        let bytes = tls.encrypt(text)?;
        flush_records(tls, socket)?;
        Ok(bytes)
    }

    /// Whether TLS has something of its own to send; [`Transport::send`] of nothing does it.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsSession::wants_write)
    }

    /// Whether TLS went on from an earlier session; `None` without TLS, or before it is ready.
    pub(crate) fn is_resumed(&self) -> Option<bool> {
        self.tls.as_ref()?.is_resumed()
    }

    fn socket(&mut self) -> io::Result<&mut TcpStream> {
        self.socket.as_mut().ok_or_else(closed)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

fn flush_records(tls: &mut TlsSession, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() && until_full(|| tls.write_records(socket))? > 0 {}
    Ok(())
}

/// Repeats `write` where a signal came between; a full socket takes 0 bytes.
fn until_full(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match write() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            outcome => return outcome,
        }
    }
}
