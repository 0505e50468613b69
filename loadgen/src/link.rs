//! One connection of the generator: its socket, how far its upgrade is, what it still has to
//! send. What its messages mean is `driver`'s business.

use std::io;
use std::net::SocketAddr;

use tungstenite::protocol::frame::coding::OpCode;

use crate::frames::{self, FrameReader};
use crate::http::AnswerReader;
use crate::nats::OperationReader;
use crate::tls::TlsClient;
use crate::transport::Transport;
use crate::upgrade::{Accepted, Extension, Upgrade, UpgradeError};

/// What a connection is for; the index counts the connections of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Gets events, and reads them slowly or not at all.
    Laggard(usize),
    /// Sends events.
    Publisher(usize),
    /// Connects in the course of a phase, to get what it has missed.
    Returner(usize),
    /// Gets events.
    Subscriber(usize),
}

/// How far a connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The request is on its way.
    Upgrading(Upgrade),
    /// Upgraded, or asked over HTTP whether it is welcome; what makes it ready has not come:
    /// `connection_established`, NATS's `PONG`, the answer.
    Greeting,
    /// In use.
    Open,
    /// Ended, by either side.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The socket.
    pub(crate) transport: Transport,
    /// What it is for.
    pub(crate) role: Role,
    /// How far it is.
    pub(crate) state: State,
    /// Cuts what comes into messages.
    pub(crate) reader: FrameReader,
    /// Cuts what comes into answers, where the connection is no WebSocket.
    pub(crate) answers: Option<AnswerReader>,
    /// Cuts the messages into operations, where the server is NATS.
    pub(crate) nats: Option<NatsStream>,
    /// When it was dialled, nanoseconds of the generator's clock.
    pub(crate) dialled_ns: u64,
    /// What goes out; `outgoing[..written]` has gone.
    outgoing: Vec<u8>,
    written: usize,
}

/// The operations of NATS that come in a connection's messages.
#[derive(Debug, Default)]
pub(crate) struct NatsStream {
    /// Cuts them.
    pub(crate) reader: OperationReader,
    /// Bytes of frames that the next message will be charged with.
    pub(crate) uncharged_bytes: usize,
}

/// Where and how connections are made.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// The address.
    pub(crate) address: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    /// For `wss://`.
    pub(crate) tls: Option<TlsClient>,
}

impl Link {
    /// Begins to connect to `server` and queues the upgrade of `path`, which offers `extension`.
    /// Errors: the kernel refuses a socket or has no port left.
    pub(crate) fn dial(
        server: &Server,
        path: &str,
        extension: Extension,
        role: Role,
        now_ns: u64,
    ) -> io::Result<Self> {
        let upgrade = Upgrade::new(extension);
        Ok(Self {
            transport: Transport::connect(server.address, server.tls.as_ref())?,
            role,
            outgoing: upgrade.request(&server.host, path),
            written: 0,
            state: State::Upgrading(upgrade),
            reader: FrameReader::default(),
            answers: None,
            nats: None,
            dialled_ns: now_ns,
        })
    }

    /// Begins to connect to `server` for requests, and queues `opening`, whose answer tells whether
    /// they are welcome.
    /// Errors: the kernel refuses a socket or has no port left.
    pub(crate) fn dial_http(
        server: &Server,
        opening: Vec<u8>,
        role: Role,
        now_ns: u64,
    ) -> io::Result<Self> {
        Ok(Self {
            transport: Transport::connect(server.address, server.tls.as_ref())?,
            role,
            outgoing: opening,
            written: 0,
            state: State::Greeting,
            reader: FrameReader::default(),
            answers: Some(AnswerReader::default()),
            nats: None,
            dialled_ns: now_ns,
        })
    }

    /// Takes bytes of the answer to the upgrade. Returns what follows it, once it is whole and
    /// accepted; the state is then up to the caller.
    pub(crate) fn handle_response(
        &mut self,
        input: &[u8],
    ) -> Result<Option<Vec<u8>>, UpgradeError> {
        let State::Upgrading(upgrade) = &mut self.state else {
            return Ok(Some(input.to_vec()));
        };
        let Some(Accepted { extension, rest }) = upgrade.handle_response(input)? else {
            return Ok(None);
        };
        if extension == Extension::Deflate {
            self.reader = FrameReader::inflating();
        }
        Ok(Some(rest))
    }

    /// Queues one masked frame; [`Link::flush`] sends it.
    pub(crate) fn queue(&mut self, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
        frames::encode_frame(&mut self.outgoing, opcode, payload, mask);
    }

    /// Queues what `encode` appends; [`Link::flush`] sends it.
    pub(crate) fn queue_bytes(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.outgoing);
    }

    /// Bytes queued and not taken by the kernel.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Whether anything waits to be written.
    pub(crate) fn wants_write(&self) -> bool {
        self.backlog_bytes() > 0 || self.transport.wants_write()
    }

    /// Writes what is queued until it is gone or the socket is full; in the second case the next
    /// writable edge is the time to go on.
    /// Errors: the connection is broken.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.wants_write() {
            let bytes = self.transport.send(&self.outgoing[self.written..])?;
            self.written += bytes;
            if bytes == 0 {
                break;
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
