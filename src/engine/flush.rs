//! The last step of a turn: writing. Reading only marked connections; here each gets one vectored
//! write, users in turn, and after so many writes or bytes the next poll has its say.

use std::io::{self, IoSlice};

use crate::counters::Stage;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::hub::outbox::Outbox;
use crate::limits::{IOVECS_MAX, WRITE_BYTES_PER_FLUSH, WRITES_PER_FLUSH};

use super::connection::{Connection, HttpState, Protocol, WebSocket};
use super::event_loop::Core;
use super::tls::Scratch;
use super::transport::{Transport, Written};

impl Core {
    /// Writes to at most `WRITES_PER_FLUSH` connections, and about `WRITE_BYTES_PER_FLUSH`.
    pub(super) fn flush(&mut self, now: Now) {
        for _ in 0..self.answered.len() {
            let Some(key) = self.answered.pop_front() else {
                break;
            };
            self.write_answer(key);
        }
        let mut bytes_left = WRITE_BYTES_PER_FLUSH;
        for _ in 0..WRITES_PER_FLUSH {
            let Some(peer) = self.hub.peers_mut().poll_dirty() else {
                return;
            };
            bytes_left = bytes_left.saturating_sub(self.write_peer(now, peer));
            if bytes_left == 0 {
                return;
            }
        }
    }

    /// A socket takes bytes again: what TLS has sealed first.
    pub(super) fn handle_writable(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        if connection.transport.flush().is_err() {
            return self.remove(key);
        }
        connection.is_blocked = connection.transport.wants_write();
        if connection.is_blocked {
            return;
        }
        match &connection.protocol {
            Protocol::Http(http) if !http.out.is_empty() => self.answered.push_back(key),
            Protocol::Http(_) => {}
            Protocol::WebSocket(WebSocket { peer, .. }) => {
                let peer = *peer;
                self.handle_passed_on(peer, key);
            }
        }
    }

    // Returns how many bytes the kernel took.
    fn write_peer(&mut self, now: Now, peer: Key) -> usize {
        let Some(found) = self.hub.peers().find(peer) else {
            return 0;
        };
        let key = found.connection;
        let Some(connection) = self
            .connections
            .find_mut(key)
            .filter(|connection| !connection.is_blocked)
        else {
            return 0;
        };
        let written = write_outbox(&mut connection.transport, found.outbox(), &mut self.tls);
        let counters = &self.stats.counters;
        counters.writes.add(1);
        let Ok(written) = written else {
            self.remove(key);
            return 0;
        };
        connection.is_blocked = written.is_blocked;
        counters.writes_blocked.add(u64::from(written.is_blocked));
        self.handle_written(now, peer, key, written.bytes);
        written.bytes
    }

    fn handle_written(&mut self, now: Now, peer: Key, key: Key, written: usize) {
        let written_ns = self.options.clock.monotonic_ns();
        let mut spans = Spans::default();
        self.hub
            .peers_mut()
            .handle_written(now, peer, written, |batch| {
                spans.add(
                    batch.received_ns,
                    batch.numbered_ns,
                    batch.metas.len() as u64,
                    written_ns,
                );
            });
        for (stage, ns, count) in spans.iter() {
            self.hub.stages_mut().record(stage, ns, count);
        }
        self.handle_passed_on(peer, key);
    }

    // Bytes to a WebSocket are with the kernel: there are more, or those were the last.
    fn handle_passed_on(&mut self, peer: Key, key: Key) {
        let Some(found) = self.hub.peers().find(peer) else {
            return;
        };
        let has_more = !found.outbox().is_empty();
        if !has_more && found.closing().is_none() {
            return;
        }
        let is_blocked = |connection: &Connection| connection.is_blocked;
        if self.connections.find(key).is_none_or(is_blocked) {
            return;
        }
        if has_more {
            self.hub.peers_mut().mark_dirty(peer);
        } else {
            self.finish_writing(key);
        }
    }

    fn write_answer(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        let Protocol::Http(http) = &mut connection.protocol else {
            return;
        };
        if connection.is_blocked || http.out.is_empty() {
            return;
        }
        let written = connection
            .transport
            .write(&http.out[http.written..], &mut self.tls);
        let counters = &self.stats.counters;
        counters.writes.add(1);
        let Ok(Written { bytes, is_blocked }) = written else {
            return self.remove(key);
        };
        connection.is_blocked = is_blocked;
        counters.writes_blocked.add(u64::from(is_blocked));
        counters.bytes_written.add(bytes as u64);
        http.written += bytes;
        if is_blocked {
            return;
        }
        if http.written < http.out.len() {
            return self.answered.push_back(key);
        }
        http.out = Vec::new();
        http.written = 0;
        self.handle_answered(key);
    }

    // An answer is with the kernel: the next request is looked at, or the connection ends behind it.
    fn handle_answered(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        let is_closing = matches!(&connection.protocol, Protocol::Http(http) if matches!(http.state, HttpState::Closing));
        // The peer reads the answer and ends; what it sends meanwhile is dropped.
        if is_closing {
            if connection.transport.shutdown_write().is_err() {
                return self.remove(key);
            }
            connection.is_blocked = connection.transport.wants_write();
        }
        if connection.has_input() {
            self.mark_ready(key);
        } else {
            self.finish_reading(key);
        }
    }
}

// Most writes are of one piece: `send` then spares the kernel the vector and the file's lock, 0.7 of
// 7.5 µs.
fn write_outbox(
    transport: &mut Transport,
    outbox: &Outbox,
    scratch: &mut Scratch,
) -> io::Result<Written> {
    if let Some(bytes) = outbox.only_piece() {
        return transport.write(bytes, scratch);
    }
    let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
    let filled = outbox.io_slices(&mut slices);
    transport.write_vectored(&slices[..filled], scratch)
}

/// How long the batches of one write took, kept until the hub's histograms can be had. Most writes
/// carry one batch.
#[derive(Default)]
struct Spans {
    spans: Vec<(u64, u64, u64)>,
    one: Option<(u64, u64, u64)>,
}

impl Spans {
    fn add(&mut self, received_ns: u64, numbered_ns: u64, count: u64, written_ns: u64) {
        let span = (
            written_ns.saturating_sub(received_ns),
            written_ns.saturating_sub(numbered_ns),
            count,
        );
        if self.one.is_none() {
            self.one = Some(span);
        } else {
            self.spans.push(span);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Stage, u64, u64)> {
        self.one
            .iter()
            .chain(&self.spans)
            .flat_map(|(total_ns, written_ns, count)| {
                [
                    (Stage::Total, *total_ns, *count),
                    (Stage::Written, *written_ns, *count),
                ]
            })
    }
}
