//! What the connections bring: messages (under NATS, the operations in them) sorted to the
//! recorder, the acknowledgements and the handshakes, pings answered, ends noted.
//!
//! Knows links but reads and writes no socket; `driver` does.

use hdrhistogram::Histogram;
use latency_report::latency_histogram;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::frames::{FrameError, MaskSequence, Message};
use crate::http::{Answer, HttpError};
use crate::inflate::Inflater;
use crate::laggards::Laggards;
use crate::link::{Link, NatsStream, Role, State};
use crate::nats::{self, NatsError, Operation};
use crate::phase::Phase;
use crate::publish::Acknowledgements;
use crate::record::{Received, Recorder, Subscription, message_kind};
use crate::returners::{Greeting, Returners};
use crate::storm::{Cursors, Storm};
use crate::tls::TlsHandshakes;

/// What a server may not send. The connection is of no use after it.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// In WebSocket.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// In what the messages hold.
    #[error(transparent)]
    Nats(#[from] NatsError),
}

/// What all connections share on the wire.
pub(crate) struct Codec {
    /// For what is sent.
    pub(crate) masks: MaskSequence,
    /// For what comes.
    pub(crate) inflater: Inflater,
}

/// What the connections have brought.
pub(crate) struct Inbox {
    /// Checks the deliveries of the present phase.
    pub(crate) recorder: Recorder,
    /// Viewers that connect in the course of the present phase.
    pub(crate) returners: Option<Returners>,
    /// Where each subscriber stands, where that is kept.
    pub(crate) cursors: Option<Cursors>,
    /// Subscribers that are cut off in the course of the present phase, and come back.
    pub(crate) storm: Option<Storm>,
    /// Viewers of the present phase that read slowly.
    pub(crate) laggards: Option<Laggards>,
    /// Whose events the slow viewers get.
    pub(crate) guests: Vec<Subscription>,
    /// What became of the events sent.
    pub(crate) acknowledgements: Acknowledgements,
    /// From the dial to being open, of each connection that is or was open.
    pub(crate) handshake_ns: Histogram<u64>,
    /// How those were made that were TLS.
    pub(crate) tls_handshakes: TlsHandshakes,
    subscriptions: Vec<Subscription>,
    groups: usize,
    has_lost_publisher: bool,
    closed: usize,
    closed_first: Vec<String>,
}

impl Inbox {
    /// An inbox for subscribers `subscriptions`, counted in `groups` groups; no phase has begun.
    pub(crate) fn new(subscriptions: Vec<Subscription>, groups: usize) -> Self {
        Self {
            recorder: Recorder::idle(&subscriptions, groups),
            returners: None,
            cursors: None,
            storm: None,
            laggards: None,
            guests: Vec::new(),
            acknowledgements: Acknowledgements::new(0),
            handshake_ns: latency_histogram(),
            tls_handshakes: TlsHandshakes::default(),
            subscriptions,
            groups,
            has_lost_publisher: false,
            closed: 0,
            closed_first: Vec::new(),
        }
    }

    /// Subscribers.
    pub(crate) fn subscribers(&self) -> usize {
        self.subscriptions.len()
    }

    /// Opens the ledger of `publishers` connections.
    pub(crate) fn expect_publishers(&mut self, publishers: usize) {
        self.acknowledgements = Acknowledgements::new(publishers);
    }

    /// From now on the deliveries are those of `phase`.
    pub(crate) fn begin(&mut self, phase: &Phase) {
        let Phase {
            run,
            form,
            schedule,
            ..
        } = phase;
        let (run, filling) = (*run, form.filling);
        self.recorder = Recorder::new(run, filling, &self.subscriptions, self.groups, schedule);
    }

    /// Ends the phase; what comes after it is foreign to the next.
    pub(crate) fn end(&mut self) -> Recorder {
        let idle = Recorder::idle(&self.subscriptions, self.groups);
        std::mem::replace(&mut self.recorder, idle)
    }

    /// The server has accepted the upgrade; where it `greets`, a viewer awaits that. NATS is
    /// greeted, which is queued, and awaited by all.
    pub(crate) fn handle_upgraded(
        &mut self,
        link: &mut Link,
        greets: bool,
        now_ns: u64,
        codec: &mut Codec,
    ) {
        self.note_tls(link);
        if link.nats.is_some() {
            let greeting = self.nats_greeting(link.role);
            let mask = codec.masks.next();
            link.queue(OpCode::Data(Data::Text), greeting.as_bytes(), mask);
            link.state = State::Greeting;
        } else if greets && matches!(link.role, Role::Laggard(_) | Role::Subscriber(_)) {
            link.state = State::Greeting;
        } else {
            self.note_open(link, now_ns);
        }
    }

    fn nats_greeting(&self, role: Role) -> String {
        match role {
            Role::Laggard(index) => nats::subscription(self.guests[index].user),
            Role::Subscriber(index) => nats::subscription(self.subscriptions[index].user),
            Role::Publisher(_) | Role::Returner(_) => nats::greeting(),
        }
    }

    /// Cuts `input` into answers and handles each.
    /// Errors: the server broke the protocol, or takes nothing from this publisher.
    pub(crate) fn read_answers(
        &mut self,
        link: &mut Link,
        input: &[u8],
        now_ns: u64,
    ) -> Result<(), HttpError> {
        let mut reader = link.answers.take().unwrap_or_default();
        let result = reader.read(input, |answer| self.handle_answer(link, &answer, now_ns));
        link.answers = Some(reader);
        result
    }

    fn handle_answer(
        &mut self,
        link: &mut Link,
        answer: &Answer<'_>,
        now_ns: u64,
    ) -> Result<(), HttpError> {
        if link.state == State::Greeting {
            answer.require_welcome()?;
            self.note_tls(link);
            self.note_open(link, now_ns);
        } else if let Role::Publisher(index) = link.role {
            self.acknowledgements.handle_answer(index, answer, now_ns);
        }
        Ok(())
    }

    fn note_tls(&mut self, link: &Link) {
        if let Some(is_resumed) = link.transport.is_resumed() {
            let TlsHandshakes { full, resumed } = &mut self.tls_handshakes;
            *(if is_resumed { resumed } else { full }) += 1;
        }
    }

    fn note_open(&mut self, link: &mut Link, now_ns: u64) {
        link.state = State::Open;
        match (link.role, &mut self.returners) {
            // They have a clock of their own.
            (Role::Returner(index), Some(returners)) => returners.handle_open(index, now_ns),
            _ => {
                let waited_ns = now_ns - link.dialled_ns;
                self.handshake_ns.saturating_record(waited_ns);
            }
        }
    }

    /// Cuts `input` into messages and handles each. Answers are queued, not written.
    /// Errors: the server broke the protocol.
    pub(crate) fn read(
        &mut self,
        link: &mut Link,
        input: &[u8],
        now_ns: u64,
        codec: &mut Codec,
    ) -> Result<(), ReadError> {
        let mut reader = std::mem::take(&mut link.reader);
        let mut nats = link.nats.take();
        let mut operations = Ok(());
        let Codec { masks, inflater } = codec;
        let frames = reader.read(input, inflater, |message, wire_bytes| match message {
            Message::Data { text, is_deflated } => {
                let received = Received {
                    text,
                    wire_bytes,
                    is_deflated,
                    now_ns,
                };
                match &mut nats {
                    Some(_) if operations.is_err() => {}
                    Some(nats) => operations = self.read_operations(link, nats, &received, masks),
                    None => self.handle_data(link, &received),
                }
            }
            Message::Ping(payload) => {
                link.queue(OpCode::Control(Control::Pong), payload, masks.next());
            }
            Message::Pong => {}
            Message::Close(code) => self.note_closed(link, &format!("close code {code}")),
        });
        (link.reader, link.nats) = (reader, nats);
        frames?;
        Ok(operations?)
    }

    /// Handles each operation that `received` completes. The first message that a frame brings is
    /// charged with all of its bytes, and with those of the frames before it that hold a part of the
    /// message. What holds no part of any is charged to nobody.
    fn read_operations(
        &mut self,
        link: &mut Link,
        nats: &mut NatsStream,
        received: &Received<'_>,
        masks: &mut MaskSequence,
    ) -> Result<(), NatsError> {
        let NatsStream {
            reader,
            uncharged_bytes,
        } = nats;
        *uncharged_bytes += received.wire_bytes;
        let read = reader.read(received.text, |operation| match operation {
            Operation::Error(reason) => {
                let reason = String::from_utf8_lossy(reason);
                self.note_closed(link, &format!("-ERR {reason}"));
            }
            Operation::Message(text) => {
                let wire_bytes = std::mem::take(uncharged_bytes);
                self.handle_data(
                    link,
                    &Received {
                        text,
                        wire_bytes,
                        ..*received
                    },
                );
            }
            Operation::Notice => {}
            Operation::Ping => link.queue(OpCode::Data(Data::Text), nats::PONG, masks.next()),
            Operation::Pong if link.state == State::Greeting => {
                self.note_open(link, received.now_ns)
            }
            Operation::Pong => {}
        });
        if !reader.is_amid_operation() {
            *uncharged_bytes = 0;
        }
        read
    }

    fn handle_data(&mut self, link: &mut Link, received: &Received<'_>) {
        if link.state == State::Greeting
            && message_kind(received.text).as_deref() == Some("connection_established")
        {
            self.note_open(link, received.now_ns);
            self.handle_greeting(link.role, received.text);
            return;
        }
        match link.role {
            Role::Subscriber(index) => self.handle_delivery(index, received),
            Role::Laggard(index) => {
                if let Some(laggards) = &mut self.laggards {
                    laggards.handle_data(index, received);
                }
            }
            Role::Publisher(index) => {
                let Received { text, now_ns, .. } = *received;
                if !self.acknowledgements.handle_reply(index, text, now_ns) {
                    self.recorder.count_other(text);
                }
            }
            Role::Returner(index) => {
                if let Some(returners) = &mut self.returners {
                    returners.handle_data(index, received);
                }
            }
        }
    }

    fn handle_greeting(&mut self, role: Role, text: &[u8]) {
        let (Role::Subscriber(index), Some(cursors)) = (role, &mut self.cursors) else {
            return;
        };
        let greeting = Greeting::parse(text);
        if let Some(greeting) = &greeting {
            cursors.handle_greeting(index, greeting);
        }
        if let Some(storm) = &mut self.storm {
            storm.handle_greeting(index, greeting);
        }
    }

    fn handle_delivery(&mut self, index: usize, received: &Received<'_>) {
        let Some(cursors) = &mut self.cursors else {
            return self.recorder.handle_data(index, received);
        };
        if self.recorder.handle_event(index, received) {
            return cursors.handle_event(index, received.text);
        }
        let is_replayed = |text| message_kind(text).as_deref() == Some("replay_complete");
        match &mut self.storm {
            Some(storm) if is_replayed(received.text) => {
                storm.handle_replayed(index, received.now_ns);
            }
            _ => self.recorder.count_other(received.text),
        }
    }

    /// Notes the first reason for which a connection ended.
    pub(crate) fn note_closed(&mut self, link: &mut Link, reason: &str) {
        if link.state == State::Closed {
            return;
        }
        link.state = State::Closed;
        if let (Role::Laggard(index), Some(laggards)) = (link.role, &mut self.laggards) {
            return laggards.handle_closed(index, reason);
        }
        self.closed += 1;
        self.has_lost_publisher |= matches!(link.role, Role::Publisher(_));
        if let (Role::Returner(index), Some(returners)) = (link.role, &mut self.returners) {
            returners.handle_closed(index);
        }
        if let (Role::Subscriber(index), Some(storm)) = (link.role, &mut self.storm) {
            storm.handle_closed(index);
        }
        if self.closed_first.len() < CLOSED_SHOWN {
            let name = match link.role {
                Role::Laggard(index) => format!("slow viewer {index}"),
                Role::Publisher(index) => format!("publisher {index}"),
                Role::Returner(index) => format!("returning viewer {index}"),
                Role::Subscriber(index) => format!("subscriber {index}"),
            };
            self.closed_first.push(format!("{name}: {reason}"));
        }
    }

    /// Whether all that was sent in this phase was delivered and acknowledged, and all returning
    /// viewers have what they missed.
    pub(crate) fn is_complete(&self) -> bool {
        self.recorder.outstanding() == 0
            && self.acknowledgements.unsettled() == 0
            && self.returners.as_ref().is_none_or(Returners::are_settled)
            && self.storm.as_ref().is_none_or(Storm::is_settled)
    }

    /// Whether any publisher has ended: not all events can be sent any more.
    pub(crate) fn has_lost_publisher(&self) -> bool {
        self.has_lost_publisher
    }

    /// Connections that have ended, the first few with the reason.
    pub(crate) fn closures(&self) -> Vec<String> {
        let mut closures = self.closed_first.clone();
        if self.closed > closures.len() {
            closures.push(format!("and {} more", self.closed - closures.len()));
        }
        closures
    }
}

const CLOSED_SHOWN: usize = 5;
