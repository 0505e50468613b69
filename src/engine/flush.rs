//! The last step of a turn: writing. Reading only marked connections; here each gets one vectored
//! write, users in turn, and after so many writes the next poll has its say.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;

use crate::counters::Stage;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::hub::outbox::Outbox;
use crate::limits::{IOVECS_MAX, WRITES_PER_FLUSH};

use super::connection::{HttpState, Protocol};
use super::event_loop::Core;
use super::transport::Transport;

/// What became of a write.
enum Wrote {
    /// The kernel took it all.
    All(usize),
    /// The kernel is full; an edge will tell when it takes more.
    Part(usize),
    /// The socket is broken.
    Failed,
}

impl Core {
    /// Writes to at most `WRITES_PER_FLUSH` connections.
    pub(super) fn flush(&mut self, now: Now) {
        for _ in 0..self.answered.len() {
            let Some(key) = self.answered.pop_front() else {
                break;
            };
            self.write_answer(key);
        }
        for _ in 0..WRITES_PER_FLUSH {
            let Some(peer) = self.hub.peers_mut().poll_dirty() else {
                return;
            };
            self.write_peer(now, peer);
        }
    }

    /// A socket takes bytes again.
    pub(super) fn handle_writable(&mut self, key: Key) {
        let Some(connection) = self.connections.find(key) else {
            return;
        };
        match &connection.protocol {
            Protocol::Http(http) if !http.out.is_empty() => self.answered.push_back(key),
            Protocol::Http(_) => {}
            Protocol::WebSocket(socket) => self.hub.peers_mut().mark_dirty(socket.peer),
        }
    }

    fn write_peer(&mut self, now: Now, peer: Key) {
        let Some(found) = self.hub.peers().find(peer) else {
            return;
        };
        let key = found.connection;
        let Some(connection) = self
            .connections
            .find_mut(key)
            .filter(|connection| !connection.is_blocked)
        else {
            return;
        };
        let wrote = write_outbox(&mut connection.transport, found.outbox());
        let counters = &self.stats.counters;
        counters.writes.add(1);
        let written = match wrote {
            Wrote::All(written) => written,
            Wrote::Part(written) => {
                connection.is_blocked = true;
                counters.writes_blocked.add(1);
                written
            }
            Wrote::Failed => return self.remove(key),
        };
        self.handle_written(now, peer, key, written);
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
        let Some(found) = self.hub.peers().find(peer) else {
            return;
        };
        if !found.outbox().is_empty() {
            self.mark_unblocked_dirty(peer, key);
        } else if found.closing().is_some() {
            self.finish_writing(key);
        }
    }

    fn mark_unblocked_dirty(&mut self, peer: Key, key: Key) {
        if self
            .connections
            .find(key)
            .is_some_and(|connection| !connection.is_blocked)
        {
            self.hub.peers_mut().mark_dirty(peer);
        }
    }

    fn write_answer(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        let Protocol::Http(http) = &mut connection.protocol else {
            return;
        };
        if connection.is_blocked || http.written == http.out.len() {
            return;
        }
        let rest = &http.out[http.written..];
        let wrote = write_bytes(&mut connection.transport, rest);
        self.stats.counters.writes.add(1);
        match wrote {
            Wrote::All(written) => {
                self.stats.counters.bytes_written.add(written as u64);
                http.out = Vec::new();
                http.written = 0;
                self.handle_answered(key);
            }
            Wrote::Part(written) => {
                self.stats.counters.bytes_written.add(written as u64);
                self.stats.counters.writes_blocked.add(1);
                http.written += written;
                connection.is_blocked = true;
            }
            Wrote::Failed => self.remove(key),
        }
    }

    // An answer is with the kernel: the next request is looked at, or the connection ends behind it.
    fn handle_answered(&mut self, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        let is_closing = matches!(&connection.protocol, Protocol::Http(http) if matches!(http.state, HttpState::Closing));
        // The peer reads the answer and ends; what it sends meanwhile is dropped.
        if is_closing && connection.transport.shutdown(Shutdown::Write).is_err() {
            return self.remove(key);
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
fn write_outbox(transport: &mut Transport, outbox: &Outbox) -> Wrote {
    if let Some(bytes) = outbox.only_piece() {
        return write_bytes(transport, bytes);
    }
    let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
    let filled = outbox.io_slices(&mut slices);
    let offered = slices[..filled].iter().map(|slice| slice.len()).sum();
    write(offered, || transport.write_vectored(&slices[..filled]))
}

fn write_bytes(transport: &mut Transport, bytes: &[u8]) -> Wrote {
    write(bytes.len(), || transport.write(bytes))
}

fn write(offered: usize, mut send: impl FnMut() -> io::Result<usize>) -> Wrote {
    loop {
        return match send() {
            Ok(written) if written == offered => Wrote::All(written),
            // The kernel remembers that it owes an edge as soon as it takes less than it was offered.
            Ok(written) => Wrote::Part(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Wrote::Part(0),
            Err(_) => Wrote::Failed,
        };
    }
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
