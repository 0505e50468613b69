//! The event loop: one thread, edge-triggered, that connects, sends what is due and reads what
//! comes.
//!
//! Between any two sockets it looks whether an event is due, so that reading a fan-out does not
//! delay the next send by more than one read. Readiness is kept: a socket is read until it is
//! empty (a short read says so) or its turn is over, and in the latter case it is read again in
//! the next turn. What deliveries mean is `record`'s business, what is due `publish`'s.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use mio::Token;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::frames::MaskSequence;
use crate::inbox::{Codec, Inbox};
use crate::inflate::Inflater;
use crate::link::{Link, NatsStream, Role, Server, State};
use crate::phase::{Bell, Phase, PhaseOutcome};
use crate::poller::Poller;
use crate::proc::Process;
use crate::publish::{Sender, Start};
use crate::record::{Subscription, latency_histogram};
use crate::returners::Returners;
use crate::target::Protocol;
use crate::tls::TlsHandshakes;
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
    /// What the messages hold.
    pub(crate) protocol: Protocol,
    /// Whether a subscriber is ready only after `connection_established`.
    pub(crate) greets: bool,
    /// Whether publishing is acknowledged.
    pub(crate) acknowledges: bool,
    /// Connections that may be on their way to be open at a time.
    pub(crate) in_flight_max: usize,
    /// Burnt after each read, to see that a slow generator is found out.
    pub(crate) stall: Duration,
}

/// One connection to make.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Path and query.
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
    /// The links that publish, in the order of their role's index.
    publishers: Vec<usize>,
    /// Publishers with new events to write.
    touched: Vec<usize>,
    /// What the latest event's publisher had not got rid of before.
    backlog_bytes: usize,
    /// What the socket gave.
    received: Box<[u8]>,
    /// The same, decrypted.
    opened: Vec<u8>,
    codec: Codec,
    sender: Option<Sender>,
    inbox: Inbox,
}

impl Driver {
    /// A driver whose subscriber connections will be `subscriptions`, in this order, counted in
    /// `groups` groups.
    pub(crate) fn new(
        settings: Settings,
        subscriptions: Vec<Subscription>,
        groups: usize,
    ) -> Result<Self, DriverError> {
        Ok(Self {
            settings,
            poller: Poller::new().map_err(io_error("epoll"))?,
            work: Vec::new(),
            unfinished: Vec::new(),
            links: Vec::new(),
            resident: 0,
            publishers: Vec::new(),
            touched: Vec::new(),
            backlog_bytes: 0,
            received: vec![0; READ_BYTES].into_boxed_slice(),
            opened: Vec::new(),
            codec: Codec {
                masks: MaskSequence::new(),
                inflater: Inflater::new(),
            },
            sender: None,
            inbox: Inbox::new(subscriptions, groups),
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
        let (mut open, mut progress_ns) = (0, start_ns);
        while open < dials.len() {
            while self.links.len() < dials.len().min(open + self.settings.in_flight_max) {
                self.dial(&dials[self.links.len()])?;
            }
            self.turn(self.poller.now_ns() + CONNECT_POLL_NS)?;
            let now_ns = self.poller.tick();
            if let Some(reason) = self.inbox.closures().into_iter().next() {
                return Err(DriverError::Refused(reason));
            }
            let opened = self.inbox.handshake_ns.len() as usize;
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
        self.resident = self.links.len();
        let handshake_ns = self.inbox.handshake_ns.clone();
        Ok(Connected {
            seconds: (self.poller.now_ns() - start_ns) as f64 / 1e9,
            handshake_ns,
            tls_handshakes: self.inbox.tls_handshakes,
        })
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

    /// Connections that have ended, the first few with the reason.
    pub(crate) fn closed(&self) -> Vec<String> {
        self.inbox.closures()
    }

    /// Runs one phase to its end: all delivered and acknowledged, given up after `phase.drain`,
    /// or broken off. Watches the CPU and memory of `server`.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        server: Option<Process>,
    ) -> Result<PhaseOutcome, DriverError> {
        let cpu_before_ns = watch(server, Process::cpu_ns)?;
        let writer_before_ns = watch(server, log_writer_cpu_ns)?;
        let drain_ns = phase.drain.as_nanos() as u64;
        let (until, bell) = (phase.until.clone(), phase.bell.clone());
        let (start_ns, last_ns) = self.begin(phase);
        let driven = self.drive(until.as_ref(), last_ns, drain_ns);
        bell.iter().for_each(Bell::ring);
        let aborted = driven?;
        let seconds = self.poller.now_ns().saturating_sub(start_ns).max(1) as f64 / 1e9;
        let idle_seconds = self.poller.take_idle_ns().saturating_sub(LEAD_NS) as f64 / 1e9;
        let cpu_after_ns = watch(server, Process::cpu_ns)?;
        let writer_after_ns = watch(server, log_writer_cpu_ns)?;
        let server_rss_bytes = watch(server, Process::rss_bytes)?;
        let sender = self.sender.take();
        // What comes twice comes after what was awaited.
        self.hold(LINGER)?;
        self.dismiss();
        let (recorder, returners) = (self.inbox.end(), self.inbox.returners.take());
        let mut others = recorder.others().clone();
        if let Some(returners) = &returners {
            others.extend(returners.others().clone());
        }
        let busy = (1.0 - idle_seconds / seconds).clamp(0.0, 1.0);
        Ok(PhaseOutcome {
            first_delivery: recorder.first_delivery().map(<[u8]>::to_vec),
            others,
            groups: recorder.finish(),
            sent: sender.as_ref().map_or(0, Sender::sent),
            slip_ns: sender
                .as_ref()
                .map_or_else(latency_histogram, |sender| sender.slip_ns().clone()),
            publishers: self.inbox.acknowledgements.publishers(),
            acknowledged_ns: self.inbox.acknowledgements.take_latency_ns(),
            unsettled: self.inbox.acknowledgements.unsettled(),
            nacks: self.inbox.acknowledgements.take_nacks(),
            seconds,
            busy,
            server_cpu_ns: spent(cpu_before_ns, cpu_after_ns),
            log_writer_cpu_ns: spent(writer_before_ns.flatten(), writer_after_ns.flatten()),
            server_rss_bytes,
            returned: returners.map(|returners| returners.finish(busy)),
            aborted,
            closed: self.inbox.closures(),
        })
    }

    /// Sets up `phase`; returns when its first event is due, and its last.
    fn begin(&mut self, phase: Phase) -> (u64, u64) {
        self.inbox.begin(&phase);
        let at_ns = self.poller.tick() + LEAD_NS;
        let last_ns = at_ns + phase.schedule.last_at_ns();
        let wall_ms = wall_ms() + LEAD_NS / 1_000_000;
        let start = Start { at_ns, wall_ms };
        let Phase {
            run,
            form,
            schedule,
            mut returners,
            ..
        } = phase;
        if let Some(returners) = &mut returners {
            returners.begin(at_ns);
        }
        self.inbox.returners = returners;
        let protocol = self.settings.protocol;
        self.sender = Some(Sender::new(run, form, protocol, schedule, start));
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
            self.dial_due()?;
            if until.is_some_and(Bell::has_rung) && self.cut() {
                deadline_ns = self.poller.now_ns() + drain_ns;
            }
            if let Some(reason) = self.abort_reason() {
                return Ok(Some(reason));
            }
            let next_ns = self.next_ns();
            let is_complete = self.inbox.is_complete();
            if next_ns.is_none() && (is_complete || self.poller.now_ns() > deadline_ns) {
                return Ok(None);
            }
            self.turn(next_ns.unwrap_or(deadline_ns + 1))?;
        }
    }

    /// When the next event or viewer is due; `None` after the last.
    fn next_ns(&self) -> Option<u64> {
        let event_ns = self.sender.as_ref().and_then(Sender::next_ns);
        let returners = self.inbox.returners.as_ref();
        let viewer_ns = returners.and_then(Returners::next_ns);
        event_ns.into_iter().chain(viewer_ns).min()
    }

    /// Dials the next returning viewer where it is due: one, so that a crowd that is due at once
    /// holds up nobody else.
    fn dial_due(&mut self) -> Result<(), DriverError> {
        let now_ns = self.poller.now_ns();
        let returners = self.inbox.returners.as_mut();
        let Some((index, path)) = returners.and_then(|returners| returners.poll_dial(now_ns))
        else {
            return Ok(());
        };
        let (path, role) = (path.to_owned(), Role::Returner(index));
        self.dial(&Dial { path, role })
    }

    /// Nothing more is sent; says whether something was to be.
    fn cut(&mut self) -> bool {
        let sender = self.sender.as_mut();
        let Some(sender) = sender.filter(|sender| sender.next_ns().is_some()) else {
            return false;
        };
        self.inbox.recorder.expect_only(sender.cut());
        true
    }

    /// Ends the connections of the returning viewers.
    fn dismiss(&mut self) {
        for link in &mut self.links[self.resident..] {
            let normal = 1000_u16.to_be_bytes();
            link.queue(
                OpCode::Control(Control::Close),
                &normal,
                self.codec.masks.next(),
            );
            // Whether the server hears of it or finds out does not matter any more.
            let _ = link.flush();
        }
        self.links.truncate(self.resident);
    }

    fn abort_reason(&self) -> Option<String> {
        if let Some(code) = self.inbox.acknowledgements.refusal() {
            Some(format!("the server refused events with {code}"))
        } else if self.backlog_bytes > BACKLOG_BYTES_MAX {
            Some("the server left 256 MiB of events unread".to_owned())
        } else if self.inbox.has_lost_publisher() {
            Some("a publisher was closed".to_owned())
        } else {
            None
        }
    }

    fn dial(&mut self, dial: &Dial) -> Result<(), DriverError> {
        let extension = match dial.role {
            Role::Publisher(_) => Extension::None,
            Role::Returner(_) | Role::Subscriber(_) => self.settings.extension,
        };
        let (settings, now_ns) = (&self.settings, self.poller.now_ns());
        let mut link = Link::dial(&settings.server, &dial.path, extension, dial.role, now_ns)
            .map_err(io_error("connect"))?;
        if settings.protocol == Protocol::Nats {
            link.nats = Some(NatsStream::default());
        }
        let token = Token(self.links.len());
        link.transport
            .register(self.poller.registry(), token)
            .map_err(io_error("epoll"))?;
        if matches!(dial.role, Role::Publisher(_)) {
            self.publishers.push(token.0);
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

    /// Queues every event that is due, each as its own message, then writes them.
    fn send_due(&mut self) {
        let Some(sender) = &mut self.sender else {
            return;
        };
        while let Some(event) = sender.poll_event(self.poller.now_ns()) {
            let publisher = event.user as usize % self.publishers.len();
            let index = self.publishers[publisher];
            let link = &mut self.links[index];
            let backlog_bytes = link.backlog_bytes();
            if backlog_bytes == 0 {
                self.touched.push(index);
            }
            self.backlog_bytes = backlog_bytes;
            let mask = self.codec.masks.next();
            link.queue(OpCode::Data(Data::Text), event.text, mask);
            if self.settings.acknowledges {
                let acknowledgements = &mut self.inbox.acknowledgements;
                acknowledgements.note_sent(publisher, event.intended_ns);
            }
            self.poller.tick();
        }
        while let Some(index) = self.touched.pop() {
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
        for _ in 0..READS_PER_TURN {
            if !self.read_once(work) {
                return;
            }
        }
        self.unfinished.push(work.link);
    }

    /// Reads a socket once; says whether it may hold more.
    fn read_once(&mut self, work: Work) -> bool {
        let link = &mut self.links[work.link];
        if link.state == State::Closed {
            return false;
        }
        match link.transport.receive(&mut self.received) {
            Ok(0) => {
                self.close(work.link, "the server ended the connection");
                false
            }
            Ok(bytes) => {
                self.receive(work.link, bytes);
                // A short read has emptied the socket, and the next byte is a new edge; but an
                // end that came along with the bytes has had its edge.
                bytes == self.received.len() || work.is_ending
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) => {
                self.close(work.link, &error.to_string());
                false
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
        self.stall();
    }

    /// Errors: why the connection is of no use any more.
    fn read(&mut self, index: usize, bytes: usize) -> Result<(), String> {
        let now_ns = self.poller.now_ns();
        let link = &mut self.links[index];
        let (inbox, codec) = (&mut self.inbox, &mut self.codec);
        let received = &self.received[..bytes];
        let opened = link.transport.open(received, &mut self.opened);
        let text = opened.map_err(|error| error.to_string())?;
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

    fn stall(&self) {
        if !self.settings.stall.is_zero() {
            let start = Instant::now();
            while start.elapsed() < self.settings.stall {
                std::hint::spin_loop();
            }
        }
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
/// The thread of the server that writes its event log.
const LOG_WRITER: &str = "log-writer";
/// From the beginning of a phase to its first event.
const LEAD_NS: u64 = 20_000_000;
const LINGER: Duration = Duration::from_millis(100);
const CONNECT_POLL_NS: u64 = 100_000_000;
const CONNECT_PATIENCE_S: u64 = 10;
const BACKLOG_BYTES_MAX: usize = 256 * 1024 * 1024;

fn io_error(what: &'static str) -> impl Fn(io::Error) -> DriverError {
    move |source| DriverError::Io { what, source }
}

fn log_writer_cpu_ns(server: &Process) -> io::Result<Option<u64>> {
    server.thread_cpu_ns(LOG_WRITER)
}

fn watch<T>(
    server: Option<Process>,
    measure: impl Fn(&Process) -> io::Result<T>,
) -> Result<Option<T>, DriverError> {
    server
        .map(|process| measure(&process).map_err(io_error("/proc of the server")))
        .transpose()
}

/// `None` also where it went down: threads have ended and taken their time with them.
fn spent(before_ns: Option<u64>, after_ns: Option<u64>) -> Option<u64> {
    after_ns?.checked_sub(before_ns?)
}

fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as u64
}
