//! What a client command waits on: its socket, its other threads, and signals, all at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

/// One poll. Everything is edge triggered: after each wait one tries all there is to do.
pub(crate) struct Bell {
    events: Events,
    poll: Poll,
    waker: Arc<Waker>,
}

impl Bell {
    /// Errors: out of descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self {
            events: Events::with_capacity(8),
            poll,
            waker,
        })
    }

    /// By which another thread ends a wait.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits on `stream` too, until it is dropped.
    pub(crate) fn register(&self, stream: &mut TcpStream) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream, SOCKET, interest)
    }

    /// Returns when something rang, a signal arrived, or after `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
