//! One WebSocket of a client: connecting with a deadline, by TLS where asked for, then reading and
//! writing without ever blocking. The framing is tungstenite's.

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
use super::stream::Stream;
use super::tls::Tls;

/// Where sockets are opened.
pub(crate) struct Gateway {
    pub(crate) address: Address,
    /// Where the address asks for it.
    pub(crate) tls: Option<Tls>,
}

/// An open WebSocket.
pub(crate) struct Socket {
    websocket: WebSocket<Stream>,
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
    /// Connects to `path_and_query` at `gateway` and shows `token`. Blocks for name resolution
    /// and for `CONNECT_TIMEOUT` per address, then for at most `HANDSHAKE_TIMEOUT`.
    pub(crate) fn open(
        gateway: &Gateway,
        path_and_query: &str,
        token: &str,
        bell: &mut Bell,
    ) -> Result<Self, Ending> {
        let (stream, deadline) = open_stream(gateway, bell)?;
        let request = request(&gateway.address.url(path_and_query), token)?;
        let websocket = handshake(stream, request, bell, deadline)?;
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

/// A connection to `gateway` on which nothing was said, by TLS where asked for; and by when the first
/// answer must have come.
pub(super) fn open_stream(gateway: &Gateway, bell: &mut Bell) -> Result<(Stream, Instant), Ending> {
    let address = &gateway.address;
    let socket = connect(address).map_err(|error| unreachable_host(address, &error))?;
    let socket = prepare(socket, bell)?;
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let stream = match &gateway.tls {
        None => Stream::plain(socket),
        Some(tls) => secure(socket, tls, bell, deadline)?,
    };
    Ok((stream, deadline))
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

fn prepare(socket: StdStream, bell: &Bell) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let mut socket = TcpStream::from_std(socket);
    bell.register(&mut socket)?;
    Ok(socket)
}

/// Nothing is sent, the token least of all, before the gateway has proved who it is.
fn secure(
    socket: TcpStream,
    tls: &Tls,
    bell: &mut Bell,
    deadline: Instant,
) -> Result<Stream, Ending> {
    let mut stream = tls
        .stream(socket)
        .map_err(|error| Ending::from_tls(&error))?;
    loop {
        match stream.handshake() {
            Ok(()) => return Ok(Stream::tls(stream)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Ending::from_tls(&error));
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(Ending::lost("no answer to the TLS handshake"));
            }
            Err(_) => bell.wait(WAIT_STEP)?,
        }
    }
}

fn request(url: &str, token: &str) -> Result<ClientRequestBuilder, Ending> {
    let uri = url
        .parse()
        .map_err(|_| Ending::lost("the request's URL is not one"))?;
    Ok(ClientRequestBuilder::new(uri)
        .with_header("Authorization", format!("Bearer {token}"))
        .with_header(
            "User-Agent",
            concat!("sightline/", env!("CARGO_PKG_VERSION")),
        ))
}

fn handshake(
    stream: Stream,
    request: ClientRequestBuilder,
    bell: &mut Bell,
    deadline: Instant,
) -> Result<WebSocket<Stream>, Ending> {
    // tungstenite consumes the stream when it is refused; the rest of the body is read from here.
    let spare = stream.clone();
    let mut round = client_with_config(request, stream, Some(config()));
    loop {
        match round {
            Ok((websocket, _)) => return Ok(websocket),
            Err(HandshakeError::Failure(error)) => return Err(refused(error, spare, bell)),
            Err(HandshakeError::Interrupted(_)) if Instant::now() >= deadline => {
                return Err(Ending::lost("no answer to the handshake"));
            }
            Err(HandshakeError::Interrupted(half)) => {
                bell.wait(WAIT_STEP)?;
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
fn refused(error: Error, spare: Stream, bell: &mut Bell) -> Ending {
    let Error::Http(mut response) = error else {
        return Ending::from_handshake(error);
    };
    let body = response.body_mut().get_or_insert_default();
    if body.is_empty() {
        read_rest(spare, body, bell);
    }
    Ending::from_error(Error::Http(response))
}

/// Reads up to the end, an error, `REFUSAL_BYTES_MAX` or `BODY_TIMEOUT`.
fn read_rest(mut stream: Stream, body: &mut Vec<u8>, bell: &mut Bell) {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut chunk = [0; 1024];
    while body.len() < REFUSAL_BYTES_MAX && Instant::now() < deadline {
        match stream.read(&mut chunk) {
            Ok(count) if count > 0 => body.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if bell.wait(WAIT_STEP).is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
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
const REFUSAL_BYTES_MAX: usize = 8 * 1024;
