//! The event loop: one thread, edge-triggered, that connects, sends what is due and reads what
//! comes.
//!
//! Between any two sockets it looks whether an event is due, so that reading a fan-out does not
//! delay the next send by more than one read. Readiness is kept: a socket is read until it is
//! empty (a short read says so) or its turn is over, and in the latter case it is read again in
//! the next turn. What deliveries mean is `record`'s business, what is due `publish`'s.

mod guests;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use mio::Token;

use crate::cpus::NoCpu;
use crate::frames::MaskSequence;
use crate::http;
use crate::inbox::{Codec, Inbox};
use crate::inflate::Inflater;
use crate::interval::Interval;
use crate::laggards::Laggards;
use crate::link::{Link, NatsStream, Role, Server, State};
use crate::meter::Meter;
use crate::observer::{Lookout, Watch};
use crate::outbox::Outbox;
use crate::phase::{Bell, Phase, PhaseOutcome};
use crate::poller::Poller;
use crate::proc::Process;
use crate::protocol::Protocol;
use crate::publish::{Sender, Start};
use crate::record::Subscription;
use crate::returners::Returners;
use crate::storm::{Cursors, Storm};
use crate::tls::TlsHandshakes;
use crate::transport::Transport;
use crate::upgrade::Extension;

/// Why the generator could not do its work; a bad delivery is no error but a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// The kernel refused a socket, a poll, or a file in `/proc`.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The generator was to run on a CPU that it may not use.
    #[error(transparent)]
    Cpu(#[from] NoCpu),
    /// A load without a loop; a crew has at least one.
    #[error("no loop drives the load")]
    NoLoop,
    /// A connection ended before all were open.
    #[error("not all connections could be opened: {0}")]
    Refused(String),
    /// The server stopped answering while connections were opened.
    #[error("{open} of {wanted} connections are open, and none was added for {seconds} s")]
    Stuck {
        /// How many are open.
        open: usize,
        /// How many were to be.
        wanted: usize,
        /// The patience.
        seconds: u64,
    },
}

/// What the driver has to know of the server, and how it treats it.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where and how to connect.
    pub(crate) server: Server,
    /// What subscribers offer; publishers offer nothing.
    pub(crate) extension: Extension,
    /// What the connections speak.
    pub(crate) protocol: Protocol,
    /// Whether a subscriber is ready only after `connection_established`.
    pub(crate) greets: bool,
    /// Whether publishing is acknowledged.
    pub(crate) acknowledges: bool,
    /// Connections that may be on their way to be open at a time.
    pub(crate) in_flight_max: usize,
    /// The zero of the clock of all loops.
    pub(crate) clock: Instant,
    /// The CPUs of the loops that share a load; none: one loop, wherever it may run.
    pub(crate) cpus: Vec<usize>,
    /// Whether it is kept where each subscriber stands in its stream.
    pub(crate) keeps_cursors: bool,
    /// Who looks on while a phase is measured.
    pub(crate) watch: Watch,
    /// Burnt before each send, to see that a slow generator is found out.
    pub(crate) stall: Duration,
}

impl Settings {
    /// The same for one loop, which runs where its thread does.
    pub(crate) fn alone(&self) -> Self {
        Self {
            cpus: Vec::new(),
            ..self.clone()
        }
    }
}

/// One connection to make.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Path and query of the upgrade.
    pub(crate) path: String,
    /// What it is for.
    pub(crate) role: Role,
}

/// How the connecting went.
#[derive(Debug)]
pub(crate) struct Connected {
    /// From the first dial to the last open connection.
    pub(crate) seconds: f64,
    /// From each dial to its connection being open.
    pub(crate) handshake_ns: Histogram<u64>,
    /// How many of them were TLS.
    pub(crate) tls_handshakes: TlsHandshakes,
}

impl Connected {
    /// This and the connections of another loop, made at the same time.
    pub(crate) fn with(mut self, other: Self) -> Self {
        self.seconds = self.seconds.max(other.seconds);
        self.handshake_ns += other.handshake_ns;
        self.tls_handshakes.full += other.tls_handshakes.full;
        self.tls_handshakes.resumed += other.tls_handshakes.resumed;
        self
    }
}

/// The generator's loop and all its connections.
pub(crate) struct Driver {
    settings: Settings,
    poller: Poller,
    work: Vec<Work>,
    /// Connections whose socket may hold more than their turn allowed to read.
    unfinished: Vec<usize>,
    links: Vec<Link>,
    /// The links that stay from phase to phase; the returning viewers are those after them.
    resident: usize,
    outbox: Outbox,
    /// Connections of cut-off viewers that the server still holds.
    ghosts: Vec<Transport>,
    /// From the beginning of the present phase to its first event.
    lead_ns: u64,
    /// Whether slow viewers read like others now.
    is_relieving: bool,
    /// What the socket gave.
    received: Box<[u8]>,
    /// The same, decrypted.
    opened: Vec<u8>,
    codec: Codec,
    sender: Option<Sender>,
    inbox: Inbox,
    /// Takes what each second of the phase to come brings, or of the present one.
    lookout: Option<Lookout>,
}

impl Driver {
    /// A driver whose subscriber connections will be `subscriptions`, in this order, counted in
    /// `groups` groups.
    pub(crate) fn new(
        settings: Settings,
        subscriptions: Vec<Subscription>,
        groups: usize,
    ) -> Result<Self, DriverError> {
        let mut inbox = Inbox::new(subscriptions, groups);
        inbox.cursors = settings
            .keeps_cursors
            .then(|| Cursors::new(inbox.subscribers()));
        Ok(Self {
            outbox: Outbox::new(
                settings.protocol.clone(),
                settings.acknowledges,
                settings.cpus.len().max(1),
            ),
            poller: Poller::new(settings.clock).map_err(io_error("epoll"))?,
            settings,
            work: Vec::new(),
            unfinished: Vec::new(),
            links: Vec::new(),
            resident: 0,
            received: vec![0; READ_BYTES].into_boxed_slice(),
            opened: Vec::new(),
            codec: Codec {
                masks: MaskSequence::new(),
                inflater: Inflater::new(),
            },
            sender: None,
            ghosts: Vec::new(),
            lead_ns: LEAD_NS,
            is_relieving: false,
            inbox,
            lookout: None,
        })
    }

    /// Opens all `dials`, as fast as the server answers.
    /// Errors: any of them is refused, or the server answers none for ten seconds.
    pub(crate) fn connect(&mut self, dials: &[Dial]) -> Result<Connected, DriverError> {
        let publishers = dials
            .iter()
            .filter(|dial| matches!(dial.role, Role::Publisher(_)));
        self.inbox.expect_publishers(publishers.count());
        let start_ns = self.poller.tick();
        self.open(dials)?;
        self.resident = self.links.len();
        let handshake_ns = self.inbox.handshake_ns.clone();
        Ok(Connected {
            seconds: (self.poller.now_ns() - start_ns) as f64 / 1e9,
            handshake_ns,
            tls_handshakes: self.inbox.tls_handshakes,
        })
    }

    /// Opens all `dials` for the next phase alone; they are those of `guests`, in this order.
    /// Errors: as of [`Driver::connect`].
    pub(crate) fn connect_guests(
        &mut self,
        guests: Vec<Subscription>,
        dials: &[Dial],
    ) -> Result<(), DriverError> {
        self.inbox.guests = guests;
        self.poller.tick();
        self.open(dials)
    }

    fn open(&mut self, dials: &[Dial]) -> Result<(), DriverError> {
        let (links, handshakes) = (self.links.len(), self.inbox.handshake_ns.len());
        let (mut open, mut progress_ns) = (0, self.poller.now_ns());
        while open < dials.len() {
            let dialled_max = dials.len().min(open + self.settings.in_flight_max);
            while self.links.len() - links < dialled_max {
                self.dial(&dials[self.links.len() - links])?;
            }
            self.turn(self.poller.now_ns() + CONNECT_POLL_NS)?;
            let now_ns = self.poller.tick();
            if let Some(reason) = self.inbox.closures().into_iter().next() {
                return Err(DriverError::Refused(reason));
            }
            let opened = (self.inbox.handshake_ns.len() - handshakes) as usize;
            if opened > open {
                (open, progress_ns) = (opened, now_ns);
            } else if now_ns > progress_ns + CONNECT_PATIENCE_S * 1_000_000_000 {
                let (wanted, seconds) = (dials.len(), CONNECT_PATIENCE_S);
                return Err(DriverError::Stuck {
                    open,
                    wanted,
                    seconds,
                });
            }
        }
        Ok(())
    }

    /// Answers what comes, and sends nothing of its own, for `duration`.
    pub(crate) fn hold(&mut self, duration: Duration) -> Result<(), DriverError> {
        let until_ns = self.poller.tick() + duration.as_nanos() as u64;
        while self.poller.now_ns() < until_ns {
            self.turn(until_ns)?;
            self.poller.tick();
        }
        Ok(())
    }

    /// Now, nanoseconds of the generator's clock.
    pub(crate) fn now_ns(&mut self) -> u64 {
        self.poller.tick()
    }

    /// How the TLS handshakes of all connections went.
    pub(crate) fn tls_handshakes(&self) -> TlsHandshakes {
        self.inbox.tls_handshakes
    }

    /// Connections that have ended, the first few with the reason.
    pub(crate) fn closed(&self) -> Vec<String> {
        self.inbox.closures()
    }

    /// The next phase is looked on by whom `lookout` leads to.
    pub(crate) fn observe(&mut self, lookout: Lookout) {
        self.lookout = Some(lookout);
    }

    /// Runs one phase to its end: all delivered and acknowledged, given up after `phase.drain`,
    /// or broken off. Watches the CPU and memory of `server`.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        server: Option<Process>,
    ) -> Result<PhaseOutcome, DriverError> {
        let watched = io_error("/proc of the server");
        let meter = Meter::begin(server).map_err(&watched)?;
        let drain_ns = phase.drain.as_nanos() as u64;
        let (until, bell) = (phase.until.clone(), phase.bell.clone());
        let (start_ns, last_ns) = self.begin(phase);
        let driven = self.drive(until.as_ref(), last_ns, drain_ns);
        bell.iter().for_each(Bell::ring);
        let aborted = driven?;
        let seconds = self.poller.now_ns().saturating_sub(start_ns).max(1) as f64 / 1e9;
        let idle_seconds = self.poller.take_idle_ns().saturating_sub(self.lead_ns) as f64 / 1e9;
        let spent = meter.end().map_err(watched)?;
        self.end_observation();
        let sender = self.sender.take();
        self.relieve(drain_ns)?;
        // What comes twice comes after what was awaited.
        self.hold(LINGER)?;
        self.dismiss();
        let (recorder, returners) = (self.inbox.end(), self.inbox.returners.take());
        let storm = self.inbox.storm.take();
        let laggards = self.inbox.laggards.take();
        let mut others = recorder.others().clone();
        if let Some(returners) = &returners {
            others.extend(returners.others().clone());
        }
        let busy = (1.0 - idle_seconds / seconds).clamp(0.0, 1.0);
        let first_delivery = recorder.first_delivery().map(<[u8]>::to_vec);
        let groups = recorder.finish();
        let brought = returners.map(|returners| returners.finish(busy));
        let stormed = storm.zip(groups.first().cloned());
        let stormed = stormed.map(|(storm, record)| storm.finish(record, busy));
        Ok(PhaseOutcome {
            first_delivery,
            others,
            groups,
            sent: sender.as_ref().map_or(0, Sender::sent),
            slip_ns: sender
                .as_ref()
                .map_or_else(latency_histogram, |sender| sender.slip_ns().clone()),
            publishers: self.inbox.acknowledgements.publishers(),
            acknowledged: self.inbox.acknowledgements.take_settled_events(),
            acknowledged_ns: self.inbox.acknowledgements.take_latency_ns(),
            unsettled: self.inbox.acknowledgements.unsettled() + self.outbox.drop_waiting(),
            nacks: self.inbox.acknowledgements.take_nacks(),
            seconds,
            busy,
            server_cpu_ns: spent.cpu_ns,
            log_writer_cpu_ns: spent.log_writer_cpu_ns,
            server_rss_bytes: spent.rss_bytes,
            returned: brought.or(stormed),
            lagged: laggards.map(Laggards::finish),
            observed: None,
            aborted,
            closed: self.inbox.closures(),
        })
    }

    /// Sets up `phase`; returns when its first event is due, and its last.
    fn begin(&mut self, phase: Phase) -> (u64, u64) {
        self.inbox.begin(&phase);
        let now_ns = self.poller.tick();
        let at_ns = phase.start_ns.unwrap_or(now_ns + LEAD_NS);
        self.lead_ns = at_ns.saturating_sub(now_ns);
        let last_ns = at_ns + phase.schedule.last_at_ns();
        let wall_ms = wall_ms() + self.lead_ns / 1_000_000;
        let start = Start { at_ns, wall_ms };
        let Phase {
            run,
            form,
            packing,
            schedule,
            mut returners,
            mut storm,
            mut laggards,
            ..
        } = phase;
        if let Some(returners) = &mut returners {
            returners.begin(at_ns);
        }
        if let Some(storm) = &mut storm {
            storm.begin(at_ns);
        }
        if let Some(laggards) = &mut laggards {
            laggards.begin(at_ns);
        }
        (self.inbox.returners, self.inbox.storm) = (returners, storm);
        self.inbox.laggards = laggards;
        self.sender = Some(Sender::new(run, form, packing, schedule, start));
        if let Some(lookout) = &mut self.lookout {
            lookout.begin(start, last_ns);
        }
        self.poller.take_idle_ns();
        (at_ns, last_ns)
    }

    /// Turns until the phase is over, at the latest `drain_ns` after its last event, which is due
    /// at `last_ns` or the last before `until` rings; returns why it was broken off, if it was.
    fn drive(
        &mut self,
        until: Option<&Bell>,
        last_ns: u64,
        drain_ns: u64,
    ) -> Result<Option<String>, DriverError> {
        let mut deadline_ns = last_ns + drain_ns;
        loop {
            self.poller.tick();
            self.send_due();
            self.observe_due();
            self.dial_due()?;
            self.storm_due()?;
            self.read_laggards();
            if until.is_some_and(Bell::has_rung) && self.cut() {
                deadline_ns = self.poller.now_ns() + drain_ns;
            }
            if let Some(reason) = self.abort_reason() {
                return Ok(Some(reason));
            }
            let next_ns = self.next_ns();
            let is_complete = self.inbox.is_complete() && !self.outbox.has_waiting();
            if next_ns.is_none() && (is_complete || self.poller.now_ns() > deadline_ns) {
                return Ok(None);
            }
            let turn_ns = next_ns.unwrap_or(deadline_ns + 1);
            self.turn(
                self.laggards_ns()
                    .map_or(turn_ns, |at_ns| turn_ns.min(at_ns)),
            )?;
        }
    }

    /// Hands over what the last second brought, where one is over.
    fn observe_due(&mut self) {
        let now_ns = self.poller.now_ns();
        let lookout = self.lookout.as_mut();
        if let Some(interval) = lookout.and_then(|lookout| lookout.poll_due(now_ns)) {
            self.hand_over(interval);
        }
    }

    /// Hands over what came since; whoever looks on has then all.
    fn end_observation(&mut self) {
        let lookout = self.lookout.as_mut();
        if let Some(interval) = lookout.and_then(Lookout::last_empty) {
            self.hand_over(interval);
        }
        self.lookout = None;
    }

    /// Leaves what came since the last time in `interval`, and hands it over. Allocates nothing:
    /// the histograms of `interval` take the place of those that go.
    fn hand_over(&mut self, mut interval: Box<Interval>) {
        self.inbox.recorder.swap_latencies(&mut interval.groups);
        let acknowledged_ns = &mut interval.acknowledged_ns;
        self.inbox.acknowledgements.swap_latency_ns(acknowledged_ns);
        if let Some(sender) = &mut self.sender {
            sender.swap_slip_ns(&mut interval.slip_ns);
        }
        if let Some(lookout) = &mut self.lookout {
            lookout.handle_full(interval, self.poller.now_ns());
        }
    }

    /// When the next event or viewer is due; `None` after the last.
    fn next_ns(&self) -> Option<u64> {
        let event_ns = self.sender.as_ref().and_then(Sender::next_ns);
        let returners = self.inbox.returners.as_ref();
        let viewer_ns = returners.and_then(Returners::next_ns);
        let storm_ns = self.inbox.storm.as_ref().and_then(Storm::next_ns);
        event_ns.into_iter().chain(viewer_ns).chain(storm_ns).min()
    }

    /// Nothing more is sent; says whether something was to be.
    fn cut(&mut self) -> bool {
        let sender = self.sender.as_mut();
        let Some(sender) = sender.filter(|sender| sender.next_ns().is_some()) else {
            return false;
        };
        let schedule = sender.cut();
        self.inbox.recorder.expect_only(schedule);
        if let Some(laggards) = &mut self.inbox.laggards {
            laggards.expect_only(schedule);
        }
        true
    }

    fn abort_reason(&self) -> Option<String> {
        if let Some(code) = self.inbox.acknowledgements.refusal() {
            Some(format!("the server refused events with {code}"))
        } else if self.outbox.backlog_bytes() > BACKLOG_BYTES_MAX {
            Some("the server left 256 MiB of events unread".to_owned())
        } else if self.inbox.has_lost_publisher() {
            Some("a publisher was closed".to_owned())
        } else {
            None
        }
    }

    fn dial(&mut self, dial: &Dial) -> Result<(), DriverError> {
        self.dial_at(self.links.len(), dial)
    }

    /// Dials as the link `index`: the next one, or in the place of one that was cut off.
    fn dial_at(&mut self, index: usize, dial: &Dial) -> Result<(), DriverError> {
        let extension = match dial.role {
            Role::Publisher(_) => Extension::None,
            Role::Laggard(_) | Role::Returner(_) | Role::Subscriber(_) => self.settings.extension,
        };
        let (settings, now_ns) = (&self.settings, self.poller.now_ns());
        let server = &settings.server;
        let link = match (dial.role, &settings.protocol) {
            (role @ Role::Publisher(_), Protocol::Http(posting)) => {
                let mut opening = Vec::new();
                http::encode_request(&mut opening, &posting.head, b"");
                Link::dial_http(server, opening, role, now_ns)
            }
            (role, _) => Link::dial(server, &dial.path, extension, role, now_ns),
        };
        let mut link = link.map_err(io_error("connect"))?;
        if matches!(settings.protocol, Protocol::Nats) {
            link.nats = Some(NatsStream::default());
        }
        if matches!(dial.role, Role::Laggard(_)) {
            let limited = link.transport.limit_received(LAGGARD_BYTES);
            limited.map_err(io_error("connect"))?;
        }
        link.transport
            .register(self.poller.registry(), Token(index))
            .map_err(io_error("epoll"))?;
        if let Some(place) = self.links.get_mut(index) {
            let cut_off = std::mem::replace(place, link).transport;
            self.ghosts
                .extend(Some(cut_off).filter(Transport::has_socket));
            // What was to be read of the other one.
            self.unfinished.retain(|unfinished| *unfinished != index);
            return Ok(());
        }
        if matches!(dial.role, Role::Publisher(_)) {
            self.outbox.add_publisher(index);
        }
        self.links.push(link);
        Ok(())
    }

    /// One turn: waits for readiness, at most until `until_ns`, and serves every ready socket.
    fn turn(&mut self, until_ns: u64) -> Result<(), DriverError> {
        let polled = if self.unfinished.is_empty() {
            self.poller.poll_until(until_ns)
        } else {
            self.poller.poll_now()
        };
        polled.map_err(io_error("epoll"))?;
        self.work.clear();
        self.work.extend(self.poller.events().map(Work::from_event));
        self.work.extend(self.unfinished.drain(..).map(Work::read));
        for at in 0..self.work.len() {
            let work = self.work[at];
            if work.is_writable {
                self.flush(work.link);
            }
            if work.is_readable {
                self.handle_readable(work);
            }
            self.send_due();
        }
        Ok(())
    }

    /// Queues every message that is due or has waited, then writes them.
    fn send_due(&mut self) {
        let Some(sender) = &mut self.sender else {
            return;
        };
        let acknowledgements = &mut self.inbox.acknowledgements;
        let stall = self.settings.stall;
        while sender
            .next_ns()
            .is_some_and(|at_ns| at_ns <= self.poller.now_ns())
        {
            if !stall.is_zero() {
                burn(stall);
                self.poller.tick();
            }
            let Some(message) = sender.poll_message(self.poller.now_ns()) else {
                break;
            };
            let (links, masks) = (&mut self.links, &mut self.codec.masks);
            self.outbox.send(&message, links, masks, acknowledgements);
            self.poller.tick();
        }
        self.outbox.send_waiting(&mut self.links, acknowledgements);
        while let Some(index) = self.outbox.pop_touched() {
            self.flush(index);
        }
    }

    fn flush(&mut self, index: usize) {
        let link = &mut self.links[index];
        if link.state != State::Closed
            && let Err(error) = link.flush()
        {
            self.close(index, &error.to_string());
        }
    }

    /// Reads a socket until it is empty or has had its share.
    fn handle_readable(&mut self, work: Work) {
        let link = &self.links[work.link];
        let is_lagging = matches!(link.role, Role::Laggard(_)) && link.state == State::Open;
        if is_lagging && !self.is_relieving {
            return;
        }
        for _ in 0..READS_PER_TURN {
            if !self.read_once(work) {
                return;
            }
        }
        self.unfinished.push(work.link);
    }

    /// Reads a socket once; says whether it may hold more.
    fn read_once(&mut self, work: Work) -> bool {
        match self.read_bytes(work.link, self.received.len()) {
            // A short read has emptied the socket, and the next byte is a new edge; but an end
            // that came along with the bytes has had its edge.
            Some(bytes) => bytes == 0 || bytes == self.received.len() || work.is_ending,
            None => false,
        }
    }

    /// Reads a socket once, at most `bytes_max`; returns how many bytes came, 0 where a signal
    /// came between. `None`: there is nothing to be read, or nothing more.
    fn read_bytes(&mut self, index: usize, bytes_max: usize) -> Option<usize> {
        let link = &mut self.links[index];
        if link.state == State::Closed {
            return None;
        }
        let room = bytes_max.min(self.received.len());
        match link.transport.receive(&mut self.received[..room]) {
            Ok(0) => {
                self.close(index, "the server ended the connection");
                None
            }
            Ok(bytes) => {
                self.receive(index, bytes);
                Some(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Some(0),
            Err(error) => {
                self.close(index, &error.to_string());
                None
            }
        }
    }

    /// Takes the first `bytes` of the buffer as the next bytes of connection `index`.
    fn receive(&mut self, index: usize, bytes: usize) {
        self.poller.tick();
        if let Err(reason) = self.read(index, bytes) {
            self.close(index, &reason);
        } else if self.links[index].wants_write() {
            self.flush(index);
        }
    }

    /// Errors: why the connection is of no use any more.
    fn read(&mut self, index: usize, bytes: usize) -> Result<(), String> {
        let now_ns = self.poller.now_ns();
        let link = &mut self.links[index];
        let (inbox, codec) = (&mut self.inbox, &mut self.codec);
        let received = &self.received[..bytes];
        let opened = link.transport.open(received, &mut self.opened);
        let text = opened.map_err(|error| error.to_string())?;
        if link.answers.is_some() {
            let read = inbox.read_answers(link, text, now_ns);
            return read.map_err(|error| error.to_string());
        }
        if !matches!(link.state, State::Upgrading(_)) {
            let read = inbox.read(link, text, now_ns, codec);
            return read.map_err(|error| error.to_string());
        }
        let answered = link.handle_response(text);
        let Some(rest) = answered.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        inbox.handle_upgraded(link, self.settings.greets, now_ns, codec);
        let read = inbox.read(link, &rest, now_ns, codec);
        read.map_err(|error| error.to_string())
    }

    fn close(&mut self, index: usize, reason: &str) {
        let link = &mut self.links[index];
        self.inbox.note_closed(link, reason);
        // The socket goes when the link does; until then it must not wake the loop.
        let _ = link.transport.deregister(self.poller.registry());
    }
}

/// What one socket is ready for.
#[derive(Debug, Clone, Copy)]
struct Work {
    link: usize,
    is_readable: bool,
    is_writable: bool,
    /// The peer has ended its side, or the socket is broken: read on to the end.
    is_ending: bool,
}

impl Work {
    fn from_event(event: &mio::event::Event) -> Self {
        let is_ending = event.is_read_closed() || event.is_error();
        Self {
            link: event.token().0,
            is_readable: event.is_readable() || is_ending,
            is_writable: event.is_writable(),
            is_ending,
        }
    }

    /// A socket that was not read to its end; it may have ended by now.
    fn read(link: usize) -> Self {
        Self {
            link,
            is_readable: true,
            is_writable: false,
            is_ending: true,
        }
    }
}

/// Bytes of one read: some 600 frames of a saturated stream.
const READ_BYTES: usize = 256 * 1024;
const READS_PER_TURN: usize = 4;
/// Bytes that the kernel keeps for a slow viewer: what it does not read is the server's to hold.
const LAGGARD_BYTES: usize = 16 * 1024;
/// From the beginning of a phase to its first event.
const LEAD_NS: u64 = 20_000_000;
const LINGER: Duration = Duration::from_millis(100);
const CONNECT_POLL_NS: u64 = 100_000_000;
const CONNECT_PATIENCE_S: u64 = 10;
const BACKLOG_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(crate) fn io_error(what: &'static str) -> impl Fn(io::Error) -> DriverError {
    move |source| DriverError::Io { what, source }
}

fn burn(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as u64
}
