//! The heart of one core: numbers events, knows who wants them, and holds what each connection
//! still has to be sent. Pure: no socket, clock, thread or randomness; the engine drives it.
//!
//! `handle_*` takes what happened, `poll_*` gives what follows: connections with bytes to write,
//! deadlines for the wheel, mail for other cores, and `Action`s. `handle_turn_end` must close every
//! turn: it fans out what the turn has numbered.

mod admin;
mod admission;
mod attach;
pub mod bucket;
mod catch_up;
mod closing;
mod command;
mod drain;
pub mod duplicates;
mod echo;
pub mod encoder;
mod facts;
mod folds;
pub mod frames;
mod heartbeat;
mod interest;
pub mod keyed;
mod ledger;
pub mod mail;
mod names;
mod now;
pub mod outbox;
pub mod peers;
mod publish;
pub mod publisher;
mod questions;
mod rate;
pub mod reads;
mod replay;
#[cfg(test)]
mod rig;
pub mod ring;
mod route;
mod rows;
mod seldom;
mod silence;
mod streams;
mod subscriptions;
mod trees;
mod users;
mod viewer;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use compact_str::CompactString;

use crate::agents::StateOptions;
use crate::auth::{Revocations, Verifier};

use crate::counters::{CoreStats, Stages};
use crate::event::{Epoch, Filter, Parser, Partition, RecordCodec, Seq};
use crate::limits::{
    MAIL_BYTES_PENDING_MAX, NACK_BYTES_QUEUED_MAX, RING_BYTES_MAX, STATE_ENTRIES_MAX,
    STATE_SNAPSHOT_BYTES_MIN, STATES_MAX, STREAMS_IDLE_MAX,
};
use crate::wire::Refused;

pub use crate::history::writer::LogStatus;
pub use admission::{ViewerRequest, refusal_of};
pub use duplicates::{Duplicates, KnownId};
pub use encoder::Compression;
pub use ledger::{Append, Deliver, LogProgress};
pub use now::Now;
pub use publish::Work;
pub use route::Outgoing;

use admin::PendingAsk;
use admission::GivingWay;
use bucket::Bucket;
use catch_up::Waking;
use drain::Drain;
use encoder::Encoder;
use folds::Folds;
use keyed::{Key, Keyed};
use ledger::Ledger;
use mail::Answer;
use peers::Peers;
use publisher::{Outcome, Publisher, Request};
use questions::Questions;
use reads::Reads;
use ring::Rings;
use route::Waiting;
use silence::Silences;
use streams::{StreamSlot, Streams};
use trees::Trees;

/// What a hub is built with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This core, below `partition.cores()`.
    pub core: usize,
    /// Which core owns which stream.
    pub partition: Partition,
    /// Makes the records of the event log.
    pub codec: RecordCodec,
    /// The level above which this process numbers every stream.
    pub start: Seq,
    /// When viewers see an event.
    pub deliver: Deliver,
    /// Drawn once per process; the same on every core.
    pub seed: u64,
    /// What viewers and publishers are held to.
    pub limits: Limits,
    /// Connections a user, by tier; `individual` stands for unknown and absent tiers.
    pub tiers: HashMap<CompactString, usize>,
    /// When and how frames are deflated.
    pub compression: Compression,
    /// Milliseconds between two pings.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds that a written ping waits for a frame.
    pub heartbeat_grace_ms: u64,
    /// Milliseconds without a word after which a conversation is over.
    pub conversation_silence_ms: i64,
    /// What the states of streams are made with.
    pub states: StateOptions,
}

impl Options {
    /// The present life of the event log.
    pub fn epoch(&self) -> Epoch {
        self.codec.identity().epoch
    }
}

/// What viewers and publishers are held to: `limits.*` and `history.dedup_ids_max`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A viewer's messages in any minute.
    pub messages_per_minute: usize,
    /// A viewer's messages in any second.
    pub messages_per_second: usize,
    /// Bytes of one message of a viewer.
    pub message_bytes_max: usize,
    /// Subscriptions of one viewer.
    pub subscriptions_max: usize,
    /// Bytes in one connection's outbox.
    pub outbox_bytes_max: usize,
    /// Bytes in all outboxes of the node.
    pub outbox_bytes_total: usize,
    /// Bytes a second of one publisher's `sub`.
    pub publish_bytes_per_second: u64,
    /// Bytes received and not yet stored, on the node.
    pub ingest_bytes_in_flight_max: u64,
    /// Ids by which a core recognises duplicates.
    pub dedup_ids_max: usize,
}

/// Hard caps of one core that a simulation makes small, so that it reaches them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of frames that wait for one other core, above which no event is admitted.
    pub mail_bytes_pending_max: usize,
    /// Bytes of acks and nacks that wait for one publisher, above which it is not parsed.
    pub nack_bytes_queued_max: usize,
    /// Bytes of recent events and frames that are kept in memory.
    pub ring_bytes_max: usize,
    /// Streams without subscriber that are remembered one by one.
    pub streams_idle_max: usize,
    /// States of streams that are kept.
    pub states_max: usize,
    /// Agents and conversations in all of them.
    pub state_entries_max: usize,
    /// Bytes of events after which a state is written down.
    pub snapshot_bytes_min: usize,
}

impl Bounds {
    /// Those of `limits`.
    pub const USUAL: Self = Self {
        mail_bytes_pending_max: MAIL_BYTES_PENDING_MAX,
        nack_bytes_queued_max: NACK_BYTES_QUEUED_MAX,
        ring_bytes_max: RING_BYTES_MAX,
        streams_idle_max: STREAMS_IDLE_MAX,
        states_max: STATES_MAX,
        state_entries_max: STATE_ENTRIES_MAX,
        snapshot_bytes_min: STATE_SNAPSHOT_BYTES_MIN,
    };
}

impl Default for Bounds {
    fn default() -> Self {
        Self::USUAL
    }
}

/// The tokens that a hub judges by.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Reads tokens.
    pub verifier: Arc<Verifier>,
    /// The revocations known when the core starts.
    pub revocations: Revocations,
}

/// Something that the engine must do for a connection that has no outbox of its own here.
#[derive(Debug)]
pub enum Action {
    /// A viewer that had to wait is admitted (its name among the peers) or refused.
    Admitted {
        /// The engine's name for the connection.
        connection: Key,
        /// Its name here, or why not.
        outcome: Result<Key, Refused>,
    },
    /// All cores have answered an administrator.
    Asked {
        /// The engine's name for the connection.
        connection: Key,
        /// The answers of all cores, taken together.
        answer: Answer,
    },
    /// All cores have answered an administrator who wants a user's events gone: all that they had of
    /// them is in the log's hands, once this core's records of the turn are.
    Erase {
        /// The engine's name for the connection.
        connection: Key,
        /// Whose events.
        user: CompactString,
    },
    /// Everything in a POST is settled.
    HttpPublished {
        /// The engine's name for the connection.
        connection: Key,
        /// What to answer.
        outcome: Outcome,
    },
}

/// One core's state.
pub struct Hub {
    options: Options,
    bounds: Bounds,
    trust: Trust,
    peers: Peers,
    streams: Streams,
    rings: Rings,
    reads: Reads,
    folds: Folds,
    questions: Questions,
    silences: Silences,
    // Who is behind and can go on.
    waking: Waking,
    trees: Trees,
    // Records of this core when it last forgot a stream.
    forgotten_through: u64,
    duplicates: Duplicates,
    ledger: Ledger,
    publishers: Keyed<Publisher>,
    requests: Keyed<Request>,
    // The filter that most connections begin with: one for all of them.
    everything: Rc<Filter>,
    byte_rates: HashMap<CompactString, Bucket, ahash::RandomState>,
    parser: Parser,
    // What goes to each other core at the end of the turn.
    outgoing: Vec<Outgoing>,
    // Submissions of other cores that found no slot, in order of arrival.
    waiting: VecDeque<Waiting>,
    // Streams with frames of this turn.
    touched: Vec<StreamSlot>,
    // Publishers over WebSocket to whom an ack may be owed.
    acks_due: Vec<Key>,
    // Publishers that wait, and some that no longer do.
    stalled: Vec<Key>,
    giving_way: Vec<GivingWay>,
    asks: Keyed<PendingAsk>,
    actions: VecDeque<Action>,
    drain: Drain,
    interest_generation: u32,
    // When the process last found that it had itself been stopped.
    resumed_ms: u64,
    // Unwritten bytes in the outboxes of all other cores, as last read.
    foreign_outbox_bytes: usize,
    stats: Arc<CoreStats>,
    stages: Stages,
}

impl Hub {
    /// An empty hub. `stats` is where it counts.
    pub fn new(options: Options, trust: Trust, stats: Arc<CoreStats>) -> Self {
        let (core, cores, seed) = (options.core, options.partition.cores(), options.seed);
        let limits = &options.limits;
        let encoder = Encoder::new(options.compression, Arc::clone(&stats));
        let windows_max = limits.ingest_bytes_in_flight_max / (cores * cores) as u64;
        let unkept_max = limits.ingest_bytes_in_flight_max as usize / (2 * cores);
        let (partition, start) = (options.partition.clone(), options.start);
        Self {
            peers: Peers::new(Arc::clone(&stats), encoder, limits, seed),
            streams: Streams::new(core, partition, start, STREAMS_IDLE_MAX, seed),
            rings: Rings::new(RING_BYTES_MAX, seed),
            reads: Reads::default(),
            folds: Folds::new(options.states.clone(), seed),
            questions: Questions::default(),
            silences: Silences::new(seed),
            waking: Waking::default(),
            trees: Trees::default(),
            forgotten_through: 0,
            duplicates: Duplicates::new(limits.dedup_ids_max),
            ledger: Ledger::new(options.codec.clone(), start, unkept_max),
            publishers: Keyed::default(),
            requests: Keyed::default(),
            byte_rates: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, 19, 23, 29)),
            everything: Rc::default(),
            parser: Parser::new(),
            outgoing: (0..cores).map(|_| Outgoing::new(windows_max)).collect(),
            waiting: VecDeque::new(),
            touched: Vec::new(),
            acks_due: Vec::new(),
            stalled: Vec::new(),
            giving_way: Vec::new(),
            asks: Keyed::default(),
            actions: VecDeque::new(),
            drain: Drain::new(cores),
            interest_generation: 0,
            resumed_ms: 0,
            foreign_outbox_bytes: 0,
            stages: Stages::default(),
            bounds: Bounds::default(),
            options,
            trust,
            stats,
        }
    }

    /// The same hub under other caps; to be called before anything else.
    #[must_use]
    pub fn with_bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self.streams.set_idle_max(bounds.streams_idle_max);
        self.rings.set_bytes_max(bounds.ring_bytes_max);
        self
    }

    /// Goes on from the ids that were seen before the start: duplicates are known across restarts.
    /// To be called before anything is published.
    pub fn restore_ids(&mut self, ids: Duplicates) {
        self.duplicates = ids;
    }

    /// Closes a turn: whatever the turn has numbered is fanned out, and acks that are owed go out.
    /// `foreign_outbox_bytes`: unwritten bytes in the outboxes of all other cores.
    pub fn handle_turn_end(&mut self, now: Now, foreign_outbox_bytes: usize) {
        self.foreign_outbox_bytes = foreign_outbox_bytes;
        self.load_followed();
        self.advance_folds(now);
        self.answer_open_questions(now);
        self.expire_questions(now);
        self.note_silences_of_arrived(now);
        self.end_silent_conversations(now);
        self.admit_waiting_submissions(now);
        self.trust.revocations.handle_tick(now.wall_s());
        self.fan_out_touched(now);
        self.note_room(now);
        self.send_trees(now);
        self.catch_up(now);
        self.close_overfull(now);
        self.send_acks();
        self.check_giving_way(now);
        self.forget_unstalled();
        self.shed_outboxes(now);
        self.advance_drain(now);
        self.let_go_of_folds();
        self.folds.end_turn();
        self.forget_idle();
        self.rings.evict(self.readable());
        self.publish_gauges(now);
    }

    /// The next thing to do for a connection without outbox here.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The connections.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Whether nothing waits to be written to a connection.
    pub fn is_written(&self, key: Key) -> bool {
        self.peers
            .find(key)
            .is_none_or(|peer| peer.outbox().is_empty())
    }

    /// The connections, for writing.
    pub fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// Reads tokens, and knows which are revoked.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Records that this core has given to the log.
    pub fn appended(&self) -> u64 {
        self.ledger.appended()
    }

    /// How many of them the log can be asked for.
    pub fn readable(&self) -> u64 {
        self.ledger.readable()
    }

    /// Whether the log takes new events.
    pub fn log_status(&self) -> LogStatus {
        self.ledger.status()
    }

    /// How long stages took. After a turn's end, [`Stages::handle_queued`] is due.
    pub fn stages_mut(&mut self) -> &mut Stages {
        &mut self.stages
    }

    /// Shows the world how long stages took, at most once a second.
    pub fn publish_stages(&mut self, now: Now) {
        self.stages.publish(now.ms(), &self.stats);
    }

    /// Which core owns which stream.
    pub fn partition(&self) -> &Partition {
        &self.options.partition
    }

    /// Whether a turn is owed though nothing happened outside.
    pub fn has_work(&self) -> bool {
        !self.touched.is_empty()
            || !self.acks_due.is_empty()
            || !self.actions.is_empty()
            || self.ledger.has_records()
            || self.can_catch_up()
            || self.can_advance_folds()
            || self.can_load_followed()
            || self.can_look_at_trees()
            || self.ledger.has_due()
            || self.can_judge_waiting()
            || self.can_admit_waiting()
            || self.can_go_on()
    }

    /// The earliest moment at which `handle_turn_end` must be called again though nothing happened,
    /// in milliseconds of the monotonic clock.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let giving_way = self.giving_way.iter().map(|waiting| waiting.deadline_ms);
        giving_way
            .chain(self.trees.next_look_ms())
            .chain(self.patience_ends_ms())
            .chain(self.drain.patience_ends_ms())
            .chain(self.fold_retry_ms())
            .chain(self.question_ends_ms())
            .chain(self.silence_ms())
            .min()
    }

    fn forget_idle(&mut self) {
        let known = self.streams.owned_len();
        self.streams.forget_idle();
        if self.streams.owned_len() < known {
            self.forgotten_through = self.appended();
        }
    }

    fn publish_gauges(&mut self, now: Now) {
        let counters = &self.stats.counters;
        counters.streams.set(self.streams.owned_len() as u64);
        counters.interests.set(self.streams.interests_len() as u64);
        counters.duplicates_window.set(self.duplicates.len() as u64);
        counters
            .duplicates_span_ms
            .set(self.duplicates.span_ms(now.ms()));
        counters.states.set(self.folds.len() as u64);
        counters.state_entries.set(self.folds.entries() as u64);
        counters.ring_bytes.set(self.rings.bytes() as u64);
        counters
            .revocations
            .set(self.trust.revocations.len() as u64);
        let in_flight: u64 = self.outgoing.iter().map(Outgoing::in_flight_bytes).sum();
        counters.ingest_bytes_in_flight.set(in_flight);
        counters.log_unkept.set(self.ledger.unkept_bytes() as u64);
    }
}
