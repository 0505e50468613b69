//! TLS handshakes of a core: few steps a turn, because each is dear; a time for each; and a limit to
//! how many are unfinished, past which the oldest gives way, of those that have said nothing where there
//! are such, so that silent sockets keep nobody out.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::debug;

use crate::counters::HandshakeFailure;
use crate::hub::Now;
use crate::hub::keyed::Key;
use crate::limits::{
    CLOSE_TIMEOUT_MS, HEAD_TIMEOUT_MS, TLS_HANDSHAKE_STEPS_PER_TURN, TLS_HANDSHAKE_TIMEOUT_MS,
    TLS_HANDSHAKES_UNFINISHED_MAX,
};
use crate::wire::Refused;
use crate::wire::close::Refusal;

use super::answer::Framing;
use super::connection::{Connection, Line, Protocol};
use super::event_loop::Core;
use super::tls::{Handshake, HandshakeError, Terms};

/// The unfinished handshakes of a core.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// In the order in which they give way.
    unfinished: BTreeSet<Unfinished>,
    unfinished_max: usize,
    /// Those with input that no further edge will tell of.
    pub ready: VecDeque<Key>,
}

impl Handshakes {
    /// None so far, of a node with so many cores.
    pub fn new(cores: usize) -> Self {
        Self {
            unfinished: BTreeSet::new(),
            unfinished_max: (TLS_HANDSHAKES_UNFINISHED_MAX / cores).max(1),
            ready: VecDeque::new(),
        }
    }

    /// One begins. Returns the one that gives way to it.
    fn begin(&mut self, deadline_ms: u64, key: Key) -> Option<Key> {
        let is_full = self.unfinished.len() >= self.unfinished_max;
        let first = is_full.then(|| self.unfinished.pop_first()).flatten();
        self.unfinished.insert(Unfinished {
            has_spoken: false,
            deadline_ms,
            key,
        });
        first.map(|gone| gone.key)
    }

    /// One has sent its first bytes.
    fn handle_first_bytes(&mut self, deadline_ms: u64, key: Key) {
        self.forget(deadline_ms, key);
        self.unfinished.insert(Unfinished {
            has_spoken: true,
            deadline_ms,
            key,
        });
    }

    /// One is finished, or gone.
    fn forget(&mut self, deadline_ms: u64, key: Key) {
        for has_spoken in [false, true] {
            self.unfinished.remove(&Unfinished {
                has_spoken,
                deadline_ms,
                key,
            });
        }
    }
}

/// A handshake under way. Ordered by who gives way first: the silent before the others, then the
/// oldest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Unfinished {
    has_spoken: bool,
    /// The end of its time, in monotonic milliseconds.
    deadline_ms: u64,
    key: Key,
}

impl Core {
    /// A connection was taken in whose handshake must be finished by then.
    pub(super) fn begin_handshake(&mut self, key: Key, deadline_ms: u64) {
        if let Some(oldest) = self.handshakes.begin(deadline_ms, key) {
            self.fail_handshake(oldest, HandshakeFailure::GaveWay);
        }
        self.count_handshakes();
    }

    /// A connection is taken out, whatever became of its handshake.
    pub(super) fn forget_handshake(&mut self, key: Key, connection: &Connection) {
        if let Protocol::Http(http) = &connection.protocol {
            self.handshakes.forget(http.deadline_ms, key);
            self.count_handshakes();
        }
    }

    /// Goes on with handshakes for which something came, in turn.
    pub(super) fn serve_handshakes(&mut self, now: Now) {
        let mut steps = TLS_HANDSHAKE_STEPS_PER_TURN;
        while steps > 0
            && let Some(key) = self.handshakes.ready.pop_front()
        {
            if let Some(connection) = self.connections.find_mut(key) {
                connection.is_ready = false;
                steps -= 1;
                self.go_on_shaking(now, key);
            }
        }
    }

    /// A handshake came to nothing: its socket is closed.
    pub(super) fn fail_handshake(&mut self, key: Key, reason: HandshakeFailure) {
        let counters = &self.stats.counters;
        counters.tls_handshakes_failed.at(reason as usize).add(1);
        // What fails behind its last message counts as a handshake here, and nowhere else any more.
        if let Some(connection) = self.connections.find(key)
            && let Protocol::Http(http) = &connection.protocol
        {
            self.handshakes.forget(http.deadline_ms, key);
            self.count_handshakes();
        }
        self.remove(key);
    }

    fn go_on_shaking(&mut self, now: Now, key: Key) {
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        let Some(stream) = connection.transport.tls_mut() else {
            return;
        };
        let was_silent = stream.is_silent();
        let step = catch_unwind(AssertUnwindSafe(|| stream.handshake(&mut self.tls)));
        let Ok(step) = step else {
            self.stats.counters.panics.add(1);
            return self.fail_handshake(key, HandshakeFailure::Protocol);
        };
        connection.is_blocked |= stream.wants_write();
        if let (true, Protocol::Http(http)) = (was_silent, &connection.protocol) {
            self.handshakes.handle_first_bytes(http.deadline_ms, key);
        }
        match step {
            Ok(Handshake::Finished(terms)) => self.finish_handshake(key, terms),
            Ok(Handshake::Unfinished(rest)) => {
                connection.handle_rest(rest);
                self.mark_ready(key);
            }
            Err(HandshakeError::Gone) => self.fail_handshake(key, HandshakeFailure::Gone),
            Err(HandshakeError::PlainHttp) => self.refuse_plain_http(now, key),
            Err(error @ (HandshakeError::Protocol(_) | HandshakeError::TooLong)) => {
                debug!(%error, "a TLS handshake failed");
                self.fail_handshake(key, HandshakeFailure::Protocol);
            }
        }
    }

    // What is left of the time for a head begins. Its bytes may have come already.
    fn finish_handshake(&mut self, key: Key, terms: Terms) {
        let counters = &self.stats.counters;
        counters
            .tls_handshakes
            .at(usize::from(terms.is_tls13))
            .add(1);
        counters.tls_resumptions.add(u64::from(terms.is_resumed));
        let Some(connection) = self.connections.find_mut(key) else {
            return;
        };
        connection.is_readable = true;
        let Protocol::Http(http) = &connection.protocol else {
            return;
        };
        let deadline_ms = http.deadline_ms;
        self.handshakes.forget(deadline_ms, key);
        self.count_handshakes();
        self.set_deadline(
            key,
            deadline_ms + (HEAD_TIMEOUT_MS - TLS_HANDSHAKE_TIMEOUT_MS),
        );
        self.mark_ready(key);
    }

    // The answer goes out as the peer speaks, without TLS. What it sends meanwhile is dropped.
    fn refuse_plain_http(&mut self, now: Now, key: Key) {
        let counters = &self.stats.counters;
        let reason = HandshakeFailure::PlainHttp;
        counters.tls_handshakes_failed.at(reason as usize).add(1);
        let Some(connection) = self.take_out(key) else {
            return;
        };
        let line = connection.into_line();
        let line = Line {
            transport: line.transport.into_plain(),
            ..line
        };
        let deadline_ms = now.ms() + CLOSE_TIMEOUT_MS;
        if let Some(key) = self.insert(Connection::new(line, deadline_ms)) {
            let message = "this port speaks TLS: ask for https:// or wss://";
            let refused = Refused::new(Refusal::BadRequest, message);
            self.refuse(now, key, &refused, Framing::default());
        }
    }

    fn count_handshakes(&self) {
        let unfinished = self.handshakes.unfinished.len() as u64;
        let counters = &self.stats.counters;
        counters.tls_handshakes_unfinished.set(unfinished);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_limit_the_oldest_gives_way() {
        let mut handshakes = Handshakes::new(TLS_HANDSHAKES_UNFINISHED_MAX / 3);
        let key = Key::from_u64;
        assert_eq!(handshakes.begin(30, key(1)), None);
        assert_eq!(handshakes.begin(10, key(2)), None);
        assert_eq!(handshakes.begin(20, key(3)), None);
        assert_eq!(handshakes.begin(40, key(4)), Some(key(2)));
        assert_eq!(handshakes.begin(40, key(5)), Some(key(3)));
        handshakes.forget(30, key(1));
        assert_eq!(handshakes.begin(50, key(6)), None);
    }

    #[test]
    fn who_has_said_something_gives_way_after_all_who_are_silent() {
        let mut handshakes = Handshakes::new(TLS_HANDSHAKES_UNFINISHED_MAX / 2);
        let key = Key::from_u64;
        handshakes.begin(10, key(1));
        handshakes.handle_first_bytes(10, key(1));
        handshakes.begin(20, key(2));
        assert_eq!(handshakes.begin(30, key(3)), Some(key(2)));
        handshakes.handle_first_bytes(30, key(3));
        assert_eq!(handshakes.begin(40, key(4)), Some(key(1)));
        handshakes.forget(30, key(3));
        assert_eq!(handshakes.unfinished.len(), 1);
    }
}
