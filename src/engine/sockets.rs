//! Sockets of a core: accepting, reading within a budget, handing the bytes to whatever the
//! connection speaks, and letting go.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use mio::{Interest, Token};
use tracing::{debug, error, warn};

use crate::failpoint;
use crate::hub::Now;
use crate::hub::keyed::{Key, Keyed};
use crate::limits::{
    ACCEPTS_PER_TURN, HEAD_TIMEOUT_MS, PARTIAL_TIMEOUT_MS, READ_BYTES_PER_TURN,
    TLS_HANDSHAKE_TIMEOUT_MS,
};
use crate::wire::close::CloseReason;
use crate::wire::deflate::InflateCounts;
use crate::wire::frame::Data;
use crate::wire::{Incoming, Inflater, WireError};

use super::admission::AdmissionError;
use super::answer::Framing;
use super::connection::{
    Connection, Door, HttpState, Line, Origin, Pending, Protocol, Speaker, WebSocket,
};
use super::event_loop::{Core, Timer};
use super::listener::Accept;
use super::transport::{Received, Transport};

impl Core {
    /// Takes some of what waits at the listeners.
    pub(super) fn accept_ready(&mut self, now: Now) {
        for place in 0..self.doors.len() {
            if std::mem::take(&mut self.doors[place].is_ready) {
                self.accept(now, place);
            }
        }
    }

    fn accept(&mut self, now: Now, place: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let entrance = &mut self.doors[place];
            let door = entrance.door;
            match entrance.acceptor.accept(now.ms()) {
                Accept::Stream(transport, address) => {
                    self.stats.counters.connections_accepted.add(1);
                    self.take_in(now, transport, address, door);
                }
                Accept::WouldBlock => return,
                Accept::Failed(reason) => {
                    self.stats.counters.accept_errors.add(1);
                    debug!(%reason, "a connection ended before it was accepted");
                }
                Accept::Paused {
                    until_ms,
                    error: reason,
                } => {
                    if let Some(reason) = reason {
                        self.stats.counters.accept_errors.add(1);
                        self.stats.counters.accept_paused.add(1);
                        warn!(%reason, "cannot accept: trying again until descriptors are free");
                    }
                    return self.retry_accept(until_ms, place);
                }
            }
        }
        // More may wait, and no edge will tell.
        self.doors[place].is_ready = true;
    }

    fn retry_accept(&mut self, at_ms: u64, place: usize) {
        if !std::mem::replace(&mut self.doors[place].is_retry_set, true) {
            self.wheel.insert(at_ms, Timer::Accept(place));
        }
    }

    fn take_in(
        &mut self,
        now: Now,
        transport: Transport,
        address: Option<std::net::SocketAddr>,
        door: Door,
    ) {
        let ip = address.map(|address| address.ip().to_canonical());
        let is_proxy = ip.is_some_and(|ip| {
            self.options
                .trusted_proxies
                .iter()
                .any(|net| net.contains(&ip))
        });
        let ticket = match self
            .admission
            .handle_accept(ip.filter(|_| !is_proxy), now.ms())
        {
            Ok(ticket) => ticket,
            Err(reason) => {
                debug!(%reason, "a connection was not let in");
                return self.turn_away(transport, reason);
            }
        };
        let is_handshaking = transport.is_handshaking();
        let timeout_ms = if is_handshaking {
            TLS_HANDSHAKE_TIMEOUT_MS
        } else {
            HEAD_TIMEOUT_MS
        };
        let deadline_ms = now.ms() + timeout_ms;
        let line = Line {
            transport,
            spill: Vec::new(),
            door,
            ticket,
            origin: Origin {
                address,
                forwarded: None,
            },
        };
        let key = self.insert(Connection::new(line, deadline_ms));
        if let Some(key) = key.filter(|_| is_handshaking) {
            self.begin_handshake(key, deadline_ms);
        }
    }

    // Tells a client why it is not let in, as far as the socket takes it at once; nothing was read of
    // it. Under TLS there is nobody to tell yet.
    fn turn_away(&mut self, mut transport: Transport, error: AdmissionError) {
        let refused = super::requests::not_admitted(error);
        let index = refused.refusal.index();
        self.stats.counters.refusals.at(index).add(1);
        if transport.is_handshaking() {
            return;
        }
        let mut out = Vec::new();
        super::answer::refuse(&mut out, &refused, Framing::default());
        // Whether it can be written or not: the socket is closed.
        let _ = transport.write(&out, &mut self.tls);
    }

    /// Registers a connection and sets its timer, if it speaks HTTP. `None`: the system refused.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<Key> {
        let deadline_ms = match &connection.protocol {
            Protocol::Http(http) => Some(http.deadline_ms),
            Protocol::WebSocket(_) => None,
        };
        let key = self.connections.insert(connection);
        self.stats.counters.connections.add(1);
        let token = Token(usize::try_from(key.to_u64()).expect("a 64-bit system"));
        let registry = self.poll.registry();
        let registered = self.connections.find_mut(key).map(|connection| {
            registry.register(
                &mut connection.transport,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )
        });
        if let Some(Err(reason)) = registered {
            error!(%reason, "cannot watch a connection");
            self.remove(key);
            return None;
        }
        if let Some(deadline_ms) = deadline_ms {
            self.set_deadline(key, deadline_ms);
        }
        Some(key)
    }

    /// Takes a connection out without closing its socket; whoever holds it next registers it.
    pub(super) fn take_out(&mut self, key: Key) -> Option<Connection> {
        let mut connection = self.connections.remove(key)?;
        self.stats.counters.connections.sub(1);
        if connection.transport.is_handshaking() {
            self.forget_handshake(key, &connection);
        }
        // A socket that cannot be deregistered is gone from the poll already.
        let _ = self.poll.registry().deregister(&mut connection.transport);
        Some(connection)
    }

    /// Ends a connection and tells whoever counts on it.
    pub(super) fn remove(&mut self, key: Key) {
        let Some(connection) = self.take_out(key) else {
            return;
        };
        match &connection.protocol {
            Protocol::WebSocket(socket) => self.hub.handle_disconnect(socket.peer),
            Protocol::Http(http) => match &http.state {
                HttpState::Body(body) => self.body_bytes -= body.charged_bytes,
                HttpState::Waiting(Pending::Admission(_)) => self.hub.handle_newcomer_gone(key),
                HttpState::Waiting(Pending::Publish {
                    publisher,
                    charged_bytes,
                    ..
                }) => {
                    self.body_bytes -= charged_bytes;
                    self.hub.handle_post_abandoned(*publisher);
                }
                HttpState::Waiting(Pending::Admin { .. } | Pending::Page { .. })
                | HttpState::Closing
                | HttpState::Head => {}
            },
        }
        connection.transport.close();
    }

    /// Reads a connection within the turn's budget and handles what came.
    pub(super) fn serve(&mut self, now: Now, key: Key) {
        if !self.work_on_publisher(now, key) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut budget = READ_BYTES_PER_TURN.min(self.read_budget);
        while budget > 0 {
            let Some(connection) = self.connections.find_mut(key) else {
                break;
            };
            if !connection.wants_read() {
                break;
            }
            let spilled = connection.spill.len();
            let is_new = connection.is_readable;
            if !is_new && spilled == 0 {
                break;
            }
            if buffer.len() < spilled + READ_BYTES_PER_TURN {
                buffer.resize(spilled + READ_BYTES_PER_TURN, 0);
            }
            buffer[..spilled].copy_from_slice(&connection.spill);
            connection.spill.clear();
            let room = spilled + budget.min(READ_BYTES_PER_TURN);
            let received = if is_new {
                self.receive(key, &mut buffer[spilled..room])
            } else {
                Some(Received::NONE)
            };
            let Some(received) = received else {
                self.remove(key);
                break;
            };
            self.stats.counters.bytes_read.add(received.bytes as u64);
            budget -= received.cost();
            self.read_budget -= received.cost();
            let filled = spilled + received.bytes;
            self.handle_bytes(now, key, &mut buffer[..filled]);
            if received.bytes == 0 {
                break;
            }
        }
        self.read_buffer = buffer;
        self.finish_reading(key);
    }

    // Reads a socket once, and through TLS what strangers make of it. `None`: the stream is broken.
    fn receive(&mut self, key: Key, buffer: &mut [u8]) -> Option<Received> {
        let connection = self.connections.find_mut(key)?;
        let received = catch_unwind(AssertUnwindSafe(|| {
            connection.transport.read(buffer, &mut self.tls)
        }));
        let Ok(received) = received else {
            self.stats.counters.panics.add(1);
            return None;
        };
        let received = received.ok()?;
        connection.handle_rest(received.rest);
        // While it reads TLS may have found something to say.
        connection.is_blocked |= connection.transport.wants_write();
        Some(received)
    }

    // After a read: ends what the peer has ended, or asks for another turn.
    pub(super) fn finish_reading(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        if connection.spill.is_empty() {
            connection.spill = Vec::new();
        }
        let is_over = match &connection.protocol {
            // A peer that has closed its half still gets the answer that it waits for.
            Protocol::Http(http) => {
                !matches!(http.state, HttpState::Waiting(_)) && http.out.is_empty()
            }
            // The answer to its goodbye goes out first.
            Protocol::WebSocket(socket) => {
                let is_written = self.hub.is_written(socket.peer) && !connection.is_blocked;
                !socket.is_deaf || is_written
            }
        };
        if connection.is_at_end && is_over && !connection.is_readable {
            self.remove(key);
        } else if connection.is_readable {
            self.mark_ready(key);
        }
    }

    // Hands bytes to what the connection speaks; what it does not take is kept.
    fn handle_bytes(&mut self, now: Now, key: Key, bytes: &mut [u8]) {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(connection) = self.connections.find(key) else {
                break;
            };
            if !connection.wants_read() {
                break;
            }
            let step = match connection.protocol {
                Protocol::Http(_) => self.handle_http(now, key, &bytes[taken..]),
                Protocol::WebSocket(_) => self.handle_frames(now, key, &mut bytes[taken..]),
            };
            if step == 0 {
                break;
            }
            taken += step;
        }
        self.keep(key, &bytes[taken..]);
    }

    // What was read and not taken stays with the connection, also where it has just moved away.
    fn keep(&mut self, key: Key, rest: &[u8]) {
        if let Some(connection) = self.connections.find_mut(key) {
            connection.spill.extend_from_slice(rest);
        } else if let Some(handoff) = self.last_handoff(key) {
            handoff.append(rest);
        }
    }

    // Frames of a WebSocket. Returns how many bytes it took.
    fn handle_frames(&mut self, now: Now, key: Key, bytes: &mut [u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(socket) = web_socket(&mut self.connections, key) else {
                break;
            };
            if socket.is_deaf {
                return bytes.len();
            }
            if socket.is_stalled {
                break;
            }
            let peer = socket.peer;
            socket.heard_ms = now.ms();
            let fed = catch_unwind(AssertUnwindSafe(|| {
                let fed = socket
                    .assembler
                    .feed(&mut bytes[taken..], &mut self.inflater);
                reach_failpoint(&fed.1);
                fed
            }));
            // A message may be long in coming: its bytes are signs of life as well.
            self.hub.handle_sign_of_life(now, peer);
            let Ok((step, outcome)) = fed else {
                self.handle_panic(now, key, peer);
                return bytes.len();
            };
            taken += step;
            self.count_inflated();
            match outcome {
                Ok(None) => {
                    self.watch_partial(now, key);
                    break;
                }
                Ok(Some(incoming)) => self.handle_incoming(now, key, peer, incoming),
                Err(error) => self.handle_violation(now, key, peer, error),
            }
        }
        taken
    }

    // A message that is begun must go on: one timer a connection looks after it.
    fn watch_partial(&mut self, now: Now, key: Key) {
        let Some(socket) = self.web_socket(key) else {
            return;
        };
        if !socket.assembler.is_idle() && !std::mem::replace(&mut socket.is_timed, true) {
            self.wheel
                .insert(now.ms() + PARTIAL_TIMEOUT_MS, Timer::Connection(key));
        }
    }

    /// The timer of `watch_partial` has fired.
    pub(super) fn handle_partial_deadline(&mut self, now: Now, key: Key) {
        let Some(socket) = self.web_socket(key) else {
            return;
        };
        // What is left of the time as HTTP has nothing to say.
        if !std::mem::take(&mut socket.is_timed) {
            return;
        }
        if socket.assembler.is_idle() || socket.is_deaf || socket.is_stalled {
            return;
        }
        let deadline_ms = socket.heard_ms + PARTIAL_TIMEOUT_MS;
        if now.ms() < deadline_ms {
            socket.is_timed = true;
            return self.wheel.insert(deadline_ms, Timer::Connection(key));
        }
        socket.is_deaf = true;
        let peer = socket.peer;
        debug!(
            connection = peer.to_u64(),
            "a message was begun and not gone on with"
        );
        self.hub
            .handle_close(now, peer, CloseReason::PolicyViolation);
    }

    fn handle_incoming(&mut self, now: Now, key: Key, peer: Key, incoming: Incoming) {
        match incoming {
            Incoming::Close { code, .. } => {
                if let Some(socket) = self.web_socket(key) {
                    socket.has_closed = true;
                    socket.is_deaf = true;
                }
                self.hub.handle_goodbye(now, peer, code);
                self.end_if_finished(key);
            }
            Incoming::Ping(payload) => {
                if self.is_control_allowed(now, key, peer) {
                    self.hub.handle_ping(peer, &payload);
                }
            }
            Incoming::Pong => {
                self.is_control_allowed(now, key, peer);
            }
            Incoming::Binary(bytes) => self.hub.handle_echo(peer, Data::Binary, &bytes),
            Incoming::Text(text) => self.handle_text(now, key, peer, text),
        }
    }

    fn handle_text(&mut self, now: Now, key: Key, peer: Key, text: Bytes) {
        failpoint::stall_at("stall", &text);
        failpoint::panic_at("shared", &text);
        match self.web_socket(key).map(|socket| socket.speaker) {
            Some(Speaker::Echo) => self.hub.handle_echo(peer, Data::Text, &text),
            Some(Speaker::Publisher(_)) => {
                self.hub.handle_publisher_message(now, peer, text);
                self.work_on_publisher(now, key);
            }
            Some(Speaker::Viewer) => self.hub.handle_viewer_message(now, peer, &text),
            None => {}
        }
    }

    fn is_control_allowed(&mut self, now: Now, key: Key, peer: Key) -> bool {
        let Some(socket) = self.web_socket(key) else {
            return false;
        };
        match socket.control.handle_frame(now.ms()) {
            Ok(()) => true,
            Err(error) => {
                self.handle_violation(now, key, peer, error);
                false
            }
        }
    }

    fn handle_violation(&mut self, now: Now, key: Key, peer: Key, error: WireError) {
        if let Some(socket) = self.web_socket(key) {
            socket.is_deaf = true;
        }
        self.hub.handle_close(now, peer, error.close_reason());
    }

    fn handle_panic(&mut self, now: Now, key: Key, peer: Key) {
        self.stats.counters.panics.add(1);
        error!(
            connection = peer.to_u64(),
            "a panic while reading a connection's bytes: it is closed"
        );
        // The next message is not to find what this one left half done.
        self.inflater = Inflater::default();
        if let Some(socket) = self.web_socket(key) {
            socket.is_deaf = true;
        }
        self.hub.handle_close(now, peer, CloseReason::Internal);
    }

    fn count_inflated(&mut self) {
        let InflateCounts { inflated, failed } = self.inflater.take_counts();
        self.stats.counters.messages_inflated.add(inflated);
        self.stats.counters.inflate_failures.add(failed);
    }

    pub(super) fn web_socket(&mut self, key: Key) -> Option<&mut WebSocket> {
        web_socket(&mut self.connections, key)
    }

    /// Ends a WebSocket whose close is written, if the peer has nothing more to say either.
    pub(super) fn end_if_finished(&mut self, key: Key) {
        let Some(connection) = self.connections.find(key) else {
            return;
        };
        if let Protocol::WebSocket(socket) = &connection.protocol
            && socket.is_finished
            && !connection.is_blocked
            && (socket.has_closed || connection.is_at_end)
        {
            self.remove(key);
        }
    }

    /// Our last byte to a WebSocket is written: once it is with the kernel, the peer's end is awaited.
    pub(super) fn finish_writing(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        if let Protocol::WebSocket(socket) = &mut connection.protocol {
            socket.is_finished = true;
        }
        if connection.transport.shutdown_write().is_err() {
            self.remove(key);
            return;
        }
        connection.is_blocked = connection.transport.wants_write();
        self.end_if_finished(key);
    }
}

fn web_socket(connections: &mut Keyed<Connection>, key: Key) -> Option<&mut WebSocket> {
    match &mut connections.find_mut(key)?.protocol {
        Protocol::WebSocket(socket) => Some(socket),
        Protocol::Http(_) => None,
    }
}

fn reach_failpoint(outcome: &Result<Option<Incoming>, WireError>) {
    if let Ok(Some(Incoming::Text(text))) = outcome {
        failpoint::panic_at("frame", text);
    }
}
