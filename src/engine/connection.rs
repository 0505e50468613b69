//! One socket and what is partial on it. A connection begins as HTTP; an upgrade makes a WebSocket
//! of it, whose outbox and pulse are the hub's.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::auth::Claims;
use crate::hub::keyed::Key;
use crate::wire::control::ControlRate;
use crate::wire::{Assembler, BodyDecoder, HeadParser, Refused, RequestHead};

use super::admission::Ticket;
use super::transport::{Rest, Transport};

/// One socket of a core. In this order, so that a write touches one cache line of it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Connection {
    pub transport: Transport,
    /// The kernel took less than it was offered; an edge will tell when it takes more.
    pub is_blocked: bool,
    /// The socket may hold bytes that were not read: an edge came and nothing said otherwise since.
    pub is_readable: bool,
    /// It stands on the ready list.
    pub is_ready: bool,
    /// It stands on the list of publishers with more to parse, or of those that wait for room.
    pub is_waiting: bool,
    /// The edge that tells of the peer's end has come; it may not have been read to.
    pub is_peer_closed: bool,
    /// It was read to: the peer sends nothing more.
    pub is_at_end: bool,
    pub door: Door,
    pub protocol: Protocol,
    /// Bytes that were read and not yet taken: a partial head, or what waits behind an answer.
    pub spill: Vec<u8>,
    pub ticket: Ticket,
}

/// What a connection is on whichever core it lives: its socket, what was read of it, and who is at
/// the other end.
#[derive(Debug)]
pub(super) struct Line {
    pub transport: Transport,
    pub spill: Vec<u8>,
    pub door: Door,
    pub ticket: Ticket,
    pub origin: Origin,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    /// `None` over a unix socket.
    pub address: Option<SocketAddr>,
    /// The client that a trusted proxy named.
    pub forwarded: Option<IpAddr>,
}

/// Which listener a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `listen`, where only this machine reaches it.
    Local,
    /// `ops.listen`: pages for operators, and nothing else.
    Ops,
    /// `listen`, open to the network.
    Public,
}

/// What is spoken on a connection.
#[derive(Debug)]
pub(super) enum Protocol {
    Http(Box<Http>),
    WebSocket(WebSocket),
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    pub origin: Origin,
    pub parser: HeadParser,
    pub state: HttpState,
    /// The answer, and how much of it is written.
    pub out: Vec<u8>,
    pub written: usize,
    /// When the head, or the next request, must have come; in milliseconds of the monotonic clock.
    pub deadline_ms: u64,
    /// When its entry in the wheel fires: no later than the deadline. `u64::MAX`: it has none.
    pub timer_ms: u64,
    /// The token of the previous request, so that a publisher's is verified once.
    pub known: Option<(Box<str>, Rc<Claims>)>,
}

/// Where an HTTP connection is.
#[derive(Debug)]
pub(super) enum HttpState {
    /// The last answer is under way; the socket is closed behind it.
    Closing,
    /// Waiting for a request head, or for the rest of one.
    Head,
    /// A body is coming.
    Body(Box<BodyState>),
    /// The hub, or another core, is at work on the request.
    Waiting(Pending),
}

/// A request whose body is coming.
#[derive(Debug)]
pub(super) struct BodyState {
    pub head: RequestHead,
    pub decoder: BodyDecoder,
    pub purpose: Purpose,
    pub began_ms: u64,
    pub received_bytes: u64,
    /// Bytes that it holds of the core's share of `ingest_bytes_in_flight_max`.
    pub charged_bytes: u64,
    /// Since when it is not read because the share is used up, in monotonic milliseconds.
    pub held_since_ms: Option<u64>,
}

/// What a body is for.
#[derive(Debug)]
pub(super) enum Purpose {
    Admin(super::admin::Route),
    /// The request is refused already; the body is read only so that the connection can be kept.
    Discard(Box<Refused>),
    Publish {
        claims: Rc<Claims>,
        kind: crate::event::BodyKind,
        terms: crate::hub::publisher::Terms,
    },
}

/// What an HTTP request waits for.
#[derive(Debug)]
pub(super) enum Pending {
    /// A viewer waits for a place; the upgrade is answered when it is decided.
    Admission(Box<crate::wire::Upgrade>),
    /// All cores are asked.
    Admin {
        route: super::admin::Route,
        is_keep_alive: bool,
        origin: Option<Box<str>>,
    },
    /// Another thread renders a page for operators.
    Page {
        is_keep_alive: bool,
        is_head_only: bool,
        origin: Option<Box<str>>,
    },
    /// A POST is parsed and routed under this name.
    Publish {
        publisher: Key,
        is_keep_alive: bool,
        origin: Option<Box<str>>,
        charged_bytes: u64,
    },
}

/// Who speaks on a WebSocket, and so what becomes of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// One that tests us: they go back as they came.
    Echo,
    /// A publisher, by its name in the hub.
    Publisher(Key),
    /// A viewer.
    Viewer,
}

/// A connection that speaks frames.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// Its name among the hub's peers.
    pub peer: Key,
    pub assembler: Assembler,
    pub control: ControlRate,
    /// Whose messages it brings.
    pub speaker: Speaker,
    /// A publisher's message waits for room: nothing more is read.
    pub is_stalled: bool,
    /// When bytes last came, in milliseconds of the monotonic clock.
    pub heard_ms: u64,
    /// The wheel holds an entry that looks after a partial message.
    pub is_timed: bool,
    /// The peer said goodbye: nothing more is owed once our close is written.
    pub has_closed: bool,
    /// The peer said goodbye, or broke the protocol: what it sends is read and not looked at. To
    /// leave it unread would reset the connection, and the peer might not read its close code.
    pub is_deaf: bool,
    /// Our close is with the kernel; only the peer's end is awaited.
    pub is_finished: bool,
}

// Beside what it points to, which an idle WebSocket has none of but under TLS.
const _: () = assert!(size_of::<Connection>() <= 184);

impl Connection {
    /// A line on which a request head must have come by then, in monotonic milliseconds.
    pub fn new(line: Line, deadline_ms: u64) -> Self {
        let is_blocked = line.transport.wants_write();
        Self {
            transport: line.transport,
            is_blocked,
            is_readable: false,
            is_ready: false,
            is_waiting: false,
            is_peer_closed: false,
            is_at_end: false,
            door: line.door,
            protocol: Protocol::Http(Box::new(Http::new(line.origin, deadline_ms))),
            spill: line.spill,
            ticket: line.ticket,
        }
    }

    /// The line, without what a core makes of it. Of a WebSocket nobody asks any more where it comes
    /// from.
    pub fn into_line(self) -> Line {
        let origin = match &self.protocol {
            Protocol::Http(http) => http.origin,
            Protocol::WebSocket(_) => Origin::default(),
        };
        Line {
            transport: self.transport,
            spill: self.spill,
            door: self.door,
            ticket: self.ticket,
            origin,
        }
    }

    /// It was read, and this is what the socket may hold now.
    pub fn handle_rest(&mut self, rest: Rest) {
        self.is_at_end |= rest == Rest::End;
        self.is_readable = match rest {
            Rest::End | Rest::Nothing => false,
            Rest::More => true,
            Rest::Short => self.is_peer_closed,
        };
    }

    /// Whether it may be read now.
    pub fn wants_read(&self) -> bool {
        match &self.protocol {
            Protocol::Http(http) => http.wants_read(),
            Protocol::WebSocket(socket) => !socket.is_stalled,
        }
    }

    /// Whether nobody has shown a token on it that was good.
    pub fn is_newcomer(&self) -> bool {
        match &self.protocol {
            Protocol::Http(http) => http.known.is_none(),
            Protocol::WebSocket(_) => false,
        }
    }

    /// Whether reading it would bring something to do.
    pub fn has_input(&self) -> bool {
        self.wants_read() && (self.is_readable || !self.spill.is_empty())
    }
}

impl Http {
    // One thing at a time: while an answer is under way nothing more is read, so that answers leave in
    // order and a peer that does not read them makes no more of them.
    fn wants_read(&self) -> bool {
        let is_held = match &self.state {
            HttpState::Body(body) => body.held_since_ms.is_some(),
            HttpState::Waiting(_) => true,
            HttpState::Closing | HttpState::Head => false,
        };
        self.out.is_empty() && !is_held
    }

    /// One that waits for its first request.
    pub fn new(origin: Origin, deadline_ms: u64) -> Self {
        Self {
            origin,
            parser: HeadParser::default(),
            state: HttpState::Head,
            out: Vec::new(),
            written: 0,
            deadline_ms,
            timer_ms: u64::MAX,
            known: None,
        }
    }
}
