//! One core: one thread, one poll, one hub. The order of a turn never changes:
//! poll → accept → handshakes → sockets → newcomers → mail → timers → the hub's end of turn → log →
//! letters → flush.
//! Each step is bounded; what is left over makes the next poll return at once.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use ipnet::IpNet;
use mio::{Events, Interest, Poll, Token};
use tracing::{error, info, warn};

use crate::counters::CoreStats;
use crate::hub::keyed::{Key, Keyed};
use crate::hub::mail::{Answer, Mail};
use crate::hub::reads::ReadAnswer;
use crate::hub::{Action, Hub, Now};
use crate::limits::{
    HEAD_BYTES_MAX, LETTERS_PER_TURN, NEWCOMERS_PER_TURN, READ_BYTES_PER_CORE_AND_TURN,
    READ_BYTES_PER_TURN, READS_PER_TURN, TIMERS_PER_TURN,
};
use crate::wire::{Endpoints, Inflater, OriginPolicy};

use super::admission::Admission;
use super::clock::Clock;
use super::connection::{Connection, Door};
use super::handoff::Handoff;
use super::handshakes::Handshakes;
use super::listener::Acceptor;
use super::log::LogPort;
use super::mailbox::{Inbox, Postbox};
use super::pages::{Page, Pages};
use super::timers::Wheel;
use super::tls::Scratch;

/// What a core sends to another, or the server to a core.
#[derive(Debug)]
pub enum Letter {
    /// A connection moves to the core that owns its user.
    Adopt(Box<Handoff>),
    /// Shut down: refuse, flush, say goodbye, end. The moment, in monotonic milliseconds, after
    /// which the core ends whatever is left.
    Drain(u64),
    /// The sender has drained. The cores end together: until then each hears those who ask whether
    /// this node is ready, or who must be told that it is not.
    Drained,
    /// A user's events were taken out of the event log, so many, for who asked on this connection.
    Erased {
        /// This core's name for it.
        connection: Key,
        /// The user.
        user: CompactString,
        /// How many.
        count: u64,
    },
    /// The hubs' mail of one turn.
    Mail(Vec<Mail>),
    /// A page for operators that was asked for on this connection.
    Page {
        /// This core's name for it.
        connection: Key,
        /// Rendered.
        page: Page,
    },
    /// The event log's answer to the hub.
    Read(Box<ReadAnswer>),
}

/// What an engine is built with, the same on every core.
#[derive(Clone)]
pub struct Options {
    /// The clock of the process.
    pub clock: Clock,
    /// What the paths of WebSockets lead to.
    pub endpoints: Endpoints,
    /// Which pages may connect.
    pub origins: OriginPolicy,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of one message of a viewer.
    pub message_bytes_max: usize,
    /// Whether permessage-deflate is agreed on with those who offer it.
    pub is_compression_enabled: bool,
    /// Bytes of request bodies that one core holds.
    pub body_bytes_max: u64,
    /// Renders operators' pages.
    pub pages: Arc<dyn Pages>,
}

/// One core's thread.
pub struct Core {
    pub(super) index: usize,
    pub(super) options: Options,
    pub(super) hub: Hub,
    pub(super) stats: Arc<CoreStats>,
    pub(super) connections: Keyed<Connection>,
    pub(super) admission: Arc<Admission>,
    pub(super) poll: Poll,
    pub(super) wheel: Wheel<Timer>,
    // What the wheel has fired and no turn has come to yet.
    due: VecDeque<Timer>,
    // Connections with input that no further edge will tell of.
    pub(super) ready: VecDeque<Key>,
    // The same of those who have shown no token yet: their requests are dear, and a crowd of them
    // comes at once.
    newcomers: VecDeque<Key>,
    // TLS handshakes, which have a list of their own.
    pub(super) handshakes: Handshakes,
    // Publishers' connections whose next event waits for room.
    pub(super) stalled: VecDeque<Key>,
    // Publishers' connections whose bodies did not fit into this turn's budget.
    pub(super) busy: VecDeque<Key>,
    // Connections whose bodies are not read because the core holds as many bytes as it may.
    pub(super) held: VecDeque<Key>,
    // HTTP connections with an answer to write.
    pub(super) answered: VecDeque<Key>,
    // Bytes reserved for request bodies.
    pub(super) body_bytes: u64,
    pub(super) read_buffer: Vec<u8>,
    pub(super) tls: Scratch,
    pub(super) inflater: Inflater,
    // Bytes that may still be read in this turn.
    pub(super) read_budget: usize,
    pub(super) doors: Vec<Entrance>,
    all_stats: Vec<Arc<CoreStats>>,
    inbox: Inbox<Letter>,
    postbox: Postbox<Letter>,
    pub(super) log: LogPort,
    // Letters that found a mailbox full, for each core, in order.
    pub(super) backlog: Vec<VecDeque<Letter>>,
    // Where the connection went that was handed off last.
    pub(super) handed_to: Option<usize>,
    drain_deadline_ms: Option<u64>,
    has_drained: bool,
    others_drained: usize,
}

/// A listener of a core.
pub(super) struct Entrance {
    pub acceptor: Acceptor,
    pub door: Door,
    /// The wheel holds an entry for the next try.
    pub is_retry_set: bool,
    /// Connections may wait: an edge came, and nothing said otherwise since.
    pub is_ready: bool,
}

/// What the wheel is set for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// A listener out of descriptors tries again.
    Accept(usize),
    /// A connection that speaks HTTP, or waits for its socket to end.
    Connection(Key),
    /// One of the hub's peers.
    Peer(Key),
}

/// What a core's thread is given.
pub struct Parts {
    /// Which core.
    pub index: usize,
    /// Its poll, for which `inbox` holds the waker.
    pub poll: Poll,
    /// Its heart.
    pub hub: Hub,
    /// Its listeners.
    pub doors: Vec<(Acceptor, Door)>,
    /// What every core counts, its own at `index`.
    pub stats: Vec<Arc<CoreStats>>,
    /// The one shared thing.
    pub admission: Arc<Admission>,
    /// Letters from others.
    pub inbox: Inbox<Letter>,
    /// Letters to others.
    pub postbox: Postbox<Letter>,
    /// The event log.
    pub log: LogPort,
}

/// The token of the mailbox's waker. Connections have their keys, listeners count down from here.
pub const WAKER: Token = Token(usize::MAX);

const EVENTS_PER_POLL: usize = 1_024;
const TICK_MS: u64 = 10;
const WHEEL_SLOTS: usize = 4_096;
/// A turn that took this long held the core up; a sleep that took this long beyond what was asked
/// for means that the process itself was stopped.
const STALL_MS: u64 = 1_000;

impl Core {
    /// Registers the listeners. Errors: the system's.
    pub fn new(parts: Parts, options: Options) -> io::Result<Self> {
        let Parts {
            index,
            poll,
            hub,
            doors,
            stats,
            admission,
            inbox,
            postbox,
            log,
        } = parts;
        let entrance = |(acceptor, door)| Entrance {
            acceptor,
            door,
            is_retry_set: false,
            is_ready: false,
        };
        let mut doors: Vec<Entrance> = doors.into_iter().map(entrance).collect();
        for (place, entrance) in doors.iter_mut().enumerate() {
            let token = listener_token(place);
            poll.registry()
                .register(&mut entrance.acceptor, token, Interest::READABLE)?;
        }
        Ok(Self {
            index,
            options,
            hub,
            stats: Arc::clone(&stats[index]),
            connections: Keyed::default(),
            admission,
            poll,
            wheel: Wheel::new(TICK_MS, WHEEL_SLOTS),
            due: VecDeque::new(),
            ready: VecDeque::new(),
            newcomers: VecDeque::new(),
            handshakes: Handshakes::new(stats.len()),
            stalled: VecDeque::new(),
            busy: VecDeque::new(),
            held: VecDeque::new(),
            read_budget: 0,
            answered: VecDeque::new(),
            body_bytes: 0,
            inflater: Inflater::default(),
            tls: Scratch::default(),
            read_buffer: vec![0; READ_BYTES_PER_TURN + HEAD_BYTES_MAX],
            doors,
            handed_to: None,
            backlog: stats.iter().map(|_| VecDeque::new()).collect(),
            all_stats: stats,
            inbox,
            postbox,
            log,
            drain_deadline_ms: None,
            has_drained: false,
            others_drained: 0,
        })
    }

    /// Turns until the drain is over. Errors: the poll's, after which nothing can go on.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut before = self.options.clock.now();
        // Or the first events would find nothing reserved.
        self.hub.handle_log_progress(before, self.log.progress());
        let mut has_mail_left = false;
        loop {
            let timeout = self.timeout(before, has_mail_left);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let now = self.options.clock.now();
            self.check_stall(before, now, timeout);
            self.stats.counters.turns.add(1);
            self.handle_events(&events);
            self.accept_ready(now);
            self.serve_handshakes(now);
            self.serve_ready(now);
            self.serve_newcomers(now);
            self.serve_busy(now);
            has_mail_left = self.handle_letters(now);
            self.handle_timers(now);
            self.hub.handle_log_progress(now, self.log.progress());
            self.hub.handle_turn_end(now, self.foreign_outbox_bytes());
            self.handle_actions(now);
            self.retry_stalled(now);
            self.note_queued();
            self.send_to_log(now);
            self.send_letters();
            self.release_held(now);
            self.flush(now);
            self.collect_deadlines();
            self.hub.publish_stages(now);
            if self.is_over(now) {
                info!(core = self.index, "drained");
                return Ok(());
            }
            before = self.check_turn(now);
        }
    }

    /// The connection that a peer of the hub's belongs to.
    pub(super) fn connection_of(&self, peer: Key) -> Option<Key> {
        self.hub.peers().find(peer).map(|peer| peer.connection)
    }

    /// Puts a connection on the list of those with input.
    pub(super) fn mark_ready(&mut self, key: Key) {
        if let Some(connection) = self.connections.find_mut(key)
            && connection.has_input()
            && !std::mem::replace(&mut connection.is_ready, true)
        {
            let ready = if connection.transport.is_handshaking() {
                &mut self.handshakes.ready
            } else if connection.is_newcomer() {
                &mut self.newcomers
            } else {
                &mut self.ready
            };
            ready.push_back(key);
        }
    }

    /// Sends a letter to another core, in order with those before it.
    pub(super) fn post(&mut self, core: usize, letter: Letter) {
        self.backlog[core].push_back(letter);
    }

    fn timeout(&mut self, now: Now, has_mail_left: bool) -> Option<Duration> {
        let is_busy = has_mail_left
            || !self.ready.is_empty()
            || !self.newcomers.is_empty()
            || !self.due.is_empty()
            || self.doors.iter().any(|entrance| entrance.is_ready)
            || !self.handshakes.ready.is_empty()
            || !self.answered.is_empty()
            || !self.busy.is_empty()
            || self.hub.has_work()
            || self.hub.peers().users.has_dirty()
            || self.has_unsent_mail();
        if is_busy {
            return Some(Duration::ZERO);
        }
        let stages_ms = self.hub.stages_mut().next_publish_ms();
        let deadlines = [
            self.wheel.next_deadline(),
            self.hub.next_deadline_ms(),
            self.drain_deadline_ms,
            stages_ms,
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now.ms()).max(1)))
    }

    // Mail that came up after this turn's letters went; what waits behind a full mailbox is not meant.
    fn has_unsent_mail(&self) -> bool {
        let mut others = (0..self.backlog.len()).filter(|core| *core != self.index);
        others.any(|core| self.backlog[core].is_empty() && self.hub.has_mail(core))
    }

    // Whoever holds a core up in a turn holds up all who are on it. Returns the time at its end.
    fn check_turn(&mut self, began: Now) -> Now {
        let ended = self.options.clock.now();
        let ms = ended.ms().saturating_sub(began.ms());
        if ms > STALL_MS {
            warn!(
                core = self.index,
                ms, "a turn took long: this core was held up"
            );
            self.stats.counters.stalls.add(1);
            self.hub.handle_stall(ended);
        }
        ended
    }

    // A process that was itself stopped does not blame its clients.
    fn check_stall(&mut self, before: Now, now: Now, timeout: Option<Duration>) {
        let slept_ms = timeout.map_or(u64::MAX, |timeout| timeout.as_millis() as u64);
        if now.ms().saturating_sub(before.ms()) > slept_ms.saturating_add(STALL_MS) {
            warn!(
                core = self.index,
                ms = now.ms() - before.ms(),
                "this process was stopped for a while"
            );
            self.stats.counters.stalls.add(1);
            self.hub.handle_stall(now);
        }
    }

    fn handle_events(&mut self, events: &Events) {
        for event in events {
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if let Some(place) = self.listener_at(token) {
                self.doors[place].is_ready = true;
                continue;
            }
            let key = Key::from_u64(token.0 as u64);
            let Some(connection) = self.connections.find_mut(key) else {
                continue;
            };
            if event.is_readable() || event.is_read_closed() {
                connection.is_readable = true;
                connection.is_peer_closed |= event.is_read_closed();
            }
            if event.is_writable() && std::mem::take(&mut connection.is_blocked) {
                self.handle_writable(key);
            }
            self.mark_ready(key);
        }
    }

    fn listener_at(&self, token: Token) -> Option<usize> {
        let place = (WAKER.0 - 1).checked_sub(token.0)?;
        (place < self.doors.len()).then_some(place)
    }

    // Connections that had input when the turn began, once each and within the turn's budget, so that
    // many busy publishers do not hold up what is to be written.
    fn serve_ready(&mut self, now: Now) {
        self.read_budget = READ_BYTES_PER_CORE_AND_TURN;
        for _ in 0..self.ready.len().min(READS_PER_TURN) {
            if self.read_budget == 0 {
                return;
            }
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            self.serve_listed(now, key);
        }
    }

    fn serve_newcomers(&mut self, now: Now) {
        for _ in 0..self.newcomers.len().min(NEWCOMERS_PER_TURN) {
            let Some(key) = self.newcomers.pop_front() else {
                return;
            };
            self.serve_listed(now, key);
        }
    }

    fn serve_listed(&mut self, now: Now, key: Key) {
        if let Some(connection) = self.connections.find_mut(key) {
            connection.is_ready = false;
            self.serve(now, key);
        }
    }

    fn handle_letters(&mut self, now: Now) -> bool {
        let mut letters = Vec::new();
        let has_more = self.inbox.drain(LETTERS_PER_TURN, |from, letter| {
            letters.push((from, letter))
        });
        for (from, letter) in letters {
            self.stats.counters.mail_received.add(1);
            match letter {
                Letter::Adopt(handoff) => self.adopt(now, *handoff),
                Letter::Drain(deadline_ms) => {
                    self.drain_deadline_ms = Some(deadline_ms);
                    let patience_ends_ms = now.ms() + deadline_ms.saturating_sub(now.ms()) / 2;
                    self.hub.handle_drain(now, patience_ends_ms);
                }
                Letter::Drained => self.others_drained += 1,
                Letter::Erased {
                    connection,
                    user,
                    count,
                } => {
                    self.hub.handle_erased(user);
                    self.finish_admin(now, connection, &Answer::Count(count));
                }
                Letter::Page { connection, page } => self.finish_page(now, connection, &page),
                Letter::Read(answer) => self.hub.handle_read(now, *answer),
                Letter::Mail(mail) => {
                    for mail in mail {
                        self.hub.handle_mail(now, from, mail);
                    }
                }
            }
        }
        has_more
    }

    fn handle_timers(&mut self, now: Now) {
        let mut expired = Vec::new();
        self.wheel.expired(now.ms(), &mut expired);
        self.due.extend(expired);
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.due.pop_front() else {
                return;
            };
            match timer {
                Timer::Accept(place) => {
                    self.doors[place].is_retry_set = false;
                    self.doors[place].is_ready = true;
                }
                Timer::Connection(key) => self.handle_connection_deadline(now, key),
                Timer::Peer(peer) => {
                    if !self.hub.handle_deadline(now, peer)
                        && let Some(key) = self.connection_of(peer)
                    {
                        self.remove(key);
                    }
                }
            }
        }
    }

    fn handle_actions(&mut self, now: Now) {
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Admitted {
                    connection,
                    outcome,
                } => self.finish_upgrade(now, connection, outcome),
                Action::Asked { connection, answer } => self.finish_admin(now, connection, &answer),
                Action::Erase { connection, user } => {
                    // What this core has numbered in this turn goes first.
                    self.send_to_log(now);
                    self.log.erase(connection, user);
                }
                Action::HttpPublished {
                    connection,
                    outcome,
                } => self.finish_post(now, connection, &outcome),
            }
        }
    }

    // Before the letters: whoever hears of an event from another core finds its record ahead.
    fn send_to_log(&mut self, now: Now) {
        if let Some(append) = self.hub.poll_append(now) {
            self.log.append(append);
        }
        while let Some(request) = self.hub.poll_read() {
            self.log.read(request);
        }
    }

    // Letters kept back go first, and the hub's mail waits behind them.
    fn send_letters(&mut self) {
        for core in 0..self.backlog.len() {
            if core == self.index {
                continue;
            }
            loop {
                if self.backlog[core].is_empty() && self.hub.has_mail(core) {
                    let mail = self.hub.poll_mail(core);
                    self.backlog[core].push_back(Letter::Mail(mail));
                }
                let Some(letter) = self.backlog[core].pop_front() else {
                    break;
                };
                if let Err(letter) = self.postbox.try_send(core, letter) {
                    self.stats.counters.mail_full.add(1);
                    self.backlog[core].push_front(letter);
                    break;
                }
                self.stats.counters.mail_sent.add(1);
            }
        }
        self.stats.counters.wakes_sent.set(self.postbox.wakes());
    }

    // The fan-out is over: the clock is read where there was one.
    fn note_queued(&mut self) {
        let clock = self.options.clock;
        let stages = self.hub.stages_mut();
        if stages.has_fanned_out() {
            stages.handle_queued(clock.monotonic_ns());
        }
    }

    fn collect_deadlines(&mut self) {
        while let Some((peer, at_ms)) = self.hub.peers_mut().poll_deadline() {
            self.wheel.insert(at_ms, Timer::Peer(peer));
        }
    }

    fn foreign_outbox_bytes(&self) -> usize {
        let others = self
            .all_stats
            .iter()
            .enumerate()
            .filter(|(core, _)| *core != self.index);
        others
            .map(|(_, stats)| stats.counters.outbox_bytes.value() as usize)
            .sum()
    }

    fn is_over(&mut self, now: Now) -> bool {
        let Some(deadline_ms) = self.drain_deadline_ms else {
            return false;
        };
        if !self.has_drained && self.hub.is_drained() {
            self.has_drained = true;
            let (own, cores) = (self.index, self.backlog.len());
            for core in (0..cores).filter(|core| *core != own) {
                self.post(core, Letter::Drained);
            }
            self.send_letters();
        }
        let has_letters = self.backlog.iter().any(|letters| !letters.is_empty());
        let is_last = self.others_drained + 1 == self.backlog.len();
        let is_done = self.has_drained && is_last && self.answered.is_empty() && !has_letters;
        if !is_done && now.ms() >= deadline_ms {
            warn!(
                core = self.index,
                connections = self.connections.len(),
                "the drain's time is up"
            );
        }
        is_done || now.ms() >= deadline_ms
    }
}

fn listener_token(place: usize) -> Token {
    Token(WAKER.0 - 1 - place)
}

/// Runs a core's thread to its end. A panic inside a hub's shared state ends the process: it must
/// not serve wrong events, and what was acknowledged is safe.
pub fn run_to_end(core: Core) {
    let index = core.index;
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| core.run())) {
        Ok(Ok(())) => {}
        Ok(Err(poll_error)) => {
            error!(core = index, %poll_error, "the core cannot poll: the process ends");
            std::process::abort();
        }
        Err(_) => {
            error!(
                core = index,
                "the core's shared state is broken: the process ends"
            );
            std::process::abort();
        }
    }
}
