//! The WebSocket connections of one core, viewers and publishers alike: what waits for each, when
//! each last gave a sign of life, and how each ends. What a viewer sees is in `viewer`, what a
//! publisher sends in `publisher`.

mod held;
mod missed;

use std::rc::Rc;
use std::sync::Arc;

use compact_str::CompactString;

use crate::auth::Claims;
use crate::counters::{CoreStats, Role as CountedRole};
use crate::dialect::{ServerMessage, encode_message};
use crate::event::Seq;
use crate::limits::REPLAY_BYTES_IN_FLIGHT;
use crate::wire::close::CloseReason;
use crate::wire::frame::{Control, Data, encode_control, encode_data};

pub(super) use held::{HeldFrame, Release};
pub use missed::Room;

use super::Limits;
use super::encoder::Encoder;
use super::frames::{FrameBatch, Variant};
use super::keyed::{Key, Keyed};
use super::now::Now;
use super::outbox::{Gone, Outbox, OwnKind};
use super::streams::StreamSlot;
use super::users::{UserSlot, Users};
use super::viewer::Viewer;

/// All WebSocket connections of one core.
#[derive(Debug)]
pub struct Peers {
    peers: Keyed<Peer>,
    /// Their users, and whose turn it is to be written to.
    pub users: Users,
    /// Makes all frames of the core, those of events as well.
    pub(super) encoder: Encoder,
    stats: Arc<CoreStats>,
    outbox_bytes_max: usize,
    outbox_bytes_total: usize,
    // Bytes in an outbox above which its viewer is sent nothing more of what it has missed.
    replay_bytes_max: usize,
    // Deadlines that moved nearer, for the engine's wheel.
    deadlines: Vec<(Key, u64)>,
    // Unwritten bytes of all outboxes.
    outbox_bytes: usize,
    // Peers whose own messages found no room.
    overfull: Vec<Key>,
    // Viewers that may be sent more of what they have missed.
    with_room: Vec<Key>,
}

/// One WebSocket connection. What fan-out and flush touch stands here, two cache lines of it: a
/// thousand peers are walked twice for each event. The rest is in `details`.
#[derive(Debug)]
pub struct Peer {
    /// The engine's name for it.
    pub connection: Key,
    /// What is looked at now and then.
    pub details: Box<Details>,
    /// What still has to be written. Changed through `Peers` only, which keeps the sums.
    outbox: Outbox,
    user: UserSlot,
    role: Role,
    closing: Option<Closing>,
    is_dirty: bool,
    is_lagging: bool,
    // More of what it has missed follows once the outbox has room.
    awaits_room: bool,
    frames_written: u64,
    // When its entry in the engine's wheel fires; `u64::MAX`: it has none.
    timer_ms: u64,
}

/// Who a connection is, and how it lives.
#[derive(Debug)]
pub struct Details {
    /// What its token says.
    pub claims: Rc<Claims>,
    /// The id told to it, 16 hex digits.
    pub id: u64,
    /// The client's address as text, where there is one.
    pub remote: Option<CompactString>,
    /// Milliseconds since the Unix epoch.
    pub connected_wall_ms: i64,
    pub(super) pulse: Pulse,
}

/// What a connection is for.
#[derive(Debug)]
pub enum Role {
    /// It tests us: every message goes back to it. It stands outside the tiers and is counted among
    /// the publishers.
    Echo {
        /// Whether they may be deflated.
        takes_deflated: bool,
    },
    /// It publishes: its name among the hub's publishers.
    Publisher(Key),
    /// It watches.
    Viewer(Box<Viewer>),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Why.
    pub reason: CloseReason,
    /// When the socket is closed whatever the peer does, in milliseconds of the monotonic clock.
    pub deadline_ms: u64,
}

/// Signs of life, and the heartbeat that asks for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulse {
    /// When the last frame of any kind came, in nanoseconds of the monotonic clock.
    pub heard_ns: u64,
    /// When the next heartbeat is due.
    pub next_ping_ms: u64,
    /// The ping that has not been answered.
    pub ping: PingState,
}

/// A ping on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingState {
    /// None is owed.
    Answered,
    /// It waits in the outbox since then.
    Queued(u64),
    /// It was written then; silence counts from here.
    Written(u64),
}

/// What a new connection brings.
#[derive(Debug)]
pub struct Arrival {
    /// The engine's name for it.
    pub connection: Key,
    /// What its token says.
    pub claims: Rc<Claims>,
    /// The id to tell it.
    pub id: u64,
    /// The client's address as text, where there is one.
    pub remote: Option<CompactString>,
    /// The bytes of the 101, which go out first.
    pub response: Vec<u8>,
}

// Two cache lines, and what `Details` are of the allocator's classes.
const _: () = assert!(size_of::<Peer>() <= 128 && size_of::<Details>() <= 80);

impl Peer {
    /// What it is for.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Its viewer's part, if it watches.
    pub fn viewer(&self) -> Option<&Viewer> {
        match &self.role {
            Role::Viewer(viewer) => Some(viewer),
            Role::Echo { .. } | Role::Publisher(_) => None,
        }
    }

    /// See `viewer`.
    pub fn viewer_mut(&mut self) -> Option<&mut Viewer> {
        match &mut self.role {
            Role::Viewer(viewer) => Some(viewer),
            Role::Echo { .. } | Role::Publisher(_) => None,
        }
    }

    /// Its name among the hub's publishers, if it publishes.
    pub fn publisher(&self) -> Option<Key> {
        match self.role {
            Role::Publisher(publisher) => Some(publisher),
            Role::Echo { .. } | Role::Viewer(_) => None,
        }
    }

    /// Whether its messages may be deflated. What a publisher is told is short.
    fn takes_deflated(&self) -> bool {
        match &self.role {
            Role::Echo { takes_deflated } => *takes_deflated,
            Role::Publisher(_) => false,
            Role::Viewer(viewer) => viewer.variant.is_deflated(),
        }
    }

    /// What still has to be written.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Bytes that still have to be written, or wait until they may be.
    pub fn waiting_bytes(&self) -> usize {
        let trees = self.viewer().and_then(|viewer| viewer.trees.as_ref());
        self.outbox.bytes() + trees.map_or(0, |trees| trees.held_bytes)
    }

    /// Its user, on this core.
    pub fn user(&self) -> UserSlot {
        self.user
    }

    /// How it ends, once it has begun to.
    pub fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Frames written to it so far.
    pub fn frames_written(&self) -> u64 {
        self.frames_written
    }
}

impl Peers {
    /// None yet.
    pub fn new(stats: Arc<CoreStats>, encoder: Encoder, limits: &Limits, seed: u64) -> Self {
        Self {
            peers: Keyed::default(),
            users: Users::new(seed),
            encoder,
            stats,
            outbox_bytes_max: limits.outbox_bytes_max,
            outbox_bytes_total: limits.outbox_bytes_total,
            replay_bytes_max: REPLAY_BYTES_IN_FLIGHT.min(limits.outbox_bytes_max / 4),
            deadlines: Vec::new(),
            outbox_bytes: 0,
            overfull: Vec::new(),
            with_room: Vec::new(),
        }
    }

    // Most connections of a user come with one token: what it says is kept once.
    fn shared_claims(&self, claims: Rc<Claims>) -> Rc<Claims> {
        let latest = self.users.viewers(&claims.sub).last();
        let known = latest.and_then(|viewer| self.find(*viewer));
        let known = known.map(|peer| &peer.details.claims);
        known
            .filter(|known| **known == claims)
            .map_or(claims, Rc::clone)
    }

    /// Takes a connection in, its 101 first in the outbox.
    pub fn insert(&mut self, now: Now, arrival: Arrival, role: Role, next_ping_ms: u64) -> Key {
        let user = self.users.handle_connect(&arrival.claims.sub);
        let is_viewer = matches!(role, Role::Viewer(_));
        let details = Box::new(Details {
            claims: self.shared_claims(arrival.claims),
            id: arrival.id,
            remote: arrival.remote,
            connected_wall_ms: now.wall_ms,
            pulse: Pulse {
                heard_ns: now.monotonic_ns,
                next_ping_ms,
                ping: PingState::Answered,
            },
        });
        let key = self.peers.insert(Peer {
            connection: arrival.connection,
            details,
            outbox: Outbox::default(),
            user,
            role,
            closing: None,
            is_dirty: false,
            is_lagging: false,
            awaits_room: false,
            frames_written: 0,
            timer_ms: u64::MAX,
        });
        if is_viewer {
            self.users.add_viewer(user, key);
        }
        self.gauge(is_viewer).add(1);
        self.stats
            .counters
            .handshakes
            .at(counted_role(is_viewer) as usize)
            .add(1);
        self.push_own(key, arrival.response, OwnKind::Raw);
        key
    }

    /// Takes a connection out, its socket being gone; counts what was still queued as discarded.
    pub fn remove(&mut self, key: Key) -> Option<Peer> {
        let mut peer = self.peers.remove(key)?;
        let frames = peer.outbox.frames();
        let bytes = peer.outbox.bytes();
        self.count_discarded(Gone {
            bytes,
            frames,
            ping: false,
        });
        if peer.closing.is_none() {
            self.count_departure(key, &mut peer);
        }
        self.users.handle_disconnect(peer.user);
        Some(peer)
    }

    /// The connection, unless it is gone.
    pub fn find(&self, key: Key) -> Option<&Peer> {
        self.peers.find(key)
    }

    /// See `find`.
    pub fn find_mut(&mut self, key: Key) -> Option<&mut Peer> {
        self.peers.find_mut(key)
    }

    /// The viewer's part of a connection that watches.
    pub fn viewer(&self, key: Key) -> Option<&Viewer> {
        self.find(key)?.viewer()
    }

    /// See `viewer`.
    pub fn viewer_mut(&mut self, key: Key) -> Option<&mut Viewer> {
        self.find_mut(key)?.viewer_mut()
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Peer)> {
        self.peers.iter()
    }

    /// All keys, for walks that change what they walk over.
    pub fn keys(&self) -> Vec<Key> {
        self.peers.keys()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Unwritten bytes of all outboxes.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Queues frames `first..=last` of a batch. Returns `false` where the outbox has no room: the
    /// connection is a slow consumer, and the frames were not queued.
    #[must_use]
    pub fn push_shared(
        &mut self,
        key: Key,
        batch: &Rc<FrameBatch>,
        variant: Variant,
        first: usize,
        last: usize,
    ) -> bool {
        let Some(peer) = self
            .peers
            .find_mut(key)
            .filter(|peer| peer.closing.is_none())
        else {
            return true;
        };
        let bytes =
            (batch.metas[last].ends[variant.index()] - batch.start(variant, first)) as usize;
        // A frame always enters an empty outbox, so that the largest event reaches everybody.
        if !peer.outbox.is_empty() && peer.outbox.bytes() + bytes > self.outbox_bytes_max {
            return false;
        }
        peer.outbox.push_shared(batch, variant, first, last);
        self.handle_pushed(key, bytes, last - first + 1);
        true
    }

    /// Queues a message of the server to a viewer, in order; before `connection_established` none.
    pub fn push_message(&mut self, now: Now, key: Key, message: &ServerMessage<'_>) {
        let Some(viewer) = self.peers.find_mut(key).and_then(Peer::viewer_mut) else {
            return;
        };
        let mut text = Vec::new();
        encode_message(viewer.dialect, message, now.wall_ms, &mut text);
        if viewer.is_established {
            self.push_text(key, &text);
        } else if matches!(message, ServerMessage::ConnectionEstablished(_)) {
            self.push_text(key, &text);
            self.push_early(key);
        } else {
            viewer.early.push_back(text);
        }
        self.count_error(message);
    }

    /// A viewer is told of an error, if it is one.
    pub(super) fn count_error(&self, message: &ServerMessage<'_>) {
        if let Some(index) = message.error_index() {
            self.stats.counters.viewer_errors.at(index).add(1);
        }
    }

    // What waited for `connection_established`, or for an end that came before it.
    fn push_early(&mut self, key: Key) {
        let Some(viewer) = self.peers.find_mut(key).and_then(Peer::viewer_mut) else {
            return;
        };
        viewer.is_established = true;
        let mut early = std::mem::take(&mut viewer.early);
        while let Some(text) = early.pop_front() {
            self.push_text(key, &text);
        }
    }

    /// A frame of any kind came from the peer.
    pub fn handle_heard(&mut self, now: Now, key: Key) {
        if let Some(peer) = self.peers.find_mut(key) {
            peer.details.pulse.heard_ns = now.monotonic_ns;
            peer.details.pulse.ping = PingState::Answered;
        }
    }

    /// Queues one text frame, in order; deflated, where that was agreed on and pays. A peer whose
    /// outbox has no room for it does not keep up: `poll_overfull` names it. What a publisher is told
    /// is bounded by what is read of it.
    pub fn push_text(&mut self, key: Key, text: &[u8]) {
        self.push_data(key, Data::Text, text);
    }

    /// The same of either kind; text is UTF-8.
    pub fn push_data(&mut self, key: Key, kind: Data, payload: &[u8]) {
        let takes_deflated = self.peers.find(key).is_some_and(Peer::takes_deflated);
        let is_full = self.peers.find(key).is_some_and(|peer| {
            let bytes = peer.outbox.bytes() + payload.len();
            let is_bounded = peer.publisher().is_none();
            is_bounded && !peer.outbox.is_empty() && bytes > self.outbox_bytes_max
        });
        if is_full {
            return self.overfull.push(key);
        }
        let mut frame = Vec::with_capacity(payload.len() + 10);
        if takes_deflated {
            self.encoder.encode_deflated(&mut frame, kind, payload);
        } else {
            encode_data(&mut frame, kind, payload);
        }
        self.push_own(key, frame, OwnKind::Frame);
    }

    /// Answers a ping of the peer's, ahead of everything that is not on its way.
    pub fn push_pong(&mut self, key: Key, payload: &[u8]) {
        let mut frame = Vec::new();
        encode_control(&mut frame, Control::Pong, payload);
        self.push_urgent(key, frame, OwnKind::Pong);
    }

    /// Asks the peer for a sign of life, unless it is being asked already.
    pub fn push_ping(&mut self, now: Now, key: Key) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        if peer.closing.is_some() || peer.details.pulse.ping != PingState::Answered {
            return;
        }
        peer.details.pulse.ping = PingState::Queued(now.ms());
        let mut frame = Vec::new();
        encode_control(&mut frame, Control::Ping, &[]);
        self.stats.counters.heartbeats_sent.add(1);
        self.push_urgent(key, frame, OwnKind::Ping);
    }

    /// Begins to end a connection: `frame`, a close, goes out behind what is queued.
    pub fn begin_close(&mut self, key: Key, reason: CloseReason, frame: Vec<u8>, deadline_ms: u64) {
        self.push_early(key);
        let Some(peer) = self.find_open_mut(key) else {
            return;
        };
        let bytes = frame.len();
        peer.outbox.push_own(frame, OwnKind::Frame);
        self.handle_pushed(key, bytes, 1);
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        peer.closing = Some(Closing {
            reason,
            deadline_ms,
        });
        self.stats.counters.closes.at(reason.index()).add(1);
        let (user, is_viewer) = (peer.user, matches!(peer.role, Role::Viewer(_)));
        if is_viewer {
            self.users.remove_viewer(user, key);
        }
        self.gauge(is_viewer).sub(1);
        self.schedule(key, deadline_ms);
    }

    /// Throws away what waits, but for the rest of a frame that is on its way.
    pub fn discard(&mut self, key: Key) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        let gone = peer.outbox.discard();
        self.count_discarded(gone);
    }

    /// For each shared chunk that `discard` would throw away: its stream, and its first seq.
    pub fn undelivered(&mut self, key: Key) -> Vec<(StreamSlot, Seq)> {
        self.peers
            .find_mut(key)
            .map_or_else(Vec::new, |peer| peer.outbox.undelivered().collect())
    }

    /// `written` bytes of the outbox are with the kernel.
    pub fn handle_written(
        &mut self,
        now: Now,
        key: Key,
        written: usize,
        on_batch: impl FnMut(&FrameBatch),
    ) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        let gone = peer.outbox.handle_written(written, on_batch);
        peer.frames_written += gone.frames as u64;
        let is_caught_up = peer.is_lagging && peer.outbox.is_empty() && peer.closing.is_none();
        let is_pinged = gone.ping && matches!(peer.details.pulse.ping, PingState::Queued(_));
        if is_pinged {
            peer.details.pulse.ping = PingState::Written(now.ms());
        }
        if peer.awaits_room && peer.outbox.bytes() <= self.replay_bytes_max / 2 {
            peer.awaits_room = false;
            self.with_room.push(key);
        }
        self.outbox_bytes -= gone.bytes;
        let counters = &self.stats.counters;
        counters.outbox_bytes.sub(gone.bytes as u64);
        counters.bytes_written.add(gone.bytes as u64);
        counters.frames_written.add(gone.frames as u64);
        if is_pinged {
            self.schedule(key, now.ms());
        }
        if is_caught_up {
            self.push_lag(now, key, false);
        }
    }

    /// The connection has bytes to write and its socket may take some.
    pub fn mark_dirty(&mut self, key: Key) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        if !peer.is_dirty && !peer.outbox.is_empty() {
            peer.is_dirty = true;
            self.users.mark_dirty(peer.user, key);
        }
    }

    /// The next connection to write to: round robin over users.
    pub fn poll_dirty(&mut self) -> Option<Key> {
        while let Some(key) = self.users.poll_dirty() {
            if let Some(peer) = self.peers.find_mut(key) {
                peer.is_dirty = false;
                return Some(key);
            }
        }
        None
    }

    /// A peer whose own messages found no room.
    pub fn poll_overfull(&mut self) -> Option<Key> {
        self.overfull.pop()
    }

    /// A deadline that the engine's wheel must know: `handle_deadline` is due for the connection.
    pub fn poll_deadline(&mut self) -> Option<(Key, u64)> {
        self.deadlines.pop()
    }

    /// Asks for `handle_deadline` at `at_ms` or before. A connection has one entry in the wheel:
    /// another is made only where the time has moved nearer.
    pub fn schedule(&mut self, key: Key, at_ms: u64) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        if at_ms < peer.timer_ms {
            peer.timer_ms = at_ms;
            self.deadlines.push((key, at_ms));
        }
    }

    /// An entry in the wheel has fired: whether it is the connection's present one. If so, it has
    /// none from now on.
    pub(super) fn take_timer(&mut self, now: Now, key: Key) -> bool {
        let peer = self
            .peers
            .find_mut(key)
            .filter(|peer| now.ms() >= peer.timer_ms);
        peer.map(|peer| peer.timer_ms = u64::MAX).is_some()
    }

    /// Tells the viewer that its outbox has passed half its bound, once until it is empty again.
    pub fn warn_of_lag(&mut self, now: Now, key: Key) {
        let half = self.outbox_bytes_max / 2;
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        if peer.closing.is_none() && !peer.is_lagging && peer.outbox.bytes() > half {
            self.push_lag(now, key, true);
        }
    }

    fn push_lag(&mut self, now: Now, key: Key, is_lagging: bool) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        peer.is_lagging = is_lagging;
        let oldest_ns = peer.outbox.oldest_numbered_ns().unwrap_or(now.monotonic_ns);
        let behind_ms = now.monotonic_ns.saturating_sub(oldest_ns) / 1_000_000;
        let queued_bytes = peer.outbox.bytes();
        self.stats.counters.lag_notices.add(1);
        self.push_message(
            now,
            key,
            &ServerMessage::Lag {
                queued_bytes,
                behind_ms,
            },
        );
    }

    fn find_open_mut(&mut self, key: Key) -> Option<&mut Peer> {
        let peer = self.peers.find_mut(key)?;
        peer.closing.is_none().then_some(peer)
    }

    fn push_own(&mut self, key: Key, bytes: impl Into<Rc<[u8]>>, kind: OwnKind) {
        let Some(peer) = self.find_open_mut(key) else {
            return;
        };
        let bytes = bytes.into();
        let len = bytes.len();
        peer.outbox.push_own(bytes, kind);
        self.handle_pushed(key, len, usize::from(kind != OwnKind::Raw));
    }

    fn push_urgent(&mut self, key: Key, frame: Vec<u8>, kind: OwnKind) {
        let Some(peer) = self.find_open_mut(key) else {
            return;
        };
        let len = frame.len();
        let gone = peer.outbox.push_urgent(frame, kind);
        self.count_discarded(gone);
        self.handle_pushed(key, len, 1);
    }

    fn handle_pushed(&mut self, key: Key, bytes: usize, frames: usize) {
        self.outbox_bytes += bytes;
        self.stats.counters.outbox_bytes.add(bytes as u64);
        self.stats.counters.frames_queued.add(frames as u64);
        self.mark_dirty(key);
    }

    fn count_discarded(&mut self, gone: Gone) {
        self.outbox_bytes -= gone.bytes;
        self.stats.counters.outbox_bytes.sub(gone.bytes as u64);
        self.stats.counters.frames_discarded.add(gone.frames as u64);
    }

    fn count_departure(&mut self, key: Key, peer: &mut Peer) {
        let is_viewer = matches!(peer.role, Role::Viewer(_));
        if is_viewer {
            self.users.remove_viewer(peer.user, key);
        }
        self.gauge(is_viewer).sub(1);
    }

    fn gauge(&self, is_viewer: bool) -> &crate::counters::Cell {
        if is_viewer {
            &self.stats.counters.viewers
        } else {
            &self.stats.counters.publishers
        }
    }
}

fn counted_role(is_viewer: bool) -> CountedRole {
    if is_viewer {
        CountedRole::Viewer
    } else {
        CountedRole::Publisher
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use crate::hub::rig::{Client, OUTBOX_BYTES_MAX, Rig, event};

    #[test]
    fn lag_is_said_once_past_half_the_bound_and_once_when_all_is_read() {
        let mut rig = Rig::new();
        let (viewer, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
        rig.turn();
        rig.read(viewer);
        for _ in 0..4 {
            rig.publish(publisher, &event(Some("ada"), None, OUTBOX_BYTES_MAX / 5));
            rig.turn();
        }
        rig.wait(250);
        let said = rig.read(viewer);
        let lags: Vec<usize> = said
            .iter()
            .enumerate()
            .filter_map(|(place, message)| (message["type"] == "lag").then_some(place))
            .collect();
        assert_eq!(lags, [3, 5], "after the third event, and behind all");
        let queued = said[3]["data"]["queuedBytes"].as_u64();
        assert!(queued > Some(OUTBOX_BYTES_MAX as u64 / 2), "{queued:?}");
        assert_eq!(said[5]["data"]["behindMs"], 0);
        assert!(rig.read(viewer).is_empty());
    }

    #[test]
    fn a_connection_has_one_entry_in_the_wheel_unless_its_time_moves_nearer() {
        let mut rig = Rig::new();
        let viewer = rig.viewer("ada", &[]);
        let now = rig.now;
        let peers = rig.hub().peers_mut();
        while peers.poll_deadline().is_some() {}
        peers.schedule(viewer.key, now.ms() + 90_000);
        assert_eq!(peers.poll_deadline(), None, "it is looked at before anyhow");
        peers.schedule(viewer.key, now.ms() + 5);
        assert_eq!(peers.poll_deadline(), Some((viewer.key, now.ms() + 5)));
        assert!(!peers.take_timer(now, viewer.key), "an older entry");
        rig.wait(5);
        let now = rig.now;
        let peers = rig.hub().peers_mut();
        assert!(peers.take_timer(now, viewer.key));
        assert!(!peers.take_timer(now, viewer.key));
    }

    #[test]
    fn what_one_token_says_is_kept_once_for_its_user() {
        let mut rig = Rig::new();
        let mut is_shared = |user: &str, second: &[&str]| {
            let viewers = [rig.viewer(user, &[]), rig.viewer(user, second)];
            let peers = rig.hub().peers();
            let claims = |viewer: Client| peers.find(viewer.key).map(|peer| &peer.details.claims);
            let [first, second] = viewers.map(|viewer| claims(viewer).expect("it is there"));
            Rc::ptr_eq(first, second)
        };
        assert!(is_shared("ada", &[]));
        assert!(!is_shared("bob", &["7"]), "another token");
    }

    #[test]
    fn what_a_connection_leaves_behind_is_counted_as_discarded() {
        let mut rig = Rig::new();
        let (viewer, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
        rig.publish(publisher, &event(Some("ada"), None, 500));
        rig.turn();
        rig.write(viewer, 300);
        rig.hub().handle_disconnect(viewer.key);
        rig.read(publisher);
        rig.check_balance();
        let counters = &rig.stats[0].counters;
        assert_eq!(
            (counters.viewers.value(), counters.outbox_bytes.value()),
            (0, 0)
        );
        assert!(counters.frames_discarded.value() > 0);
    }

    #[test]
    fn a_closing_connection_counts_and_takes_nothing_more() {
        let mut rig = Rig::new();
        let viewer = rig.viewer("ada", &[]);
        rig.turn();
        rig.read(viewer);
        let now = rig.now;
        rig.hub()
            .handle_close(now, viewer.key, crate::wire::close::CloseReason::TooBig);
        rig.hub().handle_ping(viewer.key, b"late");
        assert_eq!(rig.stats[0].counters.viewers.value(), 0);
        assert_eq!(rig.names(viewer), ["1009"]);
        rig.hub().handle_disconnect(viewer.key);
        assert_eq!(rig.stats[0].counters.viewers.value(), 0);
    }
}
