//! The socket of one connection, plain or under TLS.
//!
//! Reading is in two steps, so that all connections share their buffers: [`Transport::receive`]
//! fills one with what the socket has, [`Transport::open`] makes text of it.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::tls::{TlsClient, TlsSession};

/// A socket, non-blocking, with `TCP_NODELAY`.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: TcpStream,
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
            socket,
            tls: tls.map_err(io::Error::other)?,
        })
    }

    /// Has `registry` report both directions under `token`.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut self.socket, token, interest)
    }

    /// Has `registry` report it no more.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.socket)
    }

    /// Why the connecting failed, where it did.
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Reads once what the socket holds, as it came over the wire.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
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
        let Some(tls) = &mut self.tls else {
            return until_full(|| self.socket.write(text));
        };
        flush_records(tls, &mut self.socket)?;
        if tls.wants_write() {
            return Ok(0);
        }
        let bytes = tls.encrypt(text)?;
        flush_records(tls, &mut self.socket)?;
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
