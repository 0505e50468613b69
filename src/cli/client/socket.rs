//! One WebSocket of a client: connecting with a deadline, then reading and writing without ever
//! blocking. The framing is tungstenite's.

use std::io::{self, Read};
use std::net::{TcpStream as StdStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use tungstenite::client::{ClientRequestBuilder, client_with_config};
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use super::Bell;
use super::address::Address;
use super::ending::Ending;

/// An open WebSocket.
pub(crate) struct Socket {
    websocket: WebSocket<TcpStream>,
    /// The kernel takes no more at present: nothing is queued until a flush succeeds.
    is_blocked: bool,
}

/// What came from the server.
pub(crate) enum Incoming {
    /// Nothing more at present.
    Nothing,
    /// A sign of life: ping, pong, or a binary message, which no client here expects.
    Sign,
    /// A text message.
    Text(Utf8Bytes),
}

impl Socket {
    /// Connects to `path_and_query` at `address` and shows `token`. Blocks for name resolution
    /// and for `CONNECT_TIMEOUT` per address, then for at most `HANDSHAKE_TIMEOUT`.
    pub(crate) fn open(
        address: &Address,
        path_and_query: &str,
        token: &str,
        bell: &mut Bell,
    ) -> Result<Self, Ending> {
        let stream = connect(address).map_err(|error| unreachable_host(address, &error))?;
        let websocket = handshake(stream, &address.url(path_and_query), token, bell)?;
        Ok(Self {
            websocket,
            is_blocked: false,
        })
    }

    /// The next thing that the server sent. An `Ending` is final.
    pub(crate) fn poll_incoming(&mut self) -> Result<Incoming, Ending> {
        match self.websocket.read() {
            Ok(Message::Text(text)) => Ok(Incoming::Text(text)),
            Ok(Message::Close(frame)) => {
                // Lets tungstenite send its answer to the close; the connection is over anyway.
                let _ = self.websocket.flush();
                Err(Ending::from_close(frame.as_ref()))
            }
            Ok(_) => Ok(Incoming::Sign),
            Err(error) if is_would_block(&error) => Ok(Incoming::Nothing),
            Err(error) => Err(Ending::from_error(error)),
        }
    }

    /// Whether it takes another message.
    pub(crate) fn is_ready(&self) -> bool {
        !self.is_blocked
    }

    /// Queues a message and writes when enough is queued. Call while `is_ready`.
    pub(crate) fn send(&mut self, message: Message) -> Result<(), Ending> {
        // When the kernel takes no more, tungstenite has queued the frame all the same.
        let written = self.websocket.write(message);
        self.note(written)
    }

    /// Writes what is queued, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Ending> {
        let flushed = self.websocket.flush();
        self.note(flushed)
    }

    /// Says goodbye (1000) and waits, for at most `CLOSE_TIMEOUT`, for the answer, so that
    /// nothing that was sent is cut off by a reset.
    pub(crate) fn close(mut self, bell: &mut Bell) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::default(),
        };
        let _ = self.websocket.close(Some(frame));
        while Instant::now() < deadline {
            let _ = self.websocket.flush();
            match self.poll_incoming() {
                Err(_) => return,
                Ok(Incoming::Nothing) if bell.wait(WAIT_STEP).is_err() => return,
                Ok(_) => {}
            }
        }
    }

    fn note(&mut self, result: tungstenite::Result<()>) -> Result<(), Ending> {
        self.is_blocked = match result {
            Ok(()) => false,
            Err(error) if is_would_block(&error) => true,
            Err(error) => return Err(Ending::from_error(error)),
        };
        Ok(())
    }
}

fn connect(address: &Address) -> io::Result<StdStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for place in (address.host.as_str(), address.port).to_socket_addrs()? {
        match StdStream::connect_timeout(&place, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable_host(address: &Address, error: &io::Error) -> Ending {
    Ending::lost(format!("cannot reach {}: {error}", address.url("")))
}

fn handshake(
    stream: StdStream,
    url: &str,
    token: &str,
    bell: &mut Bell,
) -> Result<WebSocket<TcpStream>, Ending> {
    let lost = |error: io::Error| Ending::lost(error.to_string());
    // tungstenite consumes the stream when it is refused; the rest of the body is read from here.
    let spare = stream.try_clone().map_err(lost)?;
    stream.set_nodelay(true).map_err(lost)?;
    stream.set_nonblocking(true).map_err(lost)?;
    let mut stream = TcpStream::from_std(stream);
    bell.register(&mut stream).map_err(lost)?;
    let uri = url
        .parse()
        .map_err(|_| Ending::lost("the request's URL is not one"))?;
    let request = ClientRequestBuilder::new(uri)
        .with_header("Authorization", format!("Bearer {token}"))
        .with_header(
            "User-Agent",
            concat!("sightline/", env!("CARGO_PKG_VERSION")),
        );
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let mut round = client_with_config(request, stream, Some(config()));
    loop {
        match round {
            Ok((websocket, _)) => return Ok(websocket),
            Err(HandshakeError::Failure(error)) => return Err(refused(error, spare)),
            Err(HandshakeError::Interrupted(_)) if Instant::now() >= deadline => {
                return Err(Ending::lost("no answer to the handshake"));
            }
            Err(HandshakeError::Interrupted(half)) => {
                bell.wait(WAIT_STEP).map_err(lost)?;
                round = half.handshake();
            }
        }
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default().write_buffer_size(WRITE_BUFFER_BYTES)
}

/// The ending that a failed handshake is. The server ends the connection after a refusal, so the
/// part of the body that had not arrived with the head is what is left to read.
fn refused(error: Error, spare: StdStream) -> Ending {
    let Error::Http(mut response) = error else {
        return Ending::from_handshake(error);
    };
    let body = response.body_mut().get_or_insert_default();
    if body.is_empty() {
        let _ = spare.set_nonblocking(false);
        let _ = spare.set_read_timeout(Some(BODY_TIMEOUT));
        let _ = spare.take(REFUSAL_BYTES_MAX).read_to_end(body);
    }
    Ending::from_error(Error::Http(response))
}

fn is_would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const BODY_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest single wait inside a deadline.
const WAIT_STEP: Duration = Duration::from_millis(100);
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
const REFUSAL_BYTES_MAX: u64 = 8 * 1024;
