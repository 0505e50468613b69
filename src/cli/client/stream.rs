//! The bytes of one connection, plain or through TLS, read and written without ever blocking. All
//! is edge triggered: `WouldBlock` is returned only after the kernel has said so.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use mio::net::TcpStream;
use rustls::ClientConnection;

/// A connection's two directions. A clone is the same connection.
#[derive(Clone)]
pub(super) struct Stream(Rc<RefCell<Transport>>);

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The bytes as they are.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(Transport::Plain(socket))))
    }

    /// The bytes within `stream`, whose handshake is done.
    pub(super) fn tls(stream: TlsStream) -> Self {
        Self(Rc::new(RefCell::new(Transport::Tls(Box::new(stream)))))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.0.borrow_mut() {
            Transport::Plain(socket) => socket.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

/// rustls over a socket. Its own `StreamOwned` reads nothing while its output waits for the
/// kernel, and two ends with much to say would wait for each other for ever; this one goes on.
pub(super) struct TlsStream {
    connection: ClientConnection,
    socket: TcpStream,
}

impl TlsStream {
    /// Before the handshake; nothing was read or written.
    pub(super) fn new(connection: ClientConnection, socket: TcpStream) -> Self {
        Self { connection, socket }
    }

    /// Goes on with the handshake until it is done. Errors: `WouldBlock` where the gateway's turn
    /// is next; a `rustls::Error` inside the others is what was wrong.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.connection.complete_io(&mut self.socket)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        self.connection.read_tls(&mut self.socket)?;
        match self.connection.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                // The alert that tells the gateway why.
                let _ = self.flush();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.receive()?,
                // A WebSocket says itself whether it is over, so an end without TLS's own goodbye
                // is only an end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                outcome => return outcome,
            }
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // No more than one call's records ever wait.
        self.flush()?;
        let taken = self.connection.writer().write(bytes)?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

impl Drop for TlsStream {
    /// Says goodbye as far as the kernel takes it.
    fn drop(&mut self) {
        self.connection.send_close_notify();
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::time::Duration;

    use serde_json::json;
    use tempfile::tempdir;
    use tungstenite::Message;

    use super::super::Bell;
    use super::super::address::Address;
    use super::super::ending::Ending;
    use super::super::socket::{Gateway, Incoming, Socket};
    use super::super::test_certificates::{Authority, Issue};
    use super::super::test_server::{TestServer, within};
    use super::super::tls::Tls;

    /// The result of `client` on an attempt at a server that follows `script`.
    fn converse<T: Send + 'static>(
        script: impl FnOnce(&TestServer) + Send + 'static,
        client: impl FnOnce(Result<Socket, Ending>, Bell) -> T + Send + 'static,
    ) -> T {
        let authority = Authority::new("ours");
        let config = authority.server_config(&Issue::default());
        let (url, server) = TestServer::start_tls(config, script);
        let folder = tempdir().unwrap();
        let address = Address::parse(&url).unwrap();
        let tls = Tls::new(&address, Some(&authority.write(folder.path()))).unwrap();
        let outcome = within(move || {
            let tls = Some(tls);
            let mut bell = Bell::new().unwrap();
            let gateway = Gateway { address, tls };
            client(Socket::open(&gateway, "/keen", "token", &mut bell), bell)
        });
        server.join().unwrap();
        outcome
    }

    fn next_text(socket: &mut Socket, bell: &mut Bell) -> String {
        loop {
            match socket.poll_incoming().unwrap() {
                Incoming::Text(text) => return text.to_string(),
                Incoming::Sign => {}
                Incoming::Nothing => bell.wait(Duration::from_secs(20)).unwrap(),
            }
        }
    }

    fn flush(socket: &mut Socket, bell: &mut Bell) {
        socket.flush().unwrap();
        while !socket.is_ready() {
            bell.wait(Duration::from_secs(20)).unwrap();
            socket.flush().unwrap();
        }
    }

    #[test]
    fn reading_goes_on_while_the_other_end_takes_nothing() {
        let (heard, has_heard) = mpsc::channel();
        converse(
            move |server| {
                let mut peer = server.accept();
                for number in 0..200 {
                    peer.send(&json!({"number": number, "filler": "x".repeat(20_000)}));
                }
                has_heard.recv().unwrap();
                while peer.read_text() != "done" {}
            },
            move |socket, mut bell| {
                let mut socket = socket.unwrap();
                while socket.is_ready() {
                    socket.send(Message::text("y".repeat(100_000))).unwrap();
                    socket.flush().unwrap();
                }
                for number in 0..200 {
                    let text = next_text(&mut socket, &mut bell);
                    assert!(text.contains(&format!("\"number\":{number}}}")), "{number}");
                }
                assert!(!socket.is_ready());
                heard.send(()).unwrap();
                flush(&mut socket, &mut bell);
                socket.send(Message::text("done")).unwrap();
                flush(&mut socket, &mut bell);
            },
        );
    }

    #[test]
    fn a_goodbye_reaches_the_other_end_as_one() {
        converse(
            |server| {
                let mut peer = server.accept();
                assert_eq!(peer.read_close(), Some(1000));
                assert!(peer.ends_in_peace());
            },
            |socket, mut bell| socket.unwrap().close(&mut bell),
        );
    }

    #[test]
    fn a_refusal_is_told_with_the_body_that_follows_its_head() {
        let body = r#"{"error":{"code":"TOKEN_EXPIRED","message":"expired 3 s ago"}}"#;
        let told = converse(
            |server| server.refuse("401 Unauthorized", body),
            |socket, _| socket.err().unwrap().what,
        );
        assert!(told.contains("TOKEN_EXPIRED (expired 3 s ago)"), "{told}");
    }
}
