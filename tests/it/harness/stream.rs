//! A client's connection, over whatever the server listens on.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::ALL_VERSIONS;

use super::{DEADLINE, Server, TlsStream, eventually};

/// Bytes to and from a server.
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    Unix(UnixStream),
}

impl Stream {
    /// Connects to `HOST:PORT` or `unix:/PATH`, without TLS.
    pub fn connect(address: &str) -> Self {
        let stream = match address.strip_prefix("unix:") {
            Some(path) => Self::Unix(UnixStream::connect(path).unwrap()),
            None => {
                let stream = eventually("a connection", || TcpStream::connect(address).ok());
                stream.set_nodelay(true).unwrap();
                Self::Tcp(stream)
            }
        };
        stream.set_patience(DEADLINE);
        stream
    }

    /// How long a read may take.
    pub fn set_patience(&self, patience: Duration) {
        let patience = Some(patience);
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(patience),
            Self::Tls(stream) => stream.sock.set_read_timeout(patience),
            Self::Unix(stream) => stream.set_read_timeout(patience),
        }
        .unwrap();
    }

    /// A second handle, for sending while the first reads. Over plain TCP only.
    pub fn writer(&self) -> TcpStream {
        match self {
            Self::Tcp(stream) => stream.try_clone().unwrap(),
            _ => panic!("not over plain TCP"),
        }
    }

    /// Ends this half of the connection, under TLS with a goodbye.
    pub fn finish(&mut self) {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => {
                stream.conn.send_close_notify();
                let flushed = stream.flush();
                flushed.and_then(|()| stream.sock.shutdown(Shutdown::Write))
            }
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .unwrap();
    }
}

impl Server {
    /// A connection to its first address, over TLS where that speaks it.
    pub fn stream(&self) -> Stream {
        if self.authority.is_none() {
            return Stream::connect(self.address());
        }
        let client = self.tls_client(ALL_VERSIONS);
        Stream::Tls(Box::new(self.connect_tls(&client)))
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Tls(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Tls(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}
