//! The engine of one simulated core: the turn order of the real one around a real hub. It sleeps
//! unless something would wake the real one, so that a hub that forgets to ask for a turn is found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sightline::auth::Claims;
use sightline::counters::CoreStats;
use sightline::dialect::is_continue;
use sightline::event::{BodyKind, Strictness};
use sightline::hub::keyed::Key;
use sightline::hub::mail::{Ack, Answer, Ask};
use sightline::hub::peers::Arrival as Newcomer;
use sightline::hub::publisher::{Outcome, Terms};
use sightline::hub::{Action, Hub, LogStatus, Now, ViewerRequest, Work};
use sightline::wire::close::{CloseReason, Refusal};
use sightline::wire::{Assembler, Incoming, Inflater, Intake};

use crate::dice::Dice;
use crate::edges::Edges;
use crate::log::EventLog;
use crate::network::{LinkId, Links};
use crate::post::Post;

/// Milliseconds of a drain after which goodbyes are said, whoever is not done.
const GOODBYE_MS: u64 = 3_000;

/// What comes to a core from outside.
pub enum Arrival {
    AbandonPost(LinkId),
    Ask(LinkId, Ask),
    Drain,
    Post {
        link: LinkId,
        claims: Rc<Claims>,
        body: Bytes,
        kind: BodyKind,
        ack: Ack,
    },
    Publisher(Newcomer),
    Viewer(ViewerRequest),
}

/// What a core says to the outside beside bytes.
#[derive(Debug)]
pub enum Report {
    Abandoned(LinkId),
    Answered(LinkId, Answer),
    Posted(LinkId, Outcome),
    Refused(LinkId, Refusal),
}

pub struct Core {
    pub index: usize,
    pub hub: Hub,
    pub stats: Arc<CoreStats>,
    pub arrivals: VecDeque<Arrival>,
    pub reports: Vec<Report>,
    /// Until then the process is stopped.
    pub stopped_until_ms: u64,
    /// Writes in one flush.
    pub writes_max: usize,
    sockets: BTreeMap<LinkId, Socket>,
    inflater: Inflater,
    by_peer: BTreeMap<Key, LinkId>,
    timers: BTreeSet<(u64, Key)>,
    // Publishers of POSTs that are not answered.
    posts: BTreeMap<LinkId, (Key, Work)>,
    pub ran_ms: u64,
    /// How often what is rare happened here, by name.
    pub edges: Edges,
    // Messages that the hub was given, by connection.
    fed: BTreeMap<LinkId, u64>,
}

struct Socket {
    // `None` while it waits for another to give way.
    peer: Option<Key>,
    assembler: Assembler,
    input: Vec<u8>,
    work: Option<(Key, Work)>,
    is_blocked: bool,
    // The peer has said goodbye.
    is_done: bool,
}

impl Core {
    pub fn new(index: usize, hub: Hub, stats: Arc<CoreStats>, writes_max: usize) -> Self {
        Self {
            index,
            hub,
            stats,
            arrivals: VecDeque::new(),
            reports: Vec::new(),
            stopped_until_ms: 0,
            writes_max,
            sockets: BTreeMap::new(),
            inflater: Inflater::default(),
            by_peer: BTreeMap::new(),
            timers: BTreeSet::new(),
            posts: BTreeMap::new(),
            ran_ms: 0,
            edges: Edges::default(),
            fed: BTreeMap::new(),
        }
    }

    /// Whether something would wake it from its poll.
    pub fn is_awake(&self, now: Now, links: &mut Links, post: &Post, log: &impl EventLog) -> bool {
        let now_ms = now.ms();
        if now_ms < self.stopped_until_ms {
            return false;
        }
        let mut sockets = self.sockets.iter();
        let mut works = self.posts.values().chain(
            self.sockets
                .values()
                .filter_map(|socket| socket.work.as_ref()),
        );
        !self.arrivals.is_empty()
            || log.has_news(self.index, now_ms)
            || post.has_mail_for(self.index, now_ms)
            || post.has_room_again(self.index)
            || self
                .timers
                .first()
                .is_some_and(|(at_ms, _)| *at_ms <= now_ms)
            || self.hub.has_work()
            || self.hub.peers().users.has_dirty()
            || self
                .hub
                .next_deadline_ms()
                .is_some_and(|at_ms| at_ms <= now_ms)
            || works.any(|(_, work)| *work == Work::More)
            || sockets.any(|(id, socket)| {
                let link = links.get(*id);
                let reads = socket.work.is_none() && link.is_readable();
                reads || link.is_client_gone || (socket.is_blocked && link.is_writable(now_ms))
            })
    }

    /// One turn, in the order of the real engine.
    pub fn turn(
        &mut self,
        now: Now,
        links: &mut Links,
        post: &mut Post,
        log: &mut impl EventLog,
        foreign_outbox_bytes: usize,
        dice: &mut Dice,
    ) {
        if now.ms() > self.ran_ms + 1_000 && self.stopped_until_ms > self.ran_ms {
            self.hub.handle_stall(now);
            self.edges.count("process stopped", 1);
        }
        self.ran_ms = now.ms();
        self.accept(now);
        self.read_sockets(now, links, dice);
        self.work(now, Work::More);
        self.read_mail(now, post, dice);
        while let Some(answer) = log.poll_answer(self.index, now.ms(), dice) {
            self.hub.handle_read(now, answer);
        }
        self.fire_timers(now, links);
        self.hear_log(now, log);
        self.hub.handle_turn_end(now, foreign_outbox_bytes);
        self.take_actions(links);
        self.work(now, Work::Stalled);
        self.hub.stages_mut().handle_queued(now.monotonic_ns);
        while let Some(append) = self.hub.poll_append(now) {
            log.handle_append(self.index, now.ms(), append, dice);
        }
        while let Some(request) = self.hub.poll_read() {
            log.handle_request(self.index, now.ms(), request, dice);
        }
        self.send_mail(now, post, dice);
        self.flush(now, links, dice);
        self.drop_done(links);
        self.arm_timers();
    }

    /// A core that sleeps has nothing to do: one more turn changes nothing.
    pub fn check_sleep(&mut self, now: Now, foreign_outbox_bytes: usize) -> Result<(), String> {
        let before = self.trace();
        self.hub.handle_turn_end(now, foreign_outbox_bytes);
        let posts = self.posts.values_mut();
        let sockets = self.sockets.values_mut();
        let stalled = posts.chain(sockets.filter_map(|socket| socket.work.as_mut()));
        for (publisher, _) in stalled.filter(|(_, work)| *work == Work::Stalled) {
            if self.hub.work(now, *publisher) != Work::Stalled {
                return Err(format!(
                    "core {} slept although a publisher could go on",
                    self.index
                ));
            }
        }
        let after = self.trace();
        if after != before {
            let index = self.index;
            return Err(format!(
                "core {index} slept although it had work: {before:?}, {after:?}"
            ));
        }
        Ok(())
    }

    // What others would notice of a turn.
    fn trace(&self) -> (usize, Vec<bool>, u64, u64) {
        let mail = (0..self.hub.partition().cores()).map(|core| self.hub.has_mail(core));
        let queued = self.stats.counters.frames_queued.value();
        let closes =
            CloseReason::ALL.map(|reason| self.stats.counters.closes.at(reason.index()).value());
        (
            self.hub.peers().outbox_bytes(),
            mail.collect(),
            queued,
            closes.iter().sum(),
        )
    }

    /// Messages of a publisher that its hub was given.
    pub fn messages_fed(&self, link: LinkId) -> u64 {
        self.fed.get(&link).copied().unwrap_or(0)
    }

    /// Whether nothing is held that came from outside and waits for room.
    pub fn is_idle(&self) -> bool {
        self.posts.values().all(|(_, work)| *work == Work::Idle)
            && self
                .sockets
                .values()
                .all(|socket| socket.work.is_none() && socket.input.is_empty())
    }

    /// What keeps it busy, for a failure's message.
    pub fn describe(&self) -> String {
        let works = self
            .posts
            .iter()
            .map(|(link, (_, work))| (*link, Some(*work), 0));
        let sockets = self
            .sockets
            .iter()
            .map(|(link, socket)| (*link, socket.work.map(|(_, work)| work), socket.input.len()));
        let busy: Vec<String> = works
            .chain(sockets)
            .filter(|(_, work, unread)| work.is_some_and(|work| work != Work::Idle) || *unread > 0)
            .map(|(link, work, unread)| format!("{link} {work:?} {unread} unread"))
            .collect();
        format!(
            "core {}: {busy:?}, deadline {:?}",
            self.index,
            self.hub.next_deadline_ms()
        )
    }

    fn hear_log(&mut self, now: Now, log: &mut impl EventLog) {
        let progress = log.progress(self.index, now.ms());
        let is_status = |status| u64::from(progress.status == status);
        self.edges.count("log fails", is_status(LogStatus::Failing));
        self.edges.count("log full", is_status(LogStatus::Full));
        self.hub.handle_log_progress(now, progress);
    }

    fn read_mail(&mut self, now: Now, post: &mut Post, dice: &mut Dice) {
        for from in 0..post.cores() {
            for _ in 0..dice.between(1, 4) {
                let Some(letter) = post.take(from, self.index, now.ms()) else {
                    break;
                };
                for mail in letter {
                    self.hub.handle_mail(now, from, mail);
                }
            }
        }
    }

    fn accept(&mut self, now: Now) {
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival {
                Arrival::AbandonPost(link) => {
                    if let Some((publisher, _)) = self.posts.remove(&link) {
                        self.hub.handle_post_abandoned(publisher);
                        self.reports.push(Report::Abandoned(link));
                    }
                }
                Arrival::Ask(link, ask) => {
                    self.hub
                        .handle_administrator(now, Key::from_u64(link), &ask);
                }
                Arrival::Drain => self.hub.handle_drain(now, now.ms() + GOODBYE_MS),
                Arrival::Post {
                    link,
                    claims,
                    body,
                    kind,
                    ack,
                } => {
                    let terms = Terms {
                        ack,
                        ..Terms::default()
                    };
                    let connection = Key::from_u64(link);
                    let publisher = self
                        .hub
                        .handle_post(now, connection, claims, body, kind, terms);
                    self.posts.insert(link, (publisher, Work::More));
                }
                Arrival::Publisher(request) => {
                    let link = request.connection.to_u64();
                    match self.hub.handle_publisher(now, request, Strictness::Lenient) {
                        Ok(peer) => self.adopt(link, Some(peer)),
                        Err(refused) => self.reports.push(Report::Refused(link, refused.refusal)),
                    }
                }
                Arrival::Viewer(request) => {
                    let link = request.arrival.connection.to_u64();
                    match self.hub.handle_viewer(now, request) {
                        Some(Ok(peer)) => self.adopt(link, Some(peer)),
                        Some(Err(refused)) => {
                            self.reports.push(Report::Refused(link, refused.refusal))
                        }
                        None => {
                            self.edges.count("others are to give way", 1);
                            self.adopt(link, None);
                        }
                    }
                }
            }
        }
    }

    fn adopt(&mut self, link: LinkId, peer: Option<Key>) {
        self.by_peer.extend(peer.map(|peer| (peer, link)));
        let socket = Socket {
            peer,
            assembler: Assembler::new(Intake::text(1 << 20)),
            input: Vec::new(),
            work: None,
            is_blocked: false,
            is_done: false,
        };
        self.sockets.insert(link, socket);
    }

    fn read_sockets(&mut self, now: Now, links: &mut Links, dice: &mut Dice) {
        let ids: Vec<LinkId> = self.sockets.keys().copied().collect();
        for id in ids {
            let link = links.get(id);
            if link.is_client_gone {
                self.drop_socket(id, links);
                continue;
            }
            let Some(socket) = self.sockets.get_mut(&id) else {
                continue;
            };
            let Some(peer) = socket.peer else { continue };
            if socket.is_blocked && link.is_writable(now.ms()) {
                socket.is_blocked = false;
                self.hub.peers_mut().mark_dirty(peer);
            }
            if socket.work.is_none() && (link.is_readable() || !socket.input.is_empty()) {
                socket.input.extend(link.read(dice));
                self.feed(now, id, peer);
            }
        }
    }

    // Hands whole messages to the hub, as long as it takes more of this peer.
    fn feed(&mut self, now: Now, id: LinkId, peer: Key) {
        while let Some(socket) = self
            .sockets
            .get_mut(&id)
            .filter(|socket| socket.work.is_none() && !socket.is_done)
        {
            let (taken, outcome) = socket.assembler.feed(&mut socket.input, &mut self.inflater);
            socket.input.drain(..taken);
            let incoming = match outcome {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return,
                Err(error) => panic!("simulated clients send no bad frames: {error}"),
            };
            self.hub.handle_sign_of_life(now, peer);
            let is_closing = self
                .hub
                .peers()
                .find(peer)
                .is_none_or(|peer| peer.closing().is_some());
            match incoming {
                Incoming::Binary(_) => panic!("simulated connections take text alone"),
                Incoming::Close { code, .. } => {
                    socket.is_done = true;
                    self.hub.handle_goodbye(now, peer, code);
                }
                Incoming::Ping(payload) => self.hub.handle_ping(peer, &payload),
                Incoming::Pong => {}
                Incoming::Text(_) if is_closing => {}
                Incoming::Text(text) => self.handle_text(now, id, peer, text),
            }
        }
    }

    fn handle_text(&mut self, now: Now, id: LinkId, peer: Key, text: Bytes) {
        if self.is_viewer(peer) {
            return self.hub.handle_viewer_message(now, peer, &text);
        }
        *self.fed.entry(id).or_default() += u64::from(!is_continue(&text));
        let Some(publisher) = self.hub.handle_publisher_message(now, peer, text) else {
            return;
        };
        let work = self.hub.work(now, publisher);
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.work = (work != Work::Idle).then_some((publisher, work));
        }
    }

    fn is_viewer(&self, peer: Key) -> bool {
        self.hub
            .peers()
            .find(peer)
            .is_some_and(|peer| peer.viewer().is_some())
    }

    // Goes on with the publishers whose last answer was `which`.
    fn work(&mut self, now: Now, which: Work) {
        let posts = self.posts.values_mut();
        let sockets = self
            .sockets
            .values_mut()
            .filter_map(|socket| socket.work.as_mut());
        for (publisher, work) in posts.chain(sockets).filter(|(_, work)| *work == which) {
            *work = self.hub.work(now, *publisher);
            self.edges
                .count("publisher stalled", u64::from(*work == Work::Stalled));
            self.edges
                .count("body not done", u64::from(*work == Work::More));
        }
        for socket in self.sockets.values_mut() {
            socket.work = socket.work.filter(|(_, work)| *work != Work::Idle);
        }
    }

    fn fire_timers(&mut self, now: Now, links: &mut Links) {
        let later = self.timers.split_off(&(now.ms() + 1, Key::from_u64(0)));
        for (_, peer) in std::mem::replace(&mut self.timers, later) {
            if !self.hub.handle_deadline(now, peer)
                && let Some(id) = self.by_peer.get(&peer)
            {
                self.drop_socket(*id, links);
            }
        }
    }

    fn arm_timers(&mut self) {
        while let Some((peer, at_ms)) = self.hub.peers_mut().poll_deadline() {
            self.timers.insert((at_ms, peer));
        }
    }

    fn take_actions(&mut self, links: &mut Links) {
        while let Some(action) = self.hub.poll_action() {
            match action {
                Action::Admitted {
                    connection,
                    outcome,
                } => {
                    let link = connection.to_u64();
                    match (outcome, self.sockets.get_mut(&link)) {
                        (Ok(peer), Some(socket)) => {
                            socket.peer = Some(peer);
                            self.by_peer.insert(peer, link);
                        }
                        (Ok(_), None) => {
                            panic!("a newcomer was admitted after it was reported gone")
                        }
                        (Err(refused), _) => {
                            self.edges.count("nobody gave way", 1);
                            self.sockets.remove(&link);
                            links.get(link).is_server_gone = true;
                            self.reports.push(Report::Refused(link, refused.refusal));
                        }
                    }
                }
                Action::Asked { connection, answer } => {
                    self.reports
                        .push(Report::Answered(connection.to_u64(), answer));
                }
                Action::Erase { .. } => panic!("nobody here asks for it"),
                Action::HttpPublished {
                    connection,
                    outcome,
                } => {
                    let link = connection.to_u64();
                    if self.posts.remove(&link).is_some() {
                        self.reports.push(Report::Posted(link, outcome));
                    }
                }
            }
        }
    }

    fn send_mail(&mut self, now: Now, post: &mut Post, dice: &mut Dice) {
        for to in 0..post.cores() {
            if to == self.index || !self.hub.has_mail(to) {
                continue;
            }
            if !post.has_room(self.index, to) {
                self.edges.count("mailbox full", 1);
            } else {
                let letter = self.hub.poll_mail(to);
                post.send(self.index, to, now.ms(), letter, dice);
            }
        }
    }

    fn flush(&mut self, now: Now, links: &mut Links, dice: &mut Dice) {
        for _ in 0..self.writes_max {
            let Some(peer) = self.hub.peers_mut().poll_dirty() else {
                return;
            };
            let Some(id) = self.by_peer.get(&peer).copied() else {
                continue;
            };
            let Some(socket) = self
                .sockets
                .get_mut(&id)
                .filter(|socket| !socket.is_blocked)
            else {
                continue;
            };
            let Some(outbox) = self.hub.peers().find(peer).map(|peer| peer.outbox()) else {
                continue;
            };
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = outbox.io_slices(&mut slices);
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            let written = links.get(id).write(now.ms(), &slices[..filled], dice);
            socket.is_blocked = written < offered;
            self.edges
                .count("write blocked", u64::from(written < offered));
            self.hub
                .peers_mut()
                .handle_written(now, peer, written, |_| {});
            if written == offered {
                self.hub.peers_mut().mark_dirty(peer);
            }
        }
    }

    // Those who said goodbye, and have been sent all that they will be.
    fn drop_done(&mut self, links: &mut Links) {
        let is_over = |peer| {
            self.hub
                .peers()
                .find(peer)
                .is_none_or(|peer| peer.outbox().is_empty())
        };
        let done = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.is_done && socket.peer.is_none_or(is_over));
        let done: Vec<LinkId> = done.map(|(id, _)| *id).collect();
        for id in done {
            self.drop_socket(id, links);
        }
    }

    fn drop_socket(&mut self, id: LinkId, links: &mut Links) {
        links.get(id).is_server_gone = true;
        let Some(socket) = self.sockets.remove(&id) else {
            return;
        };
        match socket.peer {
            Some(peer) => {
                self.by_peer.remove(&peer);
                self.hub.handle_disconnect(peer);
            }
            None => self.hub.handle_newcomer_gone(Key::from_u64(id)),
        }
    }
}
