//! Hubs under test: a clock turned by hand, mail carried by hand, and peers whose outboxes are read
//! as the messages that a client would see.

mod reader;

use std::collections::HashMap;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use tungstenite::protocol::frame::FrameHeader;

use bytes::Bytes;
use compact_str::CompactString;
use serde_json::{Value, json};

use crate::agents::{self, StateOptions};
use crate::auth::{Claims, KeySet, Permission, Permissions, Revocations, Verifier};
use crate::counters::{CoreStats, check_balance};
use crate::dialect::{ConnectQuery, SubscribeScope};
use crate::event::{
    BodyKind, Dialect, Epoch, LogIdentity, Partition, RecordBatch, RecordCodec, Seq, StreamKind,
    Strictness,
};
use crate::wire::{Inflater, Refused};

use super::encoder::Encoder;
use super::frames::Variant;
use super::keyed::Key;
use super::mail::Ack;
use super::peers::Arrival;
use super::publisher::Terms;
use super::reads::ReadRequest;
use super::{
    Action, Bounds, Compression, Deliver, Hub, Limits, LogProgress, LogStatus, Now, Options, Trust,
    ViewerRequest, Work,
};

pub use reader::PlainLog;

pub const WALL_MS: i64 = 1_800_000_000_000;
pub const EPOCH: Epoch = Epoch(0xe0);
pub const OUTBOX_BYTES_MAX: usize = 20_000;
pub const SECRET: &[u8] = b"a secret of the tests, and long enough";
/// Deflates what has at least 1,000 bytes.
const COMPRESSION: Compression = Compression {
    level: 1,
    threshold_bytes: 1_000,
};
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Some cores of one node.
pub struct Rig {
    pub hubs: Vec<Hub>,
    pub stats: Vec<Arc<CoreStats>>,
    pub now: Now,
    /// What each core's log has; everything is kept at once unless it `is_slow`.
    pub logs: Vec<Log>,
    /// All that was given to these, for those who read it.
    pub plain: PlainLog,
    /// Whether reads are answered only by `answer_reads`.
    pub holds_reads: bool,
    /// Reads that are not answered, by core.
    pub reads: Vec<(usize, ReadRequest)>,
    bounds: Bounds,
    connections: u64,
}

/// The event log of one core.
pub struct Log {
    /// Whether only `Rig::keep` moves it.
    pub is_slow: bool,
    /// What it says.
    pub progress: LogProgress,
    /// What it was given.
    pub batches: Vec<RecordBatch>,
    through: u64,
}

/// A connection, on the core that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub core: usize,
    pub key: Key,
}

impl Rig {
    /// One core.
    pub fn new() -> Self {
        Self::with(1, Bounds::default(), |_| {})
    }

    /// Several, under the caps of `bounds`; `adjust` has its say on the limits.
    pub fn with(cores: usize, bounds: Bounds, adjust: impl Fn(&mut Options)) -> Self {
        let stats: Vec<Arc<CoreStats>> = (0..cores).map(|_| Arc::default()).collect();
        let hubs = stats.iter().enumerate().map(|(core, stats)| {
            let mut options = options(core, cores);
            adjust(&mut options);
            Hub::new(options, trust(), Arc::clone(stats)).with_bounds(bounds)
        });
        let mut rig = Self {
            hubs: hubs.collect(),
            stats: stats.clone(),
            logs: stats.iter().map(|_| Log::new()).collect(),
            plain: PlainLog::new(cores),
            holds_reads: false,
            reads: Vec::new(),
            bounds,
            now: Now {
                monotonic_ns: 1_000_000_000,
                wall_ms: WALL_MS,
            },
            connections: 0,
        };
        (0..cores).for_each(|core| rig.keep(core));
        rig
    }

    /// One core with a log that keeps nothing before it is told to.
    pub fn with_slow_log(adjust: impl Fn(&mut Options)) -> Self {
        let mut rig = Self::with(1, Bounds::default(), adjust);
        rig.logs[0].is_slow = true;
        rig
    }

    /// Gives a core's records to its log, which says how far it is.
    pub fn keep(&mut self, core: usize) {
        let (hub, log) = (&mut self.hubs[core], &mut self.logs[core]);
        while let Some(append) = hub.poll_append(self.now) {
            log.through = append.through;
            self.plain.take_in(&append.batch);
            log.batches.push(append.batch);
        }
        if log.progress.status == LogStatus::Writing {
            (log.progress.written, log.progress.durable) = (log.through, log.through);
            self.plain.kept[core] = log.through;
        }
        hub.handle_log_progress(self.now, log.progress);
    }

    fn keep_unless_slow(&mut self, core: usize) {
        if !self.logs[core].is_slow {
            self.keep(core);
        }
    }

    /// The only core, or the first.
    pub fn hub(&mut self) -> &mut Hub {
        &mut self.hubs[0]
    }

    /// Lets time pass.
    pub fn wait(&mut self, ms: u64) {
        self.now.monotonic_ns += ms * 1_000_000;
        self.now.wall_ms += ms as i64;
    }

    /// Ends a turn on every core.
    pub fn turn(&mut self) {
        self.now.monotonic_ns += 1;
        for core in 0..self.hubs.len() {
            self.keep_unless_slow(core);
            self.hubs[core].handle_turn_end(self.now, 0);
            let now_ns = self.now.monotonic_ns;
            self.hubs[core].stages_mut().handle_queued(now_ns);
            self.keep_unless_slow(core);
        }
        if !self.holds_reads {
            self.answer_reads();
        }
    }

    /// Answers what was asked of the log, as far as that has what it must have before. Returns
    /// whether there was anything.
    pub fn answer_reads(&mut self) -> bool {
        for (core, hub) in self.hubs.iter_mut().enumerate() {
            let asked = std::iter::from_fn(|| hub.poll_read());
            self.reads.extend(asked.map(|request| (core, request)));
        }
        let asked = std::mem::take(&mut self.reads);
        let before = asked.len();
        for (core, request) in asked {
            match self.plain.answer(&request) {
                Some(answer) => self.hubs[core].handle_read(self.now, answer),
                None => self.reads.push((core, request)),
            }
        }
        self.reads.len() < before
    }

    /// The process ends and another one goes on with the same log, above all that was given.
    pub fn restart(&mut self, adjust: impl Fn(&mut Options)) {
        let start = Seq(self.plain.highest().0 + 1).level_above();
        let fresh = Self::with(self.hubs.len(), self.bounds, |options| {
            options.start = start;
            adjust(options);
        });
        let plain = std::mem::take(&mut self.plain);
        let now = self.now;
        *self = Self { now, ..fresh };
        let cores = self.hubs.len();
        self.plain = plain;
        self.plain.kept = vec![0; cores];
    }

    /// Carries what `from` has for `to`.
    pub fn carry(&mut self, from: usize, to: usize) {
        for mail in self.hubs[from].poll_mail(to) {
            self.hubs[to].handle_mail(self.now, from, mail);
        }
    }

    /// Turns and mail until nothing is left to carry.
    pub fn settle(&mut self) {
        let cores = self.hubs.len();
        loop {
            self.turn();
            let is_reading = !self.holds_reads && self.answer_reads();
            let goes_on = |hub: &Hub| {
                hub.can_catch_up()
                    || hub.can_advance_folds()
                    || hub.can_load_followed()
                    || !hub.acks_due.is_empty()
            };
            let is_behind = self.hubs.iter().any(goes_on);
            let pairs = (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to)));
            let waiting: Vec<_> = pairs
                .filter(|(from, to)| self.hubs[*from].has_mail(*to))
                .collect();
            if waiting.is_empty() && !is_reading && !is_behind {
                return;
            }
            for (from, to) in waiting {
                self.carry(from, to);
            }
        }
    }

    /// A viewer of everything that `projects` and its own stream hold, in observatory.
    pub fn viewer(&mut self, user: &str, projects: &[&str]) -> Client {
        let query = ConnectQuery {
            subscribe: SubscribeScope::All,
            ..ConnectQuery::default()
        };
        self.connect(claims(user, projects), Dialect::Observatory, query)
    }

    /// A viewer of everything that takes frames of this variant.
    pub fn viewer_of(&mut self, user: &str, projects: &[&str], variant: Variant) -> Client {
        let query = ConnectQuery {
            subscribe: SubscribeScope::All,
            ..ConnectQuery::default()
        };
        let (core, outcome) = self.ask_for(claims(user, projects), variant, query);
        let key = outcome.expect("it need not wait").expect("there is room");
        Client { core, key }
    }

    /// A viewer that is let in at once.
    pub fn connect(&mut self, claims: Claims, dialect: Dialect, query: ConnectQuery) -> Client {
        let asked = self.ask_in(claims, dialect, query);
        asked
            .1
            .expect("it need not wait")
            .map(|key| Client { core: asked.0, key })
            .expect("there is room")
    }

    /// A viewer that asks to be let in: on which core, and what that says.
    pub fn ask_in(
        &mut self,
        claims: Claims,
        dialect: Dialect,
        query: ConnectQuery,
    ) -> (usize, Option<Result<Key, Refused>>) {
        self.ask_for(claims, Variant::plain(dialect), query)
    }

    /// The same in this variant.
    pub fn ask_for(
        &mut self,
        claims: Claims,
        variant: Variant,
        query: ConnectQuery,
    ) -> (usize, Option<Result<Key, Refused>>) {
        let core = self.core_of(StreamKind::User, &claims.sub);
        let arrival = self.arrival(claims);
        let request = ViewerRequest {
            arrival,
            variant,
            query,
        };
        (core, self.hubs[core].handle_viewer(self.now, request))
    }

    /// A peer of `serve --echo`.
    pub fn echo(&mut self, user: &str) -> Client {
        let core = self.core_of(StreamKind::User, user);
        let arrival = self.arrival(claims(user, &[]));
        let key = self.hubs[core]
            .handle_echo_peer(self.now, arrival, false)
            .expect("it is let in");
        Client { core, key }
    }

    /// A publisher for anybody, on `core`.
    pub fn publisher(&mut self, core: usize) -> Client {
        let claims = Claims {
            permissions: Permissions::from_iter([Permission::PublishAny]),
            ..claims("producer", &[])
        };
        let arrival = self.arrival(claims);
        let key = self.hubs[core]
            .handle_publisher(self.now, arrival, Strictness::Lenient)
            .expect("publishers are let in");
        Client { core, key }
    }

    /// A message of a publisher, parsed as far as it goes.
    pub fn publish(&mut self, client: Client, text: &str) -> Work {
        let hub = &mut self.hubs[client.core];
        let text = Bytes::copy_from_slice(text.as_bytes());
        let publisher = hub.handle_publisher_message(self.now, client.key, text);
        let work = publisher.map_or(Work::Idle, |publisher| hub.work(self.now, publisher));
        self.keep_unless_slow(client.core);
        work
    }

    /// The same publisher once more.
    pub fn work(&mut self, client: Client) -> Work {
        let hub = &mut self.hubs[client.core];
        let publisher = hub
            .peers()
            .find(client.key)
            .and_then(|peer| peer.publisher());
        let work = hub.work(self.now, publisher.expect("it publishes"));
        self.keep_unless_slow(client.core);
        work
    }

    /// A POST, parsed as far as it goes.
    pub fn post(&mut self, claims: Claims, body: &str) -> Key {
        self.post_for(claims, body, Ack::Durable)
    }

    /// One that waits for this.
    pub fn post_for(&mut self, claims: Claims, body: &str, ack: Ack) -> Key {
        self.connections += 1;
        let connection = Key::from_u64(self.connections);
        let body = Bytes::copy_from_slice(body.as_bytes());
        let hub = &mut self.hubs[0];
        let publisher = hub.handle_post(
            self.now,
            connection,
            Rc::new(claims),
            body,
            BodyKind::Json,
            Terms {
                ack,
                ..Terms::default()
            },
        );
        hub.work(self.now, publisher);
        self.keep_unless_slow(0);
        publisher
    }

    /// A message of a viewer.
    pub fn say(&mut self, client: Client, text: &Value) {
        let hub = &mut self.hubs[client.core];
        hub.handle_viewer_message(self.now, client.key, text.to_string().as_bytes());
    }

    /// Writes all that waits for a client and returns it, message by message; a close is
    /// `{"close": code}`, a ping `{"ping": 0}`, the HTTP answer is left out.
    pub fn read(&mut self, client: Client) -> Vec<Value> {
        let bytes = self.write(client, usize::MAX);
        let bytes = bytes.strip_prefix(RESPONSE).unwrap_or(&bytes);
        messages(bytes)
    }

    /// Writes at most `bytes_max` bytes to a client.
    pub fn write(&mut self, client: Client, bytes_max: usize) -> Vec<u8> {
        let mut written = Vec::new();
        let hub = &mut self.hubs[client.core];
        while let Some(peer) = hub.peers().find(client.key) {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = peer.outbox().io_slices(&mut slices);
            let bytes = slices[..filled]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect::<Vec<u8>>();
            let taken = bytes.len().min(bytes_max - written.len());
            if taken == 0 {
                break;
            }
            written.extend_from_slice(&bytes[..taken]);
            hub.peers_mut()
                .handle_written(self.now, client.key, taken, |_| {});
        }
        written
    }

    /// The types of the messages that wait for a client; closes by their code.
    pub fn names(&mut self, client: Client) -> Vec<String> {
        self.read(client).iter().map(name_of).collect()
    }

    /// With what code a connection is being closed.
    pub fn closing(&self, client: Client) -> Option<u16> {
        let peer = self.hubs[client.core].peers().find(client.key)?;
        peer.closing().map(|closing| closing.reason.code())
    }

    /// A sign of life.
    pub fn hear(&mut self, client: Client) {
        self.hubs[client.core].handle_sign_of_life(self.now, client.key);
    }

    /// Calls what is due at the present time for a connection, as its wheel would.
    pub fn fire(&mut self, client: Client) -> bool {
        while self.hubs[client.core].peers_mut().poll_deadline().is_some() {}
        self.hubs[client.core].handle_deadline(self.now, client.key)
    }

    /// The first thing to do on the first core.
    pub fn action(&mut self) -> Action {
        self.hubs[0]
            .poll_action()
            .expect("there is something to do")
    }

    /// Fails where the accounts do not balance once all has settled.
    pub fn check_balance(&self) {
        let cores = self.stats.iter().map(|stats| &*stats.counters);
        assert_eq!(check_balance(cores), Ok(()));
    }

    /// The core that owns a stream.
    pub fn core_of(&self, kind: StreamKind, id: &str) -> usize {
        self.hubs[0].partition().core_of(kind, id)
    }

    /// An id whose stream `core` owns.
    pub fn id_on(&self, core: usize, kind: StreamKind) -> String {
        let mut ids = (0..).map(|n| format!("id-{n}"));
        ids.find(|id| self.core_of(kind, id) == core)
            .expect("some id falls there")
    }

    fn arrival(&mut self, claims: Claims) -> Arrival {
        self.connections += 1;
        Arrival {
            connection: Key::from_u64(self.connections),
            claims: Rc::new(claims),
            id: self.connections,
            remote: None,
            response: RESPONSE.to_vec(),
        }
    }
}

/// An encoder whose counts nobody reads.
pub fn encoder() -> Encoder {
    Encoder::new(COMPRESSION, Arc::default())
}

/// A token of `user` for an hour, that may see and publish to its own.
pub fn claims(user: &str, projects: &[&str]) -> Claims {
    let mut projects: Vec<CompactString> = projects.iter().map(|id| (*id).into()).collect();
    projects.sort_unstable();
    Claims {
        sub: user.into(),
        exp_s: (WALL_MS / 1_000) as u64 + 3_600,
        iat_s: Some((WALL_MS / 1_000) as u64),
        tier: None,
        projects: projects.into(),
        permissions: Permissions::from_iter([Permission::Subscribe, Permission::Publish]),
        session: None,
        jti: Some("jti".into()),
    }
}

/// An event for `user` and `project`, with `pad` bytes more.
pub fn event(user: Option<&str>, project: Option<&str>, pad: usize) -> String {
    let mut event = json!({"type": "progress_update", "data": {"pad": "x".repeat(pad)}});
    if let Some(user) = user {
        event["user_id"] = json!(user);
    }
    if let Some(project) = project {
        event["project_id"] = json!(project);
    }
    event.to_string()
}

/// The seqs of the events among `messages`.
pub fn seqs(messages: &[Value]) -> Vec<u64> {
    messages
        .iter()
        .filter_map(|message| message["seq"].as_u64())
        .collect()
}

/// Frames as messages; see `Rig::read`.
pub fn messages(bytes: &[u8]) -> Vec<Value> {
    let (mut messages, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let end = frame_end(bytes, at).expect("whole frames");
        let payload = at
            + match bytes[at + 1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
        messages.push(match bytes[at] {
            0x81 => serde_json::from_slice(&bytes[payload..end]).expect("texts are JSON"),
            0xc1 => {
                let text = Inflater::default().inflate(&bytes[payload..end], 1 << 21);
                serde_json::from_slice(&text.expect("a stream")).expect("texts are JSON")
            }
            0x88 => json!({"close": u16::from_be_bytes([bytes[payload], bytes[payload + 1]])}),
            0x89 => json!({"ping": 0}),
            0x8a => json!({"pong": String::from_utf8_lossy(&bytes[payload..end])}),
            other => panic!("a server sends no {other:#x}"),
        });
        at = end;
    }
    messages
}

fn name_of(message: &Value) -> String {
    let event_type = message["type"].as_str().or(message["event_type"].as_str());
    match (event_type, message["close"].as_u64()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(code)) => code.to_string(),
        (None, None) => message
            .as_object()
            .and_then(|object| object.keys().next().cloned())
            .unwrap_or_default(),
    }
}

fn trust() -> Trust {
    let keys = KeySet::from_secret(SECRET).expect("a good secret");
    let verifier = Arc::new(Verifier {
        keys,
        issuer: None,
        audience: None,
    });
    Trust {
        verifier,
        revocations: Revocations::default(),
    }
}

impl Log {
    fn new() -> Self {
        let progress = LogProgress {
            written: 0,
            durable: 0,
            status: LogStatus::Writing,
            reserve: Seq::MAX,
        };
        Self {
            is_slow: false,
            progress,
            batches: Vec::new(),
            through: 0,
        }
    }
}

/// Makes the records of the rig's logs.
pub fn codec() -> RecordCodec {
    RecordCodec::new(LogIdentity {
        epoch: EPOCH,
        secret: [3, 4],
    })
}

fn options(core: usize, cores: usize) -> Options {
    Options {
        core,
        partition: Partition::new(cores, 7),
        codec: codec(),
        start: Seq(0),
        deliver: Deliver::Eager,
        seed: 7,
        limits: Limits {
            messages_per_minute: 100,
            messages_per_second: 20,
            message_bytes_max: 16_384,
            subscriptions_max: 3,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            outbox_bytes_total: 1 << 30,
            publish_bytes_per_second: 1 << 30,
            ingest_bytes_in_flight_max: 1 << 30,
            dedup_ids_max: 1_000,
        },
        tiers: HashMap::from([("individual".into(), 2)]),
        compression: COMPRESSION,
        heartbeat_interval_ms: 30_000,
        heartbeat_grace_ms: 5_000,
        conversation_silence_ms: 60_000,
        states: StateOptions {
            phases: ["EXPLORE", "PLAN"].map(String::from).into(),
            bounds: agents::Bounds {
                nodes_max: 1_000,
                finished_trees_max: 100,
                finished_max_ms: 24 * 60 * 60 * 1_000,
            },
            seed: 7,
        },
    }
}

/// The offset in `bytes` at which the server's frame that starts at `start` ends.
fn frame_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut cursor = std::io::Cursor::new(bytes.get(start..)?);
    let (_, payload_len) = FrameHeader::parse(&mut cursor).ok()??;
    let end = start + cursor.position() as usize + usize::try_from(payload_len).ok()?;
    (end <= bytes.len()).then_some(end)
}
