//! Moving a connection to the core that owns its user: after its token is verified, before it is
//! answered. The socket goes with all that was read of it.

use std::rc::Rc;

use crate::auth::Claims;
use crate::dialect::ConnectQuery;
use crate::event::{Dialect, StreamKind, Strictness};
use crate::hub::frames::Variant;
use crate::hub::keyed::Key;
use crate::hub::peers::{Arrival, Role as PeerRole};
use crate::hub::{Now, ViewerRequest};
use crate::limits::BODY_BYTES_MAX;
use crate::wire::deflate::Agreement;
use crate::wire::handshake::write_switching_protocols;
use crate::wire::{Assembler, Intake, Refused, RequestHead, Role, Upgrade};

use super::connection::{Connection, Http, HttpState, Line, Pending, Protocol, Speaker, WebSocket};
use super::event_loop::{Core, Letter, Timer};
use crate::wire::control::ControlRate;

/// A connection on its way to another core.
#[derive(Debug)]
pub struct Handoff {
    // Its name on the core that it leaves.
    left: Key,
    line: Line,
    claims: Claims,
    token: Box<str>,
    request: Request,
}

/// A request whose token is good.
#[derive(Debug)]
pub(super) struct Verified {
    pub claims: Rc<Claims>,
    /// The token, where further requests may bring it again.
    pub token: Box<str>,
    pub request: Request,
}

/// What was asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// `POST /v1/events`.
    Post(Box<RequestHead>),
    /// An upgrade.
    Upgrade(Box<Upgrade>, Box<Wishes>),
}

/// What the query of an upgrade says.
#[derive(Debug)]
pub(super) struct Wishes {
    /// Of a viewer.
    pub query: ConnectQuery,
    /// Of a publisher.
    pub strictness: Strictness,
}

impl Handoff {
    /// Bytes of the connection that were read before it left.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.line.spill.extend_from_slice(bytes);
    }
}

impl Core {
    /// The hand-off of the connection that was `key`, while it waits to be sent.
    pub(super) fn last_handoff(&mut self, key: Key) -> Option<&mut Handoff> {
        match self.backlog[self.handed_to.take()?].back_mut()? {
            Letter::Adopt(handoff) if handoff.left == key => Some(handoff),
            _ => None,
        }
    }

    /// Carries out a request whose token is good, on the core that owns its user: here, or after a
    /// hand-off.
    pub(super) fn go_on(&mut self, now: Now, key: Key, verified: Verified) {
        let user = &verified.claims.sub;
        let owner = self.hub.partition().core_of(StreamKind::User, user);
        if owner == self.index {
            return self.carry_out(now, key, verified);
        }
        let Some(connection) = self.take_out(key) else {
            return;
        };
        let handoff = Handoff {
            left: key,
            line: connection.into_line(),
            claims: Rc::unwrap_or_clone(verified.claims),
            token: verified.token,
            request: verified.request,
        };
        self.post(owner, Letter::Adopt(Box::new(handoff)));
        self.handed_to = Some(owner);
    }

    /// Takes over a connection from another core. It goes straight on the ready list: no edge tells
    /// of what it holds already.
    pub(super) fn adopt(&mut self, now: Now, handoff: Handoff) {
        self.stats.counters.connections_adopted.add(1);
        let verified = Verified {
            claims: Rc::new(handoff.claims),
            token: handoff.token,
            request: handoff.request,
        };
        let connection = Connection {
            is_readable: true,
            ..Connection::new(handoff.line, now.ms())
        };
        let Some(key) = self.insert(connection) else {
            return;
        };
        self.carry_out(now, key, verified);
        self.mark_ready(key);
    }

    fn carry_out(&mut self, now: Now, key: Key, verified: Verified) {
        let Verified {
            claims,
            token,
            request,
        } = verified;
        match request {
            Request::Post(head) => {
                if let Some(http) = self.http(key) {
                    http.known = Some((token, Rc::clone(&claims)));
                }
                self.begin_post(now, key, *head, claims);
            }
            Request::Upgrade(upgrade, wishes) => self.upgrade(now, key, claims, upgrade, *wishes),
        }
    }

    fn upgrade(
        &mut self,
        now: Now,
        key: Key,
        claims: Rc<Claims>,
        upgrade: Box<Upgrade>,
        wishes: Wishes,
    ) {
        let Some(arrival) = self.arrival(key, claims, &upgrade) else {
            return;
        };
        match upgrade.role {
            Role::Echo => {
                let takes_deflated = upgrade.deflate.is_some_and(Agreement::takes_deflated);
                let outcome = self.hub.handle_echo_peer(now, arrival, takes_deflated);
                self.answer_upgrade(now, key, &upgrade, outcome);
            }
            Role::Publisher => {
                let outcome = self.hub.handle_publisher(now, arrival, wishes.strictness);
                self.answer_upgrade(now, key, &upgrade, outcome);
            }
            Role::Viewer(dialect) => match self.hub.handle_viewer(
                now,
                ViewerRequest {
                    arrival,
                    variant: variant(dialect, upgrade.deflate),
                    query: wishes.query,
                },
            ) {
                Some(outcome) => self.answer_upgrade(now, key, &upgrade, outcome),
                None => {
                    if let Some(http) = self.http(key) {
                        http.state = HttpState::Waiting(Pending::Admission(upgrade));
                    }
                }
            },
        }
    }

    /// The hub has decided on a viewer that waited.
    pub(super) fn finish_upgrade(&mut self, now: Now, key: Key, outcome: Result<Key, Refused>) {
        let Some(http) = self.http(key) else {
            // The socket ended while the hub decided.
            if let Ok(peer) = outcome {
                self.hub.handle_disconnect(peer);
            }
            return;
        };
        let state = std::mem::replace(&mut http.state, HttpState::Closing);
        if let HttpState::Waiting(Pending::Admission(upgrade)) = state {
            self.answer_upgrade(now, key, &upgrade, outcome);
            self.mark_ready(key);
        }
    }

    fn answer_upgrade(
        &mut self,
        now: Now,
        key: Key,
        upgrade: &Upgrade,
        outcome: Result<Key, Refused>,
    ) {
        match outcome {
            Ok(peer) => {
                let (Some(found), Some(connection)) =
                    (self.hub.peers().find(peer), self.connections.find_mut(key))
                else {
                    return;
                };
                let (speaker, intake) = match found.role() {
                    PeerRole::Echo { .. } => (Speaker::Echo, Intake::ECHO),
                    PeerRole::Publisher(publisher) => {
                        (Speaker::Publisher(*publisher), Intake::text(BODY_BYTES_MAX))
                    }
                    PeerRole::Viewer(_) => {
                        let intake = Intake::text(self.options.message_bytes_max);
                        (Speaker::Viewer, intake)
                    }
                };
                connection.protocol = Protocol::WebSocket(WebSocket {
                    peer,
                    assembler: Assembler::new(Intake {
                        takes_deflated: upgrade.deflate.is_some(),
                        ..intake
                    }),
                    control: ControlRate::default(),
                    speaker,
                    heard_ms: now.ms(),
                    is_timed: false,
                    is_stalled: false,
                    has_closed: false,
                    is_deaf: false,
                    is_finished: false,
                });
            }
            Err(refused) => self.refuse_upgrade(now, key, Some(upgrade), &refused),
        }
    }

    fn arrival(&mut self, key: Key, claims: Rc<Claims>, upgrade: &Upgrade) -> Option<Arrival> {
        let mut id = [0; 8];
        if getrandom::fill(&mut id).is_err() {
            // The system has no randomness to give: the clock and the key tell connections apart.
            id = (self.options.clock.monotonic_ns() ^ key.to_u64().rotate_left(32)).to_le_bytes();
        }
        let mut response = Vec::with_capacity(160);
        write_switching_protocols(&mut response, upgrade);
        let origin = self.http(key)?.origin;
        let remote = match (origin.forwarded, origin.address) {
            (Some(client), _) => Some(compact_str::format_compact!("{client}")),
            (None, address) => address.map(|address| compact_str::format_compact!("{address}")),
        };
        Some(Arrival {
            connection: key,
            claims,
            id: u64::from_le_bytes(id),
            remote,
            response,
        })
    }

    pub(super) fn http(&mut self, key: Key) -> Option<&mut Http> {
        match &mut self.connections.find_mut(key)?.protocol {
            Protocol::Http(http) => Some(http),
            Protocol::WebSocket(_) => None,
        }
    }

    /// Sets the time of a connection that speaks HTTP. It has one entry in the wheel, which fires no
    /// later than its deadline and is set anew where that has moved away: a busy connection moves it
    /// with every request.
    pub(super) fn set_deadline(&mut self, key: Key, deadline_ms: u64) {
        let Some(http) = self.http(key) else { return };
        http.deadline_ms = deadline_ms;
        if deadline_ms < http.timer_ms {
            http.timer_ms = deadline_ms;
            self.wheel.insert(deadline_ms, Timer::Connection(key));
        }
    }
}

// The frames that a viewer takes, by what was agreed on.
fn variant(dialect: Dialect, agreement: Option<Agreement>) -> Variant {
    match agreement {
        Some(agreement) if agreement.takes_deflated() => Variant::deflated(dialect),
        _ => Variant::plain(dialect),
    }
}
