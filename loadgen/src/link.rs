//! One connection of the generator: its socket, how far its upgrade is, what it still has to
//! send. What its messages mean is `driver`'s business.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::frame::coding::OpCode;

use crate::client::{self, ClientError, FrameReader};

/// What a connection is for; the index counts the connections of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends events.
    Publisher(usize),
    /// Gets events.
    Subscriber(usize),
}

/// How far a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The request is on its way; the key that it offered, and the answer so far.
    Upgrading {
        /// `Sec-WebSocket-Key`.
        key: String,
        /// The head of the answer, as far as it has come.
        head: Vec<u8>,
    },
    /// Upgraded; `connection_established` has not come.
    Greeting,
    /// In use.
    Open,
    /// Ended, by either side.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The socket, non-blocking.
    pub(crate) stream: TcpStream,
    /// What it is for.
    pub(crate) role: Role,
    /// How far it is.
    pub(crate) state: State,
    /// Cuts what comes into messages.
    pub(crate) reader: FrameReader,
    /// When it was dialled, nanoseconds of the generator's clock.
    pub(crate) dialled_ns: u64,
    /// What goes out; `outgoing[..written]` has gone.
    outgoing: Vec<u8>,
    written: usize,
}

impl Link {
    /// Begins to connect to `address` and queues the upgrade of `path`.
    /// Errors: the kernel refuses a socket or has no port left.
    pub(crate) fn dial(
        address: SocketAddr,
        host: &str,
        path: &str,
        role: Role,
        now_ns: u64,
    ) -> io::Result<Self> {
        let key = generate_key();
        Ok(Self {
            stream: TcpStream::connect(address)?,
            role,
            outgoing: client::upgrade_request(host, path, &key),
            written: 0,
            state: State::Upgrading {
                key,
                head: Vec::new(),
            },
            reader: FrameReader::default(),
            dialled_ns: now_ns,
        })
    }

    /// Takes bytes of the answer to the upgrade. Returns what follows it, once it is whole and
    /// accepted; the state is then up to the caller.
    pub(crate) fn handle_response(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let State::Upgrading { key, head } = &mut self.state else {
            return Ok(Some(input.to_vec()));
        };
        head.extend_from_slice(input);
        let head_bytes = client::decode_response(head, key)?;
        Ok(head_bytes.map(|bytes| head.split_off(bytes)))
    }

    /// Queues one masked frame; [`Link::flush`] sends it.
    pub(crate) fn queue(&mut self, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
        client::encode_frame(&mut self.outgoing, opcode, payload, mask);
    }

    /// Bytes queued and not taken by the kernel.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Writes what is queued until it is gone or the socket is full; in the second case the next
    /// writable edge is the time to go on.
    /// Errors: the connection is broken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outgoing.len() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // A full socket leaves its backlog in place until a good part of it is gone.
        if self.written == self.outgoing.len() || self.written > COMPACT_BYTES {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}

const COMPACT_BYTES: usize = 1024 * 1024;
