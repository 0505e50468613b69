//! One WebSocket of a client, on a gateway that may die at any time. Reads give way after a short
//! patience, so that one thread can send, receive and change its mind.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, HandshakeError, Message, Utf8Bytes, WebSocket};

/// An open connection.
pub struct Socket {
    socket: WebSocket<TcpStream>,
}

/// What came of a look at the connection.
pub enum Heard {
    /// A message.
    Text(Utf8Bytes),
    /// Nothing of interest within the patience.
    Nothing,
    /// The end: a close with this code (1005: without one), or none where it just broke.
    End(Option<u16>),
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub enum NotOpen {
    /// Nobody listens, or the connection broke.
    Broken,
    /// An answer of HTTP.
    Refused(u16),
}

impl Socket {
    /// Connects with a token. Errors: [`NotOpen`].
    pub fn open(address: SocketAddr, target: &str, token: &str) -> Result<Self, NotOpen> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE);
        let stream = stream.map_err(|_| NotOpen::Broken)?;
        set_patience(&stream, DEADLINE)?;
        let request = format!("ws://{address}{target}").into_client_request();
        let mut request = request.map_err(|_| NotOpen::Broken)?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
        let bearer = bearer.map_err(|_| NotOpen::Broken)?;
        request.headers_mut().insert("authorization", bearer);
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => {
                set_patience(socket.get_ref(), PATIENCE)?;
                Ok(Self { socket })
            }
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                Err(NotOpen::Refused(answer.status().as_u16()))
            }
            Err(_) => Err(NotOpen::Broken),
        }
    }

    /// Sends a message. `false`: the connection is gone.
    pub fn say(&mut self, text: &str) -> bool {
        self.socket.send(Message::text(text)).is_ok()
    }

    /// The next message, the end, or nothing yet.
    pub fn hear(&mut self) -> Heard {
        match self.socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text),
            Ok(Message::Close(frame)) => {
                // The answer to it, for which the server waits.
                let _ = self.socket.flush();
                Heard::End(Some(frame.map_or(1005, |frame| frame.code.into())))
            }
            Ok(_) => Heard::Nothing,
            Err(Error::Io(error)) if is_patience_over(error.kind()) => Heard::Nothing,
            Err(_) => Heard::End(None),
        }
    }

    /// Asks for the end; what is under way still comes, and then the end.
    pub fn close(&mut self) {
        let _ = self.socket.close(None);
    }
}

fn is_patience_over(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

fn set_patience(stream: &TcpStream, patience: Duration) -> Result<(), NotOpen> {
    let set = stream.set_nodelay(true);
    let set = set.and_then(|()| stream.set_read_timeout(Some(patience)));
    let set = set.and_then(|()| stream.set_write_timeout(Some(DEADLINE)));
    set.map_err(|_| NotOpen::Broken)
}

/// How long a handshake or a write may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a look at the connection takes where nothing comes.
const PATIENCE: Duration = Duration::from_millis(2);
