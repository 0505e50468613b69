//! Listening sockets: one per core and TCP address, shared by SO_REUSEPORT, and accepting from them
//! whatever the process runs out of.

mod address;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use thiserror::Error;

use super::tls::TlsStream;
use super::transport::{Socket as Stream, Transport};
use crate::limits;

pub use address::{ListenAddress, ListenAddressError};

/// Binds every address for every core: element `i` of the answer is core `i`'s. A unix socket has
/// no SO_REUSEPORT and goes to the cores in turn; connections move to their owner core anyway. Port
/// 0 becomes one port, the same for all cores.
pub fn bind(addresses: &[ListenAddress], cores: usize) -> Result<Vec<Vec<Acceptor>>, BindError> {
    let mut acceptors: Vec<Vec<Acceptor>> = (0..cores).map(|_| Vec::new()).collect();
    for (index, address) in addresses.iter().enumerate() {
        let fail = |source| BindError::new(address, source);
        match address {
            ListenAddress::Tcp(address) => {
                let sockets = bind_tcp(*address, cores).map_err(fail)?;
                for (core, socket) in acceptors.iter_mut().zip(sockets) {
                    core.push(Acceptor::tcp(socket).map_err(fail)?);
                }
            }
            ListenAddress::Unix(path) => {
                acceptors[index % cores].push(Acceptor::unix(path).map_err(fail)?);
            }
        }
    }
    Ok(acceptors)
}

/// An address that could not be listened on; the operator's to solve.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("cannot listen on {0}: address in use")]
    InUse(ListenAddress),
    /// There is a file, and it is no socket.
    #[error("cannot listen on {0}: there is a file that is not a socket")]
    NotASocket(ListenAddress),
    /// Anything else: no such interface, no permission, no descriptors.
    #[error("cannot listen on {0}: {1}")]
    System(ListenAddress, #[source] io::Error),
}

impl BindError {
    fn new(address: &ListenAddress, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::InUse(address.clone()),
            ErrorKind::AlreadyExists => Self::NotASocket(address.clone()),
            _ => Self::System(address.clone(), source),
        }
    }
}

/// One core's ear on one address.
///
/// mio reports edges: after one, accept until `WouldBlock`, or remember that there is more. A
/// process out of descriptors gets no further edge for the connections that already wait, so
/// `Paused` must be followed by another try at its time. No descriptor is held in reserve to shed
/// those connections with: they wait in the backlog until descriptors are free, or their clients
/// give up.
#[derive(Debug)]
pub struct Acceptor {
    listener: Listener,
    /// TLS is spoken on what it accepts.
    tls: Option<Arc<ServerConfig>>,
    paused_until_ms: u64,
}

/// What an accept brought.
#[derive(Debug)]
pub enum Accept {
    /// A connection, and where it comes from (None over a unix socket).
    Stream(Transport, Option<SocketAddr>),
    /// Nothing waits: there will be an edge.
    WouldBlock,
    /// One connection failed before it was accepted. The next may be sound: try again.
    Failed(io::Error),
    /// The process or the system lacks descriptors or memory: try again at this time.
    Paused {
        /// Milliseconds, on the clock that `accept` was given.
        until_ms: u64,
        /// What began the pause, if this call did.
        error: Option<io::Error>,
    },
}

impl Acceptor {
    /// Takes one waiting connection; its socket is non-blocking, sends without delay and reports
    /// writability only below `NOTSENT_LOWAT_BYTES` unsent.
    pub fn accept(&mut self, now_ms: u64) -> Accept {
        if now_ms < self.paused_until_ms {
            let until_ms = self.paused_until_ms;
            return Accept::Paused {
                until_ms,
                error: None,
            };
        }
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => return self.take_in(stream, peer),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Accept::WouldBlock,
                Err(error) if is_of_one_connection(&error) => return Accept::Failed(error),
                Err(error) => return self.pause(now_ms, error),
            }
        }
    }

    /// The same, which speaks TLS where it listens on TCP. A unix socket stays plain: no network lies
    /// between its two ends.
    pub fn with_tls(mut self, config: Option<Arc<ServerConfig>>) -> Self {
        self.tls = config.filter(|_| matches!(self.listener, Listener::Tcp(..)));
        self
    }

    /// Whether TLS is spoken on what it accepts.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it listens, with the port that the system chose where that was 0.
    pub fn address(&self) -> ListenAddress {
        match &self.listener {
            Listener::Tcp(_, address) => ListenAddress::Tcp(*address),
            Listener::Unix(_, file) => ListenAddress::Unix(file.0.clone()),
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match &self.listener {
            Listener::Tcp(_, address) => address.ip().to_canonical().is_loopback(),
            Listener::Unix(..) => true,
        }
    }

    fn tcp(socket: Socket) -> io::Result<Self> {
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into());
        let address = listener.local_addr()?;
        Ok(Self {
            listener: Listener::Tcp(listener, address),
            tls: None,
            paused_until_ms: 0,
        })
    }

    fn unix(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        Ok(Self {
            listener: Listener::Unix(listener, file),
            tls: None,
            paused_until_ms: 0,
        })
    }

    fn take_in(&self, stream: Stream, peer: Option<SocketAddr>) -> Accept {
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(config) => Transport::Tls(Box::new(TlsStream::new(stream, Arc::clone(config)))),
        };
        Accept::Stream(transport, peer)
    }

    fn pause(&mut self, now_ms: u64, error: io::Error) -> Accept {
        self.paused_until_ms = now_ms + PAUSE_MS;
        let until_ms = self.paused_until_ms;
        Accept::Paused {
            until_ms,
            error: Some(error),
        }
    }
}

impl Source for Acceptor {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.listener.source().register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.listener.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.listener.source().deregister(registry)
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener, _) => Ok((Stream::Unix(listener.accept()?.0), None)),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener, _) => listener,
            Self::Unix(listener, _) => listener,
        }
    }
}

/// The name of a unix socket, which outlives the socket unless somebody removes it.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Where it is gone already, or no longer ours to remove, nothing is left to do.
        let _ = fs::remove_file(&self.0);
    }
}

/// One bound socket per core, all on the same address.
///
/// SO_REUSEPORT would let a second server of the same user onto the address unnoticed, and take
/// half of the connections. So the first socket is bound without it, which fails where anybody is,
/// and gets it afterwards, which lets the others in.
fn bind_tcp(address: SocketAddr, cores: usize) -> io::Result<Vec<Socket>> {
    let first = tcp_socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..cores {
        let socket = tcp_socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&bound)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

/// A socket whose options all accepted connections inherit, which spares each two system calls.
fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(limits::NOTSENT_LOWAT_BYTES)?;
    Ok(socket)
}

/// Removes the file of a unix socket on which nobody listens any more. Errors: `AddrInUse` where
/// somebody does, `AlreadyExists` where it is another kind of file.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ErrorKind::AlreadyExists.into());
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Whether `accept` reports what befell the connection that it would have given (accept(2), "Error
/// handling"). All else (no descriptors, no memory, what nobody thought of) would meet the next one
/// too, and trying at once would spin.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
            | ErrorKind::TimedOut
    )
}

/// Connections that the kernel completes before we accept them; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;
/// Milliseconds until an accept is tried again after a shortage.
const PAUSE_MS: u64 = 100;

#[cfg(test)]
mod tests;
